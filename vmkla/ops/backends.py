"""Choose the implementation of the ops: one dispatcher, and no silent fallback from a requested backend."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from vmkla.errors import MissingDependencyError, UsageError
from vmkla.imports import require
from vmkla.ops.native import NativeKernels

logger = logging.getLogger(__name__)

GPU_BACKENDS = ("mamba_ssm", "triton")
"""Backends that run on a GPU, in the order in which ``auto`` tries them for the scan. Only triton has the
spline bases."""
BACKENDS = ("auto", "native", "reference", *GPU_BACKENDS)
SCAN, BASES = "the scan", "the spline bases"
MAMBA_INSTALLATION = (
    "pip uninstall --yes mamba-ssm && pip install setuptools wheel packaging ninja && "
    "pip install --no-build-isolation --no-cache-dir 'vmkla[cuda]'"
)
"""Commands that also replace a mamba-ssm without its kernel, installed or as a wheel in pip's cache."""
OLDEST_CAPABILITY = (8, 0)
"""Oldest compute capability of a GPU that Triton compiles for."""


@functools.cache
def native() -> NativeKernels:
    """Load the C++ kernels, once.

    Raises:
        MissingDependencyError: the compiled library is missing or of another version.
    """
    return NativeKernels()


def triton_scan() -> ModuleType:
    """Import ``vmkla.ops.triton_scan``.

    Raises:
        MissingDependencyError: triton is missing; PyTorch's CUDA build installs it.
    """
    _require_triton()
    from vmkla.ops import triton_scan as module

    return module


def triton_bspline() -> ModuleType:
    """Import ``vmkla.ops.triton_bspline``, with the errors of ``triton_scan``."""
    _require_triton()
    from vmkla.ops import triton_bspline as module

    return module


def _require_triton() -> None:
    require("triton", extra=None, purpose="the triton backend")


@functools.cache
def mamba_interface() -> ModuleType:
    """Import the module of mamba-ssm that has ``selective_scan_fn``, once.

    Raises:
        MissingDependencyError: mamba-ssm or its compiled kernel is missing.
    """
    try:
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # it imports language models, and a broken package may raise any error
        installed = importlib.util.find_spec("mamba_ssm") is not None
        seen = "the one that is installed cannot be imported" if installed else "it is not installed"
        raise MissingDependencyError(
            f"the mamba_ssm backend needs mamba-ssm with its CUDA kernel, and {seen}: {error}",
            hint=f"Run: {MAMBA_INSTALLATION}",
        ) from error


def _load(backend: str) -> None:
    """Import or load a backend.

    Raises:
        MissingDependencyError: it is missing.
    """
    loaders: dict[str, Callable[[], object]] = {
        "native": native,
        "triton": triton_scan,
        "mamba_ssm": mamba_interface,
    }
    loaders[backend]()


@functools.cache
def _why_missing(backend: str) -> str:
    """Return why a backend is missing; empty when it is installed."""
    try:
        _load(backend)
    except MissingDependencyError as error:
        return error.message
    return ""


@functools.cache
def _report(op: str, backend: str, device: str, dtype: torch.dtype, reason: str) -> None:
    """Log once what ``auto`` chose for a device and type; as a warning where that costs hours."""
    slow = op == SCAN and backend == "reference" and device.startswith("cuda")
    level = logging.WARNING if slow else logging.INFO
    logger.log(
        level, "%s on %s %s: backend %s%s", op, device, dtype, backend, f" ({reason})" if reason else ""
    )


def choose(backend: str, x: Tensor, *others: Tensor) -> str:
    """Return the name of the backend that will run the scan on x.

    Args:
        backend: requested backend. ``auto`` takes ``native`` on the CPU, the first installed one of
            ``GPU_BACKENDS`` on CUDA, and the reference where these cannot run; it logs its choice.
        x: the op's first tensor, whose type and device count.
        others: the op's other tensors that may need a gradient.
    Raises:
        UsageError: there is no such backend, or it cannot run these tensors.
        MissingDependencyError: it was requested by name and is missing.
    """
    return _choose(backend, str(x.device), x.dtype, gradient_wanted(x, *others))


