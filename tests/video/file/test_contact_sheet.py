"""vmkla.video.file.contact_sheet: six frames, spread over all that were offered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vmkla.video.file.contact_sheet import ContactSheet


def grey(level: int, height: int = 90, width: int = 120) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def levels(sheet: ContactSheet, count: int) -> list[int]:
    """The grey levels of the frames on a sheet, in reading order."""
    image = sheet.image()
    assert image is not None
    columns = min(3, count)
    height, width = image.shape[0] // -(-count // columns), image.shape[1] // columns
    return [
        int(image[(number // columns) * height + 100, (number % columns) * width + width // 2, 0])
        for number in range(count)
    ]


def test_nothing_offered() -> None:
    assert ContactSheet().image() is None


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_few_frames_are_all_shown(count: int) -> None:
    sheet = ContactSheet()
    for level in range(1, count + 1):
        sheet.offer(grey(10 * level), str(level))
    assert levels(sheet, count) == [10 * level for level in range(1, count + 1)]


@pytest.mark.parametrize("count", [7, 12, 13, 25, 100, 240])
def test_many_frames_are_shown_in_even_steps(count: int) -> None:
    sheet = ContactSheet()
    for level in range(count):
        sheet.offer(grey(level), str(level))
    shown = np.array(levels(sheet, 6))
    assert len(sheet._kept) <= 12
    assert (np.diff(shown) > 0).all() and np.diff(shown).max() <= count / 6 + max(1, count / 6)
    assert shown[0] <= count / 4 and shown[-1] >= 0.6 * count


def test_frames_of_other_sizes_keep_their_shape() -> None:
    sheet = ContactSheet()
    sheet.offer(grey(50, 90, 120), "first")
    sheet.offer(grey(200, 120, 60), "upright")
    image = sheet.image()
    assert image is not None and image.shape[1] == 2 * (480 + 4)
    second = image[:360, 484:]
    assert second[180, 240, 0] == 200 and second[180, 60, 0] == 0


def test_captions_are_written_under_the_frames() -> None:
    plain, written = ContactSheet(), ContactSheet()
    plain.offer(grey(50), "")
    written.offer(grey(50), "1.43 s   92%")
    first, second = plain.image(), written.image()
    assert first is not None and second is not None
    changed = np.flatnonzero((first != second).any(axis=(1, 2)))
    assert changed.min() >= 360 and changed.size > 5
