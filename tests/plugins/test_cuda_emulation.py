"""The CUDA kernels' own source, run on the CPU, against the float64 recurrence; no GPU is needed.

The emulation runs the threads of a block as fibres, with real barriers and shuffles. Every tensor lies
between zones of NaN, and shared memory and the workspace begin as NaN.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugins.emulated_kernels import (
    CUTS,
    EMULATION,
    ENTRY,
    FORWARD,
    KERNELS,
    REVERSE,
    SHUFFLED,
    Array,
    EmulatedKernels,
    ScanInputs,
    Shape,
    compile_emulation,
    random_inputs,
    recurrence,
)
from tests.tolerances import tol

DTYPES = (np.float32, np.float16)
BIG_GPU, MEDIUM_GPU, SMALL_GPU = 132, 16, 1
"""Multiprocessors: many short chunks and lanes, less of both, or one chunk where the channels allow it."""
SHAPES: tuple[Shape, ...] = (
    (1, 1, 1, 1, 1, 1),
    (2, 7, 5, 3, 4, 1),
    (3, 1, 70, 8, 8, 3),
    (1, 70, 1, 33, 16, 12),
    (2, 33, 9, 70, 16, 2),
    (1, 16, 24, 192, 16, 6),
    (1, 20, 13, 40, 17, 3),
    (2, 12, 17, 65, 32, 5),
    (1, 9, 40, 10, 50, 2),
    (1, 14, 17, 9, 100, 70),
    (1, 12, 11, 66, 16, 130),
)
"""b, H, W, d, n, R: one pixel, row, column; d of every remainder; each split of n; ranks in slices."""

# Compiling the emulation takes ten seconds and more.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> EmulatedKernels:
    """The kernels as they are."""
    output = tmp_path_factory.mktemp("emulation") / "libkernels.so"
    return EmulatedKernels(compile_emulation((*KERNELS, *EMULATION, ENTRY), output, "-fPIC", "-shared"))


def expected_of(inputs: ScanInputs) -> Array:
    """(b, H, W, d): the whole op."""
    result: Array = recurrence(inputs).sum(axis=0) + inputs.D * inputs.u
    return result


def assert_scan(actual: Array, expected: Array) -> None:
    """Within the tolerance of the result's type, times the largest element."""
    row = tol(("cuda", "recurrence"), torch.float16 if actual.dtype == np.float16 else torch.float32)
    assert np.abs(actual - expected).max() <= row["atol"] * np.abs(expected).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_scan_is_the_recurrence(kernels: EmulatedKernels, shape: Shape, dtype: type[np.floating]) -> None:
    inputs = random_inputs(shape, dtype, seed=sum(shape))
    expected = expected_of(inputs)
    for multiprocessors in (SMALL_GPU, MEDIUM_GPU, BIG_GPU):
        kernels.settings(multiprocessors=multiprocessors)
        assert_scan(kernels.scan(inputs, dtype), expected)


def test_the_shapes_run_every_kernel_of_the_scan(kernels: EmulatedKernels) -> None:
    sizes = (SMALL_GPU, MEDIUM_GPU, BIG_GPU)
    plans = [kernels.plan(shape, multiprocessors) for shape in SHAPES for multiprocessors in sizes]
    assert {(states, lanes, chunks > 1) for states, lanes, chunks in plans} == CUTS


@pytest.mark.parametrize("dim", [32, 96])
def test_the_networks_run_no_other_kernel(kernels: EmulatedKernels, dim: int) -> None:
    """Stages of the default networks, on every size of GPU."""
    found = set()
    for side, batch, stage in itertools.product((192, 256, 512), (1, 4, 8), range(4)):
        d = 2 * dim << stage
        shape = (batch, side // 4 >> stage, side // 4 >> stage, d, 16, -(-d // 32))
        for multiprocessors in range(1, 200):
            states, lanes, chunks = kernels.plan(shape, multiprocessors)
            found.add((states, lanes, chunks > 1))
    assert found <= CUTS
    assert found > {(8, 2, True), (4, 4, True), (16, 1, False)}


def test_a_caller_may_name_the_size_of_gpu(kernels: EmulatedKernels) -> None:
    inputs = random_inputs((2, 33, 9, 70, 16, 2), np.float32, seed=13)
    kernels.settings(multiprocessors=BIG_GPU)
    big = kernels.scan(inputs, np.float32)
    named = kernels.scan(inputs, np.float32, multiprocessors=SMALL_GPU)
    kernels.settings(multiprocessors=SMALL_GPU)
    np.testing.assert_array_equal(named, kernels.scan(inputs, np.float32))
    assert (named != big).any()  # other sums in another order
    assert kernels.scan_status((1, 4, 4, 8, 16, 2), multiprocessors=-1) == 1


FEW_STATES = st.tuples(
    st.integers(1, 3),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 80),
    st.sampled_from((1, 4, 8, 16, 17, 32)),
    st.sampled_from((1, 2, 3, 6, 12)),
)
MANY_STATES = st.tuples(
    st.integers(1, 2),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 12),
    st.sampled_from((33, 64, 65, 128)),
    st.sampled_from((1, 6, 65)),
)


