"""The ONNX Runtime kernels against the torch definition of each op, and what they refuse."""

from __future__ import annotations

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper

from tests.engines.runners.custom_op_models import (
    SCAN_INPUTS,
    Array,
    call_model,
    open_session,
    run,
    scan_inputs,
)
from tests.tolerances import tol
from vmkla.engines.runners.custom_ops import register
from vmkla.errors import ArtefactMismatchError, MissingDependencyError
from vmkla.native import find_library
from vmkla.ops.bspline import UniformGrid, bspline_basis_reference
from vmkla.ops.scan import selective_scan2d_reference

DTYPES = [np.float32, np.float16]
SCAN = ("ort kernel", "reference")
BASIS = ("ort kernel", "basis reference")

SCAN_EXTENTS = {  # b, H, W, d, n, R
    "vector widths": (2, 4, 8, 32, 16, 2),
    "odd extents": (3, 5, 7, 19, 3, 5),
    "just over a vector": (1, 3, 4, 17, 9, 1),
    "one row": (2, 1, 11, 8, 4, 3),
    "one column": (2, 11, 1, 33, 5, 6),
    "one state": (1, 4, 6, 12, 1, 2),
    "one of all": (1, 1, 1, 1, 1, 1),
    "empty batch": (0, 4, 4, 8, 2, 1),
}

BASIS_SHAPES = {"vector": (37,), "image": (2, 3, 5, 19), "one value": (1, 1), "empty batch": (0, 4, 7)}


def tolerance(pair: tuple[str, str], dtype: Any) -> dict[str, float]:
    return tol(pair, torch.from_numpy(np.empty(0, dtype)).dtype)


def torch_scan(inputs: dict[str, Array]) -> Array:
    result: Array = selective_scan2d_reference(*(torch.from_numpy(inputs[k]) for k in SCAN_INPUTS)).numpy()
    return result


def torch_basis(inputs: dict[str, Array], order: int) -> Array:
    x, grid = torch.from_numpy(inputs["x"]), torch.from_numpy(inputs["grid"])
    result: Array = bspline_basis_reference(x, grid, order).numpy()
    return result


def basis_attributes(order: int, uniform: UniformGrid | None = None) -> dict[str, Any]:
    low, step = (uniform.grid_min, uniform.step) if uniform else (0.0, 0.0)
    return {
        "order": order,
        "uniform": int(uniform is not None),
        "grid_min": float(low),
        "grid_step": float(step),
    }


