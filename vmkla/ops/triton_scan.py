"""``selective_scan2d`` on a GPU: the fused Triton kernels on torch tensors. Importing this imports triton.

Nothing of the image is copied: the kernels visit u and p in the order of each route. What bounds them from
below, for b images of L pixels, d channels, n states, R ranks (``floors``):

- exponentials: 4 b L d n, at 16 a clock and multiprocessor. One chunk per route costs this once, several cost
  it twice; the gradient costs it three times more (adjoint of each chunk, states, states with the adjoint).
- bytes: u, y and p once each. Every route reads u and p again, mostly from the L2 cache, and y goes through
  two float32 parts.

A gradient needs, beside its results, seven times u in float32 for a moment: du, ddelta and the gradients of B
and C of two routes at a time, and the scratch.

No atomics: every sum has its order, so two runs give the same bits.
Source: Gu & Dao, Mamba, 2023, sec. 3.3 (recomputed states); Blelloch, Prefix sums, 1990 (chunks and carries).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from vmkla.ops import triton_backward, triton_forward
from vmkla.ops.triton_common import on_device

ROUTES = 4
CHANNELS = 32
"""Channels of a program: one a lane of its first warp."""
SHORTEST_CHUNK = 16
FORWARD_PROGRAMS, BACKWARD_PROGRAMS = 16, 8
"""Programs wanted per multiprocessor: about what fits into its registers at once."""
INTERPRETED = not isinstance(triton_forward.scan_chunks, triton.runtime.JITFunction)
"""Triton's interpreter runs the kernels, on the CPU: TRITON_INTERPRET=1 was set before they were imported."""


