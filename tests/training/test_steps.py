"""One step: the optimizer, clipping, and half precision that overflows."""

from __future__ import annotations

import dataclasses
import math
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.tiny_runs import TINY
from vmkla.data.arrays import LabelledArrays
from vmkla.models import VMKLAUNet
from vmkla.training import Ranks, TrainConfig
from vmkla.training.averaging import WeightAverage
from vmkla.training.inputs import Inputs
from vmkla.training.processes import Processes
from vmkla.training.steps import NotFiniteError, Stepper, make_optimizer
from vmkla.training.transfers import HostValues


class Pointwise(nn.Module):
    """One weight a colour, no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 3, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 1, h, w) logits."""
        return nn.functional.conv2d(x, self.weight)


def stepper_of(**changes: object) -> Stepper:
    config = dataclasses.replace(TrainConfig(out_dir=Path("run"), weight_decay=0.0), **changes)  # type: ignore[arg-type]
    return Stepper(Pointwise(), config, Processes(Ranks(), "cpu"))


def weight_of(stepper: Stepper) -> nn.Parameter:
    model = stepper.model
    assert isinstance(model, Pointwise)
    return model.weight


def batch(value: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.full((2, 3, 8, 8), value), (torch.rand(2, 1, 8, 8) < 0.3).float()


def step(stepper: Stepper, *batch: Tensor, lr: float) -> float:
    """Take a step and return its loss, or raise as the loop would."""
    return stepper.judge(stepper.take(*batch, lr=lr).tolist())


def test_the_optimizer_is_adamw_and_spares_norms_and_the_recurrence() -> None:
    """Two steps of the fused optimizer against AdamW written out in float64."""
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.randn(4, 3))
    model.bias = torch.nn.Parameter(torch.randn(4))
    model.A_log = torch.nn.Parameter(torch.randn(2, 3))
    optimizer = make_optimizer(model, 0.1)
    values = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    moments = {name: (torch.zeros_like(v), torch.zeros_like(v)) for name, v in values.items()}
    for step in (1, 2):
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        for name, parameter in model.named_parameters():
            gradient = torch.randn_like(parameter)
            parameter.grad = gradient
            g = gradient.double()
            mean, square = moments[name]
            mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
            moments[name] = mean, square
            decay = 0.1 if name == "weight" else 0.0
            update = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            values[name] = values[name] * (1 - 0.01 * decay) - 0.01 * update
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.double(), values[name], atol=1e-6, rtol=1e-6)


def test_the_gradient_is_clipped() -> None:
    free, clipped = stepper_of(grad_clip=0.0), stepper_of(grad_clip=0.01)
    losses = [step(stepper, *batch(50.0), lr=1e-3) for stepper in (free, clipped)]
    assert losses[0] == losses[1]
    norms = [float(weight_of(stepper).grad.norm()) for stepper in (free, clipped)]  # type: ignore[union-attr]
    assert norms[0] > 1 and norms[1] == pytest.approx(0.01, rel=1e-3)


def test_an_overflow_in_half_precision_is_left_out_and_the_scale_falls() -> None:
    stepper = stepper_of(precision="fp16")
    before, begun = stepper.scaler.get_scale(), weight_of(stepper).detach().clone()
    pixels, target = batch(50.0)
    # A gradient of some tens, at a scale of 2^16, is beyond half precision's 65504; the loss is not.
    assert math.isfinite(step(stepper, pixels, target, lr=0.1))
    assert stepper.scaler.get_scale() == before / 2 and torch.equal(weight_of(stepper), begun)
    for _ in range(12):
        step(stepper, pixels, target, lr=0.1)
    assert not torch.equal(weight_of(stepper), begun) and weight_of(stepper).isfinite().all()
    assert 1 <= stepper.scaler.get_scale() < before / 2


