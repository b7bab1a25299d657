"""The learning rate against torch's own scheduler."""

from __future__ import annotations

import pytest
import torch

from vmkla.training.schedules import learning_rate


def test_the_cosine_is_that_of_torch_over_several_swings() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=1e-5)
    for epoch in range(160):
        ours = learning_rate(epoch, lr=1e-4, min_lr=1e-5, t_max=50)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_warm_up_then_the_cosine_from_its_top() -> None:
    rates = [learning_rate(p / 10, lr=1.0, min_lr=0.1, t_max=8, warmup=2) for p in range(0, 101)]
    assert 0 < rates[0] < 0.01
    assert rates[10] == pytest.approx(0.5) and rates[20] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert all(a < b for a, b in zip(rates[:20], rates[1:21], strict=True))
    assert all(a > b for a, b in zip(rates[20:-1], rates[21:], strict=True))
