"""Write a model file again with another operating point; its graph, its weights and their hash stay."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmkla.engines.runners.model_file import open_model
from vmkla.engines.runners.onnx_file import METADATA_SHA256, metadata_sha256, with_metadata
from vmkla.engines.tensorrt.build.outputs import check_writable
from vmkla.engines.tensorrt.manifest import encode_manifest, manifest_path, read_manifest
from vmkla.errors import ArtefactMismatchError, UsageError
from vmkla.files import read_regular, write_whole, written_whole
from vmkla.metadata import point_props
from vmkla.segment.operating_point import OperatingPoint

_ENGINE_MAX_BYTES = 16 << 30


def check_output(model: Path, output: Path) -> None:
    """Check the file to write before the work.

    Args:
        model: the model's file.
        output: the file to write.
    Raises:
        UsageError: it is the model itself, or of another kind.
        BadInputError: it cannot be written.
    """
    if output.suffix != model.suffix:
        raise UsageError(
            f"--output is {output}, expected a file name that ends in {model.suffix}, as the model's does",
            hint=f"For instance: --output {model.stem}-tuned{model.suffix}",
        )
    for path in (output, manifest_path(output)):
        for own in (model, manifest_path(model)):
            if os.path.realpath(path) == os.path.realpath(own) or (
                path.exists() and own.exists() and path.samefile(own)
            ):
                raise UsageError(
                    f"--output {output} would replace the model", hint="Give the tuned file another name."
                )
    check_writable(output)


def write_tuned(
    model: Path,
    output: Path,
    point: OperatingPoint,
    tuning: Sequence[Mapping[str, Any]],
    *,
    sha256: str,
) -> None:
    """Write a model file with another operating point, whole or not at all.

    An ONNX file keeps every byte but its ``metadata_props``, a checkpoint every tensor's bytes, an engine all
    of its bytes, with a manifest of its own.

    Args:
        model: path of an ``.onnx`` file, a checkpoint, or an engine with its manifest.
        output: the file to write, of the same kind; one of that name is replaced.
        point: the new operating point.
        tuning: the model's own records of earlier points, and how the new one was found.
        sha256: hex digest of the model's bytes that the point was fitted with.
    Raises:
        UsageError: the output is the model, or of another kind.
        BadInputError: the model cannot be read, or the output cannot be written.
        ArtefactMismatchError: the model is damaged, or changed since it was loaded.
    """
    check_output(model, output)
    entries = {
        "vmkla.threshold": json.dumps(point.threshold),
        **point_props(point, tuning),
    }
    if model.suffix == ".plan":
        _write_engine(model, output, entries, sha256)
    elif model.suffix == ".safetensors":
        _write_checkpoint(model, output, entries, sha256)
    else:
        source = open_model(model)
        _check_unchanged(model, source.sha256, sha256)
        data = with_metadata(source.data, {**source.outline.metadata, **entries})
        write_whole(output, data, private=False)


def _write_checkpoint(model: Path, output: Path, entries: Mapping[str, str], sha256: str) -> None:
    from vmkla.models.weights_file import FILE_MAX_BYTES, with_header  # needs torch, as the model itself

    data = read_regular(model, limit_bytes=FILE_MAX_BYTES)
    _check_unchanged(model, hashlib.sha256(data).hexdigest(), sha256)
    write_whole(output, with_header(data, entries), private=False)


def _write_engine(model: Path, output: Path, entries: Mapping[str, str], sha256: str) -> None:
    manifest = read_manifest(model)
    data = read_regular(model, limit_bytes=_ENGINE_MAX_BYTES)
    found = hashlib.sha256(data).hexdigest()
    _check_unchanged(model, found, sha256)
    _check_unchanged(model, found, manifest.engine_sha256)
    props = {**manifest.metadata, **entries}
    if METADATA_SHA256 in props:
        props[METADATA_SHA256] = metadata_sha256(props)
    tuned = encode_manifest(dataclasses.replace(manifest, metadata=props))
    # The manifest's bytes are on the disk before the engine gets its name, and it gets its own at once after.
    with written_whole(manifest_path(output), private=False) as file:
        file.write(tuned)
        file.flush()
        os.fsync(file.fileno())
        write_whole(output, data, private=False)


def _check_unchanged(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ArtefactMismatchError(
            f"{path} has sha256 {found[:12]}..., expected {expected[:12]}...: it changed since it was loaded",
            hint="Run the command again, with a file that nothing else writes.",
        )
