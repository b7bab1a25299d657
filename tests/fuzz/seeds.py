"""Small valid files, from which the spoilt ones are made."""

from __future__ import annotations

import io
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

Seed = tuple[str, bytes]
"""Suffix of the file's name, and its bytes."""

SIDE = 32
_CONTAINERS = (
    ("mp4", "libx264"), ("mkv", "libx264"), ("ts", "libx264"), ("flv", "libx264"), ("avi", "mpeg4"),
    ("mov", "mjpeg"), ("webm", "libvpx"), ("mpg", "mpeg2video"), ("mkv", "ffv1"),
)  # fmt: skip


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(height, width, 3) uint8: blurred noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def videos() -> list[Seed]:
    """Make a video of five frames per container, an interlaced one, and one that changes its size."""
    joined = _video("ts", "libx264") + _video("ts", "libx264", height=64, width=96)
    odd = [(".mkv", _video("mkv", "libx264", woven=True)), (".ts", joined)]
    return [(f".{name}", _video(name, codec)) for name, codec in _CONTAINERS] + odd


def _video(
    container: str,
    codec: str,
    frames: int = 5,
    height: int = 48,
    width: int = 64,
    *,
    woven: bool = False,
) -> bytes:
    buffer = io.BytesIO()
    name = {"ts": "mpegts", "mkv": "matroska", "mpg": "mpeg"}.get(container, container)
    with av.open(buffer, "w", format=name) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(frames):
            pixels = noise(height, width, number)
            if woven:  # two fields of something that moves
                pixels = np.roll(noise(height, width), 8 * number, axis=1)
                pixels[1::2] = np.roll(pixels[1::2], 4, axis=1)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def encoded(pixels: npt.NDArray[np.uint8]) -> list[Seed]:
    """Encode an image in each format."""
    suffixes = (".png", ".jpg", ".bmp", ".tif", ".webp")
    return [(suffix, cv2.imencode(suffix, pixels)[1].tobytes()) for suffix in suffixes]


def images() -> list[Seed]:
    """Make an image of each kind that `infer` and `data check` accept."""
    import PIL.Image

    pixels = noise(40, 56)
    seeds = encoded(pixels)
    picture = PIL.Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6
    for suffix, image, options in (
        (".png", picture.convert("P"), {}),
        (".png", picture.convert("LA"), {}),
        (".png", PIL.Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), {}),
        (".jpg", picture, {"exif": exif, "progressive": True}),
        (".jpg", picture.convert("CMYK"), {}),
        (".tif", picture, {"compression": "tiff_lzw"}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}[suffix], **options)
        seeds.append((suffix, buffer.getvalue()))
    return seeds


def mask(height: int = 40, width: int = 56) -> npt.NDArray[np.uint8]:
    """(height, width) uint8: a disc of 255 on 0."""
    return np.asarray(cv2.circle(np.zeros((height, width), np.uint8), (width // 2, height // 2), 10, 255, -1))


def labelled(folder: Path, count: int = 2) -> Path:
    """Write a folder with images and masks."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), noise(40, 56, number))
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask())
    return folder
