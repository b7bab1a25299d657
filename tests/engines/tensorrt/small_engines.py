"""Small files of the form that ``vmkla export`` writes: TensorRT-RTX builds their engines within a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vmkla.export import bodies
from vmkla.metadata import ArtefactMetadata
from vmkla.segment.preprocess import PreprocessSpec

HEIGHT, WIDTH = 32, 64
PLUGIN = {"plugin_namespace": "vmkla", "plugin_version": "1"}
SPLINE = {"order": 3, "uniform": 1, "grid_min": -2.2, "grid_step": 0.4}


def small_model(
    *,
    scan: bool = False,
    batch: int | str = "n",
    half: bool = False,
    functions: bool = True,
    metadata: dict[str, Any] | None = None,
    extra_nodes: Sequence[onnx.NodeProto] = (),
) -> onnx.ModelProto:
    """Build a model of a spline layer per pixel and, on request, a selective scan, with seeded weights.

    Args:
        scan: add a scan of 4 channels and 2 states, with its 100 nodes of body.
        batch: the input's first extent.
        half: the products in half precision.
        functions: with the bodies of the custom nodes.
        metadata: fields of ``ArtefactMetadata`` that shall differ; ``{"vmkla.format": ...}`` and other
            keys with a dot are set as they are, behind it.
        extra_nodes: go before all others.
    """
    rng = np.random.default_rng(3)
    element = np.float16 if half else np.float32
    weights: dict[str, np.ndarray[Any, Any]] = {
        "scale": np.asarray(1 / 255, element),
        "grid": (-2.2 + 0.4 * np.arange(12)).astype(np.float32),
        "flat": np.asarray([0, 0, 0, -1], np.int64),
        "project": rng.standard_normal((24, 1)).astype(element),
    }
    to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        *extra_nodes,
        helper.make_node("Cast", ["frames"], ["pixels"], "input/Cast", to=to),
        helper.make_node("Mul", ["pixels", "scale"], ["x"], "input/Mul"),
        helper.make_node(
            "BSplineBasis", ["x", "grid"], ["bases"], "kan/BSplineBasis", domain="vmkla", **SPLINE, **PLUGIN
        ),
        helper.make_node("Reshape", ["bases", "flat"], ["features"], "kan/Reshape"),
        helper.make_node("MatMul", ["features", "project"], ["spline"], "kan/MatMul"),
    ]
    last = "spline"
    if scan:
        last = "summed"
        weights |= {
            "to_u": rng.standard_normal((3, 4)).astype(element),
            "to_p": rng.standard_normal((3, 4 * (2 * 2 + 1))).astype(element),
            "dt_weight": rng.standard_normal((4, 1, 4)).astype(element),
            "A": -np.exp(rng.standard_normal((4, 2, 4))).astype(np.float32),
            "D": rng.standard_normal(4).astype(np.float32),
            "delta_bias": rng.uniform(-4, 0, (4, 4)).astype(np.float32),
            "from_y": rng.standard_normal((4, 1)).astype(element),
        }
        inputs = ["u", "p", "dt_weight", "A", "D", "delta_bias"]
        nodes += [
            helper.make_node("MatMul", ["x", "to_u"], ["u"], "scan/u"),
            helper.make_node("MatMul", ["x", "to_p"], ["p"], "scan/p"),
            helper.make_node(
                "SelectiveScan2d", inputs, ["y"], "scan/SelectiveScan2d", domain="vmkla", **PLUGIN
            ),
            helper.make_node("MatMul", ["y", "from_y"], ["scanned"], "scan/MatMul"),
            helper.make_node("Add", ["spline", "scanned"], [last], "scan/Add"),
        ]
    nodes += [
        helper.make_node("Transpose", [last], ["logits"], "output/Transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["logits"], ["wide"], "output/Cast", to=TensorProto.FLOAT),
        helper.make_node("Sigmoid", ["wide"], ["probability"], "output/Sigmoid"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [batch, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [batch, 1, HEIGHT, WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    local = [bodies.bspline_body(3, uniform=True), *([bodies.scan_body()] if scan else [])]
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", bodies.OPSET), helper.make_opsetid("vmkla", 1)],
        functions=local if functions else [],
        ir_version=10,
    )
    helper.set_model_props(model, properties(half=half, **(metadata or {})))
    return model


def properties(*, half: bool = False, **changed: Any) -> dict[str, str]:
    """Make ``metadata_props`` of a small file; keys with a dot replace the text itself."""
    fields = {key: value for key, value in changed.items() if "." not in key}
    made = ArtefactMetadata(
        **{
            "model_config": {"name": "small-test"},
            "class_names": ("polyp",),
            "threshold": 0.5,
            "preprocess": PreprocessSpec(HEIGHT, WIDTH),
            "weights_sha256": "ab" * 32,
            "gates": {"passed": True},
            "precision": "fp16" if half else "fp32",
            **fields,
        }
    )
    return {**made.to_props(), **{key: str(value) for key, value in changed.items() if "." in key}}
