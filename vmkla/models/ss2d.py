"""The 2-D selective scan as a module, and the VSS block around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vmkla.models.layers import DepthwiseConv, DropPath, Float32Island, LayerNorm
from vmkla.ops import selective_scan2d
from vmkla.ops.scan import ROUTES

DT_MIN, DT_MAX = 1e-3, 1e-1
"""Range of the time step delta at initialisation."""


class SS2D(Float32Island):
    """2-D selective scan: an input-dependent recurrence along four routes over the image.

    One linear layer gives B, C and the low-rank delta of every pixel for all four routes;
    ``selective_scan2d`` does the rest. ``A_log``, ``D`` and ``delta_bias`` stay float32 when the
    model is cast to half, since the recurrence multiplies by them thousands of times.

    Args:
        d: width of the scan.
        d_state: states n per channel.
        dt_rank: rank R of delta's projection.
        backend: implementation of the op, see ``vmkla.ops``.
    Source: Liu et al., VMamba, 2024, sec. 4; Gu & Dao, Mamba, 2023, sec. 3.6 (initialisation).
    """

    float32_names = ("A_log", "D", "delta_bias")

    def __init__(self, d: int, d_state: int, dt_rank: int, *, backend: str = "auto") -> None:
        super().__init__()
        self.d, self.d_state, self.dt_rank, self.backend = d, d_state, dt_rank, backend
        # Output channels: B of the four routes, C of the four routes, delta of the four routes.
        self.p_proj = nn.Linear(d, ROUTES * (2 * d_state + dt_rank), bias=False)
        self.dt_weight = nn.Parameter(torch.empty(ROUTES, dt_rank, d))
        self.A_log = nn.Parameter(torch.empty(ROUTES, d_state, d))
        self.D = nn.Parameter(torch.empty(d))
        self.delta_bias = nn.Parameter(torch.empty(ROUTES, d))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as VMamba does: A = -1..-n, delta log-uniform in [DT_MIN, DT_MAX], D = 1 per route."""
        with torch.no_grad():
            nn.init.uniform_(self.dt_weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
            states = torch.arange(1, self.d_state + 1, dtype=torch.float32)
            self.A_log.copy_(torch.log(states)[None, :, None].expand_as(self.A_log))
            self.D.fill_(float(ROUTES))
            delta = torch.exp(
                torch.rand(self.delta_bias.shape) * (math.log(DT_MAX) - math.log(DT_MIN)) + math.log(DT_MIN)
            )
            # Inverse of softplus, so that softplus(delta_bias) = delta.
            self.delta_bias.copy_(delta + torch.log(-torch.expm1(-delta)))

    def forward(self, u: Tensor) -> Tensor:
        """(b, H, W, d) -> (b, H, W, d)."""
        return selective_scan2d(
            u,
            self.p_proj(u),
            self.dt_weight,
            -torch.exp(self.A_log),
            self.D,
            self.delta_bias,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"d={self.d}, d_state={self.d_state}, dt_rank={self.dt_rank}, backend={self.backend!r}"


def dt_rank_of(dim: int) -> int:
    """Return the rank of delta's projection for a block of width ``dim``."""
    return math.ceil(dim / 16)


class VSSBlock(nn.Module):
    """Residual block: norm and two linear streams, of which one is scanned and the other is its gate.

    VMamba's single input projection is two layers here, which saves a split.

    Args:
        dim: width C of the block.
        d_state: states n of the scan.
        expand: width of the scan over C.
        drop_path: rate of stochastic depth.
        backend: implementation of the scan.
    Source: paper, fig. 1 (c); Liu et al., VMamba, 2024, fig. 3 (the block of its first version).
    """

    def __init__(
        self,
        dim: int,
        *,
        d_state: int = 16,
        expand: int = 2,
        drop_path: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        d = expand * dim
        self.norm = LayerNorm(dim)
        self.in_proj_x = nn.Linear(dim, d, bias=False)
        self.in_proj_z = nn.Linear(dim, d, bias=False)
        self.conv = DepthwiseConv(d)
        self.scan = SS2D(d, d_state, dt_rank_of(dim), backend=backend)
        self.out_norm = LayerNorm(d)
        self.out_proj = nn.Linear(d, dim, bias=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(b, H, W, C) -> (b, H, W, C)."""
        normed = self.norm(x)
        u = silu(self.conv(self.in_proj_x(normed)))  # (b, H, W, d)
        y = self.out_norm(self.scan(u)) * silu(self.in_proj_z(normed))  # (b, H, W, d)
        out: Tensor = x + self.drop_path(self.out_proj(y))
        return out
