"""``bspline_basis``: the reference against closed forms, the native kernels against the reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from torch import Tensor

from tests.ops import instruction_sets
from tests.tolerances import tol
from vmkla.errors import ShapeError, UsageError
from vmkla.ops import UniformGrid, bspline_basis
from vmkla.ops.bspline import bspline_basis_reference


@pytest.fixture(params=instruction_sets.available())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this machine can run."""
    with instruction_sets.using(str(request.param)) as there:
        assert there
        yield str(request.param)


def uneven_grid(rows: int, knots: int, seed: int) -> Tensor:
    """(rows, knots) rising knots, no two closer than 0.05."""
    g = torch.Generator().manual_seed(seed)
    return -2 + torch.cumsum(0.05 + 0.6 * torch.rand(rows, knots, generator=g, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_reference_is_scipys_basis(order: int) -> None:
    knots = uneven_grid(1, 6 + 2 * order, seed=order)[0]
    x = torch.linspace(float(knots[0]) - 1, float(knots[-1]) + 1, 203, dtype=torch.float64)
    count = len(knots) - order - 1
    columns = []
    for i in range(count):
        element = BSpline.basis_element(knots[i : i + order + 2].numpy(), extrapolate=False)
        columns.append(np.nan_to_num(element(x.numpy())))
    expected = torch.from_numpy(np.stack(columns, axis=-1))
    torch.testing.assert_close(
        bspline_basis_reference(x, knots, order), expected, **tol(("reference", "recurrence"), torch.float64)
    )


def test_bases_sum_to_one_inside_and_vanish_outside() -> None:
    grid = UniformGrid.over(-1, 1, 5, 3)
    knots = grid.knots(5, 3)
    inside = bspline_basis(torch.linspace(-1, 1, 101), knots, 3, uniform=grid)
    torch.testing.assert_close(
        inside.sum(-1), torch.ones(101), **tol(("native basis", "reference basis"), torch.float32)
    )
    outside = torch.tensor([-1e30, -2.3, 2.3, 1e30, float("inf"), -float("inf")])
    assert not bspline_basis(outside, knots, 3, uniform=grid).any()
    assert torch.isnan(bspline_basis(torch.tensor([float("nan")]), knots, 3, uniform=grid)).all()


def test_gradcheck_of_the_reference() -> None:
    x = (3 * torch.rand(4, 6, dtype=torch.float64) - 1.5).requires_grad_()
    for grid in (UniformGrid.over(-1, 1, 5, 3).knots(5, 3).double(), uneven_grid(6, 12, 0)):
        assert torch.autograd.gradcheck(lambda v, t=grid: bspline_basis(v, t, 3, backend="reference"), (x,))
        assert torch.autograd.gradgradcheck(
            lambda v, t=grid: bspline_basis(v, t, 3, backend="reference"), (x,)
        )


def test_the_native_kernels_refuse_a_second_derivative() -> None:
    """An error, and not a gradient that lacks a part."""
    grid = UniformGrid.over(-1, 1, 5, 3)
    x = torch.rand(4, generator=torch.Generator().manual_seed(4)).requires_grad_()
    bases = bspline_basis(x, grid.knots(5, 3), 3, uniform=grid, backend="native")
    (gradient,) = torch.autograd.grad(bases.square().sum() + x.pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="backward through vmkla.bspline_basis_backward"):
        torch.autograd.grad(gradient.sum(), x)


def assert_native_is_reference(x: Tensor, grid: Tensor, order: int, uniform: UniformGrid | None) -> None:
    x = x.requires_grad_()
    exact = x.detach().double().requires_grad_()
    bases = bspline_basis(x, grid, order, uniform=uniform, backend="native")
    wanted = bspline_basis_reference(exact, grid.double(), order)
    torch.testing.assert_close(
        bases.double(), wanted, **tol(("native basis", "reference basis"), torch.float32)
    )
    grad = torch.randn(bases.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(bases, x, grad)
    (expected,) = torch.autograd.grad(wanted, exact, grad.double())
    if order == 1:  # slopes jump at the knots: keep away from them
        near = (exact.unsqueeze(-1) - grid.double()).abs().amin(-1) < 1e-5
        gradient, expected = gradient.masked_fill(near, 0), expected.masked_fill(near, 0)
    torch.testing.assert_close(
        gradient.double(),
        expected,
        **tol(("native basis gradient", "reference basis gradient"), torch.float32),
    )


@settings(max_examples=40, deadline=None)
@given(
    values=st.integers(0, 70),
    features=st.integers(1, 9),
    cells=st.sampled_from((1, 4, 5, 13, 30)),
    order=st.integers(1, 4),
    kind=st.sampled_from(("uniform", "shared", "per feature")),
    seed=st.integers(0, 2**16),
)
def test_native_is_the_reference(
    values: int, features: int, cells: int, order: int, kind: str, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    x = 1.3 * torch.randn(values, features, generator=g)
    uniform = None
    if kind == "uniform":
        uniform = UniformGrid.over(-1, 1, cells, order)
        grid = uniform.knots(cells, order)
    else:
        grid = uneven_grid(features if kind == "per feature" else 1, cells + 2 * order + 1, seed).float()
        grid = grid if kind == "per feature" else grid[0]
    assert_native_is_reference(x, grid, order, uniform)


@pytest.mark.parametrize("cells", [5, 2, 13, 20])
def test_native_on_every_instruction_set(instruction_set: str, cells: int) -> None:
    uniform = UniformGrid.over(-1, 1, cells, 3)
    x = 1.3 * torch.randn(37, 3, generator=torch.Generator().manual_seed(1))
    assert_native_is_reference(x, uniform.knots(cells, 3), 3, uniform)


def test_half_and_non_contiguous_input() -> None:
    uniform = UniformGrid.over(-1, 1, 5, 3)
    grid = uniform.knots(5, 3)
    x = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(2)).transpose(0, 2)
    half = bspline_basis(x.half(), grid, 3, uniform=uniform, backend="native")
    assert half.dtype == torch.float16
    expected = bspline_basis_reference(x.half().float(), grid, 3)
    torch.testing.assert_close(half.float(), expected, **tol(("native", "reference"), torch.float16))
    wide = bspline_basis(x, grid, 3, uniform=uniform, backend="native")
    assert torch.equal(wide, bspline_basis(x.contiguous(), grid, 3, uniform=uniform, backend="native"))


def test_a_grid_of_another_type_never_reaches_the_kernels() -> None:
    with pytest.raises(UsageError, match=r"expect grid to be torch\.float32"):
        bspline_basis(torch.zeros(2, 4), torch.arange(12.0, dtype=torch.float64), 3, backend="native")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_opcheck(backend: str, transposed: bool) -> None:
    grid = UniformGrid.over(-1, 1, 5, 3)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    x = (x.T if transposed else x).requires_grad_()
    args = (x, grid.knots(5, 3), 3, grid.grid_min, grid.step, backend)
    torch.library.opcheck(torch.ops.vmkla.bspline_basis.default, args)


@pytest.mark.parametrize(
    ("grid", "order", "message"),
    [
        (torch.arange(5.0), 2, "needs at least 6 knots"),
        (torch.zeros(3, 12), 3, r"got \(3, 12\)"),
        (torch.arange(12.0), 0, "order must be at least 1"),
    ],
)
def test_unfit_grids_are_refused(grid: Tensor, order: int, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        bspline_basis(torch.zeros(2, 4), grid, order)
