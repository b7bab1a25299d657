"""Read and check an ONNX file of vmkla's; runners, parsers and tools use the bytes that were checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vmkla.engines.runners.onnx_file import (
    CONTENT_SHA256,
    METADATA_SHA256,
    OnnxOutline,
    content_sha256,
    metadata_sha256,
    outline_of,
    read_model,
)
from vmkla.engines.runners.onnx_tensors import check_tensors
from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.metadata import ArtefactMetadata

UNSEALED = "the file has no checksum of its content, so damage to its weights would not be noticed"
"""Note on a file that an older version of vmkla wrote."""
_ORT_FORMAT = b"ORTM"
"""Bytes 4 to 7 of ONNX Runtime's own format, by which ONNX Runtime recognises it."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A checked ONNX file of vmkla's.

    Attributes:
        path: path of the file.
        data: the file's bytes. Sessions and parsers get these and never the path, so that what was checked is
            what runs, even if the file changes meanwhile.
        sha256: hex digest of the bytes.
        outline: inputs, outputs, nodes and sizes of the graph.
        metadata: the file's metadata.
        notes: checks that were not possible, for people.
    """

    path: Path
    data: bytes
    sha256: str
    outline: OnnxOutline
    metadata: ArtefactMetadata
    notes: tuple[str, ...]


def open_model(path: Path) -> ModelFile:
    """Read and check an ONNX file.

    Raises:
        BadInputError: there is no such file, it is not ONNX, or it is cut off.
        ArtefactMismatchError: it is not vmkla's, keeps tensors in other files, has weights that are not
            finite, or was changed after it was written.
    """
    data = read_model(path)
    if data[4:8] == _ORT_FORMAT:
        raise BadInputError(f"{path} is in ONNX Runtime's own format, expected ONNX")
    outline = outline_of(data, path)
    check_tensors(data, path)
    metadata = ArtefactMetadata.from_props(outline.metadata, path=str(path))
    notes = () if _sealed(data, outline, path) else (UNSEALED,)
    return ModelFile(path, data, hashlib.sha256(data).hexdigest(), outline, metadata, notes)


def _sealed(data: bytes, outline: OnnxOutline, path: Path) -> bool:
    """Check a file's checksums of content and metadata; return whether it has any.

    Raises:
        ArtefactMismatchError: a checksum does not match.
    """
    props = outline.metadata
    if not {CONTENT_SHA256, METADATA_SHA256} & props.keys():
        return False
    found = {"content": content_sha256(data), "metadata": metadata_sha256(props)}
    keys = {"content": CONTENT_SHA256, "metadata": METADATA_SHA256}
    for name, digest in found.items():
        expected = props.get(keys[name], "none")
        if digest != expected:
            raise ArtefactMismatchError(
                f"{path} is damaged, or another program changed it: its {name} has sha256 {digest[:12]}..., "
                f"expected {expected[:12]}...",
                hint="Copy or fetch it again from where it was made, or run: vmkla export again",
            )
    return True
