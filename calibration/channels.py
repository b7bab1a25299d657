"""Measure the largest magnitude of each channel of an activation, for ``equalise``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmkla.calibration.layers import Layer, weight_rows
from vmkla.calibration.ranges import Progress
from vmkla.engines.runners.batches import network_input
from vmkla.engines.runners.custom_ops import cpu_session
from vmkla.imports import require
from vmkla.metadata import InputType
from vmkla.segment import steps

if TYPE_CHECKING:
    import onnx

_NAME = "largest of {}"


def measure_channels(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    frames: npt.NDArray[np.uint8],
    *,
    input_type: InputType,
    batch: int | None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Measure the largest magnitude of each channel of matrix products' activations, by activation.

    Args:
        model: a float32 graph; it is not changed.
        layers: layers of the graph; convolutions are left out.
        frames: (n, height, width, 3) uint8 RGB, preprocessed.
        input_type, batch: input type and fixed batch of the file.
        threads: CPU threads; None is ONNX Runtime's own choice.
        progress: called after each frame.
    """
    watched = copy.deepcopy(model)
    channels = {
        layer.activation: len(weight_rows(watched, layer)) for layer in layers if layer.kind != "Conv"
    }
    _add_outputs(watched, channels)
    session = cpu_session(watched.SerializeToString(), threads)
    feed = session.get_inputs()[0].name
    found = {name: np.zeros(count, np.float32) for name, count in channels.items()}
    outputs = [_NAME.format(name) for name in found]
    for done, frame in enumerate(frames, 1):
        full = network_input(steps.batch(frame[np.newaxis], batch), input_type)
        for seen, largest in zip(session.run(outputs, {feed: full}), found.values(), strict=True):
            np.maximum(largest, seen, out=largest)
        if progress is not None:
            progress(done, len(frames), "measuring channels")
    return found


def _add_outputs(model: onnx.ModelProto, channels: Mapping[str, int]) -> None:
    """Add an output for each value: the largest magnitudes along its last axis."""
    onnx = require("onnx", extra="calibrate", purpose="vmkla calibrate")
    graph, axis = model.graph, "axis of channels"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), axis))
    for name, count in channels.items():
        largest, shape = _NAME.format(name), f"rows of {name}"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, count], np.int64), shape))
        graph.node.extend(
            [
                onnx.helper.make_node("Reshape", [name, shape], [f"{shape}/values"]),
                onnx.helper.make_node("Abs", [f"{shape}/values"], [f"{shape}/sizes"]),
                onnx.helper.make_node("ReduceMax", [f"{shape}/sizes", axis], [largest], keepdims=0),
            ]
        )
        graph.output.append(onnx.helper.make_tensor_value_info(largest, onnx.TensorProto.FLOAT, [count]))
