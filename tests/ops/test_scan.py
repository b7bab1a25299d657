"""``selective_scan2d``: the reference against a scalar recurrence, the kernels against the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.ops import instruction_sets
from tests.tolerances import tol
from vmkla.errors import ShapeError, UsageError
from vmkla.ops import selective_scan2d
from vmkla.ops.scan import selective_scan2d_reference

NAMES = ("u", "p", "dt_weight", "A", "D", "delta_bias")
Shape = tuple[int, int, int, int, int, int]
SHAPES = st.tuples(
    st.integers(1, 3),  # b
    st.integers(1, 40),  # H
    st.integers(1, 9),  # W
    st.sampled_from((1, 3, 8, 16, 17, 31, 48)),  # d: below, at and beside the width of a vector
    st.sampled_from((1, 2, 5, 16)),  # n: 16 has code of its own
    st.integers(1, 9),  # R
)


def scan_inputs(shape: Shape, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Random u, p, dt_weight, A, D and delta_bias, with deltas of 1e-3 to 1 or so."""
    b, H, W, d, n, R = shape
    g = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=g, dtype=torch.float64)

    A = -0.1 - 4 * torch.rand(4, n, d, generator=g, dtype=torch.float64)
    tensors = [
        normal(b, H, W, d),
        normal(b, H, W, 4 * (2 * n + R)),
        normal(4, R, d) * R**-0.5,
        A,
        normal(d),
        normal(4, d) - 2,
    ]
    return [t.to(dtype) for t in tensors]


