"""The function bodies, run by ONNX Runtime without vmkla's kernels, against the reference ops."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines.runners.custom_op_models import Array, call_model, open_session, run, scan_inputs
from tests.tolerances import tol
from vmkla.errors import ShapeError
from vmkla.export.bodies import bspline_body, scan_body
from vmkla.ops import UniformGrid
from vmkla.ops.bspline import bspline_basis_reference
from vmkla.ops.scan import selective_scan2d_reference

CUDA_PROVIDER = set(
    "Abs Add And Cast CastLike Concat Constant Div Exp Expand Gather GreaterOrEqual Identity Less MatMul Max "
    "Min Mul Neg Range ReduceSum Relu Reshape Scan Shape Slice Split Squeeze Sub Transpose Unsqueeze".split()
)
"""Standard ops that onnxruntime-gpu 1.31.1 assigned to its CUDA provider, or folded, in exported networks."""
TORCH = {np.float32: torch.float32, np.float16: torch.float16}


def with_body(model: bytes, body: onnx.FunctionProto) -> onnxruntime.InferenceSession:
    """A session without kernels on a one-node model with a function body."""
    proto = onnx.load_model_from_string(model)
    proto.functions.append(body)
    return open_session(proto.SerializeToString(), kernels=False)


@pytest.fixture(scope="module")
def scans() -> dict[type, onnxruntime.InferenceSession]:
    """One session per element type; it takes every shape."""
    rng = np.random.default_rng(0)
    return {
        dtype: with_body(
            call_model("SelectiveScan2d", scan_inputs(rng, 1, 1, 1, 1, 1, 1, dtype), dtype), scan_body()
        )
        for dtype in (np.float32, np.float16)
    }


def op_types(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Of nodes and of those in the graphs inside them."""
    inner = (attribute.g.node for node in nodes for attribute in node.attribute)
    return {node.op_type for node in nodes}.union(*map(op_types, inner))


def test_the_cuda_provider_of_onnxruntime_has_every_op() -> None:
    """What it lacks is copied to the CPU and back for each scan, without an error."""
    bodies = (scan_body(), bspline_body(3, uniform=True), bspline_body(2, uniform=False))
    found = set[str]().union(*(op_types(body.node) for body in bodies))
    assert {"Scan", "Exp", "Abs"} <= found
    assert found - CUDA_PROVIDER == set()


def reference(inputs: dict[str, Array], double: bool = False) -> torch.Tensor:
    tensors = [torch.from_numpy(value) for value in inputs.values()]
    return selective_scan2d_reference(*(t.double() if double else t for t in tensors))


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(1, 2),
    H=st.integers(1, 9),
    W=st.integers(1, 9),
    d=st.integers(1, 9),
    n=st.integers(1, 5),
    R=st.integers(1, 4),
    dtype=st.sampled_from([np.float32, np.float16]),
    seed=st.integers(0, 999),
)
def test_scan_body_is_the_reference(
    scans: dict[type, onnxruntime.InferenceSession],
    b: int, H: int, W: int, d: int, n: int, R: int, dtype: type, seed: int,
) -> None:  # fmt: skip
    """Any shape, from one session: batch, height, width and all widths are dynamic."""
    inputs = scan_inputs(np.random.default_rng(seed), b, H, W, d, n, R, dtype)
    y = run(scans[dtype], inputs)
    assert y.dtype == dtype
    expected = reference(inputs)
    torch.testing.assert_close(torch.from_numpy(y), expected, **tol(("ort body", "reference"), TORCH[dtype]))


@pytest.mark.parametrize(("H", "W"), [(1, 12), (12, 1), (1, 1), (16, 24)])
def test_scan_body_rows_columns_and_a_larger_image(
    scans: dict[type, onnxruntime.InferenceSession], H: int, W: int
) -> None:
    inputs = scan_inputs(np.random.default_rng(H), 2, H, W, 6, 4, 2)
    y = torch.from_numpy(run(scans[np.float32], inputs))
    expected = reference(inputs, double=True).float()
    torch.testing.assert_close(y, expected, **tol(("ort body", "reference"), torch.float32))


