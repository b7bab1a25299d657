"""Polyp-free windows: they hold no lesion, and look like frames of the same scope."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.data.labelled_folders import labelled_image
from vmkla.data.sources import Sample
from vmkla.data.windows import WINDOW, quiet_window, separate_windows, with_windows

LESION = (10, 200, 10)  # a colour that nothing else has


def scope_frame(centre: tuple[int, int] = (240, 90), radius: int = 40) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """A lit octagon of 240x200 px in a black frame with text at its left, and a lesion in the octagon."""
    rng = np.random.default_rng(0)
    noise = rng.normal((150, 80, 60), 10, (240, 320, 3)).clip(70, 220).astype(np.uint8)
    corners = np.array([(70, 20), (270, 20), (310, 60), (310, 180), (270, 220), (110, 220), (70, 180)])
    inside = cv2.fillConvexPoly(np.zeros((240, 320), np.uint8), corners.astype(np.int32), 1)
    image = noise * inside[..., None]
    cv2.putText(image, "12:30", (5, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))
    mask = cv2.circle(np.zeros((240, 320), np.uint8), centre, radius, 1, -1) & inside
    image[mask > 0] = LESION
    return image, mask


def test_a_window_shows_no_lesion_and_keeps_what_surrounds_the_field() -> None:
    image, mask = scope_frame()
    window = quiet_window(image, mask)
    assert window is not None and window.shape == image.shape and window.dtype == np.uint8
    assert (image == LESION).all(axis=2).sum() == mask.sum() > 4000
    greener = window[..., 1].astype(int) > window[..., 0]
    assert not greener.any()
    assert np.array_equal(window[:, :66], image[:, :66])  # text and border
    assert not window[:20].any() and not window[-18:].any() and not window[214:220, 300:].any()
    lit = (window.max(axis=2) > 60)[24:216, 74:306]
    assert lit.mean() > 0.95 and not np.array_equal(window, image)


def test_the_window_is_the_largest_that_stays_away_from_the_lesion() -> None:
    """Without a border the field is the frame: the result must be an enlarged part of it."""
    image = np.random.default_rng(1).integers(0, 80, (200, 200, 3)).astype(np.uint8)
    image[..., 0] = 100 + np.arange(200)[None, :] // 2 + np.arange(200)[:, None] // 8  # tells each place
    mask = np.zeros((200, 200), np.uint8)
    mask[:, :60] = 1
    window = quiet_window(image, mask)
    assert window is not None
    left, right = int(window[100, 2, 0]), int(window[100, -3, 0])
    # From column 70 on (10 px of margin) 130 of 200 columns are free: 0.65 of each side.
    assert right - left == pytest.approx(65, abs=3)
    assert left == pytest.approx(int(image[100, 70, 0]), abs=8)


def test_separate_windows_do_not_overlap_and_stay_away_from_the_lesion() -> None:
    image = np.full((200, 200, 3), 200, np.uint8)
    image[..., 1:] = np.indices((200, 200)).transpose(1, 2, 0) * 0.7  # row and column tell each place
    mask = np.zeros((200, 200), np.uint8)
    mask[90:110, 90:110] = 1
    windows = separate_windows(image, mask)
    # With a margin of 10 px the lesion leaves 80 px at each of its sides: room for four windows of 0.4.
    assert len(windows) == 4
    times_seen = np.zeros((200, 200), int)
    for window in windows:
        top, left, bottom, right = (round(float(window[y, x, c]) / 0.7) for y, x, c in
                                    ((0, 99, 1), (99, 0, 2), (199, 99, 1), (99, 199, 2)))  # fmt: skip
        assert (bottom - top, right - left) == pytest.approx((79, 79), abs=4)
        times_seen[top + 2 : bottom - 1, left + 2 : right - 1] += 1
    assert times_seen.max() == 1 and not times_seen[82:118, 82:118].any()


def test_a_lesion_that_leaves_no_room_has_no_window() -> None:
    crowded = scope_frame((190, 120), 60)
    assert quiet_window(*crowded) is None and separate_windows(*crowded) == []
    image, mask = scope_frame()
    # Without a lesion the image is quiet as it is.
    assert quiet_window(image, np.zeros_like(mask)) is None
    assert separate_windows(image, np.zeros_like(mask)) == []


def test_dye_and_display_panels_are_no_healthy_bowel() -> None:
    image, mask = scope_frame()
    assert quiet_window(image, mask) is not None
    dyed = image.copy()
    dyed[100:, 66:200][dyed[100:, 66:200].any(axis=2)] = (110, 120, 130)
    dyed[20:100, 66:150][dyed[20:100, 66:150].any(axis=2)] = (110, 120, 130)
    assert quiet_window(dyed, mask) is None


def test_windows_follow_their_images() -> None:
    image, mask = labelled_image(4, 96, 128)  # has no lesion
    pairs = [(image, cv2.circle(mask.copy(), (20, 20), 10, 1, -1)), (image, mask)]
    found = list(with_windows(Sample(f"set/{n}", *pair, group="g") for n, pair in enumerate(pairs)))
    assert [sample.name for sample in found] == ["set/0", "set/0" + WINDOW, "set/1"]
    assert not found[1].mask.any() and found[1].mask.shape == (96, 128) and found[1].group == "g"
