"""Labelled images made for the tests of data and training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def labelled_image(seed: int, height: int, width: int) -> tuple[Image, Image]:
    """A noisy brown picture with one bright, bluish disc, and the disc as a mask; every fifth has no disc."""
    rng = np.random.default_rng(seed)
    image = rng.normal((120, 70, 50), 12, (height, width, 3))
    mask: Image = np.zeros((height, width), np.uint8)
    if seed % 5 != 4:
        radius = int(rng.uniform(0.15, 0.3) * min(height, width))
        centre = tuple(int(rng.integers(radius, side - radius)) for side in (width, height))
        cv2.circle(mask, centre, radius, 255, -1)
        image[mask > 0] += (40, 70, 110)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_folder(folder: Path, count: int, *, height: int = 48, width: int = 64, first_seed: int = 0) -> Path:
    """``images/`` and ``masks/`` with PNG files ``case-00`` and on."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask = labelled_image(first_seed + number, height, width)
        cv2.imwrite(str(folder / "images" / f"case-{number:02d}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"case-{number:02d}.png"), mask)
    return folder
