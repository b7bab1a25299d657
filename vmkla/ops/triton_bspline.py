"""``bspline_basis`` on a GPU for uniform cubic knots: fused Triton kernels. Importing this imports triton.

On uniform knots each cubic basis has a formula of its own, the cardinal B-spline. With s = (x - first knot) /
step, and at distance t = |s - j - 2| from the knot that basis j is centred on::

    basis = (max(0, 2 - t)^3 - 4 max(0, 1 - t)^3) / 6

It is 0 outside its support, also for infinite x: x needs no clamping. A program's tile is [values, bases]:
the bases of a value lie side by side in memory, and a thread moves them 16 bytes at a time. Bytes bound the
time from below: count (1 + bases) elements forward, count (2 + bases) backward. Only the bases of one value
are summed, in one program: two runs give the same bits.
Source: de Boor, A Practical Guide to Splines, 1978, ch. IX.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vmkla.ops.triton_common import ANY_VALUE, on_device

TILE = 1024
"""Bases of a program: eight a thread."""


@triton.jit
def offsets_from_centres(x_ptr, inside, grid_min, step, j):
    """s - j - 2 for values x and bases j, and its two distances from the ends of a support: [values, bases].

    Comparisons leave a NaN as it is, and a maximum would make it 0.
    """
    x = tl.load(x_ptr, mask=inside, other=0.0).to(tl.float32)
    s = tl.div_rn(x - grid_min, step)  # the plain division is good to 2 ulp only
    offset = s[:, None] - (j + 2).to(tl.float32)[None, :]
    t = tl.abs(offset)
    return offset, tl.where(t >= 2.0, 0.0, 2.0 - t), tl.where(t >= 1.0, 0.0, 1.0 - t)


@triton.jit
def tile_mask(inside, j, COUNT: tl.constexpr, BASES: tl.constexpr):
    """Which elements of a [values, bases] tile there are."""
    mask = inside[:, None]
    if BASES != COUNT:
        mask = mask & (j < COUNT)[None, :]
    return mask


@triton.jit(do_not_specialize=ANY_VALUE)
def uniform_cubic(
    x_ptr, bases_ptr, count, grid_min, step,
    COUNT: tl.constexpr, BASES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Bases (count, COUNT) of x (count,). BASES is COUNT up to a power of two."""
    first = tl.program_id(0).to(tl.int64) * VALUES
    i = tl.arange(0, VALUES)
    j = tl.arange(0, BASES)
    inside = i < count - first
    _, outer, inner = offsets_from_centres(x_ptr + first + i, inside, grid_min, step, j)
    bases = (outer * outer * outer - 4.0 * (inner * inner * inner)) * (1.0 / 6.0)
    tile = bases_ptr + first * COUNT + (i[:, None] * COUNT + j[None, :])
    tl.store(tile, bases, mask=tile_mask(inside, j, COUNT, BASES))


@triton.jit(do_not_specialize=ANY_VALUE)
def uniform_cubic_backward(
    grad_ptr, x_ptr, grad_x_ptr, count, grid_min, step,
    COUNT: tl.constexpr, BASES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradient of x (count,): the slopes of its bases times their gradients (count, COUNT), summed."""
    first = tl.program_id(0).to(tl.int64) * VALUES
    i = tl.arange(0, VALUES)
    j = tl.arange(0, BASES)
    inside = i < count - first
    offset, outer, inner = offsets_from_centres(x_ptr + first + i, inside, grid_min, step, j)
    slope = 2.0 * inner * inner - 0.5 * outer * outer
    slope = tl.where(offset < 0.0, -slope, slope)
    tile = grad_ptr + first * COUNT + (i[:, None] * COUNT + j[None, :])
    grad = tl.load(tile, mask=tile_mask(inside, j, COUNT, BASES), other=0.0).to(tl.float32)
    tl.store(grad_x_ptr + first + i, tl.sum(slope * grad, axis=1) / step, mask=inside)


def forward(x: Tensor, bases: int, grid_min: float, step: float) -> Tensor:
    """(..., bases), dtype of x; x (...) contiguous. See ``bspline_basis``."""
    out = x.new_empty((*x.shape, bases))
    _launch(uniform_cubic, (x, out), x, bases, grid_min, step)
    return out


def backward(grad: Tensor, x: Tensor, grid_min: float, step: float) -> Tensor:
    """Gradient of x, of its shape and dtype, from that of its bases (..., bases); both contiguous."""
    grad_x = torch.empty_like(x)
    _launch(uniform_cubic_backward, (grad, x, grad_x), x, grad.shape[-1], grid_min, step)
    return grad_x


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], x: Tensor, bases: int, grid_min: float, step: float
) -> None:
    """Run a kernel over the values of x."""
    if x.numel() == 0:
        return
    padded = triton.next_power_of_2(bases)
    values = max(1, TILE // padded)
    with on_device(x):
        kernel[(triton.cdiv(x.numel(), values),)](
            *tensors, x.numel(), grid_min, step, COUNT=bases, BASES=padded, VALUES=values, num_warps=4
        )