def basis_inputs(
    rng: np.random.Generator, shape: tuple[int, ...], kind: str, order: int, dtype: Any
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Values inside and around a random grid's support, and the attributes that go with it."""
    grid_size = int(rng.integers(1, 7))
    uniform = UniformGrid.over(-1.5, 2.0, grid_size, order)
    low, high = uniform.grid_min, uniform.grid_min + uniform.step * (grid_size + 2 * order)
    if kind == "uniform":
        grid = uniform.knots(grid_size, order).numpy()
    else:
        rows = shape[-1:] if kind == "per feature" else ()
        gaps = rng.uniform(0.3, 1.5, (*rows, grid_size + 2 * order))
        grid = np.concatenate([np.zeros((*rows, 1)), np.cumsum(gaps, axis=-1)], axis=-1)
        grid = low + grid * ((high - low) / grid[..., -1:])
    x = rng.uniform(low - 0.5, high + 0.5, shape)
    inputs = {"x": x.astype(dtype), "grid": grid.astype(np.float32)}
    return inputs, basis_attributes(order, uniform if kind == "uniform" else None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extents", SCAN_EXTENTS.values(), ids=SCAN_EXTENTS.keys())
def test_scan_is_the_torch_definition(extents: tuple[int, ...], dtype: Any) -> None:
    inputs = scan_inputs(np.random.default_rng(sum(extents)), *extents, dtype=dtype)
    y = run(open_session(call_model("SelectiveScan2d", inputs, dtype)), inputs)
    assert y.dtype == dtype
    assert y.shape == inputs["u"].shape
    np.testing.assert_allclose(y, torch_scan(inputs), **tolerance(SCAN, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_session_takes_any_size(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    session = open_session(
        call_model("SelectiveScan2d", scan_inputs(rng, 1, 1, 1, 1, 1, 1, dtype), dtype), threads=2
    )
    for _ in range(8):
        b, H, W, d, n, R = (int(rng.integers(1, top)) for top in (4, 8, 8, 40, 18, 7))
        inputs = scan_inputs(rng, b, H, W, d, n, R, dtype)
        np.testing.assert_allclose(run(session, inputs), torch_scan(inputs), **tolerance(SCAN, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["uniform", "any", "per feature"])
@pytest.mark.parametrize("shape", BASIS_SHAPES.values(), ids=BASIS_SHAPES.keys())
def test_basis_is_the_torch_definition(shape: tuple[int, ...], kind: str, order: int, dtype: Any) -> None:
    rng = np.random.default_rng([len(shape), order, *kind.encode()])
    inputs, attributes = basis_inputs(rng, shape, kind, order, dtype)
    out = run(open_session(call_model("BSplineBasis", inputs, dtype, **attributes)), inputs)
    assert out.dtype == dtype
    assert out.shape == (*shape, inputs["grid"].shape[-1] - order - 1)
    np.testing.assert_allclose(out, torch_basis(inputs, order), **tolerance(BASIS, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["uniform", "any"])
def test_basis_outside_the_support_is_zero(kind: str, dtype: Any) -> None:
    inputs, attributes = basis_inputs(np.random.default_rng(3), (6,), kind, 3, dtype)
    inputs["x"][:] = [np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min, 100.0, -100.0]
    out = run(open_session(call_model("BSplineBasis", inputs, dtype, **attributes)), inputs)
    np.testing.assert_array_equal(out, np.zeros_like(out))


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(dtype: Any) -> None:
    rng = np.random.default_rng(11)
    scan = scan_inputs(rng, 2, 17, 13, 40, 16, 3, dtype)
    basis, attributes = basis_inputs(rng, (3, 21, 19, 24), "uniform", 3, dtype)
    for op, inputs, extra in (("SelectiveScan2d", scan, {}), ("BSplineBasis", basis, attributes)):
        model = call_model(op, inputs, dtype, **extra)
        one, two, four = (run(open_session(model, threads=count), inputs) for count in (1, 2, 4))
        assert one.tobytes() == two.tobytes() == four.tobytes()


def test_kernels_start_no_threads_of_their_own() -> None:
    inputs = scan_inputs(np.random.default_rng(22), 2, 32, 32, 96, 16, 3)
    session = open_session(call_model("SelectiveScan2d", inputs, np.float32), threads=2)
    before = set(os.listdir("/proc/self/task"))
    run(session, inputs)
    assert set(os.listdir("/proc/self/task")) <= before


def test_one_session_serves_several_callers_at_once() -> None:
    rng = np.random.default_rng(12)
    calls = [scan_inputs(rng, 1, 6 + i, 9, 20, 4, 2) for i in range(6)]
    session = open_session(call_model("SelectiveScan2d", calls[0], np.float32), threads=2)
    alone = [run(session, inputs) for inputs in calls]
    with ThreadPoolExecutor(max_workers=4) as pool:
        together = list(pool.map(lambda inputs: run(session, inputs), calls * 5))
    for i, y in enumerate(together):
        assert y.tobytes() == alone[i % len(calls)].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_wins_over_a_function_body(dtype: Any) -> None:
    rng = np.random.default_rng(13)
    inputs = scan_inputs(rng, 1, 3, 4, 10, 2, 1, dtype)
    model = call_model("SelectiveScan2d", inputs, dtype, body=[helper.make_node("Neg", ["u"], ["y"])])
    np.testing.assert_array_equal(run(open_session(model, kernels=False), inputs), -inputs["u"])
    np.testing.assert_allclose(run(open_session(model), inputs), torch_scan(inputs), **tolerance(SCAN, dtype))

    inputs, attributes = basis_inputs(rng, (4, 5), "uniform", 3, dtype)
    model = call_model(
        "BSplineBasis", inputs, dtype, body=[helper.make_node("Neg", ["x"], ["y"])], **attributes
    )
    np.testing.assert_array_equal(run(open_session(model, kernels=False), inputs), -inputs["x"])
    np.testing.assert_allclose(
        run(open_session(model), inputs),
        torch_basis(inputs, 3),
        **tolerance(BASIS, dtype),
    )


WRONG_SHAPES = {  # input, its shape, what the message expects; beside b, H, W, d, n, R = 1, 3, 4, 6, 2, 1
    "u": ((1, 12, 6), "(b, H, W, d)"),
    "p": ((1, 3, 4, 19), "(1, 3, 4, 20) = (b, H, W, 4 (2n + R))"),
    "dt_weight": ((4, 1, 5), "(4, 1, 6) = (4, R, d)"),
    "A": ((3, 2, 6), "(4, 2, 6) = (4, n, d)"),
    "D": ((4, 6), "(6,) = (d,)"),
    "delta_bias": ((6,), "(4, 6) = (4, d)"),
}


@pytest.mark.parametrize("name", SCAN_INPUTS)
def test_scan_refuses_a_wrong_shape(name: str) -> None:
    shape, expected = WRONG_SHAPES[name]
    inputs = scan_inputs(np.random.default_rng(14), 1, 3, 4, 6, 2, 1)
    inputs[name] = np.ones(shape, np.float32)
    session = open_session(call_model("SelectiveScan2d", inputs, np.float32))
    text = f"vmkla SelectiveScan2d: input {name} has shape {shape}, expected {expected}"
    with pytest.raises(Exception, match=re.escape(text)):
        run(session, inputs)


@pytest.mark.parametrize(
    ("x", "grid", "expected"),
    [
        ((), (12,), "input x is a scalar, expected (..., in)"),
        ((2, 5), (), "input grid has shape (), expected (knots,) or (5, knots) beside x (2, 5)"),
        ((2, 5), (4, 12), "input grid has shape (4, 12), expected (knots,) or (5, knots) beside x (2, 5)"),
        ((2, 5), (7,), "input grid has shape (7,), expected at least 8 knots for order 3"),
    ],
)
def test_basis_refuses_a_wrong_shape(x: tuple[int, ...], grid: tuple[int, ...], expected: str) -> None:
    inputs = {"x": np.ones(x, np.float32), "grid": np.ones(grid, np.float32)}
    session = open_session(call_model("BSplineBasis", inputs, np.float32, **basis_attributes(3)))
    with pytest.raises(Exception, match=re.escape(expected)):
        run(session, inputs)


def test_basis_refuses_uniform_attributes_that_contradict_the_grid() -> None:
    inputs, attributes = basis_inputs(np.random.default_rng(15), (2, 5), "uniform", 3, np.float32)
    inputs["grid"][4] += 0.02
    session = open_session(call_model("BSplineBasis", inputs, np.float32, **attributes))
    with pytest.raises(Exception, match=r"knot 4 of input grid is .* expected .* grid_min and grid_step"):
        run(session, inputs)

    inputs, _ = basis_inputs(np.random.default_rng(15), (2, 5), "per feature", 3, np.float32)
    session = open_session(call_model("BSplineBasis", inputs, np.float32, **attributes))
    with pytest.raises(Exception, match=r"expected \(knots,\) when attribute uniform is set"):
        run(session, inputs)


@pytest.mark.parametrize("body", [None, [helper.make_node("Neg", ["x"], ["y"])]], ids=["no body", "body"])
@pytest.mark.parametrize("missing", ["order", "uniform", "grid_min", "grid_step"])
def test_basis_refuses_a_missing_attribute(missing: str, body: Any) -> None:
    inputs, attributes = basis_inputs(np.random.default_rng(16), (2, 5), "uniform", 3, np.float32)
    del attributes[missing]
    model = call_model("BSplineBasis", inputs, np.float32, body=body, **attributes)
    with pytest.raises(Exception, match=f"vmkla BSplineBasis: attribute {missing} "):
        open_session(model)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"order": 0}, "attribute order is 0, expected 1 to 2147483647"),
        ({"order": 2**62 + 1}, "attribute order is 4611686018427387905, expected 1 to 2147483647"),
        ({"grid_step": 0.0}, r"attribute grid_step is 0\.0+, expected more than 0"),
        ({"grid_step": float("nan")}, "attribute grid_step is nan, expected more than 0"),
        ({"order": 3.0}, "attribute order .an int. cannot be read"),
    ],
)
def test_basis_refuses_a_senseless_attribute(change: dict[str, Any], expected: str) -> None:
    inputs, attributes = basis_inputs(np.random.default_rng(17), (2, 5), "uniform", 3, np.float32)
    with pytest.raises(Exception, match=expected):
        open_session(call_model("BSplineBasis", inputs, np.float32, **(attributes | change)))


@pytest.mark.parametrize("name", ["A", "D", "delta_bias"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_half_parameters_are_refused_at_load(name: str, dtype: Any) -> None:
    """Not even when a body would take them: the session must not leave the kernels without a word."""
    inputs = scan_inputs(np.random.default_rng(18), 1, 3, 4, 6, 2, 1, dtype)
    inputs[name] = inputs[name].astype(np.float16)
    model = call_model("SelectiveScan2d", inputs, dtype, body=[helper.make_node("Neg", ["u"], ["y"])])
    with pytest.raises(Exception, match="INVALID_GRAPH.*SelectiveScan2d"):
        open_session(model)
    np.testing.assert_array_equal(run(open_session(model, kernels=False), inputs), -inputs["u"])


def test_kernels_never_run_on_mixed_element_types() -> None:
    inputs = scan_inputs(np.random.default_rng(19), 1, 3, 4, 6, 2, 1)
    inputs["p"] = inputs["p"].astype(np.float16)
    with pytest.raises(Exception, match="SelectiveScan2d"):
        open_session(call_model("SelectiveScan2d", inputs, np.float32))


def test_sessions_share_the_process() -> None:
    """Each session registers anew, the library is loaded once; a closed session takes nothing with it."""
    inputs = scan_inputs(np.random.default_rng(20), 1, 3, 4, 6, 2, 1)
    model = call_model("SelectiveScan2d", inputs, np.float32)
    first, second = open_session(model), open_session(model)
    expected = run(first, inputs)
    del first
    np.testing.assert_array_equal(run(second, inputs), expected)
    del second
    np.testing.assert_array_equal(run(open_session(model), inputs), expected)


def test_register_without_a_library_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="absent.so does not exist") as caught:
        register(onnxruntime.SessionOptions(), tmp_path / "absent.so")
    assert caught.value.hint is not None and "pip install" in caught.value.hint


def test_register_refuses_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library" * 100)
    with pytest.raises(ArtefactMismatchError, match=r"text\.so.*for this machine"):
        register(onnxruntime.SessionOptions(), tmp_path / "text.so")


def test_register_refuses_a_library_of_another_machine(tmp_path: Path) -> None:
    image = bytearray(find_library().read_bytes())
    image[18] ^= 0xFF  # e_machine of the ELF header
    (tmp_path / "foreign.so").write_bytes(image)
    with pytest.raises(ArtefactMismatchError, match=r"foreign\.so.*for this machine"):
        register(onnxruntime.SessionOptions(), tmp_path / "foreign.so")


def test_register_refuses_a_library_without_kernels(tmp_path: Path) -> None:
    import _ctypes

    shutil.copy(_ctypes.__file__, tmp_path / "other.so")
    with pytest.raises(ArtefactMismatchError, match="RegisterCustomOps"):
        register(onnxruntime.SessionOptions(), tmp_path / "other.so")


def test_register_takes_a_path_with_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "Büro mit Leerzeichen"
    folder.mkdir()
    register(onnxruntime.SessionOptions(), Path(shutil.copy(find_library(), folder)))
