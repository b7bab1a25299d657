"""Check that a half-precision graph stays in half's range, by the largest magnitude of each of its tensors.

The graph is widened: it gets float32 in place of half under the same names, so that nothing overflows and
every magnitude is exact. ONNX Runtime computes it with vmkla's kernels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vmkla.engines.runners.batches import network_input
from vmkla.engines.runners.custom_ops import cpu_session
from vmkla.errors import VmklaError
from vmkla.export.half import HALF_MAX, RANGE_LIMIT
from vmkla.imports import require
from vmkla.metadata import InputType
from vmkla.segment import steps

if TYPE_CHECKING:
    import onnx

REPORTED = 10
"""Number of tensors that a report names."""


@dataclass(frozen=True)
class HalfRangeReport:
    """Largest magnitudes of a graph's half tensors over some frames.

    Attributes:
        limit: largest allowed magnitude.
        tensors: number of measured tensors, weights included.
        frames: number of frames that were run.
        largest: name and magnitude of the largest tensors, largest first; equal ones in the graph's order.
        beyond: number of tensors beyond the limit.
        float32_scans: names of the scans that run in float32 and are not among the tensors.
    """

    limit: float
    tensors: int
    frames: int
    largest: tuple[tuple[str, float], ...]
    beyond: int
    float32_scans: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all tensors are within the limit."""
        return self.beyond == 0

    def failures(self) -> tuple[str, ...]:
        """Return one line for each of the largest tensors beyond the limit, and one for the rest."""
        lines = [
            f"{name} reaches {value:.4g}, allowed is {self.limit:.4g}"
            for name, value in self.largest
            if not value <= self.limit
        ]
        more = self.beyond - len(lines)
        return (*lines, f"and {more} tensors more") if more > 0 else tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and metadata; an infinite magnitude is null."""
        return {
            "passed": self.passed,
            "limit": self.limit,
            "tensors": self.tensors,
            "frames": self.frames,
            "beyond": self.beyond,
            "largest": {name: value if math.isfinite(value) else None for name, value in self.largest},
            "float32_scans": list(self.float32_scans),
        }


def measure_half_range(
    proto: onnx.ModelProto,
    frames: npt.NDArray[np.uint8],
    *,
    input_type: InputType,
    batch: int | None,
    float32_scans: Sequence[str] = (),
) -> HalfRangeReport:
    """Measure the largest magnitude of every half tensor, weights included.

    Args:
        proto: a half-precision graph; it is not changed.
        frames: (n, height, width, 3) uint8 RGB, preprocessed.
        input_type: input type of the graph.
        batch: fixed batch of the graph, or None.
        float32_scans: names of the scans that run in float32, for the report.
    """
    wide, names = widened(proto)
    magnitudes = {name: _magnitude(array) for name, array in _half_weights(proto).items()}
    watched = [name for name in names if name not in magnitudes]
    _add_magnitude_outputs(wide, watched)
    session = cpu_session(wide.SerializeToString())
    results = [_result(i) for i in range(len(watched))]
    largest = np.zeros(len(watched))
    for frame in frames:
        feed = network_input(steps.batch(frame[np.newaxis], batch), input_type)
        seen = np.array(session.run(results, {session.get_inputs()[0].name: feed}), np.float64)
        largest = np.maximum(largest, np.where(np.isfinite(seen), seen, np.inf))
    magnitudes.update(zip(watched, largest.tolist(), strict=True))
    ranked = sorted(magnitudes.items(), key=lambda item: -item[1])
    return HalfRangeReport(
        limit=RANGE_LIMIT,
        tensors=len(ranked),
        frames=len(frames),
        largest=tuple(ranked[:REPORTED]),
        beyond=sum(not value <= RANGE_LIMIT for value in magnitudes.values()),
        float32_scans=tuple(float32_scans),
    )


def widened(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Copy a graph with float32 in place of half; return it with the names of the values that were half.

    Function bodies stay: they are float32 inside, and ``measure_half_range`` runs the kernels.

    Raises:
        VmklaError: the type of a value is not stated.
    """
    onnx = require("onnx", extra="export", purpose="vmkla export")
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    wide = copy.deepcopy(proto)
    names = []
    for tensor in wide.graph.initializer:
        if tensor.data_type == half:
            names.append(tensor.name)
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    was_half, known = set(), set()
    for value in (*wide.graph.value_info, *wide.graph.input, *wide.graph.output):
        known.add(value.name)
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single
            was_half.add(value.name)
    for node in wide.graph.node:
        if not known.issuperset(node.output):
            raise VmklaError(f"the graph does not state the type of {node.name}'s results")
        names += [name for name in node.output if name in was_half]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = single
    return wide, names


def _half_weights(proto: onnx.ModelProto) -> dict[str, npt.NDArray[np.float16]]:
    onnx = require("onnx", extra="export", purpose="vmkla export")
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT16
    }


def _magnitude(values: npt.NDArray[np.float16]) -> float:
    """Return the largest magnitude; infinite when a value is beyond half's range."""
    largest = float(np.abs(values.astype(np.float64)).max(initial=0.0))
    return largest if largest <= HALF_MAX else math.inf


def _result(index: int) -> str:
    return f"vmkla.magnitude.{index}"


def _add_magnitude_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Add an output with the largest magnitude of each value, in place."""
    onnx = require("onnx", extra="export", purpose="vmkla export")
    make = onnx.helper.make_node
    for i, name in enumerate(names):
        model.graph.node.append(make("Abs", [name], [f"{_result(i)}.abs"]))
        model.graph.node.append(make("ReduceMax", [f"{_result(i)}.abs"], [_result(i)], keepdims=0))
        model.graph.output.append(onnx.helper.make_tensor_value_info(_result(i), onnx.TensorProto.FLOAT, []))
