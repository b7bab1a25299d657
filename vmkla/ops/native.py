"""Call the C++ kernels of ``libvmkla_cpu.so`` on torch tensors through ctypes, without torch's ABI."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from vmkla.errors import MissingDependencyError, UsageError
from vmkla.native import CPU_LIBRARY, find_library

API_VERSION = 3


class NativeKernels:
    """Forward and backward of both ops on the CPU.

    Tensors may be non-contiguous. Forward takes float32 or float16, backward float32. The number of threads
    is torch's (``torch.get_num_threads()``). The kernels see bare addresses, so a tensor of another type or
    device is a ``UsageError``.

    Raises:
        MissingDependencyError: the library is missing or of another version.
    """

    def __init__(self) -> None:
        path = find_library()
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise MissingDependencyError(
                f"{path} cannot be loaded: {error}", hint="Run: pip install --force-reinstall vmkla"
            ) from error
        version = int(self._library.vmkla_cpu_api_version())
        if version != API_VERSION:
            raise MissingDependencyError(
                f"{path} has interface {version}, this version of vmkla needs {API_VERSION}",
                hint="Run: pip install --force-reinstall vmkla   (from a checkout: pip install .)",
            )
        self._library.vmkla_cpu_instruction_set.restype = ctypes.c_char_p
        self._library.vmkla_cpu_exp2_loop.restype = ctypes.c_float
        self._library.vmkla_cpu_recurrence_loop.restype = ctypes.c_float

    @property
    def instruction_set(self) -> str:
        """``avx512``, ``avx2``, ``neon`` or ``baseline``."""
        name: bytes = self._library.vmkla_cpu_instruction_set()
        return name.decode()

    def set_instruction_set(self, name: str) -> bool:
        """Use another instruction set; False when this machine does not support it."""
        return bool(self._library.vmkla_cpu_set_instruction_set(name.encode()))

    def exp2_loop(self, x: Tensor, repeats: int) -> float:
        """Sum 2^x over the float32 values of x, ``repeats`` times, on one thread.

        Its time is that of exponentials only, with which the scan's time is compared.
        """
        return float(self._library.vmkla_cpu_exp2_loop(_pointer(x), _int(x.numel()), _int(repeats)))

    def recurrence_loop(self, x: Tensor, repeats: int) -> float:
        """Compute the exponentials of ``exp2_loop`` and a scan's multiply-adds, on one thread.

        It computes decay, state and output in registers, the least work of a scan.
        """
        return float(self._library.vmkla_cpu_recurrence_loop(_pointer(x), _int(x.numel()), _int(repeats)))

    def _call(self, entry: str, *args: object) -> None:
        if self._library[entry](*args) != 0:
            raise MemoryError(f"{entry} of {CPU_LIBRARY} ran out of memory")

    def scan2d_forward(
        self, u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor
    ) -> Tensor:
        """Compute ``selective_scan2d``."""
        _expect(_element(u), u=u, p=p, dt_weight=dt_weight)
        _expect(torch.float32, A=A, D=D, delta_bias=delta_bias)
        tensors = [t.contiguous() for t in (u, p, dt_weight, A, D, delta_bias)]
        y = torch.empty_like(tensors[0])
        self._call(
            "vmkla_cpu_scan2d_forward",
            *_scan_extents(u, A, dt_weight),
            ctypes.c_int(u.dtype == torch.float16),
            *(_pointer(t) for t in (*tensors, y)),
            _threads(),
        )
        return y

    def scan2d_backward(
        self,
        grad_y: Tensor,
        u: Tensor,
        p: Tensor,
        dt_weight: Tensor,
        A: Tensor,
        D: Tensor,
        delta_bias: Tensor,
    ) -> list[Tensor]:
        """Compute the gradients of u, p, dt_weight, A, D and delta_bias, in this order; all float32."""
        _expect(torch.float32, grad_y=grad_y, u=u, p=p, dt_weight=dt_weight, A=A, D=D, delta_bias=delta_bias)
        tensors = [t.contiguous() for t in (grad_y, u, p, dt_weight, A, D, delta_bias)]
        gradients = [torch.empty_like(t) for t in tensors[1:]]
        self._call(
            "vmkla_cpu_scan2d_backward",
            *_scan_extents(u, A, dt_weight),
            *(_pointer(t) for t in (*tensors, *gradients)),
            _threads(),
        )
        return gradients

    def bspline_forward(
        self, x: Tensor, grid: Tensor, order: int, grid_min: float, grid_step: float
    ) -> Tensor:
        """Compute ``bspline_basis``; grid_step > 0 means uniform knots."""
        _expect(_element(x), x=x)
        _expect(torch.float32, grid=grid)
        x, grid = x.contiguous(), grid.contiguous()
        out = x.new_empty((*x.shape, grid.shape[-1] - order - 1))
        self._call(
            "vmkla_cpu_bspline_forward",
            *_spline_extents(x, grid, order),
            ctypes.c_int(x.dtype == torch.float16),
            ctypes.c_float(grid_min),
            ctypes.c_float(grid_step),
            *(_pointer(t) for t in (x, grid, out)),
            _threads(),
        )
        return out

    def bspline_backward(
        self, grad_out: Tensor, x: Tensor, grid: Tensor, order: int, grid_min: float, grid_step: float
    ) -> Tensor:
        """Compute the gradient of x; all tensors are float32."""
        _expect(torch.float32, grad_out=grad_out, x=x, grid=grid)
        grad_out, x, grid = grad_out.contiguous(), x.contiguous(), grid.contiguous()
        grad_x = torch.empty_like(x)
        self._call(
            "vmkla_cpu_bspline_backward",
            *_spline_extents(x, grid, order),
            ctypes.c_float(grid_min),
            ctypes.c_float(grid_step),
            *(_pointer(t) for t in (x, grid, grad_out, grad_x)),
            _threads(),
        )
        return grad_x


def _element(tensor: Tensor) -> torch.dtype:
    """Return the type that a forward kernel reads: the tensor's own if it is supported."""
    return torch.float16 if tensor.dtype == torch.float16 else torch.float32


def _expect(dtype: torch.dtype, **tensors: Tensor) -> None:
    """Reject tensors of another device or type than the kernels read.

    Raises:
        UsageError: a tensor is rejected; the message names it.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != dtype or tensor.device.type != "cpu":
            raise UsageError(
                f"the native kernels expect {name} to be {dtype} on the CPU, got {tensor.dtype} on "
                f"{tensor.device}",
                hint="Give all tensors the types that the op's description names.",
            )


def _int(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _threads() -> ctypes.c_int:
    return ctypes.c_int(torch.get_num_threads())


def _scan_extents(u: Tensor, A: Tensor, dt_weight: Tensor) -> list[ctypes.c_int64]:
    """Return b, H, W, d, n and R."""
    return [_int(v) for v in (*u.shape, A.shape[1], dt_weight.shape[1])]


def _spline_extents(x: Tensor, grid: Tensor, order: int) -> list[ctypes.c_int64]:
    """Return count, rows, knots and order."""
    rows = grid.shape[0] if grid.ndim == 2 else 1
    return [_int(v) for v in (x.numel(), rows, grid.shape[-1], order)]
