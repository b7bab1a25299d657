"""Small ONNX models around single nodes of domain ``vmkla``, for the tests of the ONNX Runtime kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from vmkla.engines.runners.custom_ops import register

Array = npt.NDArray[Any]

SCAN_INPUTS = ("u", "p", "dt_weight", "A", "D", "delta_bias")
HALVES = {"u", "p", "dt_weight", "x"}
"""Inputs that take the element type of the overload; the others are float32 in both."""

ELEMENT = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}


def scan_inputs(
    rng: np.random.Generator,
    b: int,
    H: int,
    W: int,
    d: int,
    n: int,
    R: int,
    dtype: npt.DTypeLike = np.float32,
) -> dict[str, Array]:
    """Make random inputs of one selective scan, with the magnitudes of a trained network."""
    inputs = {
        "u": rng.standard_normal((b, H, W, d)),
        "p": rng.standard_normal((b, H, W, 4 * (2 * n + R))),
        "dt_weight": rng.standard_normal((4, R, d)) / np.sqrt(R),
        "A": -np.exp(rng.standard_normal((4, n, d))),
        "D": rng.standard_normal(d),
        "delta_bias": rng.uniform(-4.0, 0.0, (4, d)),
    }
    return {k: v.astype(dtype if k in HALVES else np.float32) for k, v in inputs.items()}


def call_model(
    op: str,
    inputs: Mapping[str, Array],
    output_dtype: npt.DTypeLike,
    *,
    body: Sequence[onnx.NodeProto] | None = None,
    **attributes: Any,
) -> bytes:
    """Build a model of one node that writes ``y``.

    Ranks alone are declared: sizes that do not fit together reach the kernel.

    Args:
        op: name in domain ``vmkla``.
        inputs: for names, types and ranks.
        output_dtype: type of y.
        body: nodes of a model-local function of the same name; None: there is none.
        attributes: of the call, beside those that are there for TensorRT.
    """
    attributes |= {"plugin_namespace": "vmkla", "plugin_version": "1"}
    node = helper.make_node(op, list(inputs), ["y"], domain="vmkla", **attributes)
    graph = helper.make_graph(
        [node],
        "one_call",
        [helper.make_tensor_value_info(k, ELEMENT[v.dtype], [None] * v.ndim) for k, v in inputs.items()],
        [helper.make_tensor_value_info("y", ELEMENT[np.dtype(output_dtype)], None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("vmkla", 1)]
    functions = []
    if body is not None:
        functions.append(
            helper.make_function("vmkla", op, list(inputs), ["y"], list(body), opsets[:1], list(attributes))
        )
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    serialized: bytes = model.SerializeToString()
    return serialized


def open_session(model: bytes, *, kernels: bool = True, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a CPU session with or without vmkla's kernels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # expected failures would fill the log
    if kernels:
        register(options)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, inputs: Mapping[str, Array]) -> Array:
    """Run the session and return its one output."""
    (y,) = session.run(None, dict(inputs))
    result: Array = y
    return result


def save(model: bytes, inputs: Mapping[str, Array], folder: Path) -> None:
    """Write ``model.onnx`` and ``inputs.npz``, for another process."""
    (folder / "model.onnx").write_bytes(model)
    np.savez(folder / "inputs.npz", **inputs)
