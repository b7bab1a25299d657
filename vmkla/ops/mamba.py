"""``selective_scan2d`` by the package mamba-ssm, whose CUDA kernel scans sequences.

The four routes become four groups of channels of one sequence: channel k d + c of its u, delta, A and y is
channel c of route k, and B and C have one row per group. Unlike vmkla's kernels it needs copies of
u, p and delta in the order of each route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ROUTES = 4


def sequence_arguments(
    u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, delta_bias: Tensor, orders: Tensor
) -> dict[str, Any]:
    """Return the arguments of ``selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus)``.

    Args:
        u, p, dt_weight, A, delta_bias: see ``selective_scan2d``; the caller adds D u.
        orders: (4, L) pixel numbers, see ``route_orders``.
    Returns:
        u and delta (b, 4 d, L), A (4 d, n), B and C (b, 4, n, L), D None, delta_bias (4 d,), all float32.
    Source: state-spaces/mamba 2.3, ops/selective_scan_interface.py, docstring of selective_scan_ref.
    """
    b, H, W, d = u.shape
    n, R, L = A.shape[1], dt_weight.shape[1], H * W
    images = torch.arange(ROUTES, device=u.device)[:, None]  # (4, 1): route k beside its order
    B, C, dt = torch.split(p.float().reshape(b, L, -1), [ROUTES * n, ROUTES * n, ROUTES * R], dim=-1)

    def along_routes(t: Tensor, width: int) -> Tensor:
        """(b, L, 4 x width) -> (b, 4, width, L)."""
        return t.reshape(b, L, ROUTES, width)[:, orders, images].transpose(2, 3)

    delta = dt_weight.float().transpose(1, 2) @ along_routes(dt, R)  # (b, 4, d, L)
    return {
        "u": u.float().reshape(b, L, d)[:, orders].transpose(2, 3).reshape(b, ROUTES * d, L).contiguous(),
        "delta": delta.reshape(b, ROUTES * d, L),
        "A": A.transpose(1, 2).reshape(ROUTES * d, n),
        "B": along_routes(B, n).contiguous(),
        "C": along_routes(C, n).contiguous(),
        "D": None,
        "delta_bias": delta_bias.reshape(ROUTES * d),
        "delta_softplus": True,
    }


def selective_scan2d_mamba(
    u: Tensor,
    p: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    *,
    orders: Tensor,
    scan: Callable[..., Tensor],
) -> Tensor:
    """Sum four selective scans, each computed by ``scan`` (mamba-ssm's ``selective_scan_fn``).

    Other arguments and result as ``selective_scan2d``; orders as in ``sequence_arguments``.
    """
    b, H, W, d = u.shape
    if u.numel() == 0:
        return torch.zeros_like(u) + 0 * D.sum().to(u.dtype)
    y_seq = scan(**sequence_arguments(u, p, dt_weight, A, delta_bias, orders))  # (b, 4 d, L)
    y_seq = y_seq.reshape(b, ROUTES, d, H * W).transpose(2, 3)  # (b, 4, L, d)
    y = D * u.float().reshape(b, H * W, d)
    for k, inverse in enumerate(torch.argsort(orders, dim=1)):
        y = y + y_seq[:, k, inverse]
    return y.reshape(b, H, W, d).to(u.dtype)
