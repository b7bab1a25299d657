"""What the Triton kernels share: how they launch, and for the scan the routes, delta and a visit to a pixel.

Importing this imports triton. A scan's tile is [n, channels]: a program holds all states of its channels.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl

ANY_VALUE = (
    "images", "items", "programs", "H", "W", "R", "chunk", "chunks", "routes", "blocks", "first", "count",
)  # fmt: skip
"""Integers that Triton must not specialize on. It compiles a kernel for each that is 1 or divides by 16, some
seconds apiece, and none of these widens an access. n does, and d does where rows of channels are moved."""

ROUTES: tl.constexpr = tl.constexpr(4)
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


def on_device(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device: make it that of the tensor."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


@triton.jit
def pixel_of(t, k, H, W):
    """Pixel number (row-major) of visit t on route k: rows, columns, and both reversed."""
    s = tl.where(k >= 2, H * W - 1 - t, t)
    column = s // H
    return tl.where(k % 2 == 1, (s - column * H) * W + column, s)


@triton.jit
def softplus(x):
    """log(1 + e^x). The factor e / (w - 1) corrects the rounding of w = 1 + e where e is tiny."""
    e = tl.exp(-tl.abs(x))
    w = 1.0 + e
    rounded = w - 1.0
    log1p = tl.where(rounded == 0.0, e, tl.log(w) * (e / tl.where(rounded == 0.0, 1.0, rounded)))
    return tl.maximum(x, 0.0) + log1p


@triton.jit
def sigmoid(x):
    """Derivative of softplus; the exponential cannot overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def load_states(pointer, d, n, c, s):
    """An (n, d) block of numbers for channels c, as float32."""
    inside = (s < n)[:, None] & (c < d)[None, :]
    return tl.load(pointer + s[:, None] * d + c[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_states(pointer, value, d, n, c, s):
    """The opposite of ``load_states``."""
    tl.store(pointer + s[:, None] * d + c[None, :], value, mask=(s < n)[:, None] & (c < d)[None, :])


@triton.jit
def route_weights(weight_ptr, bias_ptr, A_ptr, k, d, n, R, c, s, r):
    """A (times log2 e, so that exp2 serves), dt_weight and delta_bias of route k for channels c."""
    A = load_states(A_ptr + k * n * d, d, n, c, s) * LOG2E
    weight = load_states(weight_ptr + k * R * d, d, R, c, r)
    return A, weight, tl.load(bias_ptr + k * d + c, mask=c < d, other=0.0)


@triton.jit
def load_row(pointer, i, count):
    """Values i < count of a row of p, as float32."""
    return tl.load(pointer + i, mask=i < count, other=0.0).to(tl.float32)


@triton.jit
def raw_delta(p_pixel, weight, bias, k, n, R, r):
    """What softplus makes delta of: the projection of the pixel's low-rank dt, (channels,)."""
    dt = load_row(p_pixel + 2 * ROUTES * n + k * R, r, R)
    return tl.sum(dt[:, None] * weight, axis=0) + bias


@triton.jit
def advance(h, A, delta, delta_u, B):
    """One step of the recurrence. A <= 0 and delta >= 0: the exponent is at most 0."""
    return tl.exp2(A * delta[None, :]) * h + B[:, None] * delta_u[None, :]
