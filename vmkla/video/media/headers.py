"""Read the size and EXIF orientation of an image from its header, without decoding pixels.

No library of the base install does only this: OpenCV and FFmpeg decode what they open. Each reader returns
the largest size that any part of the header states, so that no decoder finds a larger one than was checked.

Sources: PNG (Third Edition) 11.2.1 and 11.3.3.4; ITU-T T.81 annex B; TIFF 6.0; Exif 2.32, table 4; RFC 9649
(WebP); ITU-T T.800 annexes A and I (JPEG 2000); the Netpbm formats; BITMAPCOREHEADER and BITMAPINFOHEADER.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vmkla.errors import BadInputError
from vmkla.limits import MAX_MEGAPIXELS

PNG, JPEG, BMP, JP2 = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"\0\0\0\x0cjP  "
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNM = tuple(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b" \t\r\n")

_WIDTH, _HEIGHT, _ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 274, 322, 323
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""``struct`` formats of TIFF's integer types."""
_LONGEST_NUMBER = 10
"""Largest number of digits of a Netpbm size; OpenCV reads an int."""


class HeaderError(ValueError):
    """The bytes are not a header of a known kind of image."""


@dataclass(frozen=True)
class Header:
    """The header of an image file.

    Attributes:
        height, width: size as stored, px.
        orientation: EXIF orientation, 1 to 8; 1 when the file has none.
        orientation_at: place of the orientation in a TIFF, as (offset, ``struct`` format): OpenCV always
            applies it.
        tile_px: number of pixels of one tile of a tiled TIFF, which may exceed the image.
    """

    height: int
    width: int
    orientation: int = 1
    orientation_at: tuple[int, str] | None = field(default=None, compare=False)
    tile_px: int = 0

    @property
    def buffer_px(self) -> int:
        """Number of pixels of the largest buffer that decoding needs."""
        return max(self.height * self.width, self.tile_px)

    @property
    def upright_hw(self) -> tuple[int, int]:
        """Height and width as shown, px."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def looks_like_image(head: bytes) -> bool:
    """Check whether the first 16 bytes of a file are those of an image."""
    return _reader(head) is not None


def read_header(data: bytes) -> Header:
    """Read an image's header.

    Args:
        data: bytes of the file.
    Raises:
        HeaderError: the kind is unknown, or the header is damaged or cut off.
    """
    reader = _reader(data[:16])
    if reader is None:
        raise HeaderError("of an unknown kind")
    try:
        header = reader(data)
    except (struct.error, IndexError) as error:
        raise HeaderError("cut off in its header") from error
    if header.height < 1 or header.width < 1:
        raise HeaderError(f"without a size ({header.width}x{header.height})")
    return header


def image_header(data: bytes, *, name: str, max_megapixels: float = MAX_MEGAPIXELS) -> Header:
    """Read the header of an image file, and reject an image that is too large.

    Args:
        data: bytes of the file.
        name: name of the file, for messages.
        max_megapixels: size of the largest image that may be decoded, megapixels.
    Raises:
        BadInputError: the bytes are not an image of a known kind, or the image is larger.
    """
    if not data:
        raise BadInputError(f"{name} is empty (0 bytes), expected an image")
    try:
        header = read_header(data)
    except HeaderError as error:
        raise BadInputError(f"{name} cannot be decoded as an image: it is {error}") from error
    if header.buffer_px > max_megapixels * 1e6:
        raise BadInputError(
            f"{name} is {header.width}x{header.height} (width x height, "
            f"{header.buffer_px / 1e6:.4g} megapixels), expected at most {max_megapixels:g} megapixels "
            "(--max-megapixels)",
            hint="Scale it down, or allow more memory and time with: --max-megapixels "
            f"{math.ceil(header.buffer_px / 1e6)}",
        )
    return header


def _reader(head: bytes) -> Callable[[bytes], Header] | None:
    for signatures, reader in (
        ((PNG,), _png),
        ((JPEG,), _jpeg),
        ((BMP,), _bmp),
        ((JP2,), _jp2),
        (TIFF, _tiff),
        (PNM, _pnm),
    ):
        if head.startswith(signatures):
            return reader
    return _webp if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def _png(data: bytes) -> Header:
    height = width = 0
    exif = b""
    at = len(PNG)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], at + 8
        if kind in (b"IHDR", b"fcTL"):  # fcTL: a frame of an animation
            wide, high = struct.unpack_from(">II", data, body + (4 if kind == b"fcTL" else 0))
            height, width = max(height, high), max(width, wide)
        elif kind == b"eXIf":
            exif = exif or data[body : body + length]
        elif kind == b"IEND":
            break
        at = body + length + 4
    return Header(height, width, _exif_orientation(exif))


def _jpeg(data: bytes) -> Header:
    height = width = 0
    exif = b""
    at = 2
    while True:
        at = data.find(b"\xff", at)  # decoders skip bytes between two segments
        if at < 0:
            raise HeaderError("cut off in its header")
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker = data[at]
        at += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # without a length
            continue
        if marker in (0xD9, 0xDA):  # the end, or the first scan
            break
        (length,) = struct.unpack_from(">H", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            high, wide = struct.unpack_from(">HH", data, at + 3)
            height, width = max(height, high), max(width, wide)
        elif marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0":
            exif = exif or data[at + 8 : at + length]
        at += max(length, 2)
    return Header(height, width, _exif_orientation(exif))


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header(abs(height), abs(width))  # a negative height: stored from the top


def _tiff(data: bytes) -> Header:
    tags: dict[int, int] = {}
    orientation_at = None
    for tag, value, place in _directory(data):
        if tag == _ORIENTATION:
            tags.setdefault(tag, value)
            orientation_at = orientation_at or place
        else:
            tags[tag] = max(tags.get(tag, 0), value)
    tile_px = tags.get(_TILE_HEIGHT, 0) * tags.get(_TILE_WIDTH, 0)
    orientation = _valid(tags.get(_ORIENTATION, 1))
    return Header(tags.get(_HEIGHT, 0), tags.get(_WIDTH, 0), orientation, orientation_at, tile_px)


def _directory(data: bytes) -> Iterator[tuple[int, int, tuple[int, str]]]:
    """Yield tag, value and place of the single integers in a TIFF's first directory."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise HeaderError("without a byte order")
    big = struct.unpack_from(order + "H", data, 2)[0] == 43  # BigTIFF
    counted, entry = ("Q", "HHQ") if big else ("H", "HHI")
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + counted, data, at)
    at += struct.calcsize(order + counted)
    for _ in range(min(count, 4096)):
        tag, kind, values = struct.unpack_from(order + entry, data, at)
        at += struct.calcsize(order + entry)
        if values == 1 and kind in _INTEGERS:
            place = (at, order + _INTEGERS[kind])
            if struct.calcsize(place[1]) <= (8 if big else 4):
                yield tag, struct.unpack_from(place[1], data, at)[0], place
        at += 8 if big else 4


