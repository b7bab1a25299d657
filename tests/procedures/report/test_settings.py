"""The words for model and settings: every key of a real report has some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.video.red_runner import RedRunner
from tests.video.small_videos import write_video
from vmkla.procedures.files import PAGE
from vmkla.procedures.report.settings import WORDS, in_words, settings_rows
from vmkla.segment.preprocess import Rect
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment


def test_every_key_of_a_run_has_words(tmp_path: Path) -> None:
    options = SegmentOptions(
        tmp_path / "out", hide=(Rect(0, 1, 8, 9), Rect(2, 2, 4, 4)), pause_on_poor=True, export=("coco",)
    )
    document = segment(RedRunner(64, 96), write_video(tmp_path / "clip.mp4"), options).to_dict()
    for part, words in WORDS.items():
        assert set(document[part]) <= set(words), part
        assert len(set(words.values())) == len(words)
    rows = dict(settings_rows(document))
    assert len(rows) == 1 + sum(len(document[part]) for part in WORDS)  # no two keys have the same words
    assert rows["blacked-out rectangles, x, y, width, height, px"] == "0, 1, 8, 9; 2, 2, 4, 4"
    assert rows["markers pause on poor pictures"] == "yes" and rows["masks are written"] == "no"
    assert rows["opacity of markers"] == "that of the style"
    assert rows["network input, height and width, px"] == "64, 96"
    assert rows["interlacing"].startswith("deinterlaced: no, because: ")
    page = (tmp_path / "out" / PAGE).read_text(encoding="utf-8")
    assert "<th>markers are drawn as</th><td>contour</td>" in page and "settings: " not in page


def test_a_key_of_another_version_keeps_its_name() -> None:
    rows = list(settings_rows({"settings": {"later_option": None, "stride": 2}, "model": [], "runtime": {}}))
    assert rows == [
        ("model", "not known"), ("runtime", "not known"), ("every Nth frame is segmented, N", "2"),
        ("settings: later_option", "-"), ("input", "not known"), ("report by vmkla", "not known"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float64(0.25), "0.25"),
        (None, "-"),
        ([], "-"),
        (True, "yes"),
        (0, "0"),
        ([1, 2], "1, 2"),
        ({"a_b": [False]}, "a b: no"),
    ],
)
def test_values(value: object, text: str) -> None:
    assert in_words(value) == text