def scalar_scan(u: Tensor, p: Tensor, dt_weight: Tensor, A: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """Mamba's recurrence, number by number, along the four paths of VMamba.

    h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t,  y_t = C_t h_t + D u_t
    (Gu & Dao, 2023, eq. 2 and alg. 2).
    """
    b, H, W, d = u.shape
    n, R = A.shape[1], dt_weight.shape[1]
    rows = [(i, j) for i in range(H) for j in range(W)]
    columns = [(i, j) for j in range(W) for i in range(H)]
    y = D * u
    for k, path in enumerate((rows, columns, rows[::-1], columns[::-1])):
        for image in range(b):
            for c in range(d):
                h = [0.0] * n
                for i, j in path:
                    pixel = p[image, i, j].tolist()
                    B = pixel[k * n : (k + 1) * n]
                    C = pixel[(4 + k) * n : (5 + k) * n]
                    dt = pixel[8 * n + k * R : 8 * n + (k + 1) * R]
                    z = float(delta_bias[k, c]) + sum(dt[r] * float(dt_weight[k, r, c]) for r in range(R))
                    delta = math.log1p(math.exp(-abs(z))) + max(z, 0.0)
                    x = float(u[image, i, j, c])
                    h = [math.exp(delta * float(A[k, s, c])) * h[s] + delta * B[s] * x for s in range(n)]
                    y[image, i, j, c] += sum(C[s] * h[s] for s in range(n))
    return y


@pytest.mark.parametrize("shape", [(2, 3, 4, 2, 3, 2), (1, 1, 5, 2, 1, 1), (1, 4, 1, 1, 2, 3)])
def test_reference_is_the_recurrence(shape: Shape) -> None:
    inputs = scan_inputs(shape, seed=0)
    expected = scalar_scan(*(t.clone() for t in inputs))
    torch.testing.assert_close(
        selective_scan2d_reference(*inputs), expected, **tol(("reference", "recurrence"), torch.float64)
    )


@pytest.mark.parametrize("route", range(4))
def test_each_route_of_the_reference(route: int) -> None:
    """Only one path contributes: a swap of two would cancel in the sum."""
    inputs = scan_inputs((1, 3, 2, 2, 2, 1), seed=route)
    n = 2
    for k in range(4):
        if k != route:
            inputs[1][..., (4 + k) * n : (5 + k) * n] = 0
    expected = scalar_scan(*(t.clone() for t in inputs))
    torch.testing.assert_close(
        selective_scan2d_reference(*inputs), expected, **tol(("reference", "recurrence"), torch.float64)
    )


def test_gradcheck_of_the_reference() -> None:
    inputs = [t.requires_grad_() for t in scan_inputs((2, 3, 2, 3, 2, 2), seed=1)]
    assert torch.autograd.gradcheck(lambda *t: selective_scan2d(*t, backend="reference"), inputs)


def test_second_derivatives_of_the_reference() -> None:
    inputs = [t.double().requires_grad_() for t in scan_inputs((1, 2, 2, 2, 2, 1), 5)]
    assert torch.autograd.gradgradcheck(lambda *t: selective_scan2d(*t, backend="reference"), inputs)


@pytest.fixture(params=instruction_sets.available())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this machine can run."""
    with instruction_sets.using(str(request.param)) as there:
        assert there
        yield str(request.param)


def assert_native_is_reference(shape: Shape, seed: int) -> None:
    """Forward and every gradient, float32 kernels against the float64 reference."""
    inputs = [t.requires_grad_() for t in scan_inputs(shape, seed, torch.float32)]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    y, y_exact = selective_scan2d(*inputs, backend="native"), selective_scan2d_reference(*exact)
    forward = tol(("native", "reference"), torch.float32)
    scale = max(1.0, float(y_exact.detach().abs().max()))
    torch.testing.assert_close(y.double() / scale, y_exact / scale, **forward)
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    gradients = torch.autograd.grad(y, inputs, grad_y)
    expected = torch.autograd.grad(y_exact, exact, grad_y.double())
    limits = tol(("native gradient", "reference gradient"), torch.float32)
    for name, gradient, wanted in zip(NAMES, gradients, expected, strict=True):
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(
            gradient.double() / scale, wanted / scale, **limits, msg=lambda m, name=name: f"{name}: {m}"
        )


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**16))
def test_native_is_the_reference(shape: Shape, seed: int) -> None:
    assert_native_is_reference(shape, seed)


@pytest.mark.parametrize(
    "shape", [(2, 5, 7, 19, 16, 3), (1, 40, 3, 33, 5, 9), (2, 8, 9, 64, 16, 2), (1, 2, 70, 80, 16, 1)]
)
def test_native_on_every_instruction_set(instruction_set: str, shape: Shape) -> None:
    assert_native_is_reference(shape, seed=len(instruction_set))


def test_threads_do_not_change_a_bit() -> None:
    inputs = [t.requires_grad_() for t in scan_inputs((3, 9, 8, 70, 16, 4), 2, torch.float32)]
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            y = selective_scan2d(*inputs, backend="native")
            results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_non_contiguous_inputs() -> None:
    inputs = scan_inputs((2, 4, 5, 6, 3, 2), 3, torch.float32)
    expected = selective_scan2d(*inputs, backend="native")
    strided = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in inputs]
    assert not strided[0].is_contiguous()
    y = selective_scan2d(*strided, backend="native")
    assert torch.equal(y, expected)


def test_half_input_keeps_a_float_state() -> None:
    inputs = scan_inputs((2, 6, 5, 20, 16, 3), 4, torch.float32)
    halves = [t.half() if i < 3 else t for i, t in enumerate(inputs)]
    y = selective_scan2d(*halves, backend="native")
    assert y.dtype == torch.float16
    expected = selective_scan2d_reference(*(t.float() for t in halves))
    torch.testing.assert_close(y.float(), expected, **tol(("native", "reference"), torch.float16))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("shape", [(0, 3, 4, 5, 2, 1), (2, 0, 4, 5, 2, 1), (1, 3, 0, 5, 16, 1)])
def test_nothing_in_nothing_out(backend: str, shape: Shape) -> None:
    inputs = [t.requires_grad_() for t in scan_inputs(shape, 5, torch.float32)]
    y = selective_scan2d(*inputs, backend=backend)
    assert y.shape == shape[:4]
    for tensor, gradient in zip(inputs, torch.autograd.grad(y.sum(), inputs), strict=True):
        assert gradient.shape == tensor.shape
        assert not gradient.any()


@pytest.mark.parametrize("bias", [-14.0, 400.0])
def test_extreme_delta(instruction_set: str, bias: float) -> None:
    """delta of 8e-7, where relative error matters, and of 400, where exp underflows."""
    inputs = scan_inputs((1, 5, 6, 18, 16, 2), 6, torch.float32)
    inputs[5] = torch.full_like(inputs[5], bias)
    inputs[4].zero_()  # without the skip term a lost state cannot hide
    if bias < 0:
        inputs[2].zero_()
    leaves = [t.requires_grad_() for t in inputs]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    y, expected = selective_scan2d(*leaves, backend="native"), selective_scan2d_reference(*exact)
    scale = float(expected.detach().abs().max())
    assert scale > 0
    torch.testing.assert_close(
        y.double() / scale, expected / scale, **tol(("native", "reference"), torch.float32)
    )
    for gradient, wanted in zip(
        torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), exact), strict=True
    ):
        assert torch.isfinite(gradient).all()
        limit = tol(("native gradient", "reference gradient"), torch.float32)
        size = max(float(wanted.abs().max()), 1e-30)
        torch.testing.assert_close(gradient.double() / size, wanted / size, **limit)


def test_decay_to_nothing_is_finite(instruction_set: str) -> None:
    inputs = scan_inputs((1, 6, 6, 16, 16, 1), 7, torch.float32)
    inputs[3] = torch.full_like(inputs[3], -1e6)
    y = selective_scan2d(*inputs, backend="native")
    torch.testing.assert_close(
        y, selective_scan2d_reference(*inputs), **tol(("native", "reference"), torch.float32)
    )


def decays(exponents: Tensor) -> Tensor:
    """exp(-e) by the native kernel, channel by channel: what is left of a state of 1 after a visit.

    Args:
        exponents: (d,), the products -delta A, at least 0.
    Returns:
        (d,), float64.
    """
    d, n = len(exponents), 16
    u, p = torch.zeros(1, 1, 2, d), torch.zeros(1, 1, 2, 4 * (2 * n + 1))
    u[0, 0, 0] = 1 / math.log(2)  # delta is softplus(0) = ln 2, so the first visit leaves a state of 1
    p[0, 0, 0, 0] = p[0, 0, :, 4 * n] = 1  # B at the first visit and C at both, of the first route's state 0
    A = torch.zeros(4, n, d)
    A[0, 0] = -exponents / math.log(2)
    zeros = torch.zeros(4, 1, d)
    y = selective_scan2d(u, p, zeros, A, zeros[0, 0], zeros[:, 0], backend="native")
    return y[0, 0, 1].double() / y[0, 0, 0].double()


def test_every_decay_is_exact(instruction_set: str) -> None:
    """From no decay to 2^-125: the error of a rounding or two, times the exponent where it is above 1."""
    exponents = torch.cat([torch.zeros(1), torch.logspace(-6, math.log10(125 * math.log(2)), 2047)])
    error = (decays(exponents) / torch.exp(-exponents.double()) - 1).abs()
    assert (error / exponents.double().clamp(min=1)).max() < 3e-7
    assert error[exponents < 1e-5].max() < 1.3e-7  # near 1 the errors of thousands of visits add up


def test_a_decay_to_nothing_leaves_the_others_alone(instruction_set: str) -> None:
    """Channels of one vector whose states vanish beside channels whose states stay."""
    exponents = torch.tensor([0.5, 88.0, 0.25, 1e3, 3.0, 1e30]).repeat(8)
    found = decays(exponents)
    expected = torch.exp(-exponents.double())
    torch.testing.assert_close(found, expected, atol=2.0**-125, rtol=1e-6)


def test_nan_is_not_swallowed(instruction_set: str) -> None:
    """A mask computed from NaN must not look like a mask: every input passes it on."""
    for position in range(6):
        inputs = scan_inputs((1, 3, 4, 16, 16, 2), 13, torch.float32)
        inputs[position].view(-1)[0] = float("nan")
        assert torch.isnan(selective_scan2d(*inputs, backend="native")).any(), NAMES[position]


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_opcheck(backend: str) -> None:
    inputs = [t.requires_grad_() for t in scan_inputs((1, 2, 3, 4, 2, 1), 8, torch.float32)]
    torch.library.opcheck(torch.ops.vmkla.selective_scan2d.default, (*inputs, backend))


def test_opcheck_of_the_backward() -> None:
    inputs = scan_inputs((1, 2, 3, 4, 2, 1), 9, torch.float32)
    torch.library.opcheck(
        torch.ops.vmkla.selective_scan2d_backward.default, (torch.ones_like(inputs[0]), *inputs)
    )


@pytest.mark.parametrize("position", range(1, 6))
def test_wrong_shapes_are_named(position: int) -> None:
    inputs = scan_inputs((1, 2, 3, 4, 2, 1), 10)
    inputs[position] = torch.cat((inputs[position], inputs[position]), dim=-1)
    with pytest.raises(ShapeError, match=r"must be .* got"):
        selective_scan2d(*inputs)


def test_backend_that_cannot_run_is_refused() -> None:
    inputs = scan_inputs((1, 2, 3, 4, 2, 1), 11)
    with pytest.raises(UsageError, match="float64"):
        selective_scan2d(*inputs, backend="native")
    with pytest.raises(UsageError, match="no backend 'fast'"):
        selective_scan2d(*inputs, backend="fast")
    assert selective_scan2d(*inputs, backend="auto").dtype == torch.float64  # the reference


def test_half_with_any_gradient_goes_to_the_reference() -> None:
    """The kernels' backward reads float32; u itself may well want no gradient."""
    halves = [
        t.half() if i < 3 else t for i, t in enumerate(scan_inputs((1, 2, 3, 4, 2, 1), 14, torch.float32))
    ]
    for position in range(6):
        leaves = [t.clone().requires_grad_(i == position) for i, t in enumerate(halves)]
        with pytest.raises(UsageError, match="wants a gradient"):
            selective_scan2d(*leaves, backend="native")
        (gradient,) = torch.autograd.grad(selective_scan2d(*leaves).float().sum(), leaves[position])
        assert torch.isfinite(gradient).all() and gradient.any()


@pytest.mark.parametrize("position", range(1, 6))
def test_mixed_types_never_reach_the_kernels(position: int) -> None:
    """The kernels see addresses only: another type would be read as noise, or past its end."""
    inputs = scan_inputs((1, 2, 3, 4, 2, 1), 15, torch.float32)
    inputs[position] = inputs[position].double() if position > 2 else inputs[position].half()
    with pytest.raises(UsageError, match=f"expect {NAMES[position]} to be torch.float32"):
        selective_scan2d(*inputs, backend="native")


def test_autocast_leaves_the_scan_in_float32() -> None:
    inputs = scan_inputs((1, 4, 4, 8, 4, 2), 12, torch.float32)
    halves = [t.bfloat16() if i < 3 else t for i, t in enumerate(inputs)]
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan2d(*halves, backend="native")
    assert torch.equal(y, selective_scan2d(*(t.float() for t in halves), backend="native"))
