"""Copies to and from a GPU, on a machine without one: a pinned block for each, and nobody waits too early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from vmkla.data.arrays import LabelledArrays
from vmkla.training.inputs import Inputs
from vmkla.training.transfers import HostValues

GPU = torch.device("cuda:0")


class PretendedGpu(TorchFunctionMode):
    """Computes on the CPU what is meant for a GPU, and notes what is pinned and copied."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.pin_memory:
            self.seen.append("pinned")
            return args[0].clone()
        if func is torch.Tensor.to and GPU in args:
            self.seen.append("copied" if kwargs.get("non_blocking") else "waited")
            return args[0].clone()
        if kwargs.get("device") == GPU:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def test_a_batch_goes_to_a_gpu_through_pinned_memory_without_waiting() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    batch = LabelledArrays(("a", "b"), images, (images[..., 0] > 127).astype(np.uint8))
    with PretendedGpu() as gpu:
        pixels, target = Inputs(GPU, 1)(batch)
    assert gpu.seen == ["pinned", "copied"] * 2
    expected = Inputs(torch.device("cpu"), 1)(batch)
    assert torch.equal(pixels, expected[0]) and torch.equal(target, expected[1])


def test_values_are_read_after_their_copy_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is asked for, then the event behind it; only reading waits for the event."""
    happened: list[str] = []

    class Event:
        def __init__(self, **_: Any) -> None:
            pass

        def record(self, stream: str) -> None:
            happened.append(f"recorded on {stream}")

        def synchronize(self) -> None:
            happened.append("waited")
            host.copy_(torch.tensor([1.5, 2.0, 4.0]))

    host = torch.zeros(3)

    class OnGpu:
        device = GPU

        def to(self, device: str, *, non_blocking: bool) -> torch.Tensor:
            happened.append(f"to {device}, {non_blocking}")
            return host

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    values = HostValues(OnGpu())  # type: ignore[arg-type]
    assert happened == ["to cpu, True", "recorded on stream of cuda:0"]
    assert values.read() == [1.5, 2.0, 4.0] and happened[-1] == "waited"


def test_on_the_cpu_nothing_waits() -> None:
    assert HostValues(torch.tensor([1.0, 2.5])).read() == [1.0, 2.5]
