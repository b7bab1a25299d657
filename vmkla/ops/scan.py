"""``selective_scan2d``: the sum of four selective scans over an image, without copying the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vmkla.errors import ShapeError
from vmkla.ops import backends, triton_op
from vmkla.ops.mamba import selective_scan2d_mamba

ROUTES = 4
"""Number of routes: row-major, column-major, and both reversed, in VMamba's order for its checkpoints."""


def selective_scan2d(
    u: Tensor,
    p: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Sum of four selective scans over an image, one per route.

    For each route k, over the pixels in its order::

        delta = softplus(dt_k @ dt_weight[k] + delta_bias[k])
        h     = exp(delta A[k]) h + delta u B_k
        y    += C_k h

    and finally ``y += D u``. State and accumulation are float32 (float64 for float64 input).

    Args:
        u: (b, H, W, d) input, float32, float16 or float64.
        p: (b, H, W, 4 (2n + R)), dtype of u; per pixel the channels [B 4 x n | C 4 x n | dt 4 x R].
        dt_weight: (4, R, d), dtype of u.
        A: (4, n, d) negative; float32 (float64 with float64 input).
        D: (d,) summed over routes; dtype of A.
        delta_bias: (4, d); dtype of A.
        backend: ``auto``, ``native``, ``reference``, ``triton`` or ``mamba_ssm``.
    Returns:
        (b, H, W, d), dtype of u.
    Raises:
        ShapeError: the shapes do not fit together.
        UsageError: the backend does not support these types or devices.
        MissingDependencyError: the requested backend is missing.
    Source: Liu et al., VMamba, 2024, sec. 4; Gu & Dao, Mamba, 2023, alg. 2.
    """
    check_shapes(u, p, dt_weight, A, D, delta_bias)
    u, p, dt_weight = backends.float32_under_autocast(u, p, dt_weight)
    inputs = (u, p, dt_weight, A, D, delta_bias)
    chosen = backends.choose(backend, *inputs)
    result: Tensor
    if chosen == "triton" and backends.gradient_wanted(*inputs):
        result, _, _ = torch.ops.vmkla.selective_scan2d_triton(*inputs)
    else:
        result = torch.ops.vmkla.selective_scan2d(*inputs, chosen)
    return result


def check_shapes(u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor) -> None:
    """Reject shapes that do not fit each other; see ``selective_scan2d``."""
    if u.ndim != 4:
        raise ShapeError(f"u must be (b, H, W, d), got {tuple(u.shape)}")
    if A.ndim != 3 or dt_weight.ndim != 3:
        raise ShapeError(
            f"A must be (4, n, d) and dt_weight (4, R, d), got {tuple(A.shape)} and {tuple(dt_weight.shape)}"
        )
    b, H, W, d = u.shape
    n, R = A.shape[1], dt_weight.shape[1]
    expected = {
        "p": (p, (b, H, W, ROUTES * (2 * n + R))),
        "dt_weight": (dt_weight, (ROUTES, R, d)),
        "A": (A, (ROUTES, n, d)),
        "D": (D, (d,)),
        "delta_bias": (delta_bias, (ROUTES, d)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ShapeError(
                f"{name} must be {shape} for u {tuple(u.shape)}, n = {n} and R = {R}; "
                f"got {tuple(tensor.shape)}"
            )


def selective_scan2d_reference(
    u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """Compute ``selective_scan2d`` in plain torch, as it is defined: one step per pixel, four routes at once.

    Arguments, result and source as ``selective_scan2d``.
    """
    b, H, W, d = u.shape
    n, R = A.shape[1], dt_weight.shape[1]
    L = H * W
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    B, C, dt = torch.split(p.to(wide), [ROUTES * n, ROUTES * n, ROUTES * R], dim=-1)
    orders = route_orders(H, W, u.device)  # (4, L)

    def along_routes(t: Tensor, width: int) -> Tensor:
        """(b, H, W, 4 x width) -> (b, 4, L, width), each route's pixels in its own order."""
        t = t.reshape(b, L, ROUTES, width)
        return torch.stack([t[:, orders[k], k] for k in range(ROUTES)], dim=1)

    B, C = along_routes(B, n), along_routes(C, n)
    u_seq = torch.stack([u.to(wide).reshape(b, L, d)[:, orders[k]] for k in range(ROUTES)], dim=1)
    delta = softplus(
        along_routes(dt, R) @ dt_weight.to(wide) + delta_bias.to(wide)[:, None, :]
    )  # (b, 4, L, d)
    A = A.to(wide)
    h = u.new_zeros((b, ROUTES, n, d), dtype=wide)
    steps = []
    for t in range(L):
        dt_t = delta[:, :, t, None, :]  # (b, 4, 1, d)
        h = torch.exp(dt_t * A) * h + dt_t * u_seq[:, :, t, None, :] * B[:, :, t, :, None]
        steps.append((C[:, :, t, :, None] * h).sum(dim=2))  # (b, 4, d)
    y = D.to(wide) * u.to(wide).reshape(b, L, d)
    if steps:
        y_seq = torch.stack(steps, dim=2)  # (b, 4, L, d)
        inverse = torch.argsort(orders, dim=1)
        for k in range(ROUTES):
            y = y + y_seq[:, k, inverse[k]]
    return y.reshape(b, H, W, d).to(u.dtype)


def route_orders(H: int, W: int, device: torch.device | None = None) -> Tensor:
    """Return the (row-major) pixel numbers in the order of each route, (4, H W) int64."""
    rows = torch.arange(H * W, device=device)
    columns = rows.reshape(H, W).T.reshape(-1)
    return torch.stack([rows, columns, rows.flip(0), columns.flip(0)])


def _mamba(u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """Compute ``selective_scan2d`` with mamba-ssm's CUDA kernel."""
    orders = route_orders(u.shape[1], u.shape[2], u.device)
    scan = backends.mamba_interface().selective_scan_fn
    return selective_scan2d_mamba(u, p, dt_weight, A, D, delta_bias, orders=orders, scan=scan)


@torch.library.custom_op("vmkla::selective_scan2d", mutates_args=())
def _op(
    u: Tensor,
    p: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    backend: str,
) -> Tensor:
    if backend == "native":
        return backends.native().scan2d_forward(u, p, dt_weight, A, D, delta_bias)
    if backend == "triton":
        return triton_op.infer(u, p, dt_weight, A, D, delta_bias)
    if backend == "mamba_ssm":
        return _mamba(u, p, dt_weight, A, D, delta_bias)
    return selective_scan2d_reference(u, p, dt_weight, A, D, delta_bias)


@_op.register_fake
def _(u: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@torch.library.custom_op("vmkla::selective_scan2d_backward", mutates_args=())
def _backward_op(
    grad_y: Tensor,
    u: Tensor,
    p: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> list[Tensor]:
    return backends.native().scan2d_backward(grad_y, u, p, dt_weight, A, D, delta_bias)


@_backward_op.register_fake
def _(grad_y: Tensor, *tensors: Tensor) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    if ctx.backend == "native":
        return (*torch.ops.vmkla.selective_scan2d_backward(grad_y, *tensors), None)
    if ctx.backend == "triton":
        # Only a direct call of the op gets here: ``selective_scan2d`` calls the op that keeps its states.
        _, states, sums = torch.ops.vmkla.selective_scan2d_triton(*tensors)
        gradients = torch.ops.vmkla.selective_scan2d_triton_backward(grad_y, *tensors, states, sums)
        return (*gradients, None)
    # Autograd computes the gradient over the definition or mamba-ssm's function again: it costs a second
    # forward pass, but no copy in route order is kept between the passes.
    # With create_graph the gradients must depend on the tensors themselves, or the second derivative is lost.
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = [t if again and t.requires_grad else t.detach().requires_grad_() for t in tensors]
        y = (_mamba if ctx.backend == "mamba_ssm" else selective_scan2d_reference)(*leaves)
        # Without pixels, y does not depend on most inputs: their gradient is 0.
        gradients = torch.autograd.grad(
            y, leaves, grad_y, allow_unused=True, materialize_grads=True, create_graph=again
        )
        return (*gradients, None)


_op.register_autograd(_backward, setup_context=_setup_context)
