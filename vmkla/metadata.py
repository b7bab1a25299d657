"""The metadata in an ONNX file's ``metadata_props``: one definition for export, runners and inspect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from vmkla import __version__
from vmkla.bounded import parse_json, parse_names
from vmkla.errors import ArtefactMismatchError, VmklaError
from vmkla.plain_values import from_plain
from vmkla.segment.operating_point import OperatingPoint, stated_point
from vmkla.segment.preprocess import PreprocessSpec

FORMAT = "1"
"""Version of this layout; it rises when a reader of the old layout would misread the new one."""

_TEXT_MAX_BYTES = 4 << 20
"""Largest size of one entry; the largest in use, the result of a check, has about ten thousand bytes."""

Precision = Literal["fp32", "fp16", "int8"]
"""Precision of the arithmetic in an exported file."""
InputType = Literal["uint8", "float32"]
"""Type of the input ``frames``: uint8 (n, H, W, 3), or float32 (n, 3, H, W); RGB, 0 to 255 in both."""


@dataclass(frozen=True)
class ArtefactMetadata:
    """Facts about an exported network, stored in its file.

    Attributes:
        model_config: ``ModelConfig.to_dict()`` of the network.
        class_names: name of each output channel.
        threshold: lowest probability of a pixel that belongs to the mask, between 0 and 1.
        preprocess: how a frame becomes the network's input.
        training: summary of the training data and run; empty when unknown.
        weights_sha256: hex digest of the weights' bytes, in the order of their names.
        random_weights: the weights were never trained.
        gates: result of the check when the file was made; empty when there was none.
        precision: ``fp32``, ``fp16`` or ``int8``.
        input_type: type and layout of the input ``frames``; ``uint8`` in older files, which do not state it.
        profile: smallest, usual and largest batch that an engine is built for; None when it was not given, or
            when the batch is fixed.
        calibration: how an ``int8`` file was made, and the instruction set that it ``requires``; empty for
            other files.
        operating_point: the rule by which a region counts as a finding, with the same threshold; None in a
            file that states its threshold only.
        tuning: what `vmkla tune` recorded each time that it changed the operating point, oldest first.
        self_test: the network's output for the frame of ``vmkla.segment.self_test``; None when it is unknown.
        vmkla_version: version of vmkla that wrote the file.
    """

    model_config: dict[str, Any]
    class_names: tuple[str, ...]
    threshold: float
    preprocess: PreprocessSpec
    weights_sha256: str
    training: dict[str, Any] = field(default_factory=dict)
    random_weights: bool = False
    gates: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    input_type: InputType = "uint8"
    profile: tuple[int, int, int] | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    operating_point: OperatingPoint | None = None
    tuning: tuple[dict[str, Any], ...] = ()
    self_test: dict[str, Any] | None = None
    vmkla_version: str = __version__

    @property
    def requires(self) -> str | None:
        """Instruction set that the file's 8-bit products need, such as ``vnni``, or None.

        An older INT8 file for CPUs does not state it; its weights have 8 bits. A file for TensorRT multiplies
        in float32 on a CPU.
        """
        if self.precision != "int8" or self.calibration.get("target") == "tensorrt":
            return None
        required = self.calibration.get("requires", "vnni")
        return None if required is None else str(required)

    @property
    def verified(self) -> bool:
        """Whether the check when the file was made was run and passed."""
        return self.gates.get("passed") is True

    def to_props(self) -> dict[str, str]:
        """Return key and text of each entry, as ONNX stores them."""
        return {
            "vmkla.format": FORMAT,
            "vmkla.version": self.vmkla_version,
            "vmkla.model_config": json.dumps(self.model_config),
            "vmkla.class_names": json.dumps(self.class_names),
            "vmkla.threshold": json.dumps(self.threshold),
            "vmkla.preprocess": json.dumps(self.preprocess.to_dict()),
            "vmkla.training": json.dumps(self.training),
            "vmkla.weights_sha256": self.weights_sha256,
            "vmkla.random_weights": json.dumps(self.random_weights),
            "vmkla.gates": json.dumps(self.gates),
            "vmkla.precision": self.precision,
            "vmkla.input_type": self.input_type,
            "vmkla.profile": json.dumps(self.profile),
            "vmkla.calibration": json.dumps(self.calibration),
            "vmkla.self_test": json.dumps(self.self_test),
            **point_props(self.operating_point, self.tuning),
        }

    @classmethod
    def from_props(cls, props: Mapping[str, str], *, path: str) -> ArtefactMetadata:
        """Parse the entries of ``to_props``.

        Args:
            props: the file's metadata.
            path: name of the file, for messages.
        Raises:
            ArtefactMismatchError: the file is not one of vmkla's, or is of another layout.
        """
        if "vmkla.format" not in props:
            raise ArtefactMismatchError(
                f"{path} carries no vmkla metadata, so its preprocessing and classes are unknown",
                hint="Use a file that `vmkla export` wrote.",
            )
        if props["vmkla.format"] != FORMAT:
            raise ArtefactMismatchError(
                f"{path} has metadata layout {props['vmkla.format']!r}, this version reads {FORMAT!r}",
                hint="Run: vmkla export again with this version",
            )
        try:
            threshold = _threshold(_parsed(props["vmkla.threshold"]))
            point, tuning = read_point_props(props, threshold)
            return cls(
                model_config=_facts(props["vmkla.model_config"]),
                class_names=_class_names(props["vmkla.class_names"]),
                threshold=threshold,
                preprocess=PreprocessSpec.from_dict(_facts(props["vmkla.preprocess"])),
                training=_facts(props["vmkla.training"]),
                weights_sha256=props["vmkla.weights_sha256"],
                random_weights=bool(_parsed(props["vmkla.random_weights"])),
                gates=_facts(props["vmkla.gates"]),
                precision=props["vmkla.precision"],
                input_type=_input_type(props.get("vmkla.input_type", "uint8")),
                profile=_profile(_parsed(props.get("vmkla.profile", "null"))),
                calibration=_facts(props.get("vmkla.calibration", "{}")),
                operating_point=point,
                tuning=tuning,
                self_test=_self_test(props.get("vmkla.self_test", "null")),
                vmkla_version=props["vmkla.version"],
            )
        except (KeyError, ValueError, TypeError, AttributeError, VmklaError) as error:
            raise ArtefactMismatchError(
                f"{path} has damaged vmkla metadata: {error!r:.300}",
                hint="Run: vmkla export again, or fetch the file again",
            ) from error


def point_props(point: OperatingPoint | None, tuning: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """Return the entries on the operating point, which a checkpoint's header has as well."""
    stated = None if point is None else point.to_dict()
    return {"vmkla.operating_point": json.dumps(stated), "vmkla.tuning": json.dumps(list(tuning))}


