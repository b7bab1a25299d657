"""Which implementation of the ops runs: one dispatcher, no silent fall-back from what was asked for."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from vmkla.errors import MissingDependencyError, UsageError
from vmkla.ops.native import NativeKernels

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "native", "reference")


@functools.cache
def native() -> NativeKernels:
    """The C++ kernels, loaded once.

    Raises:
        MissingDependencyError: the compiled library is absent or of another version.
    """
    return NativeKernels()


@functools.cache
def _native_or_reason() -> str:
    """Empty when the native kernels load, else why not."""
    try:
        native()
    except MissingDependencyError as error:
        return str(error)
    return ""


@functools.cache
def _report(backend: str, device: str, dtype: torch.dtype, reason: str) -> None:
    """Say once what ``auto`` took for a device and type."""
    logger.info("ops on %s %s: backend %s%s", device, dtype, backend, f" ({reason})" if reason else "")


def choose(backend: str, x: Tensor, *others: Tensor) -> str:
    """Name of the backend that will run an op on x: ``native`` or ``reference``.

    Args:
        backend: what was asked for.
        x: the op's first tensor, whose type and device decide.
        others: its other tensors that may want a gradient.
    Raises:
        UsageError: there is no such backend, or it cannot run these tensors.
        MissingDependencyError: it was asked for by name and is absent.
    """
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}", hint=f"Choose one of: {', '.join(BACKENDS)}")
    if backend == "reference":
        return backend
    obstacle = _native_obstacle(x, others)
    if backend == "native":
        if obstacle:
            raise UsageError(f"backend 'native' cannot run this: {obstacle}", hint="Use backend='auto'.")
        native()
        return backend
    reason = obstacle or _native_or_reason()
    chosen = "reference" if reason else "native"
    _report(chosen, x.device.type, x.dtype, reason)
    return chosen


def float32_under_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, in float32 where autocast is on.

    Autocast makes the matrix products half; the ops between them stay float32 (a scan's state would
    drown in rounding otherwise), and a half tensor of autocast's making is no choice of the caller's.
    """
    device = tensors[0].device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return tuple(t.float() for t in tensors)
    return tensors


def _native_obstacle(x: Tensor, others: tuple[Tensor, ...]) -> str:
    """Why the native kernels cannot take x beside the others, empty when they can."""
    if x.device.type not in ("cpu", "meta"):
        return f"the tensor is on {x.device.type}, the kernels run on the CPU"
    if x.dtype not in (torch.float32, torch.float16):
        return f"the tensor is {x.dtype}, the kernels take float32 and float16"
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *others))
    if x.dtype == torch.float16 and wanted:
        return "a float16 op wants a gradient, the kernels have one for float32 only"
    return ""
