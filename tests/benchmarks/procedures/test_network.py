"""benchmarks.procedures.network: figures and sheets of a miniature, counted by hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from benchmarks.procedures.network import COLUMNS, one_lesion, row, see, write_sheets
from tests.evaluation.colour_runners import RedRunner
from tests.evaluation.truth.miniatures import HEIGHT, LAYOUTS, WIDTH
from vmkla.evaluation.identities import IdentityTally
from vmkla.evaluation.truth.layouts import open_annotated
from vmkla.evaluation.truth.records import TruthRules
from vmkla.video.media.clip_files import write_frames


def test_figures_and_sheets_of_a_recording(tmp_path: Path) -> None:
    """12 frames at 30 a second: one of two lesions is found, and there are two alarms, one of two frames."""
    make, fps = LAYOUTS["COCO"]
    make(tmp_path / "data")
    (recording,) = open_annotated(tmp_path / "data", TruthRules(fps)).recordings
    tally = IdentityTally()
    seen = see(RedRunner(HEIGHT, WIDTH), recording, tally)
    figures = dict(zip(COLUMNS, row("mine", [seen], tally), strict=True))
    assert figures["lesions found"] == "1 of 2"
    assert figures["frames with a lesion, found"] == "0.556"  # 5 of 9
    assert figures["alarms a minute"] == "300.00" and figures["of at least 0.5 s"] == "0.00"
    lines = list(write_sheets(seen, tmp_path))
    assert [line.split(", ")[1] for line in lines] == ["2 frames", "1 frames"]
    for line in lines:
        sheet = cv2.imread(str(tmp_path / line.split(", ")[2]))
        assert sheet.shape[1] >= 3 * 480  # before, in and after the alarm


def test_a_clip_of_one_lesion(tmp_path: Path) -> None:
    """The number with the most frames is the lesion's; frames with another one are an alarm."""
    coarse = np.random.default_rng(0).integers(0, 100, (8, 12, 3), np.uint8)
    frames = np.repeat(cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_LINEAR)[None], 10, axis=0)
    frames[:9, 8:40, 8:40, 0] = 255
    frames[4:6, 8:24, 70:86, 0] = 255
    pairs = ((rgb, rgb[..., 0]) for rgb in frames)
    write_frames(tmp_path / "one.mp4", pairs, (64, 96), rate=Fraction(25), masks_dir=None)
    tally = IdentityTally()
    seen = one_lesion(RedRunner(64, 96), tmp_path / "one.mp4", tally)
    assert list(seen.alarms()) == [range(4, 6)]
    figures = dict(zip(COLUMNS, row("one", [seen], tally), strict=True))
    assert figures["lesions found"] == "1 of 1" and figures["fragments per lesion"] == "2.00 (1)"
    assert figures["frames with a lesion, found"] == "0.900"
    (line,) = write_sheets(seen, tmp_path)
    assert line == "one: 0.16 s, 2 frames, one-0000.16.png"
