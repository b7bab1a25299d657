"""``vmkla sample --minutes``, then ``vmkla infer --video``: its lesions match the script, also in a browser.

The network is replaced by the script's exact masks: rendered lesions are not evidence for a network, and
this test is of all that follows it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from selenium.webdriver.common.by import By

from tests.browser import headless_chromium
from tests.video.red_runner import RedRunner
from vmkla import engines

pytestmark = pytest.mark.slow

HEIGHT, WIDTH, MINUTES, SEED = 96, 128, 0.15, 13
BRIEF_S = 0.5
"""Lesions seen for less may be missing, and spans may differ by this, seconds: slivers come and go."""


class ExactRunner(RedRunner):
    """Returns the script's mask of each frame, in the order of the frames."""

    def __init__(self, masks: Path) -> None:
        super().__init__(HEIGHT, WIDTH)
        self._masks = sorted(masks.iterdir())

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        assert frames_rgb.shape == (1, HEIGHT, WIDTH, 3)
        mask = cv2.imread(str(self._masks[self.calls]), cv2.IMREAD_UNCHANGED)
        self.calls += 1
        return (mask > 0).astype(np.float32)[None, None]


def in_seconds(text: str) -> float:
    minutes, seconds = text.split(":")
    return 60 * int(minutes) + float(seconds)


def joined(spans_s: list[list[float]]) -> list[list[float]]:
    """Join spans as the page does, whose cards leave out short gaps."""
    result: list[list[float]] = []
    for start_s, end_s in spans_s:
        if result and start_s - result[-1][1] <= BRIEF_S:
            result[-1][1] = end_s
        else:
            result.append([start_s, end_s])
    return result


def test_the_lesions_of_the_report_are_those_of_the_script(
    vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam, out = tmp_path / "exam", tmp_path / "run"
    size = ("--size", f"{HEIGHT}x{WIDTH}", "--json")
    script = vmkla("sample", exam / "exam.mp4", "--minutes", MINUTES, "--seed", SEED, *size)
    assert script.status == 0, script.stderr
    monkeypatch.setattr(engines, "load_runner", lambda *_, **__: ExactRunner(exam / "masks"))
    done = vmkla("infer", "--video", exam / "exam.mp4", "--out", out, "--roi", "none")
    assert done.status == 0, done.stderr

    expected = [lesion for lesion in script.json["lesions"] if lesion["frames"] >= BRIEF_S * 30]
    assert len(expected) >= 2, script.json
    lines = [json.loads(line) for line in (out / "lesions.jsonl").read_text().splitlines()]
    found = [lesion for lesion in lines if lesion["frames"] >= BRIEF_S * 30]
    assert len(found) == len(expected)
    with headless_chromium(tmp_path / "chromium") as browser:
        browser.get((out / "procedure.html").as_uri())
        cards = {
            card.get_attribute("id"): card.text for card in browser.find_elements(By.CLASS_NAME, "lesion")
        }
        lanes = [
            each.get_attribute("textContent") for each in browser.find_elements(By.CSS_SELECTOR, "title")
        ]
    for lesion, truth in zip(found, expected, strict=True):  # both in the order of appearance
        spans_s = joined(truth["spans_s"])
        assert abs(lesion["first_s"] - spans_s[0][0]) <= BRIEF_S
        assert abs(lesion["last_s"] - spans_s[-1][1]) <= BRIEF_S
        assert abs(lesion["frames"] - truth["frames"]) <= BRIEF_S * 30
        # Each lesion is where its own mask is: the box of its still holds pixels of that value only.
        still = lesion["still"]
        mask = cv2.imread(str(exam / "masks" / f"{round(still['pts_s'] * 30):06d}.png"), cv2.IMREAD_UNCHANGED)
        x, y, w, h = still["box"]
        assert set(np.unique(mask[y : y + h, x : x + w])) - {0} == {truth["lesion"]}
        card = cards[f"lesion-{lesion['id']}"]
        shown = [[in_seconds(t) for t in pair] for pair in re.findall(r"(\d+:[\d.]+) to (\d+:[\d.]+)", card)]
        assert len(shown) == len(spans_s), card
        np.testing.assert_allclose(shown, spans_s, atol=BRIEF_S)
        assert any(lane and lane.startswith(f"lesion {lesion['id']},") for lane in lanes)
