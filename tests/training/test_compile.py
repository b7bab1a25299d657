"""``torch.compile``: the same training, and weights that load like any other's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.tolerances import tol
from tests.training.small_networks import Convolutions, Settings
from tests.training.tiny_runs import TINY, state_of
from vmkla.models import VMKLAUNet
from vmkla.training import TrainConfig, train
from vmkla.training.losses import segmentation_loss

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]


def test_a_compiled_run_is_an_eager_one_up_to_rounding(config: TrainConfig, tmp_path: Path) -> None:
    """A small network: compiling VMKLA-UNet for a CPU takes minutes."""
    config = dataclasses.replace(config, epochs=1)
    compiled = dataclasses.replace(config, compile=True, out_dir=tmp_path / "compiled")
    eager, fast = (
        train(each, network=lambda _: Convolutions(Settings())).history[0] for each in (config, compiled)
    )
    assert fast.val_loss == pytest.approx(eager.val_loss, abs=1e-4)
    one, two = state_of(config.out_dir)["model"], state_of(compiled.out_dir)["model"]
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, **tol(("compiled", "eager"), torch.float32))


def test_the_network_is_traced_whole_with_its_gradient() -> None:
    """One graph, no break at the ops of ours: what ``torch.compile`` needs, without generating code."""
    torch.manual_seed(0)
    model = VMKLAUNet(dataclasses.replace(TINY, drop_path=0.0))
    pixels, target = torch.randn(2, 3, 32, 32), (torch.rand(2, 1, 32, 32) < 0.3).float()
    gradients = []
    for forward in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        segmentation_loss(forward(pixels), target).backward()  # type: ignore[no-untyped-call]
        gradients.append(
            [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        )
    assert len(gradients[0]) == len(gradients[1]) == len(list(model.parameters()))
    for eager, traced in zip(*gradients, strict=True):
        torch.testing.assert_close(traced, eager, **tol(("compiled", "eager"), torch.float32))