def read_point_props(
    props: Mapping[str, str], threshold: float
) -> tuple[OperatingPoint | None, tuple[dict[str, Any], ...]]:
    """Inverse of ``point_props``; an older file has neither entry.

    Args:
        props: the file's metadata.
        threshold: that the file states.
    Raises:
        ValueError, TypeError, KeyError, VmklaError: an entry is damaged.
    """
    point = stated_point(_parsed(props.get("vmkla.operating_point", "null")), threshold)
    records = from_plain(tuple[dict[str, Any], ...], _parsed(props.get("vmkla.tuning", "[]")), "tuning")
    return point, records


def _parsed(text: str) -> Any:
    return parse_json(text, _TEXT_MAX_BYTES)


def _facts(text: str) -> dict[str, Any]:
    return parse_names(text, _TEXT_MAX_BYTES)


def _class_names(text: str) -> tuple[str, ...]:
    names: tuple[str, ...] = from_plain(tuple[str, ...], _parsed(text), "class_names")
    if not names:
        raise ValueError("there are no class names")
    return names


def _threshold(value: Any) -> float:
    threshold: float = from_plain(float, value, "threshold")
    if not 0.0 < threshold < 1.0:
        raise ValueError(f"threshold {value!r}, expected a number between 0 and 1")
    return threshold


def _self_test(text: str) -> dict[str, Any] | None:
    if _parsed(text) is None:
        return None
    values = _facts(text)
    if "grids" in values:
        np.asarray(values["grids"], np.float64)  # a ValueError where it is not an array of numbers
    return values


def _input_type(text: str) -> InputType:
    found: dict[str, InputType] = {"uint8": "uint8", "float32": "float32"}
    if text not in found:
        raise ValueError(f"input type {text!r}, expected one of {list(found)}")
    return found[text]


def _profile(values: Any) -> tuple[int, int, int] | None:
    if values is None:
        return None
    smallest, usual, largest = from_plain(tuple[int, int, int], values, "profile")
    if not 1 <= smallest <= usual <= largest:
        raise ValueError(f"batch profile {values}, expected 1 <= min <= opt <= max")
    return smallest, usual, largest
