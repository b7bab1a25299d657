"""Describe a model file for ``vmkla inspect``, without the onnx package and without a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmkla import weights
from vmkla.config import PRESETS, ModelConfig, get_preset
from vmkla.engines.runners.model_file import open_model
from vmkla.engines.tensorrt.manifest import read_manifest
from vmkla.files import file_sha256
from vmkla.imports import require
from vmkla.metadata import ArtefactMetadata


def describe(model: str | Path) -> dict[str, Any]:
    """Describe a model file of vmkla's; neither a runtime nor a GPU is needed.

    Args:
        model: name of a shipped model, or path of an ONNX file or of an engine with its manifest.
    Returns:
        Plain values, ready for JSON: path, size_bytes, sha256, and the network's metadata; of an ONNX file
        also inputs and outputs (name, type, shape), opsets, nodes by op, functions, parameters (number of
        floating-point weights and constants); of an engine also its manifest, and whether the engine's hash
        agrees with it (``unchanged``).
    Raises:
        BadInputError: there is no such file, it is not ONNX, or it is cut off.
        ArtefactMismatchError: it is not vmkla's, is damaged, or is an engine without its manifest.
    """
    path = weights.resolve(model)
    return _describe_engine(path) if path.suffix == ".plan" else _describe_onnx(path)


def _describe_onnx(path: Path) -> dict[str, Any]:
    model = open_model(path)
    outline = model.outline
    return {
        "path": str(path),
        "size_bytes": outline.size_bytes,
        "sha256": model.sha256,
        "notes": list(model.notes),
        **_network_facts(model.metadata),
        "inputs": [value.to_dict() for value in outline.inputs],
        "outputs": [value.to_dict() for value in outline.outputs],
        "ir_version": outline.ir_version,
        "opsets": outline.opsets,
        "parameters": outline.parameters,
        "nodes": outline.nodes,
        "functions": list(outline.functions),
    }


def _describe_engine(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    digest = file_sha256(path)
    fields = manifest.to_dict()
    del fields["metadata"]  # the document has the network's facts already
    fields["target_sms"] = list(manifest.target_sms)
    return {
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": digest,
        "unchanged": digest == manifest.engine_sha256,
        **_network_facts(manifest.artefact(path)),
        "manifest": fields,
    }


def _network_facts(metadata: ArtefactMetadata) -> dict[str, Any]:
    """Convert a file's metadata to plain values."""
    return {
        "verified": metadata.verified,
        "vmkla_version": metadata.vmkla_version,
        "precision": metadata.precision,
        "requires": metadata.requires,
        "input_type": metadata.input_type,
        "profile": None if metadata.profile is None else list(metadata.profile),
        "model_config": metadata.model_config,
        "class_names": list(metadata.class_names),
        "threshold": metadata.threshold,
        "operating_point": None if metadata.operating_point is None else metadata.operating_point.to_dict(),
        "tuning": list(metadata.tuning),
        "preprocess": metadata.preprocess.to_dict(),
        "training": metadata.training,
        "random_weights": metadata.random_weights,
        "weights_sha256": metadata.weights_sha256,
        "gates": metadata.gates,
    }


def network_of(model: str | Path) -> tuple[ModelConfig, tuple[int, int]]:
    """Return configuration and input size of the network behind a name or in a file.

    Args:
        model: name of a preset or a shipped model, or an ``.onnx``, ``.plan`` or ``.safetensors`` file.
    Returns:
        The configuration, and height and width in px: the file's own, 256x256 for a preset without weights.
    Raises:
        BadInputError: there is no such file or name, or the file is damaged.
        ArtefactMismatchError: the file is not vmkla's.
        MissingDependencyError: the file holds weights for torch, and torch is not installed.
    """
    if str(model) in PRESETS and str(model) not in weights.shipped():
        return get_preset(str(model)), (256, 256)
    path = weights.resolve(model)
    if path.suffix == ".safetensors":
        require("torch", extra="train", purpose="reading .safetensors")
        from vmkla.models import checkpoints

        loaded = checkpoints.load_weights(path)
        spec = loaded.preprocess
        return loaded.config, (256, 256) if spec is None else (spec.height, spec.width)
    facts = describe(path)
    size = facts["preprocess"]
    return ModelConfig.from_dict(facts["model_config"]), (size["height"], size["width"])