@settings(max_examples=60)
@given(
    shape=st.one_of(FEW_STATES, FEW_STATES, FEW_STATES, MANY_STATES),
    half=st.booleans(),
    multiprocessors=st.sampled_from((SMALL_GPU, 4, MEDIUM_GPU, BIG_GPU)),
    seed=st.integers(0, 1000),
)
def test_scan_of_any_shape(
    kernels: EmulatedKernels, shape: Shape, half: bool, multiprocessors: int, seed: int
) -> None:
    dtype = np.float16 if half else np.float32
    inputs = random_inputs(shape, dtype, seed)
    kernels.settings(multiprocessors=multiprocessors, order=SHUFFLED, seed=seed)
    assert_scan(kernels.scan(inputs, dtype), expected_of(inputs))


@pytest.mark.parametrize("route", range(4))
@pytest.mark.parametrize("multiprocessors", [SMALL_GPU, BIG_GPU])
def test_each_route_has_its_own_order_and_parameters(
    kernels: EmulatedKernels, route: int, multiprocessors: int
) -> None:
    shape = (2, 9, 23, 20, 16, 3)
    full = random_inputs(shape, np.float32, seed=11)
    silent = full.p.copy()
    silent[..., 4 * 16 : 8 * 16] = 0.0  # every C
    own = slice((4 + route) * 16, (5 + route) * 16)
    silent[..., own] = full.p[..., own]
    inputs = ScanInputs(full.u, silent, full.dt_weight, full.A, np.zeros(20), full.delta_bias)
    alone = recurrence(full)
    kernels.settings(multiprocessors=multiprocessors)
    actual = kernels.scan(inputs, np.float32)
    assert_scan(actual, alone[route])
    for other in {0, 1, 2, 3} - {route}:  # so that no two of them can be taken for each other
        assert np.abs(actual - alone[other]).max() > 1e-1 * np.abs(alone[other]).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [SHAPES[4], SHAPES[5], SHAPES[6], SHAPES[9], SHAPES[10]])
def test_order_of_threads_and_blocks_does_not_matter(
    kernels: EmulatedKernels, shape: Shape, dtype: type[np.floating]
) -> None:
    inputs = random_inputs(shape, dtype, seed=3)
    for multiprocessors in (SMALL_GPU, BIG_GPU):
        results = []
        for order, seed in ((FORWARD, 0), (REVERSE, 0), (SHUFFLED, 1), (SHUFFLED, 2)):
            kernels.settings(multiprocessors=multiprocessors, order=order, seed=seed)
            results.append(kernels.scan(inputs, dtype).tobytes())
        assert len(set(results)) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("elements", [1, 2, 3, 4])
def test_tensors_that_are_not_16_byte_aligned(
    kernels: EmulatedKernels, dtype: type[np.floating], elements: int
) -> None:
    inputs = random_inputs((2, 10, 13, 64, 16, 8), dtype, seed=5)
    kernels.settings(multiprocessors=BIG_GPU)
    aligned = kernels.scan(inputs, dtype)
    shifted = kernels.scan(inputs, dtype, offset=elements * np.dtype(dtype).itemsize)
    np.testing.assert_array_equal(shifted, aligned)
    x = np.linspace(-3, 3, 333).astype(dtype)
    knots = -2.2 + 0.4 * np.arange(12)
    np.testing.assert_array_equal(
        kernels.basis(x, knots, 3, uniform=(-2.2, 0.4), offset=elements * x.itemsize),
        kernels.basis(x, knots, 3, uniform=(-2.2, 0.4)),
    )


