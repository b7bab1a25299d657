"""Which implementation of the ops runs: one dispatcher, no silent fall-back from what was asked for."""

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
"""They run on a GPU; ``auto`` tries them for the scan in this order. Only triton has the spline bases."""
BACKENDS = ("auto", "native", "reference", *GPU_BACKENDS)
SCAN, BASES = "the scan", "the spline bases"
MAMBA_INSTALLATION = (
    "pip uninstall --yes mamba-ssm && pip install setuptools wheel packaging ninja && "
    "pip install --no-build-isolation --no-cache-dir 'vmkla[cuda]'"
)
"""Works as well where a kernel-less mamba-ssm is installed, or lies in pip's cache as a wheel."""
OLDEST_CAPABILITY = (8, 0)
"""Of a GPU that Triton compiles for."""


@functools.cache
def native() -> NativeKernels:
    """The C++ kernels, loaded once.

    Raises:
        MissingDependencyError: the compiled library is absent or of another version.
    """
    return NativeKernels()


def triton_scan() -> ModuleType:
    """``vmkla.ops.triton_scan``.

    Raises:
        MissingDependencyError: triton is absent; PyTorch's CUDA build brings it.
    """
    _require_triton()
    from vmkla.ops import triton_scan as module

    return module


def triton_bspline() -> ModuleType:
    """``vmkla.ops.triton_bspline``. Errors as ``triton_scan``."""
    _require_triton()
    from vmkla.ops import triton_bspline as module

    return module


def _require_triton() -> None:
    require("triton", extra=None, purpose="the triton backend")


@functools.cache
def mamba_interface() -> ModuleType:
    """The module of mamba-ssm that has ``selective_scan_fn``, imported once.

    Raises:
        MissingDependencyError: mamba-ssm or its compiled kernel is absent.
    """
    try:
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # it imports language models, and a broken package may raise anything
        installed = importlib.util.find_spec("mamba_ssm") is not None
        seen = "the one that is installed cannot be imported" if installed else "it is not installed"
        raise MissingDependencyError(
            f"the mamba_ssm backend needs mamba-ssm with its CUDA kernel, and {seen}: {error}",
            hint=f"Run: {MAMBA_INSTALLATION}",
        ) from error


def _load(backend: str) -> None:
    """Import or load a backend.

    Raises:
        MissingDependencyError: it is absent.
    """
    loaders: dict[str, Callable[[], object]] = {
        "native": native,
        "triton": triton_scan,
        "mamba_ssm": mamba_interface,
    }
    loaders[backend]()


@functools.cache
def _absent(backend: str) -> str:
    """Why a backend is not here at all, empty when it is."""
    try:
        _load(backend)
    except MissingDependencyError as error:
        return error.message
    return ""


@functools.cache
def _report(op: str, backend: str, device: str, dtype: torch.dtype, reason: str) -> None:
    """Say once what ``auto`` took for a device and type; as a warning where that costs hours."""
    slow = op == SCAN and backend == "reference" and device.startswith("cuda")
    level = logging.WARNING if slow else logging.INFO
    logger.log(
        level, "%s on %s %s: backend %s%s", op, device, dtype, backend, f" ({reason})" if reason else ""
    )


def choose(backend: str, x: Tensor, *others: Tensor) -> str:
    """Name of the backend that will run the scan on x.

    Args:
        backend: what was asked for. ``auto`` takes ``native`` on the CPU, the first of ``GPU_BACKENDS`` that
            is here on CUDA, and the reference where these cannot run; it says in the log what it took.
        x: the op's first tensor, whose type and device decide.
        others: its other tensors that may want a gradient.
    Raises:
        UsageError: there is no such backend, or it cannot run these tensors.
        MissingDependencyError: it was asked for by name and is absent.
    """
    return _choose(backend, str(x.device), x.dtype, gradient_wanted(x, *others))


def _choose(backend: str, device: str, dtype: torch.dtype, gradient: bool) -> str:
    """See ``choose``: the same by what matters of the tensors."""
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}", hint=f"Choose one of: {', '.join(BACKENDS)}")
    if backend == "reference":
        return backend
    if backend != "auto":
        obstacle = _obstacle(backend, device, dtype, gradient)
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
    """The first backend that can run the op, else the reference; the log says which and why."""
    reasons: list[str] = []
    chosen = "reference"
    for candidate in candidates:
        reason = _obstacle(candidate, device, dtype, gradient) or _absent(candidate)
        if not reason:
            chosen = candidate
            break
        reasons.append(reason)
    _report(op, chosen, device, dtype, "; ".join(reasons))
    return chosen


def choose_basis(backend: str, x: Tensor, *, uniform_cubic: bool) -> str:
    """Name of the backend that will run ``bspline_basis`` on x: ``native``, ``triton`` or ``reference``.

    A network has one backend for both ops. ``triton`` has a kernel for uniform cubic knots and means the
    reference for others; ``mamba_ssm`` has none and means what ``auto`` takes.

    Args:
        backend: what was asked for, see ``choose``.
        x: the values.
        uniform_cubic: whether the knots are uniform and the order is 3.
    Raises:
        UsageError: there is no such backend, or it cannot run these tensors.
        MissingDependencyError: it was asked for by name and is absent.
    """
    if backend in GPU_BACKENDS or (backend == "auto" and x.device.type == "cuda"):
        return _choose_gpu_basis(backend, str(x.device), x.dtype, gradient_wanted(x), uniform_cubic)
    return choose(backend, x)


def _choose_gpu_basis(
    backend: str, device: str, dtype: torch.dtype, gradient: bool, uniform_cubic: bool
) -> str:
    """See ``choose_basis``: the same by what matters of the tensors."""
    if not uniform_cubic:
        _report(BASES, "reference", device, dtype, "triton has a kernel for uniform cubic knots only")
        return "reference"
    if backend == "triton":
        return _choose(backend, device, dtype, gradient)
    return _first_that_runs(BASES, ("triton",), device, dtype, gradient)


# torch.compile takes these answers as they stand, and does not trace into imports and the log. This is what
# torch.compiler.assume_constant_result does, which would import the whole compiler (seconds) here.
_choose._dynamo_marked_constant = True  # type: ignore[attr-defined]
_choose_gpu_basis._dynamo_marked_constant = True  # type: ignore[attr-defined]


def float32_under_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, in float32 where autocast is on.

    Autocast makes the matrix products half; the ops between them stay float32 (a scan's state would
    drown in rounding otherwise), and a half tensor of autocast's making is no choice of the caller's.
    """
    device = tensors[0].device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return tuple(t.float() for t in tensors)
    return tensors


def gradient_wanted(*tensors: Tensor) -> bool:
    """Whether autograd will ask for the gradient of an op on these tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _obstacle(backend: str, device: str, dtype: torch.dtype, gradient: bool) -> str:
    """Why a backend cannot take tensors of a type on a device, empty when it can."""
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
    interpreted = backend == "triton" and kind == "cpu" and not _absent(backend) and triton_scan().INTERPRETED
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
