"""Read image files of many kinds to upright RGB, and write PNG or JPEG files completely or not at all."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, TypeVar

import av
import cv2
import numpy as np
import numpy.typing as npt

from vmkla.background import interruptible
from vmkla.errors import BadInputError
from vmkla.files import read_regular, write_whole
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.video.media.headers import JPEG, TIFF, Header, image_header, looks_like_image

__all__ = [
    "IMAGE_SUFFIXES",
    "decode_image",
    "looks_like_image",
    "read_image",
    "write_jpeg",
    "write_png",
]

Scalar = TypeVar("Scalar", bound=np.generic)

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".jp2", ".pbm")
    + (".pgm", ".ppm", ".pnm")
)
"""Suffixes of images in a folder; a single file is recognized by its first bytes instead."""

_BYTES_PER_PX, _BYTES_BESIDE = 8, 64 << 20
"""Limit of a file's size: four channels of 16 bits, and the size of what may lie beside them."""
LARGE_PX = 4_000_000
"""Number of pixels from which an image decodes on a thread of its own, so that signals are handled."""
_JPEG_QUALITY, _JPEG_MAX_SIDE = 95, 65500
_PNG_COMPRESSION = 1
"""zlib level of written files: three times as fast as OpenCV's default, for files 10 % larger."""


def decode_image(data: bytes, *, name: str, max_megapixels: float = MAX_MEGAPIXELS) -> npt.NDArray[np.uint8]:
    """Decode the bytes of an image file.

    Grey becomes three equal channels, 16 bits are reduced to their upper 8, alpha is dropped (the stored
    colours under it are kept), CMYK is converted, and the EXIF orientation is applied.

    Args:
        data: bytes of the file.
        name: name of the file, for messages.
        max_megapixels: size of the largest image that is decoded, megapixels.
    Returns:
        (H, W, 3) uint8, RGB.
    Raises:
        BadInputError: the bytes are not an image, or the image is cut off or too large.
    """
    header = image_header(data, name=name, max_megapixels=max_megapixels)
    return oriented(decode_stored(data, header, name=name), header.orientation)


def decode_stored(data: bytes, header: Header, *, name: str) -> npt.NDArray[np.uint8]:
    """Decode an image as its pixels are stored, without its EXIF orientation.

    Args:
        data, name: as for ``decode_image``.
        header: header of the data.
    Returns:
        (H, W, 3) uint8, RGB.
    Raises:
        BadInputError: the image is damaged or cut off.
    """
    if data.startswith(JPEG) and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        # Some decoders fill the missing part with grey instead of failing.
        raise BadInputError(f"{name} is a JPEG that is cut off: it has no end marker")
    data = _without_orientation(data, header)
    image_bgr = _decoded(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, header, name)
    if data.startswith(TIFF):
        stored = _decoded(data, cv2.IMREAD_UNCHANGED, header, name)
        if stored.shape[2:] == (4,) and np.min(stored[..., 3]) < 255:
            return _decode_without_alpha(data, name)  # OpenCV multiplies a TIFF's colours by its alpha
    return np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def decode_unchanged(data: bytes, header: Header, *, name: str) -> npt.NDArray[Any]:
    """Decode an image with the depth and the channels of its file, without its EXIF orientation.

    Returns:
        (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or deeper. A palette is replaced by its colours.
    Raises:
        BadInputError: the image is damaged or cut off.
    """
    stored = _decoded(_without_orientation(data, header), cv2.IMREAD_UNCHANGED, header, name)
    return stored if stored.ndim == 2 else stored[..., [2, 1, 0, 3][: stored.shape[2]]]


def oriented(pixels: npt.NDArray[Scalar], orientation: int) -> npt.NDArray[Scalar]:
    """Rotate and mirror stored pixels by an EXIF orientation.

    Args:
        pixels: (H, W) or (H, W, channels).
        orientation: EXIF orientation, 1 to 8.
    Returns:
        The pixels as shown, contiguous; from 5 on, height and width are swapped.
    Source: Exif 2.32, table 6.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def read_image(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> npt.NDArray[np.uint8]:
    """Read an image file; see ``decode_image``.

    Raises:
        BadInputError: the file cannot be read or decoded.
    """
    data = read_bytes(path, max_megapixels=max_megapixels)
    return decode_image(data, name=str(path), max_megapixels=max_megapixels)


def read_bytes(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> bytes:
    """Read the bytes of an image file.

    Raises:
        BadInputError: the file cannot be read, is not regular, or is larger than an image may be.
    """
    return read_regular(path, limit_bytes=int(max_megapixels * 1e6) * _BYTES_PER_PX + _BYTES_BESIDE)


def write_png(path: Path, image: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    """Write a private PNG file completely or not at all.

    Args:
        path: the file; its folder is created.
        image: (H, W) grey or (H, W, 3) RGB, uint8; grey also uint16.
    Raises:
        BadInputError: the image is larger than a PNG can be, or cannot be written.
    """
    _write(path, image, ".png", [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION])


def write_jpeg(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write a private JPEG file of quality 95 completely or not at all; see ``write_png``.

    Raises:
        BadInputError: the image is larger than a JPEG can be, or cannot be written.
    """
    if max(image.shape[:2]) > _JPEG_MAX_SIDE:
        raise BadInputError(
            f"{path} would be {image.shape[1]}x{image.shape[0]}, and a JPEG has at most {_JPEG_MAX_SIDE} "
            "pixels a side",
            hint="Write PNG files: --image-format png",
        )
    # Full colour resolution: contours are thin and coloured.
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _write(path, image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, *sampling])


def _write(path: Path, image: npt.NDArray[Any], suffix: str, options: list[int]) -> None:
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(suffix, bgr, options)
    if not done:
        raise BadInputError(
            f"{path} cannot be written: {image.shape[1]}x{image.shape[0]} pixels are too many"
        )
    write_whole(path, encoded.tobytes(), durable=False)


def _decoded(data: bytes, flags: int, header: Header, name: str) -> npt.NDArray[Any]:
    """Decode with OpenCV to (H, W) or (H, W, channels), blue first."""
    buffer = np.frombuffer(data, np.uint8)

    def decode() -> npt.NDArray[Any] | None:
        return cv2.imdecode(buffer, flags)

    try:
        pixels = interruptible(decode) if header.buffer_px > LARGE_PX else decode()
    except cv2.error as error:
        raise BadInputError(f"{name} cannot be decoded as an image: {error}") from error
    if pixels is None:
        raise BadInputError(f"{name} cannot be decoded as an image: it is damaged or cut off")
    if pixels.shape[:2] != (header.height, header.width):
        raise BadInputError(
            f"{name} cannot be decoded as an image: its header states {header.width}x{header.height} "
            f"(width x height), and its pixels are {pixels.shape[1]}x{pixels.shape[0]}"
        )
    return pixels


def _without_orientation(data: bytes, header: Header) -> bytes:
    """Set a TIFF's orientation to 1, since OpenCV applies any other in spite of its flags."""
    if header.orientation_at is None:
        return data
    changed = bytearray(data)
    at, form = header.orientation_at
    struct.pack_into(form, changed, at, 1)
    return bytes(changed)


def _decode_without_alpha(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    try:
        with av.open(io.BytesIO(data), format="tiff_pipe") as container:
            frame = next(container.decode(video=0))
            rgba = frame.to_ndarray(format="rgba")  # (H, W, 4)
    except av.error.FFmpegError as error:
        raise BadInputError(f"{name} cannot be decoded as an image: {error}") from error
    return np.ascontiguousarray(rgba[..., :3], dtype=np.uint8)
