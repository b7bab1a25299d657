"""Still images for tests: with an EXIF orientation, of a size that only the header states, or not regular."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

KINDS = (".png", ".jpg", ".tif", ".webp")
"""Kinds of files that hold an EXIF orientation."""


def tagged(suffix: str, pixels: npt.NDArray[np.uint8], orientation: int) -> bytes:
    """Encode pixels as they are, with an EXIF orientation.

    Args:
        suffix: one of ``KINDS``; without loss but for ``.jpg``, which is of quality 100.
        pixels: (H, W) grey or (H, W, 3) RGB.
        orientation: 1 to 8.
    """
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {
        ".png": {"format": "PNG", "exif": exif.tobytes()},
        ".jpg": {"format": "JPEG", "exif": exif.tobytes(), "quality": 100, "subsampling": 0},
        ".tif": {"format": "TIFF", "tiffinfo": {0x0112: orientation}},
        ".webp": {"format": "WEBP", "exif": exif.tobytes(), "lossless": True},
    }[suffix]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def shown_as(stored: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """What a viewer shows of stored pixels (H, W, 3), by the table of the EXIF standard (tag 0x0112)."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }[orientation]


def black_png(height: int, width: int) -> bytes:
    """Make a black greyscale PNG of any size, in about one byte per thousand pixels."""
    packer = zlib.compressobj(1)
    rows = bytes(width + 1)  # filter 0, and the row
    body = b"".join(packer.compress(rows) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def stating(height: int, width: int, kind: str) -> bytes:
    """Make a file of a few bytes whose header states a larger size than its data."""
    png, signed = b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0cjP  \r\n\x87\n"
    tile = ((256, 9), (257, 9), (322, width), (323, height))
    return {
        "png": png + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0),
        "animation": png
        + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", 9, 9, 8, 2, 0, 0, 0, 0)
        + struct.pack(">I4sIII", 26, b"fcTL", 0, width, height),
        "jpeg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9) + b"\xff\xd9",
        "bmp": b"BM" + bytes(12) + struct.pack("<Iii", 40, width, -height),
        "tiff": b"II*\0" + struct.pack("<IHHHIIHHIII", 8, 2, 256, 4, 1, width, 257, 4, 1, height, 0),
        "bigtiff": b"MM\0+"
        + struct.pack(">HHQQHHQQHHQQ", 8, 0, 16, 2, 256, 16, 1, width, 257, 16, 1, height),
        "tiled tiff": b"II*\0"
        + struct.pack("<IH", 8, 4)
        + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tile),
        "webp": b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0"
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little"),
        "webp, lossless": b"RIFF\0\0\0\0WEBPVP8L\x05\0\0\0\x2f"
        + struct.pack("<I", (width - 1) | (height - 1) << 14),
        "webp, lossy": b"RIFF\0\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a"
        + struct.pack("<HH", width, height),
        "jp2, boxes": signed + struct.pack(">I4sI4sII", 22, b"jp2h", 22, b"ihdr", height, width),
        "jp2, codestream": signed
        + b"\0\0\0\0jp2c\xff\x4f\xff\x51\0\x29"
        + struct.pack(">HIIII", 0, width, height, 0, 0),
        "pgm": b"P5 # a comment\n#another\n%d %d\n255\n" % (width, height),
    }[kind]  # fmt: skip


STATED = (
    "png", "animation", "jpeg", "bmp", "tiff", "bigtiff", "tiled tiff", "webp", "webp, lossless",
    "webp, lossy", "jp2, boxes", "jp2, codestream", "pgm",
)  # fmt: skip
"""Kinds of ``stating``."""


def write_irregular(folder: Path, suffix: str = ".png") -> list[str]:
    """Write one of each that is named like an image and is not a regular file; gives the names."""
    os.mkfifo(folder / f"pipe{suffix}")
    (folder / f"zero{suffix}").symlink_to("/dev/zero")
    (folder / f"itself{suffix}").symlink_to(f"itself{suffix}")
    (folder / f"nowhere{suffix}").symlink_to("absent")
    (folder / f"piped{suffix}").symlink_to(f"pipe{suffix}")
    names = ["pipe", "zero", "itself", "nowhere", "piped"]
    if len(str(folder)) < 80:  # the longest name that a socket takes is 107 bytes
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / f"sock{suffix}"))
        names.append("sock")
    return sorted(f"{name}{suffix}" for name in names)
