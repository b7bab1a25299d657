"""Four separate scans with flips and transposes, in plain torch: what the fused kernel replaces.

Each route copies the image into its order, runs a one-directional scan over the copy, and puts the result
back. The scan itself goes over chunks side by side, so that it takes hundreds of steps and not thousands;
with mamba-ssm installed, that package's kernel is the other choice.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

ROUTES = 4
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""u (b, L, d), delta (b, L, d), A (n, d), B (b, L, n), C (b, L, n) -> y (b, L, d)."""


def chunked_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, chunk: int = 64) -> Tensor:
    """A selective scan over chunks of ``chunk`` steps; shapes as ``Scan``."""
    b, L, d = u.shape
    chunks = -(-L // chunk)
    u, delta, B, C = (
        pad(t, (0, 0, 0, chunks * chunk - L)).reshape(b, chunks, chunk, -1) for t in (u, delta, B, C)
    )
    decay = torch.exp(delta[..., None, :] * A)  # (b, chunks, chunk, n, d)
    states = (delta * u)[..., None, :] * B[..., :, None]
    for t in range(1, chunk):
        states[:, :, t] += decay[:, :, t] * states[:, :, t - 1]
    since_start = torch.exp(delta.cumsum(2)[..., None, :] * A)  # decay from the chunk's start to each step
    for c in range(1, chunks):
        states[:, c] += since_start[:, c] * states[:, c - 1, -1:]
    y = torch.einsum("bctnd,bctn->bctd", states, C)
    return y.reshape(b, chunks * chunk, d)[:, :L]


def mamba_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The same by mamba-ssm's kernel, which wants channels before the sequence."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    first = (t.transpose(1, 2).contiguous() for t in (u, delta))
    y: Tensor = selective_scan_fn(*first, A.T.contiguous(), *(t.transpose(1, 2).contiguous() for t in (B, C)))
    return y.transpose(1, 2)


def four_separate_scans(
    u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor, *, scan: Scan
) -> Tensor:
    """``selective_scan2d`` by four copies of the image; arguments and result as there, float32."""
    b, H, W, d = u.shape
    n, R = A.shape[1], dt_weight.shape[1]

    def ordered(image: Tensor, k: int) -> Tensor:
        """(b, H, W, c) -> (b, L, c), copied into route k's order."""
        image = image.transpose(1, 2) if k % 2 else image
        sequence = image.reshape(b, H * W, -1)
        return sequence.flip(1) if k >= 2 else sequence.contiguous()

    total = D * u
    for k in range(ROUTES):
        parts = (p[..., k * n : (k + 1) * n], p[..., (ROUTES + k) * n : (ROUTES + k + 1) * n])
        B, C = (ordered(part, k) for part in parts)
        dt = ordered(p[..., 2 * ROUTES * n + k * R : 2 * ROUTES * n + (k + 1) * R], k)
        delta = softplus(dt @ dt_weight[k] + delta_bias[k])
        y = scan(ordered(u, k), delta, A[k], B, C)
        y = y.flip(1) if k >= 2 else y
        y = y.reshape(b, W, H, d).transpose(1, 2) if k % 2 else y.reshape(b, H, W, d)
        total = total + y
    return total
