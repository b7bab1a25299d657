"""Images: every kind of still picture becomes upright RGB, and PNG files are whole or absent."""

from __future__ import annotations

import base64
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.video.media.small_images import shown_as
from vmkla import files
from vmkla.errors import BadInputError
from vmkla.video.media.images import decode_image, looks_like_image, read_image, write_png

Image = npt.NDArray[np.uint8]

RED, GREEN, BLUE = (200, 40, 30), (30, 180, 60), (20, 60, 220)

# Three stripes of RED, GREEN, BLUE, 24x16 pixels, as an Adobe CMYK JPEG of quality 90.
CMYK_JPEG = base64.b64decode(
    """
    /9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUV
    FQwPFxgWFBgSFBUU/8AAFAgAEAAYBEMRAE0RAFkRAEsRAP/EAB8AAAEFAQEBAQEBAAAAAAAAAAABAgMEBQYHCAkKC//EALUQAAIB
    AwMCBAMFBQQEAAABfQECAwAEEQUSITFBBhNRYQcicRQygZGhCCNCscEVUtHwJDNicoIJChYXGBkaJSYnKCkqNDU2Nzg5OkNERUZH
    SElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6g4SFhoeIiYqSk5SVlpeYmZqio6Slpqeoqaqys7S1tre4ubrCw8TFxsfIycrS09TV
    1tfY2drh4uPk5ebn6Onq8fLz9PX29/j5+v/aAA4EQwBNAFkASwAAPwD7Ar4Ur8+q/VOvw6r9dq9QorEr8v6/aqiv3gria/AWivw6
    r9dq9QorEr8v6/aqiv/Z
    """
)


@pytest.fixture
def stripes() -> Image:
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :8], image[:, 8:16], image[:, 16:] = RED, GREEN, BLUE
    return image


@pytest.fixture
def noise() -> Image:
    return np.random.default_rng(7).integers(0, 256, (48, 64, 3)).astype(np.uint8)


def encode(suffix: str, image: npt.NDArray[np.generic], *options: int) -> bytes:
    """RGB or grey to a file's bytes."""
    bgr = image if image.ndim == 2 else image[..., [2, 1, 0, 3][: image.shape[2]]]
    ok, data = cv2.imencode(suffix, np.ascontiguousarray(bgr), list(options))
    assert ok
    return data.tobytes()


def rgba_tiff(image: Image, alpha: int) -> bytes:
    """An uncompressed TIFF with unassociated alpha, by hand: OpenCV cannot write one."""
    height, width = image.shape[:2]
    pixels = np.dstack([image, np.full((height, width), alpha, np.uint8)]).tobytes()
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 4, 8 + len(pixels)),  # bits per sample: offset of four shorts
        (259, 3, 1, 1),
        (262, 3, 1, 2),  # RGB
        (273, 4, 1, 8),
        (277, 3, 1, 4),
        (278, 4, 1, height),
        (279, 4, 1, len(pixels)),
        (338, 3, 1, 2),  # the extra sample is unassociated alpha
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    return (
        b"II*\0" + struct.pack("<I", 16 + len(pixels)) + pixels + struct.pack("<4H", 8, 8, 8, 8) + directory
    )