@pytest.mark.parametrize("bias", [(-25.0, -15.0), (5.0, 60.0), (-90.0, 90.0)])
def test_extreme_deltas(kernels: EmulatedKernels, bias: tuple[float, float]) -> None:
    inputs = random_inputs((1, 12, 20, 24, 16, 4), np.float32, seed=8, bias=bias)
    inputs = ScanInputs(inputs.u, inputs.p, inputs.dt_weight, inputs.A, np.zeros(24), inputs.delta_bias)
    expected = expected_of(inputs)
    for multiprocessors in (SMALL_GPU, BIG_GPU):
        kernels.settings(multiprocessors=multiprocessors)
        # Channel by channel, since one of small deltas is small beside one of large ones. Where delta comes
        # from z = -90, it is below the smallest normal number.
        actual = kernels.scan(inputs, np.float32)
        error = np.abs(actual - expected).max(axis=(0, 1, 2))
        assert (error <= 1e-5 * np.abs(expected).max(axis=(0, 1, 2)) + 1e-35).all()


def test_long_memory(kernels: EmulatedKernels) -> None:
    """Decays of 0.99 to 0.9999 over 1600 steps: errors of the exponential have all the time to add up."""
    inputs = random_inputs((1, 40, 40, 8, 16, 1), np.float32, seed=2, bias=(-8.0, -6.0))
    p = inputs.p.copy()
    p[..., -4:] *= 0.01  # dt: deltas stay near those of the biases
    inputs = ScanInputs(inputs.u, p, inputs.dt_weight, inputs.A / 16, np.zeros(8), inputs.delta_bias)
    for multiprocessors in (SMALL_GPU, BIG_GPU):
        kernels.settings(multiprocessors=multiprocessors)
        assert_scan(kernels.scan(inputs, np.float32), expected_of(inputs))


def test_overflow_of_half_is_infinite(kernels: EmulatedKernels) -> None:
    inputs = random_inputs((2, 5, 6, 8, 16, 2), np.float16, seed=4)
    big = inputs.u.copy()
    big[0] = np.clip(big[0] * 20000, -60000, 60000).astype(np.float16)
    inputs = ScanInputs(big, inputs.p, inputs.dt_weight, inputs.A, inputs.D, inputs.delta_bias)
    kernels.settings(multiprocessors=4)
    expected = expected_of(inputs)
    beyond = np.abs(expected) > 65520  # half of the distance to the next number after 65504
    assert beyond.any()
    assert not beyond.all()
    actual = kernels.scan(inputs, np.float16)
    np.testing.assert_array_equal(np.isinf(actual), beyond)
    assert_scan(actual[1], expected[1])


def test_a_nan_stays_in_its_channel(kernels: EmulatedKernels) -> None:
    inputs = random_inputs((2, 5, 14, 8, 16, 2), np.float32, seed=4)
    spoilt = inputs.u.copy()
    spoilt[0, 2, 3, 1] = np.nan
    inputs = ScanInputs(spoilt, inputs.p, inputs.dt_weight, inputs.A, inputs.D, inputs.delta_bias)
    for multiprocessors in (SMALL_GPU, BIG_GPU):
        kernels.settings(multiprocessors=multiprocessors)
        actual = kernels.scan(inputs, np.float32)
        assert np.isnan(actual[0, :, :, 1]).all()  # every pixel comes after it on one of the routes
        assert not np.isnan(actual[1]).any()
        assert not np.isnan(np.delete(actual[0], 1, axis=-1)).any()


def test_a_state_of_infinite_decay_keeps_nothing(kernels: EmulatedKernels) -> None:
    inputs = random_inputs((1, 9, 20, 6, 16, 2), np.float32, seed=9)
    A = inputs.A.copy()
    A[1, 3, :] = A[:, 5, 2] = -np.inf
    A[2, 0, 4] = -3e38  # finite, and not in base 2
    inputs = ScanInputs(inputs.u, inputs.p, inputs.dt_weight, A, inputs.D, inputs.delta_bias)
    for multiprocessors in (SMALL_GPU, BIG_GPU):  # in one chunk and in several
        kernels.settings(multiprocessors=multiprocessors)
        assert_scan(kernels.scan(inputs, np.float32), expected_of(inputs))
    A[3, 7, 1] = np.nan
    spoilt = kernels.scan(inputs, np.float32)
    assert np.isnan(spoilt[..., 1]).all()
    assert not np.isnan(np.delete(spoilt, 1, axis=-1)).any()


