"""Backward kernels of the fused scan. Importing this imports triton.

With g the gradient of h_t from all later steps, the adjoint of the recurrence is, from the last step back::

    g += C dy;  dC = <dy, h>;  dB = <delta u, g>;  du = delta sum_n B g
    ddelta = sum_n A g a h' + u sum_n B g;  dA += delta g a h';  g = a g

with a = exp(delta A) and h' the state before the step: it needs the states in reverse order. A program gets
its chunk's start state from the forward pass, goes over the chunk once and leaves the state before every
second step in a scratch of its own, then takes the pairs of steps from the last to the first: two steps
forward in registers, two steps back. (Four at a time spill on sm_90.) The scratch belongs to the program
and not to the chunk (each program works off several), so that it stays small: about the size of an L2
cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vmkla.ops.triton_common import (
    ANY_VALUE,
    LOG2E,
    ROUTES,
    load_row,
    load_states,
    pixel_of,
    raw_delta,
    route_weights,
    sigmoid,
    softplus,
    store_states,
)

GROUP: tl.constexpr = tl.constexpr(2)
"""Steps between two states in the scratch; ``scan_chunks_backward`` has them written out."""


@triton.jit(do_not_specialize=(*ANY_VALUE, "d"))
def adjoint_ends(
    dy_ptr, p_ptr, weight_ptr, bias_ptr, A_ptr, adjoints_ptr,
    H, W, d, n, R, chunk, chunks, blocks, first,
    N: tl.constexpr, RANK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The adjoint that each chunk hands to the one before it if none came from the one after it.

    adjoints (b, 2, chunks, n, d) float32, of routes ``first`` and ``first`` + 1.
    """
    program = tl.program_id(0)
    block = program % blocks
    route = (program // blocks) % 2
    part = (program // (blocks * 2)) % chunks
    image = (program // (blocks * 2 * chunks)).to(tl.int64)
    k = first + route
    L = H * W
    width = ROUTES * (2 * n + R)
    c = block * CHANNELS + tl.arange(0, CHANNELS)
    s = tl.arange(0, N)
    r = tl.arange(0, RANK)
    A, weight, bias = route_weights(weight_ptr, bias_ptr, A_ptr, k, d, n, R, c, s, r)
    dy_image = dy_ptr + image * L * d
    p_image = p_ptr + image * L * width
    g = tl.zeros((N, CHANNELS), dtype=tl.float32)
    begin = part * chunk
    last = tl.minimum(begin + chunk, L) - 1
    for i in tl.range(0, last + 1 - begin):
        pixel = pixel_of(last - i, k, H, W)
        p_pixel = p_image + pixel * width
        dy = load_row(dy_image + pixel * d, c, d)
        C = load_row(p_pixel + (ROUTES + k) * n, s, n)
        delta = softplus(raw_delta(p_pixel, weight, bias, k, n, R, r))
        g = tl.exp2(A * delta[None, :]) * (g + C[:, None] * dy[None, :])
    store_states(adjoints_ptr + ((image * 2 + route) * chunks + part) * n * d, g, d, n, c, s)


@triton.jit
def visit(t, stop, u_image, p_image, weight, bias, A, k, H, W, d, n, R, c, s, r):
    """Step t of a route: pixel, raw delta, delta, delta u, B, a. From ``stop`` on it changes nothing."""
    pixel = pixel_of(tl.minimum(t, stop - 1), k, H, W)
    p_pixel = p_image + pixel * (ROUTES * (2 * n + R))
    u = load_row(u_image + pixel * d, c, d)
    B = load_row(p_pixel + k * n, s, n)
    raw = raw_delta(p_pixel, weight, bias, k, n, R, r)
    delta = tl.where(t < stop, softplus(raw), 0.0)
    return pixel, raw, delta, delta * u, B, tl.exp2(A * delta[None, :])


@triton.jit
def step_back(
    g, dA, h, before, t, stop, pixel, raw, delta, delta_u, B, a, A, skip,
    u_image, dy_image, p_image, du_image, ddelta_image, dbc_image, route, k, d, n, R, c, s,
    ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """Store the gradients of one step; g and dA of the steps before it."""
    here = c < tl.where(t < stop, d, 0)
    states = s < tl.where(t < stop, n, 0)
    u = tl.load(u_image + pixel * d + c, mask=here, other=0.0).to(tl.float32)
    dy = tl.load(dy_image + pixel * d + c, mask=here, other=0.0).to(tl.float32)
    C = load_row(p_image + pixel * (ROUTES * (2 * n + R)) + (ROUTES + k) * n, s, n)
    g += C[:, None] * dy[None, :]
    # Sums over this block's channels: B of the two routes, then C of the two.
    dbc = dbc_image + pixel * (4 * n) + route * n + s
    tl.store(dbc, tl.sum(g * delta_u[None, :], axis=1), mask=states)
    tl.store(dbc + 2 * n, tl.sum(h * dy[None, :], axis=1), mask=states)
    Bg = tl.sum(g * B[:, None], axis=0)
    g = g * a
    gh = g * before
    dA += gh * delta[None, :]
    ddelta = tl.sum(gh * A, axis=0) * (1.0 / LOG2E) + u * Bg
    tl.store(ddelta_image + pixel * d + c, ddelta * sigmoid(raw), mask=here)
    du = delta * Bg
    if ACCUMULATE:
        du += tl.load(du_image + pixel * d + c, mask=here, other=0.0)
    else:
        du += skip * dy
    tl.store(du_image + pixel * d + c, du, mask=here)
    return g, dA


@triton.jit(do_not_specialize=ANY_VALUE)
def scan_chunks_backward(
    dy_ptr, u_ptr, p_ptr, weight_ptr, bias_ptr, A_ptr, D_ptr, states_ptr, adjoints_ptr, scratch_ptr,
    du_ptr, ddelta_ptr, dbc_ptr, dA_ptr,
    images, items, programs, H, W, d, n, R, chunk, chunks, blocks, first,
    N: tl.constexpr, RANK: tl.constexpr, CHANNELS: tl.constexpr, ACCUMULATE: tl.constexpr,
):  # fmt: skip
    """Gradients of routes ``first`` and ``first`` + 1, chunk by chunk.

    du (2, b, L, d): row and column part, see ``scan_chunks``. ddelta (2, b, L, d): of raw delta, by route.
    dbc (blocks, b, L, 4 n): B of the two routes, C of the two, summed over a block's channels.
    dA (b, chunks, 2, n, d): per chunk. All float32.
    """
    program = tl.program_id(0)
    L = H * W
    width = ROUTES * (2 * n + R)
    s = tl.arange(0, N)
    r = tl.arange(0, RANK)
    groups = chunk // GROUP
    tile = s[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    scratch = scratch_ptr + program.to(tl.int64) * groups * (N * CHANNELS) + tile
    for item in tl.range(program, items, programs):
        block = item % blocks
        route = (item // blocks) % 2
        part = (item // (blocks * 2)) % chunks
        image = (item // (blocks * 2 * chunks)).to(tl.int64)
        k = first + route
        c = block * CHANNELS + tl.arange(0, CHANNELS)
        A, weight, bias = route_weights(weight_ptr, bias_ptr, A_ptr, k, d, n, R, c, s, r)
        skip = load_row(D_ptr, c, d) * (k == 0).to(tl.float32)
        u_image = u_ptr + image * L * d
        p_image = p_ptr + image * L * width
        dy_image = dy_ptr + image * L * d
        du_image = du_ptr + (route * images + image) * L * d
        ddelta_image = ddelta_ptr + (route * images + image) * L * d
        dbc_image = dbc_ptr + (block * images + image) * L * (4 * n)
        begin = part * chunk
        stop = tl.minimum(begin + chunk, L)
        used = (stop - begin + GROUP - 1) // GROUP

        tl.debug_barrier()  # the scratch still holds the item before
        h = load_states(states_ptr + ((image * ROUTES + k) * chunks + part) * n * d, d, n, c, s)
        for group in tl.range(0, used - 1):
            tl.store(scratch + group * (N * CHANNELS), h)
            for i in tl.static_range(2):
                t = begin + group * GROUP + i
                pixel, raw, delta, delta_u, B, a = visit(
                    t, stop, u_image, p_image, weight, bias, A, k, H, W, d, n, R, c, s, r
                )
                h = a * h + B[:, None] * delta_u[None, :]
        tl.store(scratch + (used - 1) * (N * CHANNELS), h)
        tl.debug_barrier()

        g = load_states(adjoints_ptr + ((image * 2 + route) * chunks + part) * n * d, d, n, c, s)
        dA = tl.zeros((N, CHANNELS), dtype=tl.float32)
        for i in tl.range(0, used):
            group = used - 1 - i
            t = begin + group * GROUP
            h0 = tl.load(scratch + group * (N * CHANNELS))
            pixel1, raw1, delta1, du1, B1, a1 = visit(
                t, stop, u_image, p_image, weight, bias, A, k, H, W, d, n, R, c, s, r
            )
            h1 = a1 * h0 + B1[:, None] * du1[None, :]
            pixel2, raw2, delta2, du2, B2, a2 = visit(
                t + 1, stop, u_image, p_image, weight, bias, A, k, H, W, d, n, R, c, s, r
            )
            h2 = a2 * h1 + B2[:, None] * du2[None, :]
            g, dA = step_back(
                g, dA, h2, h1, t + 1, stop, pixel2, raw2, delta2, du2, B2, a2, A, skip,
                u_image, dy_image, p_image, du_image, ddelta_image, dbc_image, route, k, d, n, R, c, s,
                ACCUMULATE,
            )  # fmt: skip
            g, dA = step_back(
                g, dA, h1, h0, t, stop, pixel1, raw1, delta1, du1, B1, a1, A, skip,
                u_image, dy_image, p_image, du_image, ddelta_image, dbc_image, route, k, d, n, R, c, s,
                ACCUMULATE,
            )  # fmt: skip
        store_states(dA_ptr + ((image * chunks + part) * 2 + route) * n * d, dA, d, n, c, s)