def test_scan_body_with_a_delta_that_softplus_must_not_lose(
    scans: dict[type, onnxruntime.InferenceSession],
) -> None:
    """delta_bias of -14: delta is 1e-6, and the scan's share of y is relatively as exact as ever."""
    inputs = scan_inputs(np.random.default_rng(3), 1, 5, 7, 4, 3, 2)
    inputs["delta_bias"] = np.full_like(inputs["delta_bias"], -14.0)
    inputs["D"] = np.zeros_like(inputs["D"])
    inputs["p"] = np.abs(inputs["p"])  # sums of one sign: nothing cancels
    inputs["u"] = np.abs(inputs["u"]) + 0.1
    y = torch.from_numpy(run(scans[np.float32], inputs))
    expected = reference(inputs, double=True).float()
    assert 0 < expected.abs().max() < 1e-1
    torch.testing.assert_close(y, expected, **tol(("ort body", "small delta"), torch.float32))


def test_scan_body_with_a_delta_that_exp_must_not_overflow(
    scans: dict[type, onnxruntime.InferenceSession],
) -> None:
    """delta_bias of 400: exp(delta) would be infinite, exp(delta A) is 0."""
    inputs = scan_inputs(np.random.default_rng(4), 1, 5, 7, 4, 3, 2)
    inputs["delta_bias"] = np.full_like(inputs["delta_bias"], 400.0)
    y = torch.from_numpy(run(scans[np.float32], inputs))
    assert torch.isfinite(y).all()
    expected = reference(inputs, double=True).float()
    scale = float(expected.abs().max())
    torch.testing.assert_close(y / scale, expected / scale, **tol(("ort body", "reference"), torch.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", ["uniform", "shared", "each"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bspline_body_is_the_reference(order: int, kind: str, dtype: type) -> None:
    """Uniform knots, any knots, and knots of each feature's own; values inside, outside and on knots."""
    rng = np.random.default_rng(order)
    grid_size, features = 5, 6
    uniform = UniformGrid.over(-1.0, 1.0, grid_size, order)
    knots = grid_size + 2 * order + 1
    grid = {
        "uniform": uniform.knots(grid_size, order).numpy(),
        "shared": np.sort(rng.standard_normal(knots)).astype(np.float32),
        "each": np.sort(rng.standard_normal((features, knots))).astype(np.float32),
    }[kind]
    x = (1.5 * rng.standard_normal((2, 7, features))).astype(dtype)
    x[0, 0, :3] = 1e4, -1e4, 0.0
    inputs = {"x": x, "grid": grid}
    attributes = {
        "order": order,
        "uniform": int(kind == "uniform"),
        "grid_min": uniform.grid_min,
        "grid_step": uniform.step if kind == "uniform" else 0.0,
    }
    session = with_body(
        call_model("BSplineBasis", inputs, dtype, **attributes),
        bspline_body(order, uniform=kind == "uniform"),
    )
    bases = run(session, inputs)
    assert bases.shape == (2, 7, features, grid_size + order)
    assert bases.dtype == dtype
    expected = bspline_basis_reference(torch.from_numpy(x), torch.from_numpy(grid), order)
    assert float(expected.float().sum()) > 1
    torch.testing.assert_close(
        torch.from_numpy(bases), expected, **tol(("ort body", "basis reference"), TORCH[dtype])
    )


def test_nodes_share_one_uniform_body_with_grids_of_their_own() -> None:
    """grid_min and grid_step come from the node, not from the body."""
    rng = np.random.default_rng(0)
    body = bspline_body(3, uniform=True)
    for low, high in ((-1.0, 1.0), (0.0, 3.0)):
        uniform = UniformGrid.over(low, high, 5, 3)
        inputs = {
            "x": rng.uniform(low, high, (4, 3)).astype(np.float32),
            "grid": uniform.knots(5, 3).numpy(),
        }
        model = call_model(
            "BSplineBasis", inputs, np.float32,
            order=3, uniform=1, grid_min=uniform.grid_min, grid_step=uniform.step,
        )  # fmt: skip
        bases = torch.from_numpy(run(with_body(model, body), inputs))
        torch.testing.assert_close(bases.sum(-1), torch.ones(4, 3))


def test_order_zero_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least 1"):
        bspline_body(0, uniform=False)


def test_a_reversed_route_would_be_seen(scans: dict[type, onnxruntime.InferenceSession]) -> None:
    """The comparison's own sharpness: with routes 2 and 3 not reversed, the reference is far away."""
    body = scan_body()
    for node in body.node:
        if node.output[0] == "minus_hw":
            node.attribute[0].ints[:] = [-1, -1]
        if node.op_type == "Slice":
            node.op_type, node.input[:] = "Identity", node.input[:1]
    inputs = scan_inputs(np.random.default_rng(5), 1, 4, 5, 3, 2, 1)
    wrong = run(with_body(call_model("SelectiveScan2d", inputs, np.float32), body), inputs)
    right = run(scans[np.float32], inputs)
    assert np.abs(wrong - right).max() > 1e-2
