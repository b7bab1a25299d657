"""Check from its headers whether a video file is complete, without decoding frames."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_EBML, _MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")
_MP4_NEEDED = (b"moov", b"mdat", b"moof")


@dataclass(frozen=True)
class Extent:
    """Size of a file, and the size that its headers state.

    Attributes:
        size_bytes: size of the file.
        promised_bytes: smallest size that the headers state; None when they state none.
        has_index: False for an MP4 without the ``moov`` box, which no player can read.
    """

    size_bytes: int
    promised_bytes: int | None = None
    has_index: bool = True

    @property
    def cut_off(self) -> bool:
        """Whether the file is shorter than its headers state."""
        return self.promised_bytes is not None and self.promised_bytes > self.size_bytes


def read_extent(path: Path) -> Extent:
    """Read a file's size and the size that its container states (MP4/MOV, Matroska/WebM, AVI).

    Raises:
        OSError: the file cannot be read.
    """
    size_bytes = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] in _MP4_FIRST:
            return _mp4(file, size_bytes)
        if head.startswith(_EBML):
            return Extent(size_bytes, _matroska(file))
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return Extent(size_bytes, 8 + int.from_bytes(head[4:8], "little"))
    return Extent(size_bytes)


def _mp4(file: BinaryIO, size_bytes: int) -> Extent:
    """Read the top-level boxes: a size of 1 means that a 64-bit size follows, 0 the rest of the file."""
    position, promised, has_index = 0, 0, False
    while position + 8 <= size_bytes:
        file.seek(position)
        header = file.read(16)
        kind, size = header[4:8], int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if kind in _MP4_NEEDED:
            has_index = has_index or kind == b"moov"
            promised = max(promised, position + size)
        if size < 8:
            break
        position += size
    return Extent(size_bytes, promised, has_index)


def _matroska(file: BinaryIO) -> int | None:
    """Return the end of the first Segment; None when its size is unknown, as in a live recording."""
    position = 0
    while True:
        file.seek(position)
        header = file.read(12)  # an id of 4 bytes, then a size of 1 to 8
        if len(header) < 5 or header[:4] not in (_EBML, _MATROSKA_SEGMENT) or header[4] == 0:
            return None
        length = 9 - header[4].bit_length()
        value = int.from_bytes(header[4 : 4 + length], "big") & ((1 << 7 * length) - 1)
        if value == (1 << 7 * length) - 1:
            return None
        position += 4 + length + value
        if header[:4] == _MATROSKA_SEGMENT:
            return position
