"""Compare ONNX Runtime's products of the largest integers with numpy's: a program for ``other_cpus.run``.

    python tests/calibration/extreme_products.py TARGET ...

Prints, as JSON, the largest difference in integers by target, and how many products there were.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from vmkla.calibration.insertion import insert
from vmkla.calibration.layers import WEIGHT_LEVELS, Target, find_layers

Integers = npt.NDArray[np.int64]

STEP = np.float32(2.0**-7)  # of both; powers of two, so that nothing is rounded but the sum itself
ROWS = (1, 2, 17)
SHAPES = ((64, 16), (67, 33), (768, 40), (6144, 16))
"""Summands and results. No product of the presets has more summands than the last."""


def cases(summands: int, results: int, levels: int) -> Iterator[tuple[Integers, Integers]]:
    """Make activations (17, summands) and weights (summands, results) at their limits."""
    rng = np.random.default_rng(summands)
    signs = rng.choice([-1, 1], (summands, results))
    spread = rng.integers(-levels, levels + 1, (summands, results))
    for weights in (np.full_like(signs, levels), np.full_like(signs, -levels), signs * levels, spread):
        weights[0] = levels  # of each result, so that its scale is the step
        mixed = rng.choice([-128, -127, 0, 127], (ROWS[-1], summands))
        for activations in (np.full_like(mixed, 127), np.full_like(mixed, -128), mixed):
            yield activations, weights


def model(weights: Integers, target: Target) -> onnx.ModelProto:
    """Build x -> QuantizeLinear, DequantizeLinear -> MatMul as calibration writes it, and an unused head."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"], name="body/MatMul"),
            helper.make_node("MatMul", ["y", "head"], ["z"], name="head/MatMul"),
        ],
        "product",
        [value("x", TensorProto.FLOAT, ["rows", len(weights)])],
        [value("y", TensorProto.FLOAT, ["rows", weights.shape[1]])],
        [
            numpy_helper.from_array(weights.astype(np.float32) * STEP, "w"),
            numpy_helper.from_array(np.ones((weights.shape[1], 1), np.float32), "head"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (layer,) = find_layers(made, target)
    return insert(made, [layer], {layer.key: (-127 * float(STEP), 127 * float(STEP))})


def integer_products(made: onnx.ModelProto) -> int:
    """Count the products that ONNX Runtime computes in integers."""
    from vmkla.engines.runners import custom_ops

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        custom_ops.register(options)
        ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return sum(node.op_type == "MatMulIntegerToFloat" for node in onnx.load(str(path)).graph.node)


def largest_difference(target: Target) -> tuple[float, int]:
    """Return the largest difference over all cases, and how many shapes are multiplied in integers."""
    worst, found = 0.0, 0
    for summands, results in SHAPES:
        for activations, weights in cases(summands, results, WEIGHT_LEVELS[target]):
            made = model(weights, target)
            session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
            for rows in ROWS:
                x = activations[:rows]
                (seen,) = session.run(["y"], {"x": x.astype(np.float32) * STEP})
                expected = (x.astype(np.int32) @ weights.astype(np.int32)).astype(np.float32)
                worst = max(worst, float(np.abs(seen / STEP**2 - expected).max()))
        found += integer_products(made)
    return worst, found


if __name__ == "__main__":
    print(json.dumps({target: largest_difference(target) for target in sys.argv[1:]}))  # type: ignore[arg-type]