def test_an_overflow_at_the_smallest_scale_is_an_error() -> None:
    stepper = stepper_of(precision="fp16")
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": 1.0})
    begun = weight_of(stepper).detach().clone()
    # The root's slope at 0 is infinite, and no scale mends that.
    real = stepper.loss
    stepper.loss = lambda logits, target: real(logits, target) + (logits * 0).sum().sqrt()  # type: ignore[method-assign]
    with pytest.raises(NotFiniteError, match="the norm of its gradient"):
        step(stepper, *batch(1.0), lr=0.1)
    assert torch.equal(weight_of(stepper), begun)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_before_the_host_reads_it(bad: str, precision: str) -> None:
    """Weights, moments and the count of steps are those of a run that did not take it."""
    stepper, sound = stepper_of(precision=precision), stepper_of(precision=precision)
    for each in (stepper, sound):
        each.scaler.load_state_dict({**each.scaler.state_dict(), "scale": 1.0} if precision == "fp16" else {})
        assert math.isfinite(step(each, *batch(1.0), lr=0.1))
    real = stepper.loss

    def poisoned(logits: Tensor, target: Tensor) -> Tensor:
        # An infinite loss with a finite gradient; the square root of 0 with an infinite slope.
        return real(logits, target) + (math.inf if bad == "loss" else (logits * 0).sum().sqrt())

    stepper.loss = poisoned  # type: ignore[method-assign]
    values = stepper.take(*batch(2.0), lr=0.1)
    assert torch.equal(weight_of(stepper), weight_of(sound))
    (mine,), (theirs,) = (each.optimizer.state.values() for each in (stepper, sound))
    assert all(torch.equal(mine[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    with pytest.raises(NotFiniteError, match="the loss is inf" if bad == "loss" else "norm of its gradient"):
        stepper.judge(values.tolist())


def test_a_quiet_share_reports_what_was_marked_and_adds_its_loss() -> None:
    """The weight of 0.5 marks pixels above the mean of the colours; here the first image's left half."""
    pixels = torch.full((2, 3, 8, 8), -1.0)
    pixels[0, :, :, :4] = 2.0
    target = torch.zeros(2, 1, 8, 8)
    usual, quiet = stepper_of(), stepper_of(quiet_share=0.5)
    values = [each.take(pixels, target, lr=0.1).tolist() for each in (usual, quiet)]
    assert len(values[0]) == 3 and values[1][3:] == [0.5, 0.0]
    expected = 0.2 * (math.log1p(math.exp(3.0)) + math.log1p(math.exp(-1.5))) / 2
    assert values[1][0] - values[0][0] == pytest.approx(expected, rel=1e-5)
    assert quiet.judge(values[1]) == values[1][0]


def two_images() -> LabelledArrays:
    """32x32 pixels, for one class."""
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    return LabelledArrays(("a", "b"), images, (images[..., 0] > 127).astype(np.uint8))


class Waits(TorchDispatchMode):
    """Notes where the host asks for values that a device computes."""

    OPS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = func.overloadpacket.__name__, kwargs or {}
        # A change of type names the device as well; a copy to the host changes nothing else.
        copied = name == "_to_copy" and given.get("device") == torch.device("cpu") and not given.get("dtype")
        if copied or name in self.OPS:
            self.seen.append("".join(traceback.format_stack(limit=6)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_host_waits_for_no_value_of_a_step(precision: str) -> None:
    """The forward, the loss, the backward, the clipping, the update and the averaged weights."""
    torch.manual_seed(0)
    config = TrainConfig(out_dir=Path("run"), model=TINY, precision=precision)
    stepper = Stepper(VMKLAUNet(TINY), config, Processes(Ranks(), "cpu"))
    average, inputs = WeightAverage(stepper.model, 0.9), Inputs(torch.device("cpu"), 1)
    arrays = two_images()
    with Waits() as waits:
        float(torch.ones(1))
        assert len(waits.seen) == 1  # it does note them
        waits.seen.clear()
        for _ in range(2):
            values = stepper.take(*inputs(arrays), lr=1e-3)
            average.update(stepper.model)
    assert not waits.seen, waits.seen[0]
    assert math.isfinite(stepper.judge(values.tolist()))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_on_the_gpu_waits_for_nothing(precision: str) -> None:
    """By torch's own check, from the batch on the host to the values on their way back."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    config = TrainConfig(out_dir=Path("run"), model=TINY, precision=precision)
    processes = Processes(Ranks(), "cuda")
    stepper = Stepper(VMKLAUNet(TINY).to(processes.device), config, processes)
    average, inputs = WeightAverage(stepper.model, 0.9), Inputs(processes.device, 1)
    arrays = two_images()
    try:
        for mode in ("default", "error"):  # the first steps compile kernels and take memory
            torch.cuda.set_sync_debug_mode(mode)
            for _ in range(2):
                values = HostValues(stepper.take(*inputs(arrays), lr=1e-3))
                average.update(stepper.model)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert math.isfinite(stepper.judge(values.read()))


class ScanTypes(TorchDispatchMode):
    """Notes the type of what every scan is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "selective_scan2d" in str(func):
            self.seen.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_scan_stays_float32_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = VMKLAUNet(TINY)
    with ScanTypes() as scans, torch.autocast("cpu", dtype):
        logits = model(torch.randn(1, 3, 32, 32))
    assert logits.dtype == dtype
    assert len(scans.seen) >= 4 and set(scans.seen) == {torch.float32}
