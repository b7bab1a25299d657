"""The two ways to change pixels: Pillow's against OpenCV's, one by one and together."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.data.labelled_folders import labelled_image
from tests.tolerances import tol
from vmkla.data.augment import AugmentConfig, augment, warp_matrix
from vmkla.data.pixels import Ellipse, OpenCVPixels, PillowPixels, available

Image = npt.NDArray[np.uint8]

OPENCV, PILLOW = OpenCVPixels(), PillowPixels()
LIMIT = tol(("Pillow", "OpenCV"), torch.uint8)["atol"]


def picture(seed: int, side: int = 96) -> Image:
    """Colours that change softly, as in an endoscope's frame, with one edge."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(30, 220, (7, 7, 3)).astype(np.uint8), (side, side))
    image[side // 3 :, side // 2 :] //= 2
    return np.asarray(image, np.uint8)


def apart(first: Image, second: Image) -> float:
    assert first.shape == second.shape and first.dtype == second.dtype == np.uint8
    return float(np.abs(first.astype(int) - second).mean())


def test_opencv_is_taken_where_it_is() -> None:
    assert available().name == "OpenCV"


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_warps_agree(seed: int, reflect: bool) -> None:
    rng = np.random.default_rng(seed)
    image = picture(seed)
    matrix = warp_matrix((96, 96), (64, 80), AugmentConfig(), rng)
    warped = [p.warp(image, matrix, (64, 80), reflect=reflect, nearest=False) for p in (OPENCV, PILLOW)]
    assert apart(*warped) < LIMIT and apart(warped[0], np.roll(warped[1], 1, 1)) > apart(*warped)
    labels = np.where(image[..., 0] > 120, 7, 3).astype(np.uint8)
    nearest = [p.warp(labels, matrix, (64, 80), reflect=reflect, nearest=True) for p in (OPENCV, PILLOW)]
    assert set(np.unique(nearest[1])) <= ({3, 7} if reflect else {0, 3, 7})
    assert (nearest[0] != nearest[1]).mean() < 0.02


def test_a_pure_shift_is_exact() -> None:
    image = picture(3)
    matrix = np.array([[1.0, 0.0, 5.0], [0.0, 1.0, -3.0]])
    for pixels in (OPENCV, PILLOW):
        moved = pixels.warp(image, matrix, (96, 96), reflect=False, nearest=False)
        np.testing.assert_array_equal(moved[:93, 5:], image[3:, :91])
        assert not moved[:, :5].any() and not moved[93:].any()


def test_tables_and_colours_agree() -> None:
    image = picture(4)
    table = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    looked = PILLOW.look_up(image, table)
    np.testing.assert_array_equal(looked, OPENCV.look_up(image, table))
    np.testing.assert_array_equal(looked[5, 7], [table[image[5, 7, c], c] for c in range(3)])
    for turn_deg, saturation in ((16, 1.3), (-16, 0.7), (0, 1.0)):
        recoloured = [p.recolour(image, turn_deg, saturation) for p in (OPENCV, PILLOW)]
        assert apart(*recoloured) < LIMIT
    assert apart(PILLOW.recolour(image, 16, 1.3), image) > 2 * LIMIT


def test_shapes_agree() -> None:
    corners = np.array([(12, 5), (80, 5), (90, 15), (90, 70), (80, 88), (12, 88), (3, 70), (3, 15)], np.int32)
    for shapes in (
        [p.polygon((96, 100), corners) for p in (OPENCV, PILLOW)],
        [p.disc((96, 100), (45, 50), 38) for p in (OPENCV, PILLOW)],
    ):
        assert set(np.unique(shapes[1])) == {0, 255}
        assert 0.3 < (shapes[1] > 0).mean() < 0.9
        assert (shapes[0] != shapes[1]).mean() < 0.02  # the edge, half a pixel


def test_light_and_blur_agree() -> None:
    image = picture(5)
    blobs = [Ellipse((30, 40), (9, 4), 30.0, 200), Ellipse((90, 3), (3, 6), 100.0, 150)]
    lit = [p.glare(image, blobs) for p in (OPENCV, PILLOW)]
    assert apart(*lit) < LIMIT / 3 and (lit[1] >= image).all() and lit[1][40, 30].min() > 199
    for sigma in (0.5, 1.8):
        assert apart(*(p.blur(image, sigma) for p in (OPENCV, PILLOW))) < LIMIT / 3
    for length, ends in ((7, [(0, 0), (6, 6)]), (9, [(8, 4), (0, 4)]), (4, [(0, 2), (3, 1)])):
        assert apart(*(p.smear(image, length, ends) for p in (OPENCV, PILLOW))) < LIMIT / 3
    spread = PILLOW.smear(np.eye(21, dtype=np.uint8)[..., None].repeat(3, 2) * 200, 5, [(0, 2), (4, 2)])
    assert spread[10, 10, 0] == 40  # one of five columns


def test_whole_augmentations_agree() -> None:
    config = AugmentConfig(blur=0.5, noise=0.3, glare=0.5, border=0.5, patch=0.3)
    images, masks = [], []
    for seed in range(40):
        image, mask = picture(seed), labelled_image(seed % 4, 96, 96)[1]
        made = [
            augment(image, mask, (64, 64), config, np.random.default_rng(seed), pixels)
            for pixels in (OPENCV, PILLOW)
        ]
        images.append(apart(made[0][0], made[1][0]))
        masks.append((made[0][1] != made[1][1]).mean())
        assert set(np.unique(made[1][1])) <= {0, 1}
    assert np.mean(images) < LIMIT and np.mean(masks) < 2e-3, (np.mean(images), np.mean(masks))


def test_several_classes_move_with_their_pixels() -> None:
    """The image carries the class in its grey level; what is between two organs is neither a third."""
    rng = np.random.default_rng(2)
    labels = cv2.resize(
        rng.choice(np.array([0, 1, 5, 8], np.uint8), (5, 5)), (90, 90), interpolation=cv2.INTER_NEAREST
    )
    labels = np.asarray(labels, np.uint8)
    image = np.repeat(25 * labels[..., None], 3, axis=2)
    geometry = dataclasses.replace(AugmentConfig.paper(), stretch=0.2)
    for seed in range(10):
        moved, warped = augment(image, labels, (64, 64), geometry, np.random.default_rng(seed), OPENCV)
        assert set(np.unique(warped)) <= {0, 1, 5, 8} and len(np.unique(warped)) > 2
        assert (np.abs(moved[..., 0].astype(int) - 25 * warped) > 13).mean() < 0.12  # edges alone