def _choose(backend: str, device: str, dtype: torch.dtype, gradient: bool) -> str:
    """Choose as ``choose`` does, from the properties of the tensors."""
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}", hint=f"Choose one of: {', '.join(BACKENDS)}")
    if backend == "reference":
        return backend
    if backend != "auto":
        obstacle = _why_unsupported(backend, device, dtype, gradient)
        if obstacle:
            hint = "Use backend='auto'"
            if backend in GPU_BACKENDS and not device.startswith("cuda"):
                hint += ", or a machine with an NVIDIA GPU and PyTorch's CUDA build"
            raise UsageError(f"backend {backend!r} cannot run this: {obstacle}", hint=f"{hint}.")
        _load(backend)
        return backend
    candidates = GPU_BACKENDS if device.startswith("cuda") else ("native",)
    return _first_that_runs(SCAN, candidates, device, dtype, gradient)


def _first_that_runs(
    op: str, candidates: tuple[str, ...], device: str, dtype: torch.dtype, gradient: bool
) -> str:
    """Return the first backend that can run the op, or the reference, and log which and why."""
    reasons: list[str] = []
    chosen = "reference"
    for candidate in candidates:
        reason = _why_unsupported(candidate, device, dtype, gradient) or _why_missing(candidate)
        if not reason:
            chosen = candidate
            break
        reasons.append(reason)
    _report(op, chosen, device, dtype, "; ".join(reasons))
    return chosen


def choose_basis(backend: str, x: Tensor, *, uniform_cubic: bool) -> str:
    """Return the name of the backend that runs ``bspline_basis``: ``native``, ``triton`` or ``reference``.

    A network has one backend for both ops. ``triton`` has a kernel for uniform cubic knots only, and stands
    for the reference with others; ``mamba_ssm`` has none, and stands for what ``auto`` takes.

    Args:
        backend: requested backend, see ``choose``.
        x: the values.
        uniform_cubic: whether the knots are uniform and the order is 3.
    Raises:
        UsageError: there is no such backend, or it cannot run these tensors.
        MissingDependencyError: it was requested by name and is missing.
    """
    if backend in GPU_BACKENDS or (backend == "auto" and x.device.type == "cuda"):
        return _choose_gpu_basis(backend, str(x.device), x.dtype, gradient_wanted(x), uniform_cubic)
    return choose(backend, x)


def _choose_gpu_basis(
    backend: str, device: str, dtype: torch.dtype, gradient: bool, uniform_cubic: bool
) -> str:
    """Choose as ``choose_basis`` does, from the properties of the tensors."""
    if not uniform_cubic:
        _report(BASES, "reference", device, dtype, "triton has a kernel for uniform cubic knots only")
        return "reference"
    if backend == "triton":
        return _choose(backend, device, dtype, gradient)
    return _first_that_runs(BASES, ("triton",), device, dtype, gradient)


# torch.compile takes these results as constants, and does not trace into imports and the log.
# torch.compiler.assume_constant_result does the same, and would import the whole compiler (seconds) here.
_choose._dynamo_marked_constant = True  # type: ignore[attr-defined]
_choose_gpu_basis._dynamo_marked_constant = True  # type: ignore[attr-defined]


def float32_under_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert tensors to float32 where autocast is on.

    Autocast computes matrix products in half. The ops between them stay float32, since rounding errors would
    dominate the state of a scan, and the caller did not choose a half tensor that autocast made.
    """
    device = tensors[0].device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return tuple(t.float() for t in tensors)
    return tensors


def gradient_wanted(*tensors: Tensor) -> bool:
    """Whether autograd will compute the gradient of an op on these tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _why_unsupported(backend: str, device: str, dtype: torch.dtype, gradient: bool) -> str:
    """Return why a backend does not support tensors of a type on a device; empty when it does."""
    kind = device.split(":")[0]
    if backend == "native":
        if kind not in ("cpu", "meta"):
            return f"the tensor is on {kind}, the kernels run on the CPU"
        if dtype not in (torch.float32, torch.float16):
            return f"the tensor is {dtype}, the kernels take float32 and float16"
        if dtype == torch.float16 and gradient:
            return "a float16 op wants a gradient, the kernels have one for float32 only"
        return ""
    # Triton's interpreter, for tests, runs on the CPU.
    interpreted = (
        backend == "triton" and kind == "cpu" and not _why_missing(backend) and triton_scan().INTERPRETED
    )
    if kind != "cuda" and not interpreted:
        return f"the tensor is on {kind}, {backend} runs on an NVIDIA GPU"
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the tensor is {dtype}, {backend} takes float32, float16 and bfloat16"
    # Without a GPU only a fake tensor gets here, which has no capability.
    if backend == "triton" and kind == "cuda" and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST_CAPABILITY:
            return f"the GPU has compute capability {capability}, triton needs {OLDEST_CAPABILITY}"
    return ""
