"""Augmentation: image and mask move together, equal seeds agree, off means off."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.labelled_folders import labelled_image
from vmkla.data.augment import AugmentConfig, augment, warp_matrix
from vmkla.errors import UsageError

GEOMETRY_ONLY = dataclasses.replace(
    AugmentConfig(), colour=0.0, blur=0.0, noise=0.0, glare=0.0, border=0.0, patch=0.0
)


@given(seed=st.integers(0, 2**31), sides=st.tuples(st.integers(40, 90), st.integers(40, 90)))
def test_a_picture_of_its_mask_stays_one(seed: int, sides: tuple[int, int]) -> None:
    """The image is the mask in three channels: after any warp it still is, up to the cut at one half."""
    _, mask = labelled_image(seed % 4, *sides)
    image, warped = augment(
        np.repeat(255 * mask[..., None], 3, axis=2),
        mask,
        (32, 48),
        GEOMETRY_ONLY,
        np.random.default_rng(seed),
    )
    assert image.shape == (32, 48, 3) and warped.shape == (32, 48)
    np.testing.assert_array_equal(warped, image[..., 0] > 127)


def test_with_everything_on_the_mask_still_covers_the_marked_pixels() -> None:
    """A saturated marker survives all changes of colour; patches and borders clear the mask under them."""
    config = dataclasses.replace(
        AugmentConfig(), colour=0.5, blur=0.0, noise=1.0, glare=0.0, border=1.0, patch=1.0, flip=1.0
    )
    overlaps = []
    for seed in range(40):
        _, mask = labelled_image(0, 120, 120)
        image = np.full((120, 120, 3), (60, 60, 60), np.uint8)
        image[mask > 0] = (250, 60, 250)
        changed, warped = augment(image, mask, (96, 96), config, np.random.default_rng(seed))
        excess = changed.astype(int)
        marked = (excess[..., 0] + excess[..., 2] - 2 * excess[..., 1]) > 180
        if warped.any():
            overlaps.append((marked & (warped > 0)).sum() / (warped > 0).sum())
    assert len(overlaps) > 30
    assert np.median(overlaps) > 0.97 and min(overlaps) > 0.8


def test_the_matrix_turns_scales_and_flips_as_it_says() -> None:
    """With all but one change off, the map of the corners is that of a formula."""
    off = AugmentConfig.off()
    rng = np.random.default_rng(0)
    matrix = warp_matrix((50, 100), (25, 50), off, rng)
    np.testing.assert_allclose(matrix, [[0.5, 0, -0.25], [0, 0.5, -0.25]])
    flipped = warp_matrix((40, 40), (40, 40), dataclasses.replace(off, flip=1.0), rng)
    np.testing.assert_allclose(flipped, [[-1, 0, 39], [0, -1, 39]])
    turned = warp_matrix((40, 40), (40, 40), dataclasses.replace(off, rotate_deg=30.0), rng)
    np.testing.assert_allclose(turned[:, :2] @ turned[:, :2].T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(turned @ [19.5, 19.5, 1], [19.5, 19.5])
    assert abs(np.degrees(np.arctan2(turned[1, 0], turned[0, 0]))) <= 30
    scales = [
        np.linalg.norm(warp_matrix((40, 40), (40, 40), dataclasses.replace(off, scale=0.5), rng)[0, :2])
        for _ in range(200)
    ]
    assert 1 / 1.5 <= min(scales) < 0.72 and 1.4 < max(scales) <= 1.5


def test_equal_generators_agree_and_others_do_not() -> None:
    image, mask = labelled_image(1, 80, 80)
    first, again, other = (
        augment(image, mask, (64, 64), AugmentConfig(), np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).mean() > 0.5


def test_the_source_is_left_alone() -> None:
    image, mask = labelled_image(1, 64, 64)
    before = image.copy(), mask.copy()
    for seed in range(20):
        augment(image, mask, (64, 64), AugmentConfig(), np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_off_means_off() -> None:
    image, mask = labelled_image(1, 64, 64)
    rng = np.random.default_rng(0)
    changed, warped = augment(image, mask, (64, 64), AugmentConfig.off(), rng)
    np.testing.assert_array_equal(changed, image)
    np.testing.assert_array_equal(warped, mask)
    with pytest.raises(UsageError, match="needs a warp"):
        augment(image, mask, (32, 32), AugmentConfig.off(), rng)


def test_flips_alone_are_exact() -> None:
    image, mask = labelled_image(1, 64, 64)
    flips = dataclasses.replace(AugmentConfig.off(), flip=1.0)
    changed, warped = augment(image, mask, (64, 64), flips, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, cv2.flip(image, -1))
    np.testing.assert_array_equal(warped, cv2.flip(mask, -1))


@pytest.mark.parametrize("change", ["blur", "noise", "glare", "border", "patch", "colour"])
def test_each_change_changes_the_picture_and_keeps_it_one(change: str) -> None:
    image, mask = labelled_image(2, 64, 64)
    config = dataclasses.replace(AugmentConfig.off(), **{change: 1.0})
    for seed in range(30):
        changed, warped = augment(image, mask, (64, 64), config, np.random.default_rng(seed))
        assert changed.dtype == np.uint8 and changed.shape == image.shape
        assert (changed != image).any()
        assert not (warped & ~mask).any()  # no pixel becomes polyp
        if change in ("blur", "noise", "glare", "colour"):
            np.testing.assert_array_equal(warped, mask)


@pytest.mark.parametrize(
    ("field", "value"), [("flip", 1.5), ("blur", -0.1), ("rotate_deg", -1), ("scale", -1)]
)
def test_strengths_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        dataclasses.replace(AugmentConfig(), **{field: value})
