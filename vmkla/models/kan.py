"""KAN layers: sums of learned one-dimensional functions, computed as two matrix products."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import silu

from vmkla.models.layers import Float32Island
from vmkla.ops import UniformGrid, bspline_basis

SPLINE_NOISE = 0.1
"""Width of the uniform noise of initial spline weights, times the number of bases G + k."""


class KANLinear(Float32Island):
    """One KAN layer: ``base(silu(x)) + spline(bases(x))``.

    The knots are uniform: G cells over [-1, 1] and k more on both sides. Outside that support
    ([-2.2, 2.2] for G = 5, k = 3) the bases are 0, and only the SiLU remains. There are two products rather
    than one over concatenated features, so that each can have its own int8 scale.

    Args:
        inputs, outputs: features in and out.
        grid_size, spline_order: G and k of the splines.
        backend: implementation of ``bspline_basis``.
    Source: paper, eq. of the KAN layer; Liu et al., KAN, 2024, eq. 2.10.
    """

    float32_names = ("grid",)
    grid: Tensor

    def __init__(
        self, inputs: int, outputs: int, *, grid_size: int = 5, spline_order: int = 3, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.spline_order, self.backend = spline_order, backend
        self.uniform = UniformGrid.over(-1.0, 1.0, grid_size, spline_order)
        # Rebuilt from the configuration, so it is not part of a checkpoint.
        self.register_buffer("grid", self.uniform.knots(grid_size, spline_order), persistent=False)
        count = grid_size + spline_order
        self.base = nn.Linear(inputs, outputs, bias=False)
        self.spline = nn.Linear(inputs * count, outputs, bias=False)
        noise = SPLINE_NOISE / count
        nn.init.uniform_(self.spline.weight, -noise / 2, noise / 2)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        bases = bspline_basis(x, self.grid, self.spline_order, uniform=self.uniform, backend=self.backend)
        out: Tensor = self.base(silu(x)) + self.spline(bases.flatten(-2))
        return out
