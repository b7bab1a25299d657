"""Read and write safetensors files within limits, with a checksum.

A file is the length of its header (8 bytes), the header in JSON, and the tensors' bytes.
Source: the format's description in the safetensors repository.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vmkla.bounded import MalformedError, parse_names, read_file
from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.imports import require
from vmkla.plain_values import from_plain

CONTENT_SHA256 = "vmkla.content_sha256"
"""Entry of the header with the hash of everything else in the file."""
NO_CHECKSUM = "the file has no checksum, so damage to its weights would not be noticed"
"""Note on a file of an older version of vmkla."""

FILE_MAX_BYTES = 8 << 30
HEADER_MAX_BYTES = 16 << 20
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8
_ABOUT = "__metadata__"


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """Content of a safetensors file.

    Attributes:
        header: text of each entry by name.
        tensors: tensors by name, on the CPU.
        sha256: hex digest of the file's bytes.
        has_checksum: the file states a checksum, which is that of its content.
    """

    header: dict[str, str]
    tensors: dict[str, Tensor]
    sha256: str
    has_checksum: bool


def encode(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    """Encode a file with a checksum.

    Args:
        tensors: tensors by name, contiguous, on the CPU.
        header: entries that describe them.
    """
    safetensors = require("safetensors.torch", extra="train", purpose="saving weights")
    plain: bytes = safetensors.save(dict(tensors), metadata=dict(header))
    return with_header(plain, header)


def with_header(data: bytes, header: Mapping[str, str]) -> bytes:
    """Set entries of a file's header, and its checksum; other entries and the tensors' bytes stay.

    Args:
        data: the file's bytes.
        header: entries to add or replace.
    Raises:
        MalformedError: the bytes have no such header.
    """
    fields, content = _split(data)
    about = {**fields.get(_ABOUT, {}), **header}
    fields = {**fields, _ABOUT: about}
    about[CONTENT_SHA256] = _digest(fields, content)
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join((_LENGTH.pack(len(text)), text, content))


def read_weights(path: Path) -> WeightsFile:
    """Read and check a file.

    Raises:
        BadInputError: it cannot be read, or is not a whole safetensors file.
        ArtefactMismatchError: its content does not match its checksum.
    """
    safetensors = require("safetensors.torch", extra="train", purpose="loading weights")
    try:
        data = read_file(path, FILE_MAX_BYTES)
        fields, content = _split(data)
        about: dict[str, str] = from_plain(dict[str, str], fields.get(_ABOUT, {}), "the header")
        tensors: dict[str, Tensor] = safetensors.load(data)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # safetensors' errors differ by fault and version
        raise BadInputError(
            f"{path} cannot be read as safetensors: {error}",
            hint="The file is cut off or of another kind; fetch it again.",
        ) from error
    expected = about.pop(CONTENT_SHA256, None)
    if expected is not None and expected != (found := _digest(fields, content)):
        raise ArtefactMismatchError(
            f"{path} is damaged, or another program changed it: its content has sha256 {found[:12]}..., "
            f"expected {expected[:12]}...",
            hint="Copy or fetch it again from where it was made, or use weights of another epoch.",
        )
    return WeightsFile(about, tensors, hashlib.sha256(data).hexdigest(), expected is not None)


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Split a file into its header and the tensors' bytes.

    Raises:
        MalformedError: there is no such header.
    """
    if len(data) < _LENGTH.size:
        raise MalformedError(f"it has {len(data)} bytes")
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    if end > len(data):
        raise MalformedError(f"its header ends {end - len(data)} bytes beyond it")
    return parse_names(data[_LENGTH.size : end], HEADER_MAX_BYTES), memoryview(data)[end:]


def _digest(fields: Mapping[str, Any], content: memoryview) -> str:
    """Hash the header without the checksum, sorted by name, and the tensors' bytes."""
    about = {name: text for name, text in fields.get(_ABOUT, {}).items() if name != CONTENT_SHA256}
    header = json.dumps({**fields, _ABOUT: about}, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(header.encode("ascii"))
    digest.update(content)
    return digest.hexdigest()
