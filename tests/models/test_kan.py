"""KAN layers against the textbook recursion, one value at a time."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tolerances import tol
from vmkla.models.kan import KANLinear


def basis(i: int, k: int, x: float, knots: list[float]) -> float:
    """Basis i of order k at x: the Cox-de Boor recursion as it is written."""
    if k == 0:
        return 1.0 if knots[i] <= x < knots[i + 1] else 0.0
    left = (x - knots[i]) / (knots[i + k] - knots[i])
    right = (knots[i + k + 1] - x) / (knots[i + k + 1] - knots[i + 1])
    return left * basis(i, k - 1, x, knots) + right * basis(i + 1, k - 1, x, knots)


def naive_layer(layer: KANLinear, x: torch.Tensor, grid_size: int, order: int) -> torch.Tensor:
    step = 2.0 / grid_size
    knots = [-1.0 + (i - order) * step for i in range(grid_size + 2 * order + 1)]
    base, spline = layer.base.weight, layer.spline.weight
    count = grid_size + order
    out = torch.zeros(x.shape[0], base.shape[0], dtype=x.dtype)
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            value = x[row, i].item()
            out[row] += base[:, i] * (value / (1.0 + math.exp(-value)))
            for j in range(count):
                out[row] += spline[:, i * count + j] * basis(j, order, value, knots)
    return out


@pytest.mark.parametrize(("grid_size", "order"), [(5, 3), (3, 2), (8, 1)])
def test_layer_is_the_sum_of_silu_and_splines(grid_size: int, order: int) -> None:
    torch.manual_seed(3)
    layer = KANLinear(4, 3, grid_size=grid_size, spline_order=order, backend="reference").double()
    torch.nn.init.normal_(layer.spline.weight)  # splines as loud as the base
    x = 1.5 * torch.randn(6, 4, dtype=torch.float64)
    expected = naive_layer(layer, x, grid_size, order)
    torch.testing.assert_close(layer(x), expected, **tol(("kan", "definition"), torch.float64))


def test_outside_the_support_only_silu_is_left() -> None:
    torch.manual_seed(4)
    layer = KANLinear(3, 2, backend="reference")
    torch.nn.init.normal_(layer.spline.weight)
    x = torch.tensor([[-2.3, 50.0, 1e4], [2.21, -7.0, 3.0]])
    expected = layer.base(torch.nn.functional.silu(x))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


def test_leading_axes_do_not_matter() -> None:
    torch.manual_seed(5)
    layer = KANLinear(4, 5)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(layer(x)[1, 2], layer(x[1, 2:3])[0], **tol(("kan", "layout"), torch.float32))


def test_a_spline_can_be_fitted() -> None:
    """What a linear layer or a dead basis cannot: y = sin(3 x) on [-1, 1]."""
    torch.manual_seed(6)
    layer = KANLinear(1, 1)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=100)
    x = torch.linspace(-1, 1, 200)[:, None]

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        loss = (layer(x) - torch.sin(3 * x)).square().mean()
        loss.backward()
        return loss

    optimiser.step(step)
    # The best straight line plus SiLU leaves 0.06.
    assert (layer(x) - torch.sin(3 * x)).square().mean().item() < 1e-3
