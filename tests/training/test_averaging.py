"""The average of the weights over the steps."""

from __future__ import annotations

import torch

from vmkla.training.averaging import WeightAverage


def test_average_of_the_weights() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, 0.6)
    expected = model.weight.detach().double().clone()
    for step in range(8):
        with torch.no_grad():
            model.weight.normal_()
        average.update(model)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    torch.testing.assert_close(average.model.weight.double(), expected, atol=1e-6, rtol=1e-6)
    assert not average.model.weight.requires_grad


def test_buffers_are_the_models_own() -> None:
    """The running statistics of a batch norm are averages already."""
    torch.manual_seed(0)
    model = torch.nn.BatchNorm2d(3)
    average = WeightAverage(model, 0.9)
    for _ in range(3):
        model(torch.randn(2, 3, 4, 4) + 5)
        average.update(model)
    assert model.running_mean is not None and (model.running_mean > 1).all()
    for mine, theirs in zip(average.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, theirs)
