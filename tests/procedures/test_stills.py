"""The best still of each lesion: which frame it is, its files, and what joining leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vmkla.errors import BadInputError
from vmkla.procedures import stills as module
from vmkla.procedures.quality import small_view
from vmkla.procedures.stills import STILL_MAX_BYTES, STILL_SIDE_PX, Stills, encode_still, remove_stills
from vmkla.segment.findings import Findings, Region
from vmkla.segment.preprocess import Rect

Image = npt.NDArray[np.uint8]


def frame(*, blur: float = 0.0, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    rgb = cv2.GaussianBlur(rng.integers(40, 200, (120, 160, 3), dtype=np.uint8), (0, 0), 1.0)
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), blur) if blur else rgb, np.uint8)


def found(*boxes: Rect) -> Findings:
    mask = np.zeros((120, 160), np.uint8)
    for box in boxes:
        mask[box.y : box.y + box.h, box.x : box.x + box.w] = 1
    return Findings(mask, tuple(Region(box, box.w * box.h, 1, 0.9, 0.9) for box in boxes), 0.9)


def offer(stills: Stills, time_s: float, rgb: Image, numbers: list[int | None], *boxes: Rect) -> None:
    stills.offer(time_s, rgb, small_view(rgb, Rect(0, 0, 160, 120)), found(*boxes), numbers)


def read(path: Path) -> Image:
    return np.asarray(cv2.imread(str(path))[..., ::-1], np.uint8)


LARGE, SMALL, AWAY = Rect(20, 30, 60, 50), Rect(40, 40, 20, 16), Rect(110, 70, 30, 30)


def test_the_sharpest_and_largest_frame_stays(tmp_path: Path) -> None:
    stills = Stills(tmp_path)
    offer(stills, 0.0, frame(blur=3), [1], LARGE)
    offer(stills, 0.1, frame(), [1], LARGE)
    offer(stills, 0.2, frame(), [1], SMALL)
    offer(stills, 0.3, frame(blur=2), [1], LARGE)
    stills.finish({})
    still = stills.of(1)
    assert still is not None and (still.time_s, still.box) == (0.1, LARGE)
    clean, marked = (read(tmp_path / name) for name in ("lesions/0001.jpg", "lesions/0001.marked.jpg"))
    # The crop is the frame's: 60 + 2 x 16 wide, 50 + 2 x 16 high, enlarged to 320.
    assert clean.shape == marked.shape == (round(82 * 320 / 92), 320, 3)
    expected = cv2.resize(frame()[14:96, 4:96], (320, clean.shape[0]), interpolation=cv2.INTER_CUBIC)
    assert np.abs(clean.astype(int) - expected).mean() < 4
    # Markers differ along the lesion's edge and nowhere else.
    changed = np.abs(marked.astype(int) - clean).max(axis=2) > 60
    assert changed[:, 150:170].any() and not changed[120:160, 120:200].any() and not changed[:20].any()


def test_pieces_count_as_one_lesion_and_others_are_not_marked(tmp_path: Path) -> None:
    stills = Stills(tmp_path)
    offer(stills, 0.0, frame(), [3, 3, None, 7], Rect(20, 30, 20, 30), Rect(50, 30, 20, 30), Rect(2, 2, 4, 4),
          Rect(42, 40, 6, 6))  # fmt: skip
    stills.finish({})
    still = stills.of(3)
    assert still is not None and still.box == Rect(20, 30, 50, 30)
    assert sorted(path.name for path in (tmp_path / "lesions").iterdir()) == [
        "0003.jpg", "0003.marked.jpg", "0007.jpg", "0007.marked.jpg"
    ]  # fmt: skip
    clean, marked = (read(tmp_path / f"lesions/0003{end}.jpg") for end in ("", ".marked"))
    scale = clean.shape[1] / 82
    y, x = round(scale * (43 - 14)), round(scale * (45 - 4))  # the middle of lesion 7, within the crop of 3
    assert np.abs(marked.astype(int) - clean)[y - 8 : y + 8, x - 8 : x + 8].max() < 60


def test_joined_lesions_keep_the_better_still(tmp_path: Path) -> None:
    stills = Stills(tmp_path)
    offer(stills, 0.0, frame(blur=3), [1, 2], LARGE, AWAY)
    offer(stills, 9.0, frame(), [3, 4], LARGE, SMALL)
    stills.finish({3: 1, 4: 2, 5: 2})
    first, second = stills.of(1), stills.of(2)
    assert first is not None and (first.number, first.time_s) == (1, 9.0)
    assert second is not None and second.time_s in (0.0, 9.0)
    assert stills.of(3) is None and stills.of(4) is None
    assert sorted(path.name for path in (tmp_path / "lesions").iterdir()) == [
        "0001.jpg", "0001.marked.jpg", "0002.jpg", "0002.marked.jpg"
    ]  # fmt: skip
    sharp = Stills(tmp_path / "other")
    offer(sharp, 9.0, frame(), [1], LARGE)
    sharp.finish({})
    for name in ("lesions/0001.jpg", "lesions/0001.marked.jpg"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_memory_holds_the_latest_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 2)
    stills = Stills(tmp_path)
    for number in range(1, 6):
        offer(stills, number / 10, frame(blur=3), [number], LARGE)
    written = tmp_path / ".lesions.partial"
    assert sorted(path.name[:5] for path in written.glob("*marked*")) == ["0001.", "0002.", "0003."]
    before = (written / "0001.jpg").read_bytes()
    offer(stills, 0.6, frame(), [1], LARGE)  # a better one of a lesion that is written
    stills.finish({})
    assert (tmp_path / "lesions/0001.jpg").read_bytes() != before
    still = stills.of(1)
    assert still is not None and still.time_s == 0.6


@pytest.mark.parametrize("later_s", [6.0, -1.0])
def test_a_still_is_written_after_a_while(tmp_path: Path, later_s: float) -> None:
    stills = Stills(tmp_path)
    offer(stills, 0.0, frame(), [1], LARGE)
    assert not any(tmp_path.iterdir())
    offer(stills, later_s, frame(), [2], AWAY)
    written = tmp_path / ".lesions.partial"
    assert sorted(path.name for path in written.iterdir()) == ["0001.jpg", "0001.marked.jpg"]
    assert written.stat().st_mode & 0o777 == 0o700
    stills.finish({})
    assert [path.name for path in tmp_path.iterdir()] == ["lesions"]


def test_files_are_small_and_private(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    assert len(encode_still(noise)) <= STILL_MAX_BYTES
    stills = Stills(tmp_path / "run")
    box = Rect(10, 10, 800, 800)
    findings = dataclasses.replace(found(), mask=np.ones((900, 900), np.uint8))
    findings = dataclasses.replace(findings, regions=(Region(box, 640000, 1, 0.9, 0.9),))
    findings.mask[:10] = findings.mask[810:] = findings.mask[:, :10] = findings.mask[:, 810:] = 0
    stills.offer(0.0, noise, small_view(noise, Rect(0, 0, 900, 900)), findings, [1])
    stills.finish({})
    folder = tmp_path / "run" / "lesions"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("0001.jpg", "0001.marked.jpg"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
        assert (folder / name).stat().st_size <= STILL_MAX_BYTES
        assert max(read(folder / name).shape) == STILL_SIDE_PX


def test_only_stills_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "lesions"
    folder.mkdir()
    for name in ("0001.jpg", "0001.marked.jpg", "12345.jpg", "holiday.jpg", "1.jpg"):
        (folder / name).touch()
    remove_stills(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["1.jpg", "holiday.jpg"]
    for path in folder.iterdir():
        path.unlink()
    remove_stills(tmp_path)
    assert not folder.exists()
    remove_stills(tmp_path)


def test_a_still_that_cannot_be_written_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "lesions").write_text("a file in the place of the folder")
    stills = Stills(tmp_path)
    offer(stills, 0.0, frame(), [1], LARGE)
    with pytest.raises(BadInputError, match="cannot write"):
        stills.finish({})
    assert stills.of(1) is None