class TestDecode:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
    def test_lossless_kinds_keep_their_pixels(self, suffix: str, noise: Image) -> None:
        np.testing.assert_array_equal(decode_image(encode(suffix, noise), name="x"), noise)

    @pytest.mark.parametrize("suffix", [".jpg", ".webp", ".jp2"])
    def test_lossy_kinds_keep_their_colours(self, suffix: str, stripes: Image) -> None:
        large = stripes.repeat(4, axis=0).repeat(4, axis=1)
        made = decode_image(encode(suffix, large), name="x")
        for x, colour in ((16, RED), (48, GREEN), (80, BLUE)):
            assert made[32, x].tolist() == pytest.approx(colour, abs=12)

    def test_grey_becomes_three_equal_channels(self, noise: Image) -> None:
        made = decode_image(encode(".png", noise[..., 0]), name="x")
        np.testing.assert_array_equal(made, noise[..., [0, 0, 0]])

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_sixteen_bits_keep_the_upper_eight(self, suffix: str, channels: int) -> None:
        deep = np.random.default_rng(3).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
        deep = deep if channels == 3 else deep[..., 0]
        made = decode_image(encode(suffix, deep), name="x")
        wanted = deep if channels == 3 else deep[..., None].repeat(3, axis=2)
        assert made.dtype == np.uint8
        assert np.abs(made.astype(int) - wanted / 257).max() <= 1  # truncated or rounded

    @pytest.mark.parametrize("alpha", [0, 40, 255])
    def test_alpha_is_dropped_not_multiplied(self, alpha: int, stripes: Image) -> None:
        rgba = np.dstack([stripes, np.full(stripes.shape[:2], alpha, np.uint8)])
        np.testing.assert_array_equal(decode_image(encode(".png", rgba), name="x"), stripes)
        np.testing.assert_array_equal(decode_image(rgba_tiff(stripes, alpha), name="x"), stripes)

    def test_cmyk(self) -> None:
        made = decode_image(CMYK_JPEG, name="x")
        assert made.shape == (16, 24, 3)
        for x, colour in ((3, RED), (12, GREEN), (20, BLUE)):
            assert made[8, x].tolist() == pytest.approx(colour, abs=6)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, orientation: int, stripes: Image) -> None:
        """Against the table of the EXIF standard: where the stored row 0 and column 0 are shown."""
        stored = stripes.repeat(8, axis=0).repeat(8, axis=1)
        stored[:32] //= 2  # top and bottom differ, too
        entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
        exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 1) + entry + bytes(4)
        plain = encode(".jpg", stored, cv2.IMWRITE_JPEG_QUALITY, 100)
        tagged = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
        shown = shown_as(stored, orientation)
        made = decode_image(tagged, name="x")
        assert made.shape == shown.shape
        assert np.abs(made.astype(int) - shown).mean() < 4  # JPEG; a wrong turn is off by tens

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".ppm"])
    @pytest.mark.parametrize("share", [0.1, 0.6, 0.98])
    def test_cut_off_files_are_refused(self, suffix: str, share: float, noise: Image) -> None:
        data = encode(suffix, noise)
        with pytest.raises(BadInputError, match=r"x\.img"):
            decode_image(data[: int(len(data) * share)], name="x.img")

    @pytest.mark.parametrize("data", [b"", b"hello, this is text", b"\x89PNG\r\n\x1a\n" + bytes(40)])
    def test_what_is_no_image_is_refused(self, data: bytes) -> None:
        with pytest.raises(BadInputError, match="note.png"):
            decode_image(data, name="note.png")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="No such file"):
            read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".ppm", ".pgm", ".jp2"])
def test_an_image_is_told_by_its_first_bytes(suffix: str, noise: Image) -> None:
    data = encode(suffix, noise[..., 0] if suffix == ".pgm" else noise)
    assert looks_like_image(data[:16])


@pytest.mark.parametrize(
    "head", [b"", b"RIFF\0\0\0\0AVI LIST", b"\0\0\0\x20ftypisom\0\0\2\0", b"Plain text here."]
)
def test_other_files_are_not_taken_for_images(head: bytes) -> None:
    assert not looks_like_image(head)


class TestWrite:
    def test_round_trip_makes_folders_and_leaves_one_file(self, tmp_path: Path, noise: Image) -> None:
        for image in (noise, noise[..., 0]):
            path = tmp_path / "deep" / "er" / "a b ü.png"
            write_png(path, image)
            assert [entry.name for entry in path.parent.iterdir()] == [path.name]
            wanted = image if image.ndim == 3 else image[..., None].repeat(3, axis=2)
            np.testing.assert_array_equal(read_image(path), wanted)

    def test_the_longest_name_fits(self, tmp_path: Path, noise: Image) -> None:
        path = tmp_path / ("n" * 251 + ".png")
        write_png(path, noise)
        assert path.is_file()

    def test_full_disk_leaves_nothing(
        self, tmp_path: Path, noise: Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path, **_: bool) -> int:
            path.write_bytes(bytes(100))
            return os.open("/dev/full", os.O_WRONLY)

        monkeypatch.setattr(files, "create_file", full)
        with pytest.raises(BadInputError, match="No space left"):
            write_png(tmp_path / "a.png", noise)
        assert list(tmp_path.iterdir()) == []
