"""``bspline_basis``: the B-spline bases of a KAN layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vmkla.errors import ShapeError, UsageError
from vmkla.ops import backends


@dataclass(frozen=True)
class UniformGrid:
    """Evenly spaced knots: ``grid_min + i * step`` for i = 0 .. G + 2k.

    A layer with uniform knots states them, which selects the fast path and becomes the attributes of the
    ONNX node.

    Attributes:
        grid_min: first knot, k steps left of the interval that the G cells cover.
        step: distance between knots, positive.
    """

    grid_min: float
    step: float

    @classmethod
    def over(cls, low: float, high: float, grid_size: int, order: int) -> UniformGrid:
        """Return knots of ``grid_size`` cells over [low, high], extended by ``order`` on both sides."""
        step = (high - low) / grid_size
        return cls(low - order * step, step)

    def knots(self, grid_size: int, order: int) -> Tensor:
        """Return the knots, (G + 2k + 1,) float32."""
        return self.grid_min + self.step * torch.arange(grid_size + 2 * order + 1)


def bspline_basis(
    x: Tensor,
    grid: Tensor,
    order: int,
    *,
    uniform: UniformGrid | None = None,
    backend: str = "auto",
) -> Tensor:
    """Compute the B-spline bases of every value by the Cox-de Boor recursion.

    x is clamped to the support [first knot, last knot] before the recursion; every basis is 0 at its ends.
    Outside the support both the bases and their gradient are 0, in half precision too.

    Args:
        x: (..., in) float32, float16 or float64.
        grid: knots in rising order, (G + 2k + 1,) for all features or (in, G + 2k + 1) for each
            its own; float32 (float64 with float64 x). No gradient is taken with respect to it.
        order: k, at least 1; 3 is cubic.
        uniform: exact spacing of uniform knots; ``grid`` must hold the same knots.
        backend: ``auto``, ``native``, ``reference``, or ``triton``, which has a kernel for uniform cubic
            knots and stands for the reference with others; ``mamba_ssm`` stands for what ``auto`` takes on a
            GPU.
    Returns:
        (..., in, G + k), dtype of x.
    Raises:
        ShapeError: grid does not fit x, or has too few knots.
        UsageError: the backend does not support these types or devices.
        MissingDependencyError: the requested backend is missing.
    Source: de Boor, A Practical Guide to Splines, 1978, ch. IX; Liu et al., KAN, 2024, sec. 2.
    """
    if order < 1:
        raise ShapeError(f"order must be at least 1, got {order}")
    if x.ndim < 1 or grid.ndim not in (1, 2) or (grid.ndim == 2 and grid.shape[0] != x.shape[-1]):
        raise ShapeError(
            f"grid must be (knots,) or (in, knots) for x (..., in); "
            f"got {tuple(grid.shape)} and {tuple(x.shape)}"
        )
    if grid.shape[-1] < 2 * order + 2:
        raise ShapeError(f"order {order} needs at least {2 * order + 2} knots, grid has {grid.shape[-1]}")
    if uniform is not None and grid.ndim != 1:
        raise ShapeError("uniform knots are one vector for all features; got a grid per feature")
    (x,) = backends.float32_under_autocast(x)
    grid_min, step = (uniform.grid_min, uniform.step) if uniform else (0.0, 0.0)
    uniform_cubic = order == 3 and uniform is not None
    chosen = backends.choose_basis(backend, x, uniform_cubic=uniform_cubic)
    result: Tensor = torch.ops.vmkla.bspline_basis(x, grid, order, grid_min, step, chosen)
    return result


def bspline_basis_reference(x: Tensor, grid: Tensor, order: int) -> Tensor:
    """Compute ``bspline_basis`` in plain torch, as it is defined, on any device."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    t = grid.to(wide)  # (knots,) or (in, knots)
    v = x.to(wide).clamp(t[..., 0], t[..., -1]).unsqueeze(-1)  # (..., in, 1)
    bases = ((v >= t[..., :-1]) & (v < t[..., 1:])).to(wide)  # (..., in, knots - 1)
    for k in range(1, order + 1):
        left = (v - t[..., : -(k + 1)]) / (t[..., k:-1] - t[..., : -(k + 1)])
        right = (t[..., k + 1 :] - v) / (t[..., k + 1 :] - t[..., 1:-k])
        bases = left * bases[..., :-1] + right * bases[..., 1:]
    return bases.to(x.dtype)