def test_refused_and_empty_shapes(kernels: EmulatedKernels) -> None:
    good: Shape = (1, 4, 4, 8, 16, 2)
    for position, value in ((0, -1), (1, -2), (3, 0), (4, 0), (4, 257), (5, 0), (3, 1 << 25), (1, 1 << 40)):
        shape = list(good)
        shape[position] = value
        bad: Shape = (shape[0], shape[1], shape[2], shape[3], shape[4], shape[5])
        assert kernels.scan_status(bad) == 1
        assert kernels.workspace_bytes(bad) == 0
    for position in range(3):
        shape = list(good)
        shape[position] = 0
        empty: Shape = (shape[0], shape[1], shape[2], shape[3], shape[4], shape[5])
        assert kernels.scan_status(empty) == 0
        assert kernels.workspace_bytes(empty) == 0


@settings(max_examples=200)
@given(
    larger=st.tuples(
        st.integers(1, 64), st.integers(1, 300), st.integers(1, 300), st.integers(1, 2000),
        st.integers(1, 64),
        st.integers(1, 60),
    ),
    data=st.data(),
)  # fmt: skip
def test_workspace_never_shrinks_with_the_shape(
    kernels: EmulatedKernels, larger: Shape, data: st.DataObject
) -> None:
    b, H, W = (data.draw(st.integers(1, size)) for size in larger[:3])
    assert kernels.workspace_bytes((b, H, W, *larger[3:])) <= kernels.workspace_bytes(larger)


def test_a_small_image_runs_in_the_workspace_of_a_large_batch(kernels: EmulatedKernels) -> None:
    """TensorRT asks once, for the largest shape of a profile."""
    inputs = random_inputs((1, 40, 40, 8, 16, 1), np.float32, seed=6)
    kernels.settings(multiprocessors=BIG_GPU)
    room = kernels.workspace_bytes((4, 40, 40, 8, 16, 1))
    assert_scan(kernels.scan(inputs, np.float32, workspace_bytes=room), expected_of(inputs))


def basis_recurrence(x: Array, t: Array, order: int) -> Array:
    """Cox-de Boor in float64: (values, knots - order - 1)."""
    v = np.clip(x.astype(np.float64), t[0], t[-1])[:, None]
    N = ((v >= t[:-1]) & (v < t[1:])).astype(np.float64)
    for k in range(1, order + 1):
        rising = (v - t[: -(k + 1)]) / (t[k:-1] - t[: -(k + 1)])
        falling = (t[k + 1 :] - v) / (t[k + 1 :] - t[1:-k])
        N = rising * N[:, :-1] + falling * N[:, 1:]
    return N


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("knots", "order", "uniform"),
    [
        (12, 3, True),
        (15, 3, True),
        (8, 3, True),
        (5, 3, True),
        (12, 3, False),
        (9, 2, False),
        (20, 5, False),
        (4, 1, False),
    ],
)
def test_bases_are_the_recursion(
    kernels: EmulatedKernels, knots: int, order: int, uniform: bool, dtype: type[np.floating]
) -> None:
    rng = np.random.default_rng(knots)
    grid_min, step = np.float32(-2.2), np.float32(0.4)
    if uniform:
        t = np.float64(grid_min) + np.float64(step) * np.arange(knots)
    else:
        t = (-2 + np.cumsum(0.05 + 0.6 * rng.random(knots))).astype(np.float32).astype(np.float64)
    x = rng.uniform(t[0] - 1, t[-1] + 1, size=1027).astype(dtype)
    x[:4] = [np.inf, -np.inf, np.float16(6e4), np.float16(-6e4)]
    kernels.settings(multiprocessors=4, order=SHUFFLED, seed=1)
    actual = kernels.basis(x, t, order, uniform=(float(grid_min), float(step)) if uniform else None)
    row = tol(("cuda basis", "recurrence"), torch.float16 if dtype is np.float16 else torch.float32)
    np.testing.assert_allclose(actual.astype(np.float64), basis_recurrence(x, t, order), **row)
    assert not actual[:4].any()
    spoilt = np.array([0.1, np.nan, 0.2], dtype=dtype)
    if uniform:
        assert np.isnan(kernels.basis(spoilt, t, order, uniform=(float(grid_min), float(step)))[1]).all()


def test_a_shape_of_the_network(kernels: EmulatedKernels) -> None:
    """Small's first stage at half the size, as a big GPU cuts it: 4 routes in 16 chunks."""
    inputs = random_inputs((1, 32, 32, 192, 16, 6), np.float16, seed=9)
    kernels.settings(multiprocessors=BIG_GPU)
    assert_scan(kernels.scan(inputs, np.float16), expected_of(inputs))
