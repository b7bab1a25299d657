"""Forward kernels of the fused scan. Importing this imports triton.

The L = H W visits of a route are cut into chunks. Three passes: the state that each chunk would end in if it
began at zero; the state in which it really begins (a short recurrence over chunks); and the chunk once more
from there, giving y. Where one chunk holds the whole route, only the third pass runs.

Grids have one axis: program = ((image x chunks + chunk) x routes + route) x blocks + block of channels, so
that programs which read the same pixels of p run side by side.

A thread should hold one channel with all its states: then sums over n need no exchange between threads.
Triton lays a tile out by the widest load it sees; without the knowledge that d is a multiple of 16
(``do_not_specialize``), it loads A channel by channel and does just that (a test holds it to that).
"""

from __future__ import annotations

import triton
import triton.language as tl

from vmkla.ops.triton_common import (
    ANY_VALUE,
    LOG2E,
    ROUTES,
    advance,
    load_row,
    load_states,
    pixel_of,
    raw_delta,
    route_weights,
    softplus,
    store_states,
)


@triton.jit(do_not_specialize=(*ANY_VALUE, "d"))
def chunk_ends(
    u_ptr, p_ptr, weight_ptr, bias_ptr, A_ptr, states_ptr, sums_ptr,
    H, W, d, n, R, chunk, chunks, blocks,
    N: tl.constexpr, RANK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """First pass: end state of every chunk from zero, and the sum of its deltas.

    states (b, 4, chunks, n, d), sums (b, 4, chunks, d); both float32.
    """
    program = tl.program_id(0)
    block = program % blocks
    k = (program // blocks) % ROUTES
    part = (program // (blocks * ROUTES)) % chunks
    image = (program // (blocks * ROUTES * chunks)).to(tl.int64)
    L = H * W
    width = ROUTES * (2 * n + R)
    c = block * CHANNELS + tl.arange(0, CHANNELS)
    s = tl.arange(0, N)
    r = tl.arange(0, RANK)
    A, weight, bias = route_weights(weight_ptr, bias_ptr, A_ptr, k, d, n, R, c, s, r)
    u_image = u_ptr + image * L * d
    p_image = p_ptr + image * L * width
    h = tl.zeros((N, CHANNELS), dtype=tl.float32)
    total = tl.zeros((CHANNELS,), dtype=tl.float32)
    begin = part * chunk
    for t in tl.range(begin, tl.minimum(begin + chunk, L)):
        pixel = pixel_of(t, k, H, W)
        p_pixel = p_image + pixel * width
        u = load_row(u_image + pixel * d, c, d)
        B = load_row(p_pixel + k * n, s, n)
        delta = softplus(raw_delta(p_pixel, weight, bias, k, n, R, r))
        h = advance(h, A, delta, delta * u, B)
        total += delta
    where = (image * ROUTES + k) * chunks + part
    store_states(states_ptr + where * n * d, h, d, n, c, s)
    tl.store(sums_ptr + where * d + c, total, mask=c < d)


@triton.jit(do_not_specialize=ANY_VALUE)
def carry_chunks(
    states_ptr, sums_ptr, A_ptr, d, n, first, chunks, routes, blocks,
    N: tl.constexpr, CHANNELS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Second pass, in place: from what each chunk adds to what each chunk begins with.

    states (b, routes, chunks, n, d) of the routes from ``first`` on; sums (b, 4, chunks, d).
    REVERSE carries the adjoint from the last chunk to the first.
    """
    program = tl.program_id(0)
    block = program % blocks
    route = (program // blocks) % routes
    image = (program // (blocks * routes)).to(tl.int64)
    k = first + route
    c = block * CHANNELS + tl.arange(0, CHANNELS)
    s = tl.arange(0, N)
    A = load_states(A_ptr + k * n * d, d, n, c, s) * LOG2E
    h = tl.zeros((N, CHANNELS), dtype=tl.float32)
    for i in tl.range(0, chunks):
        part = i
        if REVERSE:
            part = chunks - 1 - i
        here = states_ptr + ((image * routes + route) * chunks + part) * n * d
        added = load_states(here, d, n, c, s)
        total = load_row(sums_ptr + ((image * ROUTES + k) * chunks + part) * d, c, d)
        store_states(here, h, d, n, c, s)
        h = tl.exp2(A * total[None, :]) * h + added


@triton.jit(do_not_specialize=(*ANY_VALUE, "d"))
def scan_chunks(
    u_ptr, p_ptr, weight_ptr, bias_ptr, A_ptr, D_ptr, states_ptr, y_ptr,
    images, H, W, d, n, R, chunk, chunks, blocks, first,
    N: tl.constexpr, RANK: tl.constexpr, CHANNELS: tl.constexpr,
    ACCUMULATE: tl.constexpr, FROM_ZERO: tl.constexpr,
):  # fmt: skip
    """Third pass, over two routes: y of every chunk from the state it begins with.

    y (2, b, L, d) float32: the row routes' part and the column routes'. Routes 0 and 1 (``first`` 0) store,
    with D u in the first; routes 2 and 3 (``first`` 2), in a launch of their own, add to what is there. So
    two buffers serve four routes, and the order of every sum is fixed.
    """
    program = tl.program_id(0)
    block = program % blocks
    part_of_y = (program // blocks) % 2
    part = (program // (blocks * 2)) % chunks
    image = (program // (blocks * 2 * chunks)).to(tl.int64)
    k = first + part_of_y
    L = H * W
    width = ROUTES * (2 * n + R)
    c = block * CHANNELS + tl.arange(0, CHANNELS)
    s = tl.arange(0, N)
    r = tl.arange(0, RANK)
    A, weight, bias = route_weights(weight_ptr, bias_ptr, A_ptr, k, d, n, R, c, s, r)
    skip = load_row(D_ptr, c, d) * (k == 0).to(tl.float32)
    u_image = u_ptr + image * L * d
    p_image = p_ptr + image * L * width
    y_image = y_ptr + (part_of_y * images + image) * L * d
    if FROM_ZERO:
        h = tl.zeros((N, CHANNELS), dtype=tl.float32)
    else:
        h = load_states(states_ptr + ((image * ROUTES + k) * chunks + part) * n * d, d, n, c, s)
    begin = part * chunk
    for t in tl.range(begin, tl.minimum(begin + chunk, L)):
        pixel = pixel_of(t, k, H, W)
        p_pixel = p_image + pixel * width
        u = load_row(u_image + pixel * d, c, d)
        B = load_row(p_pixel + k * n, s, n)
        C = load_row(p_pixel + (ROUTES + k) * n, s, n)
        delta = softplus(raw_delta(p_pixel, weight, bias, k, n, R, r))
        h = advance(h, A, delta, delta * u, B)
        y = tl.sum(h * C[:, None], axis=0)
        if ACCUMULATE:
            y += tl.load(y_image + pixel * d + c, mask=c < d, other=0.0)
        else:
            y += skip * u
        tl.store(y_image + pixel * d + c, y, mask=c < d)