def _out_shape(x: Tensor, grid: Tensor, order: int) -> tuple[int, ...]:
    return (*x.shape, grid.shape[-1] - order - 1)


def _check_triton(grid: Tensor, order: int, grid_step: float, x: Tensor) -> None:
    """Reject knots that the kernels would misread, since they only read their spacing.

    Raises:
        UsageError: the knots are not uniform and cubic, or of another type or device than the kernels take.
    """
    if order != 3 or not grid_step > 0 or grid.ndim != 1:
        raise UsageError(
            f"the Triton kernels take one uniform grid of order 3, got order {order}, step {grid_step}",
            hint="Use backend='reference' for other knots.",
        )
    if grid.dtype != torch.float32 or grid.device != x.device:
        raise UsageError(
            f"the Triton kernels expect grid to be torch.float32 on {x.device}, got {grid.dtype} on "
            f"{grid.device}",
            hint="Give all tensors the types that the op's description names.",
        )


@torch.library.custom_op("vmkla::bspline_basis", mutates_args=())
def _op(x: Tensor, grid: Tensor, order: int, grid_min: float, grid_step: float, backend: str) -> Tensor:
    if backend == "native":
        return backends.native().bspline_forward(x, grid, order, grid_min, grid_step)
    if backend == "triton":
        _check_triton(grid, order, grid_step, x)
        bases = grid.shape[-1] - order - 1
        result: Tensor = backends.triton_bspline().forward(x.contiguous(), bases, grid_min, grid_step)
        return result
    # The fake kernel states a contiguous result, but elementwise arithmetic keeps the strides of x.
    return bspline_basis_reference(x.contiguous(), grid, order)


@_op.register_fake
def _(x: Tensor, grid: Tensor, order: int, grid_min: float, grid_step: float, backend: str) -> Tensor:
    return x.new_empty(_out_shape(x, grid, order))


@torch.library.custom_op("vmkla::bspline_basis_backward", mutates_args=())
def _backward_op(
    grad_out: Tensor, x: Tensor, grid: Tensor, order: int, grid_min: float, grid_step: float, backend: str
) -> Tensor:
    """Compute the gradient of x with the kernels; torch rejects a second derivative."""
    if backend == "triton":
        _check_triton(grid, order, grid_step, x)
        grad = grad_out.to(x.dtype).contiguous()
        result: Tensor = backends.triton_bspline().backward(grad, x.contiguous(), grid_min, grid_step)
        return result
    return backends.native().bspline_backward(grad_out, x, grid, order, grid_min, grid_step)


@_backward_op.register_fake
def _(
    grad_out: Tensor, x: Tensor, grid: Tensor, order: int, grid_min: float, grid_step: float, backend: str
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grid, ctx.order, ctx.grid_min, ctx.grid_step, ctx.backend = inputs
    ctx.save_for_backward(x, grid)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    x, grid = ctx.saved_tensors
    if ctx.backend in ("native", "triton"):
        grad_x = torch.ops.vmkla.bspline_basis_backward(
            grad_out, x, grid, ctx.order, ctx.grid_min, ctx.grid_step, ctx.backend
        )
    else:
        # With create_graph the gradient must depend on x itself, or the second derivative is lost.
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = x if again else x.detach().requires_grad_()
            bases = bspline_basis_reference(leaf, grid, ctx.order)
            (grad_x,) = torch.autograd.grad(bases, leaf, grad_out, create_graph=again)
    return (grad_x, None, None, None, None, None)


_op.register_autograd(_backward, setup_context=_setup_context)
