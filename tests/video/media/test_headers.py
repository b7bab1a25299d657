"""vmkla.video.media.headers: the size and the orientation that decoders find, from the header alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.video.media.small_images import KINDS, STATED, shown_as, stating, tagged
from vmkla.errors import BadInputError
from vmkla.video.media.headers import HeaderError, looks_like_image, read_header
from vmkla.video.media.images import decode_image

SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp", ".jp2", ".ppm", ".pgm", ".pbm")


def encoded(suffix: str, height: int, width: int) -> bytes:
    rng = np.random.default_rng(height * 1000 + width)
    shape = (height, width) if suffix in (".pgm", ".pbm") else (height, width, 3)
    return bytes(cv2.imencode(suffix, rng.integers(0, 256, shape).astype(np.uint8))[1])


@settings(max_examples=60, deadline=None)
@given(suffix=st.sampled_from(SUFFIXES), height=st.integers(32, 90), width=st.integers(32, 90))
def test_the_size_is_what_the_decoder_finds(suffix: str, height: int, width: int) -> None:
    data = encoded(suffix, height, width)
    header = read_header(data)
    assert (header.height, header.width, header.orientation) == (height, width, 1)
    assert looks_like_image(data[:16]) and decode_image(data, name="x").shape == (height, width, 3)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_every_kind(suffix: str, orientation: int) -> None:
    """Stored pixels are turned once, by us, whatever the decoder would do by itself."""
    stored = np.zeros((24, 40, 3), np.uint8)
    stored[:12, :20], stored[12:, :20], stored[:12, 20:] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    data = tagged(suffix, stored, orientation)
    header = read_header(data)
    assert (header.height, header.width, header.orientation) == (24, 40, orientation)
    shown = shown_as(stored, orientation)
    made = decode_image(data, name="x")
    assert made.shape == shown.shape and header.upright_hw == shown.shape[:2]
    assert np.abs(made.astype(int) - shown).max() <= (40 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("kind", STATED)
def test_a_size_bomb_is_refused_before_its_pixels_are_looked_at(kind: str) -> None:
    """16000x16000 in a few dozen bytes: with the limit the size is the error, without it what follows is."""
    data = stating(16000, 16000, kind)
    with pytest.raises(BadInputError, match=r"256 megapixels\), expected at most 150") as caught:
        decode_image(data, name="bomb.img")
    assert "--max-megapixels 256" in str(caught.value.hint)


def test_the_limit_is_inclusive() -> None:
    data = encoded(".png", 100, 200)
    assert decode_image(data, name="x", max_megapixels=0.02).shape == (100, 200, 3)
    with pytest.raises(BadInputError, match=r"x is 200x100 \(width x height, 0\.02 megapixels\)"):
        decode_image(data, name="x", max_megapixels=0.0199)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_headers_are_refused_and_no_pixel_beyond_the_limit_is_made(data: st.DataObject) -> None:
    """Bytes changed and cut at random: a small image, or a message; never another error or another size."""
    suffix = data.draw(st.sampled_from([*SUFFIXES, "tagged.tif", "tagged.png", "tagged.webp"]))
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    if suffix.startswith("tagged"):
        whole = tagged(suffix.removeprefix("tagged"), pixels, 6)
    else:
        whole = encoded(suffix, 40, 60)
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if changed:
            place = data.draw(st.integers(0, min(len(changed) - 1, 200)))
            changed[place] = data.draw(st.integers(0, 255))
    try:
        made = decode_image(bytes(changed), name="x", max_megapixels=0.01)
    except BadInputError:
        return
    assert made.shape[0] * made.shape[1] <= 10_000 and made.dtype == np.uint8


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a" + bytes(40), b"P5 99999999999 1\n", b"\xff\xd8\xff\xe0", b"BM"]
)
def test_other_bytes_are_no_header(data: bytes) -> None:
    with pytest.raises(HeaderError):
        read_header(data)


def test_a_tile_larger_than_its_image_counts() -> None:
    header = read_header(stating(4000, 5000, "tiled tiff"))
    assert (header.height, header.width, header.buffer_px) == (9, 9, 20_000_000)