@dataclass(frozen=True)
class Extents:
    """Sizes of one scan.

    Attributes:
        b, H, W, d, n, R: as in ``selective_scan2d``.
        chunk: steps of a chunk.
    """

    b: int
    H: int
    W: int
    d: int
    n: int
    R: int
    chunk: int

    @property
    def chunks(self) -> int:
        """Chunks of a route."""
        return -(-self.H * self.W // self.chunk)

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.d // CHANNELS)

    @property
    def sizes(self) -> tuple[int, ...]:
        """H, W, d, n, R, chunk, chunks, blocks: the kernels' order."""
        return self.H, self.W, self.d, self.n, self.R, self.chunk, self.chunks, self.blocks

    @property
    def tile(self) -> dict[str, int]:
        """Compile-time sizes: powers of two."""
        return {"N": triton.next_power_of_2(self.n), "CHANNELS": CHANNELS}

    @property
    def options(self) -> dict[str, int]:
        """All compile-time sizes and the number of warps: 16 states a thread."""
        tile = self.tile
        warps = min(8, max(1, tile["N"] // 16))
        return {**tile, "RANK": triton.next_power_of_2(self.R), "num_warps": warps}


def extents(u: Tensor, A: Tensor, dt_weight: Tensor, chunk: int) -> Extents:
    """Sizes of a scan in chunks of ``chunk`` steps."""
    b, H, W, d = u.shape
    return Extents(b, H, W, d, A.shape[1], dt_weight.shape[1], chunk)


def fitting_chunk(u: Tensor) -> int:
    """Steps of a chunk: so many chunks that the programs fill the GPU, one if they do anyway."""
    b, H, W, d = u.shape
    programs = max(1, ROUTES * b * -(-d // CHANNELS))
    chunks = -(-FORWARD_PROGRAMS * _multiprocessors(u) // programs)
    return max(SHORTEST_CHUNK, -(-H * W // chunks))


def forward(
    u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state that each chunk begins with, and the sum of its deltas.

    Args:
        u, p, dt_weight, A, D, delta_bias: see ``selective_scan2d``; contiguous.
        chunk: steps of a chunk.
    Returns:
        y (b, H, W, d), dtype of u; states (b, 4, chunks, n, d) and sums (b, 4, chunks, d), float32.
    """
    e = extents(u, A, dt_weight, chunk)
    states = u.new_zeros((e.b, ROUTES, e.chunks, e.n, e.d), dtype=torch.float32)
    sums = u.new_zeros((e.b, ROUTES, e.chunks, e.d), dtype=torch.float32)
    if u.numel() == 0:
        return torch.empty_like(u), states, sums
    parts = u.new_empty((2, *u.shape), dtype=torch.float32)
    weights = (dt_weight, delta_bias, A)
    programs = e.b * e.chunks * e.blocks
    with on_device(u):
        if e.chunks > 1:
            triton_forward.chunk_ends[(programs * ROUTES,)](
                u, p, *weights, states, sums, *e.sizes, **e.options
            )
            _carry(e, states, sums, A, first=0, routes=ROUTES, reverse=False)
        for first in (0, 2):
            triton_forward.scan_chunks[(programs * 2,)](
                u, p, *weights, D, states, parts, e.b, *e.sizes, first,
                ACCUMULATE=first > 0, FROM_ZERO=e.chunks == 1, **e.options,
            )  # fmt: skip
    return torch.add(parts[0], parts[1]).to(u.dtype), states, sums


def backward(
    grad_y: Tensor,
    u: Tensor,
    p: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    states: Tensor,
    sums: Tensor,
    chunk: int,
) -> list[Tensor]:
    """Gradients of u, p, dt_weight, A, D and delta_bias, in this order and of their types.

    ``states`` and ``sums`` are what ``forward`` gave for the same even ``chunk``; all tensors contiguous.
    """
    inputs = (u, p, dt_weight, A, D, delta_bias)
    if u.numel() == 0:
        return [torch.zeros_like(t) for t in inputs]
    e = extents(u, A, dt_weight, chunk)
    n, R = e.n, e.R
    du = u.new_empty((2, *u.shape), dtype=torch.float32)
    grad_p = torch.empty_like(p)
    per_route = []
    for first in (0, 2):
        ddelta, dbc, dA = _backward_of_two_routes(e, first, grad_y, inputs, states, sums, du)
        grad_p[..., first * n : (first + 2) * n] = dbc[..., : 2 * n]
        grad_p[..., (ROUTES + first) * n : (ROUTES + first + 2) * n] = dbc[..., 2 * n :]
        for route in (0, 1):
            k = first + route
            ranks = slice(2 * ROUTES * n + k * R, 2 * ROUTES * n + (k + 1) * R)
            # The projection's own gradients are matrix products, and run as such.
            rows = ddelta[route].reshape(-1, e.d)  # (b L, d)
            grad_p[..., ranks] = (rows @ dt_weight[k].float().T).reshape(e.b, e.H, e.W, R)
            grad_weight = p[..., ranks].reshape(-1, R).float().T @ rows  # (R, d)
            per_route.append((grad_weight, dA[:, route].sum(0), rows.sum(0)))
    grad_weight, grad_A, grad_bias = (torch.stack(t) for t in zip(*per_route, strict=True))
    grad_D = (grad_y.float() * u.float()).sum((0, 1, 2))
    grad_u = torch.add(du[0], du[1]).to(u.dtype)
    return [grad_u, grad_p, grad_weight.to(dt_weight.dtype), grad_A, grad_D, grad_bias]


def _backward_of_two_routes(
    e: Extents,
    first: int,
    grad_y: Tensor,
    inputs: tuple[Tensor, ...],
    states: Tensor,
    sums: Tensor,
    du: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of routes first and first + 1; those of u go into du.

    Returns:
        ddelta (2, b, H, W, d), dB and dC (b, H, W, 4 n), dA (b chunks, 2, n, d).
    """
    u, p, dt_weight, A, D, delta_bias = inputs
    wide: dict[str, Any] = {"dtype": torch.float32, "device": u.device}
    ddelta = torch.empty((2, *u.shape), **wide)
    dbc = torch.empty((e.blocks, *u.shape[:3], 4 * e.n), **wide)
    dA = torch.empty((e.b * e.chunks, 2, e.n, e.d), **wide)
    adjoints = torch.zeros((e.b, 2, e.chunks, e.n, e.d), **wide)
    weights = (dt_weight, delta_bias, A)
    items = e.b * e.chunks * 2 * e.blocks
    programs = min(items, BACKWARD_PROGRAMS * _multiprocessors(u))
    steps = triton.cdiv(e.chunk, triton_backward.GROUP.value)
    scratch = torch.empty((programs, steps, e.tile["N"], CHANNELS), **wide)
    with on_device(u):
        if e.chunks > 1:
            triton_backward.adjoint_ends[(items,)](
                grad_y, p, *weights, adjoints, *e.sizes, first, **e.options
            )
            _carry(e, adjoints, sums, A, first=first, routes=2, reverse=True)
        triton_backward.scan_chunks_backward[(programs,)](
            grad_y, u, p, *weights, D, states, adjoints, scratch, du, ddelta, dbc, dA,
            e.b, items, programs, *e.sizes, first, ACCUMULATE=first > 0, **e.options,
        )  # fmt: skip
    return ddelta, dbc.sum(0), dA


def _carry(
    e: Extents, states: Tensor, sums: Tensor, A: Tensor, *, first: int, routes: int, reverse: bool
) -> None:
    """Turn what each chunk adds into what it begins with, in place."""
    triton_forward.carry_chunks[(e.b * routes * e.blocks,)](
        states, sums, A, e.d, e.n, first, e.chunks, routes, e.blocks,
        REVERSE=reverse, num_warps=e.options["num_warps"], **e.tile,
    )  # fmt: skip


def floors(b: int, L: int, d: int, n: int, R: int, itemsize: int) -> tuple[int, int]:
    """Exponentials and bytes that a forward pass cannot do without.

    Args:
        b, L, d, n, R: images, pixels, channels, states, ranks.
        itemsize: bytes of an element of u, p and y.
    """
    return ROUTES * b * L * d * n, b * L * (2 * d + ROUTES * (2 * n + R)) * itemsize


def _multiprocessors(u: Tensor) -> int:
    """Of the GPU that holds u; 1 under Triton's interpreter."""
    if u.device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(u.device).multi_processor_count)
