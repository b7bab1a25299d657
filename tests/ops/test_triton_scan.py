"""The Triton scan under Triton's interpreter: forward and every gradient against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.ops import interpreted_scan
from tests.tolerances import tol
from vmkla.errors import ShapeError, UsageError
from vmkla.ops import triton_op
from vmkla.ops.scan import selective_scan2d_reference

NAMES = ("u", "p", "dt_weight", "A", "D", "delta_bias")
Shape = tuple[int, int, int, int, int, int]
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Calls a function of ``interpreted_scan`` where the interpreter is."""
    with interpreted_scan.interpreter() as call:
        yield call


def scan_inputs(shape: Shape, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Random u, p, dt_weight (of dtype), A, D and delta_bias (float32), with deltas of 1e-3 to 1 or so."""
    b, H, W, d, n, R = shape
    g = torch.Generator().manual_seed(seed)
    A = -0.1 - 4 * torch.rand(4, n, d, generator=g)
    u, p = torch.randn(b, H, W, d, generator=g), torch.randn(b, H, W, 4 * (2 * n + R), generator=g)
    weight = torch.randn(4, R, d, generator=g) * R**-0.5
    D, bias = torch.randn(d, generator=g), torch.randn(4, d, generator=g) - 2
    return [u.to(dtype), p.to(dtype), weight.to(dtype), A, D, bias]


def random_grad(shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape[:4], generator=torch.Generator().manual_seed(99)).to(dtype)


def exact(inputs: list[Tensor], grad_y: Tensor) -> list[Tensor]:
    """y and all gradients by the reference in float64."""
    leaves = [t.detach().double().requires_grad_() for t in inputs]
    y = selective_scan2d_reference(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_y.double())]


def assert_same(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype = torch.float32) -> None:
    """y and gradients beside the reference's, as parts of the largest element of each tensor."""
    rows = (("triton", "reference"), *[("triton gradient", "reference gradient")] * len(NAMES))
    for name, row, value, wanted in zip(("y", *NAMES), rows, found, expected, strict=True):
        scale = max(float(wanted.abs().max()), 1e-30)
        torch.testing.assert_close(
            value.double() / scale, wanted / scale, **tol(row, dtype), msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize(
    "shape",
    [
        (1, 2, 2, 33, 3, 2),  # two blocks of channels
        pytest.param((1, 9, 8, 3, 2, 1), marks=pytest.mark.slow),  # two chunks
    ],
)
def test_triton_is_the_reference(run: Run, shape: Shape) -> None:
    inputs, grad_y = scan_inputs(shape, seed=1), random_grad(shape)
    assert_same(run(interpreted_scan.scan, inputs, grad_y), exact(inputs, grad_y))


@pytest.mark.slow
@pytest.mark.parametrize("route", range(4))
def test_each_route(run: Run, route: int) -> None:
    """Only one path contributes: a swap of two would cancel in the sum."""
    shape, n = (1, 3, 2, 2, 2, 1), 2
    inputs = scan_inputs(shape, seed=route)
    for k in range(4):
        if k != route:
            inputs[1][..., (4 + k) * n : (5 + k) * n] = 0
    grad_y = random_grad(shape)
    assert_same(run(interpreted_scan.scan, inputs, grad_y), exact(inputs, grad_y))


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(
    shape=st.tuples(
        st.integers(1, 2),
        st.integers(1, 9),
        st.integers(1, 5),
        st.sampled_from((1, 16, 31, 32, 33)),
        st.sampled_from((1, 5, 16, 17)),
        st.integers(1, 9),
    ),
    seed=st.integers(0, 2**16),
)
def test_triton_is_the_reference_at_any_shape(run: Run, shape: Shape, seed: int) -> None:
    inputs, grad_y = scan_inputs(shape, seed), random_grad(shape)
    assert_same(run(interpreted_scan.scan, inputs, grad_y), exact(inputs, grad_y))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [2, 6, 34])
def test_chunks_do_not_matter(run: Run, chunk: int) -> None:
    """Chunks that end inside a row, in the middle of a pair of steps, or beyond the image."""
    shape = (1, 5, 4, 6, 4, 3)
    inputs, grad_y = scan_inputs(shape, seed=2), random_grad(shape)
    y = run(interpreted_scan.infer, inputs, chunk)
    assert_same([y, *run(interpreted_scan.gradients, inputs, grad_y, chunk, 3)], exact(inputs, grad_y))


@pytest.mark.slow
def test_odd_chunks_forward(run: Run) -> None:
    shape = (1, 4, 5, 3, 2, 2)
    inputs = scan_inputs(shape, seed=3)
    y = run(interpreted_scan.infer, inputs, 7)
    torch.testing.assert_close(
        y.double(), exact(inputs, random_grad(shape))[0], **tol(("triton", "reference"), torch.float32)
    )


@pytest.mark.slow
def test_the_number_of_programs_does_not_change_a_bit(run: Run) -> None:
    shape = (1, 3, 3, 40, 3, 2)
    inputs, grad_y = scan_inputs(shape, seed=4), random_grad(shape)
    one, many = (run(interpreted_scan.gradients, inputs, grad_y, 6, programs) for programs in (1, 100))
    for name, a, b in zip(NAMES, one, many, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_input_keeps_a_float_state(run: Run, dtype: torch.dtype) -> None:
    shape = (1, 4, 3, 20, 16, 3)
    inputs, grad_y = scan_inputs(shape, 5, dtype), random_grad(shape, dtype)
    found = run(interpreted_scan.scan, inputs, grad_y)
    assert [t.dtype for t in found] == [dtype] * 4 + [torch.float32] * 3
    assert_same(found, exact(inputs, grad_y), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [-14.0, 400.0])
def test_extreme_delta(run: Run, bias: float) -> None:
    """delta of 8e-7, where relative error matters, and of 400, where exp underflows."""
    shape = (1, 4, 3, 8, 16, 2)
    inputs, grad_y = scan_inputs(shape, 6), random_grad(shape)
    inputs[5] = torch.full_like(inputs[5], bias)
    inputs[4].zero_()  # without the skip term a lost state cannot hide
    if bias < 0:
        inputs[2].zero_()
    found = run(interpreted_scan.scan, inputs, grad_y)
    assert all(torch.isfinite(t).all() for t in found)
    assert_same(found, exact(inputs, grad_y))


@pytest.mark.slow
def test_nan_is_not_swallowed(run: Run) -> None:
    for position in range(6):
        inputs = scan_inputs((1, 2, 2, 16, 16, 2), 13)
        inputs[position].view(-1)[0] = float("nan")
        assert torch.isnan(run(interpreted_scan.infer, inputs, 6)).any(), NAMES[position]


@pytest.mark.parametrize("shape", [(0, 3, 4, 5, 2, 1), (2, 0, 4, 5, 2, 1), (1, 3, 0, 5, 16, 1)])
def test_nothing_in_nothing_out(run: Run, shape: Shape) -> None:
    inputs = scan_inputs(shape, 7)
    y, *gradients = run(interpreted_scan.scan, inputs, random_grad(shape))
    assert y.shape == shape[:4]
    for tensor, gradient in zip(inputs, gradients, strict=True):
        assert gradient.shape == tensor.shape and not gradient.any()


@pytest.mark.slow
def test_non_contiguous_inputs(run: Run) -> None:
    shape = (2, 2, 3, 4, 3, 2)
    inputs, grad_y = scan_inputs(shape, 8), random_grad(shape)
    strided = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in (*inputs, grad_y)]
    assert not strided[0].is_contiguous()
    found = run(interpreted_scan.scan, strided[:-1], strided[-1])
    for a, b in zip(found, run(interpreted_scan.scan, inputs, grad_y), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_torch_checks_the_ops(run: Run) -> None:
    run(interpreted_scan.check_ops, scan_inputs((1, 2, 3, 4, 2, 1), 9))


@pytest.mark.slow
@pytest.mark.parametrize("way", [interpreted_scan.compiled, interpreted_scan.direct_op])
def test_other_ways_to_the_kernels(run: Run, way: Callable[..., list[Tensor]]) -> None:
    shape = (1, 3, 3, 4, 2, 1)
    inputs, grad_y = scan_inputs(shape, 10), random_grad(shape)
    assert_same(run(way, inputs, grad_y), exact(inputs, grad_y))


def test_autocast_leaves_the_scan_in_float32(run: Run) -> None:
    inputs = scan_inputs((1, 2, 2, 4, 2, 1), 11, torch.bfloat16)
    y = run(interpreted_scan.under_autocast, inputs)
    assert y.dtype == torch.float32
    expected = selective_scan2d_reference(*(t.double() for t in inputs))
    torch.testing.assert_close(y.double(), expected, **tol(("triton", "reference"), torch.float32))


@pytest.mark.parametrize("position", range(1, 6))
def test_mixed_types_are_refused(run: Run, position: int) -> None:
    inputs = scan_inputs((1, 2, 3, 4, 2, 1), 12)
    inputs[position] = inputs[position].double() if position > 2 else inputs[position].half()
    with pytest.raises(UsageError, match=f"expect {NAMES[position]} to be torch.float32"):
        run(interpreted_scan.scan, inputs, random_grad((1, 2, 3, 4, 2, 1)))


@pytest.mark.parametrize(("shape", "name"), [((1, 2**14, 2**14, 8), "u"), ((1, 2**14, 2**13, 1), "p")])
def test_an_image_beyond_32_bits_is_refused(shape: tuple[int, ...], name: str) -> None:
    """The kernels would read and write elsewhere."""
    *bhw, d = shape
    sizes = [shape, (*bhw, 16), (4, 2, d), (4, 1, d), (d,), (4, d)]
    with pytest.raises(ShapeError, match=f"^{name} has 2147483648 numbers"):
        triton_op.infer(*(torch.empty(size, device="meta") for size in sizes))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(2, 7, 5, 33, 5, 3), (1, 33, 31, 64, 16, 6)])
def test_triton_on_the_gpu(shape: Shape) -> None:
    """``make gpu-proof`` does this over many shapes and types."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    inputs, grad_y = scan_inputs(shape, seed=14), random_grad(shape)
    found = interpreted_scan.scan([t.cuda() for t in inputs], grad_y.cuda())
    assert_same([t.cpu() for t in found], exact(inputs, grad_y))
