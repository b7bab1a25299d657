"""The Triton spline bases under Triton's interpreter: values and gradient against the float64 definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.ops import interpreted_bases, interpreted_scan
from tests.tolerances import tol
from vmkla.errors import UsageError
from vmkla.ops import UniformGrid
from vmkla.ops.bspline import bspline_basis_reference

Run = Callable[..., Any]
GRID = UniformGrid.over(-1, 1, 5, 3)
KNOTS = GRID.knots(5, 3)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Calls a function of ``interpreted_bases`` where the interpreter is."""
    with interpreted_scan.interpreter() as call:
        yield call


def values(*shape: int, seed: int = 0) -> Tensor:
    """Inside the support for the most part, outside it for some."""
    return 1.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_grad(x: Tensor, bases: int = 8) -> Tensor:
    return torch.randn(*x.shape, bases, generator=torch.Generator().manual_seed(99)).to(x.dtype)


def exact(x: Tensor, grad: Tensor, knots: Tensor = KNOTS) -> tuple[Tensor, Tensor]:
    """Bases and the gradient of x by the definition in float64."""
    leaf = x.detach().double().requires_grad_()
    bases = bspline_basis_reference(leaf, knots.double(), 3)
    (gradient,) = torch.autograd.grad(bases, leaf, grad.double())
    return bases.detach(), gradient


def assert_same(
    found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Bases and gradient beside the definition's."""
    rows = (("triton basis", "reference basis"), ("triton basis gradient", "reference basis gradient"))
    for row, value, wanted in zip(rows, found, expected, strict=True):
        assert value.dtype == dtype
        torch.testing.assert_close(value.double(), wanted, **tol(row, dtype))


@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=2),
    cells=st.sampled_from((1, 2, 5, 13, 30)),
    low=st.floats(-3, 1),
    width=st.floats(1, 4),
    seed=st.integers(0, 2**16),
)
def test_triton_is_the_definition(
    run: Run, shape: list[int], cells: int, low: float, width: float, seed: int
) -> None:
    grid = UniformGrid.over(low, low + width, cells, 3)
    knots = grid.knots(cells, 3)
    x = low + width * (1.6 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.3)
    grad = random_grad(x, cells + 3)
    assert_same(run(interpreted_bases.bases, x, knots, grid, grad), exact(x, grad, knots))


@pytest.mark.parametrize("count", [393, 512])
def test_several_programs_of_128_values(run: Run, count: int) -> None:
    """The last one partly and wholly filled."""
    x = values(count)
    grad = random_grad(x)
    assert_same(run(interpreted_bases.bases, x, KNOTS, GRID, grad), exact(x, grad))


def test_knots_and_what_lies_outside_them(run: Run) -> None:
    """At a knot two pieces meet, of the same value and slope; outside the support both are 0."""
    inside = torch.cat([KNOTS, torch.nextafter(KNOTS, torch.tensor(9.0)), torch.nextafter(KNOTS, -KNOTS)])
    grad = random_grad(inside)
    assert_same(run(interpreted_bases.bases, inside, KNOTS, GRID, grad), exact(inside, grad))
    outside = torch.tensor([-2.3, 2.3, -1e30, 1e30, float("inf"), -float("inf")])
    bases, gradient = run(interpreted_bases.bases, outside, KNOTS, GRID, random_grad(outside))
    assert not bases.any() and not gradient.any()


def test_nan_is_not_swallowed(run: Run) -> None:
    x = values(40)
    x[7] = float("nan")
    grad = random_grad(x)
    bases, gradient = run(interpreted_bases.bases, x, KNOTS, GRID, grad)
    assert torch.isnan(bases[7]).all() and torch.isnan(gradient[7])
    assert torch.isnan(bases).sum() == 8 and torch.isnan(gradient).sum() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_input_is_computed_in_float32(run: Run, dtype: torch.dtype) -> None:
    x = values(5, 33).to(dtype)
    grad = random_grad(x)
    assert_same(run(interpreted_bases.bases, x, KNOTS, GRID, grad), exact(x, grad), dtype)


