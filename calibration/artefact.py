"""Read the files that a calibration starts from, and write quantized ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmkla.calibration.equalise import Divisors, equalise
from vmkla.calibration.insertion import Range, insert
from vmkla.calibration.layers import WEIGHT_LEVELS, Layer, Target, find_layers
from vmkla.cpu_features import VNNI
from vmkla.engines.runners.model_file import open_model
from vmkla.engines.runners.onnx_file import with_metadata
from vmkla.errors import ArtefactMismatchError, BadInputError, UsageError, first_line
from vmkla.files import write_whole
from vmkla.imports import require
from vmkla.metadata import ArtefactMetadata, Precision

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, eq=False)
class Artefact:
    """An exported file.

    Attributes:
        path: path of the file.
        target: what will run the quantized file.
        sha256: hex digest of the file's bytes.
        metadata: metadata of the file.
        model: the graph.
        layers: layers of the graph that can be quantized.
    """

    path: Path
    target: Target
    sha256: str
    metadata: ArtefactMetadata
    model: onnx.ModelProto
    layers: tuple[Layer, ...]

    @property
    def form(self) -> dict[str, Any]:
        """Integers of a file that is made of this one, and the CPUs that may run it, for its metadata."""
        return {
            "target": self.target,
            "weight_levels": WEIGHT_LEVELS[self.target],
            "requires": VNNI if self.target == "cpu-vnni" else None,
        }

    @property
    def batch(self) -> int | None:
        """The fixed batch, or None."""
        first = self.model.graph.input[0].type.tensor_type.shape.dim[0]
        return int(first.dim_value) or None

    def write_quantized(
        self,
        layers: Sequence[Layer],
        ranges: Mapping[str, Range],
        path: Path,
        *,
        divisors: Divisors | None = None,
        gates: Mapping[str, Any] | None = None,
        calibration: Mapping[str, Any] | None = None,
        self_test: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a file in which some layers multiply integers.

        Args:
            layers: layers to quantize, from ``self.layers``.
            ranges: range of each divided activation, by ``Layer.key``.
            path: the file, which is written whole or not at all.
            divisors: divisors of activations, by ``Layer.key``.
            gates, calibration, self_test: entries of its metadata; ``form`` is added to ``calibration``.
        """
        model, layers = equalise(self.model, layers, divisors or {})
        made = insert(model, layers, ranges)
        metadata = dataclasses.replace(
            self.metadata,
            precision="int8",
            gates=dict(gates or {}),
            calibration={**self.form, **(calibration or {})},
            self_test=None if self_test is None else dict(self_test),
        )
        write_whole(path, with_metadata(made.SerializeToString(), metadata.to_props()), private=False)


def open_artefact(path: Path, target: Target, precision: Precision) -> Artefact:
    """Read an exported file.

    Args:
        path: the file.
        target: what will run the result, which decides which layers can be quantized.
        precision: required precision.
    Raises:
        BadInputError: it is missing, damaged, or not an ONNX file.
        ArtefactMismatchError: it is not one of vmkla's, is damaged, or is of another precision.
        UsageError: nothing in it can be quantized.
    """
    onnx = require("onnx", extra="calibrate", purpose="vmkla calibrate")
    file = open_model(path)
    metadata = file.metadata
    if metadata.precision != precision:
        raise ArtefactMismatchError(
            f"{path} is {metadata.precision}, expected {precision}",
            hint=f"Run: vmkla export --precision {precision} with the same weights, and give that file.",
        )
    try:
        model = onnx.load_model_from_string(file.data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's DecodeError and onnx's ValidationError have no base of their own
        raise BadInputError(
            f"{path} is not a valid ONNX file: {first_line(error)}",
            hint="Fetch or export it again.",
        ) from error
    layers = find_layers(model, target)
    if not layers:
        raise UsageError(f"{path} has no multiplication that can be quantized for {target}")
    return Artefact(path, target, file.sha256, metadata, model, layers)


def open_half(path: Path, single: Artefact) -> Artefact:
    """Read the half-precision file of the network that a float32 file holds.

    Raises:
        ArtefactMismatchError: it is not of the same network.
        VmklaError: whatever ``open_artefact`` raises.
    """
    half = open_artefact(path, "tensorrt", "fp16")
    for name in ("weights_sha256", "class_names", "preprocess", "threshold", "input_type"):
        theirs, ours = getattr(half.metadata, name), getattr(single.metadata, name)
        if theirs != ours:
            raise ArtefactMismatchError(
                f"{path} has {name} {theirs}, {single.path} has {ours}",
                hint="Export both from the same weights with the same options, but for --precision.",
            )
    missing = {layer.key for layer in half.layers} - {layer.key for layer in single.layers}
    if missing:
        raise ArtefactMismatchError(
            f"{path} multiplies by {sorted(missing)[0]}, which {single.path} does not",
            hint="Export both with this version of vmkla.",
        )
    return half
