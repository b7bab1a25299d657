"""Pictures that are the same to the eye: resized, stored again, or the next frame of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vmkla.imports import require

HASH_SIDE = 16
"""256 bits. With 64 the black border and the round field of view make strangers alike."""
ALIKE_BITS = 32
"""Copies differ in up to 20 bits, unrelated endoscopic images in 38 or more (Kvasir-SEG against itself,
CVC-ClinicDB and PolypGen); the nearest frames of one sequence lie on both sides."""


class Duplicate(NamedTuple):
    """Two images that look alike: their numbers, and the bits in which their hashes differ."""

    first: int
    second: int
    bits: int


def picture_hash(image_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Perceptual hash (DCT) of an image.

    Args:
        image_rgb: (H, W, 3) uint8.
    Returns:
        (256,) bool.
    """
    imagehash = require("imagehash", extra="train", purpose="finding near-duplicates")
    pillow = require("PIL.Image", extra="train", purpose="finding near-duplicates")
    picture = pillow.fromarray(image_rgb).convert("L")
    found: npt.NDArray[np.bool_] = imagehash.phash(picture, hash_size=HASH_SIDE).hash.ravel()
    return found


def look_alikes(
    first: Sequence[npt.NDArray[np.bool_]], second: Sequence[npt.NDArray[np.bool_]]
) -> list[Duplicate]:
    """For every image of the second set that resembles one of the first, the one that it resembles most."""
    if not len(first) or not len(second):
        return []
    signs = [np.where(np.stack(hashes), 1.0, -1.0).astype(np.float32) for hashes in (first, second)]
    bits = (signs[0].shape[1] - signs[1] @ signs[0].T) / 2  # (second, first)
    nearest = bits.argmin(axis=1)
    return [
        Duplicate(int(one), number, int(bits[number, one]))
        for number, one in enumerate(nearest)
        if bits[number, one] <= ALIKE_BITS
    ]