def test_non_contiguous_tensors_give_the_same_bits(run: Run) -> None:
    x, grad = values(5, 7, 3).transpose(0, 2), random_grad(values(3, 7, 5)).transpose(0, 1)
    grad = grad.contiguous().transpose(0, 1)
    assert not x.is_contiguous()
    found = run(interpreted_bases.bases, x, KNOTS, GRID, random_grad(x))
    same = run(interpreted_bases.bases, x.contiguous(), KNOTS, GRID, random_grad(x))
    assert all(torch.equal(a, b) for a, b in zip(found, same, strict=True))
    strided = random_grad(x).transpose(0, 3).contiguous().transpose(0, 3)
    assert torch.equal(run(interpreted_bases.bases, x, KNOTS, GRID, strided)[1], same[1])


def test_runs_repeat_in_deterministic_mode(run: Run) -> None:
    x = values(300)
    first, second = (run(interpreted_bases.deterministic_bases, x, KNOTS, GRID, random_grad(x)) for _ in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert_same(first, exact(x, random_grad(x)))


@pytest.mark.slow
def test_gradient_is_the_slope_of_the_values(run: Run) -> None:
    """Without the definition: central differences of the kernel's own values, float32."""
    x, h = values(64), 1e-2
    grad = random_grad(x)
    _, gradient = run(interpreted_bases.bases, x, KNOTS, GRID, grad)
    above, below = (run(interpreted_bases.bases, x + e, KNOTS, GRID, grad)[0] for e in (h, -h))
    slope = ((above - below) / (2 * h) * grad).sum(-1)
    torch.testing.assert_close(gradient, slope, rtol=0, atol=2e-2)  # third derivative 15.6 times h^2 / 6


def test_torch_checks_the_ops(run: Run) -> None:
    run(interpreted_bases.check_ops, values(3, 4), KNOTS, GRID)


def test_compiled_as_one_graph(run: Run) -> None:
    x = values(3, 5)
    grad = random_grad(x)
    assert_same(run(interpreted_bases.compiled_bases, x, KNOTS, GRID, grad), exact(x, grad))


def test_autocast_leaves_the_bases_in_float32(run: Run) -> None:
    x = values(3, 5).bfloat16()
    bases = run(interpreted_bases.bases_under_autocast, x, KNOTS, GRID)
    expected = exact(x, random_grad(x))[0]
    assert bases.dtype == torch.float32
    torch.testing.assert_close(
        bases.double(), expected, **tol(("triton basis", "reference basis"), torch.float32)
    )


def test_a_second_derivative_is_refused(run: Run) -> None:
    with pytest.raises(RuntimeError, match="backward through vmkla.bspline_basis_backward"):
        run(interpreted_bases.second_derivative, values(4), KNOTS, GRID)


def test_other_knots_keep_the_definition(run: Run) -> None:
    """Cubic and uneven, uneven by feature, quadratic: exactly what the reference gives."""
    x = values(6, 4)
    uneven = torch.cumsum(0.1 + torch.rand(4, 12, generator=torch.Generator().manual_seed(1)), dim=1) - 3
    square = UniformGrid.over(-1, 1, 5, 2)
    for knots, order, uniform in (
        (uneven[0], 3, None), (uneven, 3, None), (square.knots(5, 2), 2, square), (KNOTS, 3, None),
    ):  # fmt: skip
        found = run(interpreted_bases.any_bases, x, knots, order, uniform)
        assert torch.equal(found, bspline_basis_reference(x, knots, order))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": KNOTS.double()}, "expect grid to be torch.float32"),
        ({"order": 2}, "got order 2"),
        ({"grid_step": 0.0}, "step 0.0"),
        ({"grid": KNOTS.expand(4, -1)}, "one uniform grid"),
    ],
)
def test_knots_that_the_kernels_would_misread_are_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"grid": KNOTS, "order": 3, "grid_min": GRID.grid_min, "grid_step": GRID.step} | changes
    with pytest.raises(UsageError, match=message):
        torch.ops.vmkla.bspline_basis(values(2, 4), **arguments, backend="triton")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cells", [5, 10])
def test_triton_on_the_gpu(cells: int, dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    grid = UniformGrid.over(-1, 1, cells, 3)
    knots = grid.knots(cells, 3)
    x = values(1000, 33).to(dtype)
    grad = random_grad(x, cells + 3)
    found = interpreted_bases.bases(x.cuda(), knots.cuda(), grid, grad.cuda())
    assert_same(tuple(t.cpu() for t in found), exact(x, grad, knots), dtype)
