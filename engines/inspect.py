"""What a model file says of itself, for ``vmkla inspect``. No onnx package and no session needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmkla import weights
from vmkla.config import PRESETS, ModelConfig, get_preset
from vmkla.engines.onnx_file import read_outline
from vmkla.errors import MissingDependencyError
from vmkla.files import file_sha256
from vmkla.imports import require
from vmkla.metadata import ArtefactMetadata


def describe(model: str | Path) -> dict[str, Any]:
    """Facts of an ONNX file of vmkla's.

    Args:
        model: name of a shipped model, or a file.
    Returns:
        Plain values, ready for JSON: path, size_bytes, sha256, verified, metadata (everything in it),
        input and output (name, type, shape), opsets, nodes by op, functions, parameters (values of
        floating-point weights and constants).
    Raises:
        BadInputError: there is no such file, it is not ONNX, or it is cut off.
        ArtefactMismatchError: it is not one of vmkla's.
        MissingDependencyError: it is a TensorRT engine.
    """
    path = weights.resolve(model)
    if path.suffix == ".plan":
        raise MissingDependencyError(f"{path} is a TensorRT engine, which this version cannot look into")
    outline = read_outline(path)
    metadata = ArtefactMetadata.from_props(outline.metadata, path=str(path))
    return {
        "path": str(path),
        "size_bytes": outline.size_bytes,
        "sha256": file_sha256(path),
        "verified": metadata.verified,
        "vmkla_version": metadata.vmkla_version,
        "precision": metadata.precision,
        "model_config": metadata.model_config,
        "class_names": list(metadata.class_names),
        "threshold": metadata.threshold,
        "preprocess": metadata.preprocess.to_dict(),
        "training": metadata.training,
        "random_weights": metadata.random_weights,
        "weights_sha256": metadata.weights_sha256,
        "gates": metadata.gates,
        "inputs": [value.to_dict() for value in outline.inputs],
        "outputs": [value.to_dict() for value in outline.outputs],
        "ir_version": outline.ir_version,
        "opsets": outline.opsets,
        "parameters": outline.parameters,
        "nodes": outline.nodes,
        "functions": list(outline.functions),
    }


def network_of(model: str | Path) -> tuple[ModelConfig, tuple[int, int]]:
    """Configuration and input size of the network behind a name or in a file.

    Args:
        model: a preset's name, a shipped model's, an ``.onnx`` file, or a ``.safetensors`` file.
    Returns:
        The configuration, and height and width in px: the file's own, 256x256 for a bare preset.
    Raises:
        BadInputError: there is no such file or name, or it is damaged.
        ArtefactMismatchError: it is not one of vmkla's.
        MissingDependencyError: it holds weights for torch, and torch is not installed.
    """
    if str(model) in PRESETS and str(model) not in weights.shipped():
        return get_preset(str(model)), (256, 256)
    path = weights.resolve(model)
    if path.suffix == ".safetensors":
        checkpoints = require("vmkla.training.checkpoints", extra="train", purpose="reading .safetensors")
        loaded = checkpoints.load_weights(path)
        height, width = loaded.training.get("image_size_hw", (256, 256))
        return loaded.config, (height, width)
    facts = describe(path)
    size = facts["preprocess"]
    return ModelConfig.from_dict(facts["model_config"]), (size["height"], size["width"])
