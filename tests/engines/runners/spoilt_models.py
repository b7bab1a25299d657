"""Model files that are each spoilt in one way, with matching checksums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.export.exported_models import resealed

Model = onnx.ModelProto
Change = Callable[[Model], object]


def spoilt(path: Path, change: Change) -> Path:
    """Rewrite a model file with one change and matching checksums."""
    model = onnx.load(path)
    change(model)
    path.write_bytes(resealed(model))
    return path


def external(name: str = "elsewhere") -> TensorProto:
    """Make a float tensor whose values are in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def with_external_data(model: Model) -> None:
    """Add an initializer whose values are in another file."""
    model.graph.initializer.append(external())


def largest_weight(model: Model) -> TensorProto:
    """Return the float weight with the most values."""
    floats = (t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
    return max(floats, key=lambda tensor: len(tensor.raw_data))


def with_nan(model: Model) -> None:
    """Put one NaN in the middle of the largest weight."""
    tensor = largest_weight(model)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[values.size // 2] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def with_impossible_reshape(model: Model) -> None:
    """Add a reshape that fails for every frame; a loader cannot know, since the batch is dynamic."""
    first = model.graph.node[0]
    assert first.op_type == "Cast" and first.input[0] == "frames"
    shape = numpy_helper.from_array(np.array([7, -1, 11, 13], np.int64), "impossible")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("Reshape", ["frames", "impossible"], ["again"]))
    model.graph.node.insert(1, helper.make_node("Shape", ["frames"], ["back"]))
    model.graph.node.insert(2, helper.make_node("Reshape", ["again", "back"], ["same"]))
    first.input[0] = "same"


def flip_weight(path: Path) -> None:
    """Flip one bit of the largest weight without changing the checksum."""
    data = path.read_bytes()
    at = weight_byte(data)
    path.write_bytes(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])


def weight_byte(data: bytes) -> int:
    """Return the offset of a byte in the middle of the largest weight."""
    raw = largest_weight(onnx.load_model_from_string(data)).raw_data
    return data.index(raw) + len(raw) // 2