def _webp(data: bytes) -> Header:
    height = width = 0
    exif = b""
    at = 12
    while at + 8 <= len(data):
        kind, (length,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        body, high, wide = at + 8, 0, 0
        if kind == b"VP8 ":
            wide, high = (side & 0x3FFF for side in struct.unpack_from("<HH", data, body + 6))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, body + 1)
            wide, high = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind in (b"VP8X", b"ANMF"):
            skipped = 4 if kind == b"VP8X" else 6
            wide, high = (
                int.from_bytes(data[body + skipped + part : body + skipped + part + 3], "little") + 1
                for part in (0, 3)
            )
        elif kind == b"EXIF":
            exif = exif or data[body : body + length]
        height, width = max(height, high), max(width, wide)
        at = body + length + length % 2
    return Header(height, width, _exif_orientation(exif))


def _jp2(data: bytes) -> Header:
    height = width = 0
    at = 0
    while at + 8 <= len(data):
        (length,), kind, body = struct.unpack_from(">I", data, at), data[at + 4 : at + 8], at + 8
        if length == 1:
            (length,), body = struct.unpack_from(">Q", data, body), body + 8
        high = wide = 0
        if kind == b"ihdr":
            high, wide = struct.unpack_from(">II", data, body)
        elif kind == b"jp2c":
            high, wide = _codestream(data, body)
        height, width = max(height, high), max(width, wide)
        if kind == b"jp2h":  # holds further boxes
            at = body
        elif length == 0:  # to the end of the file
            break
        else:
            at += max(length, 8)
    return Header(height, width)


def _codestream(data: bytes, at: int) -> tuple[int, int]:
    """Return height and width of a JPEG 2000 codestream, from its SIZ segment, which comes first."""
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise HeaderError("damaged in its header")
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    return max(0, bottom - top), max(0, right - left)


def _pnm(data: bytes) -> Header:
    # Two numbers after the signature; comments run from # to the end of a line.
    found = re.match(rb"P[1-6](?:\s|#[^\r\n]*)+(\d+)(?:\s|#[^\r\n]*)+(\d+)", data[:65536])
    if found is None or max(map(len, found.groups())) > _LONGEST_NUMBER:
        raise HeaderError("damaged in its header")
    return Header(int(found[2]), int(found[1]))


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation in an Exif block; 1 when it is missing or the block is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        return _valid(next((value for tag, value, _ in _directory(exif) if tag == _ORIENTATION), 1))
    except (HeaderError, struct.error):
        return 1


def _valid(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1
