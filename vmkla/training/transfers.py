"""Copies between the host and the device that training waits for only where it needs the values."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device. On a GPU the call returns before the copy is done.

    Args:
        array: any shape. For a GPU it may be changed once the call has returned.
        device: where the tensor is to be.
    Returns:
        A tensor of the same shape and type; on the CPU it shares the array's memory. Work on a GPU's
        current stream sees it whole.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    # torch hands a pinned block out again only when the copies from it are done.
    return tensor.pin_memory().to(device, non_blocking=True)


class HostValues:
    """Values of a tensor on their way to the host.

    The copy starts at once and waits its turn on the device; only ``read`` waits for it.

    Args:
        values: (n,) on any device.
    """

    def __init__(self, values: Tensor) -> None:
        self._host = values.to("cpu", non_blocking=True)  # into pinned memory
        self._done: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """Wait for the copy and return its values."""
        if self._done is not None:
            self._done.synchronize()
        values: list[float] = self._host.tolist()
        return values
