"""procedure.html of a scripted video in a real Chromium: its lesions match the script."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import headless_chromium
from tests.video.file.scripted import RATE, procedure
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment

PAINTED = "return [...document.images].map((image) => image.complete && image.naturalWidth > 0)"
AT = """
const video = document.querySelector("video");
return video && video.readyState ? video.currentTime : null;
"""


@pytest.fixture
def clip(write_clip: Any) -> Path:
    frames = procedure()
    for index in range(30, 36):
        frames[index] = frames[index] * 0  # black
    return Path(write_clip("clip.mp4", frames, rate=Fraction(RATE)))


def test_the_page_matches_the_script(clip: Path, make_runner: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = segment(make_runner(96, 128), clip, SegmentOptions(out)).to_dict()
    assert report["outputs"]["procedure"] == "procedure.html"
    with headless_chromium(tmp_path / "chromium") as browser:
        browser.get((out / "procedure.html").as_uri())
        cards = {card.get_attribute("id"): card for card in browser.find_elements(By.CLASS_NAME, "lesion")}
        assert list(cards) == ["lesion-1", "lesion-2"]  # seen for 4.8 s and for 0.9 s
        first, second = (card.text for card in cards.values())
        assert "0:00.0 to 0:01.9\n0:05.0 to 0:07.9" in first and "4.8 s, 50 frames" in first
        assert "0:04.0 to 0:04.9" in second and "0.9 s, 10 frames" in second
        assert browser.execute_script(PAINTED) == [True] * 4
        titles = [bar.get_attribute("textContent") for bar in browser.find_elements(By.CSS_SELECTOR, "title")]
        assert [title for title in titles if title and title.startswith("lesion 1,")] == [
            "lesion 1, 0:00.0 to 0:01.9", "lesion 1, 0:05.0 to 0:07.9"
        ]  # fmt: skip
        assert "black, 0:03.0 to 0:03.6" in titles
        # A time leads to that second of the video.
        cards["lesion-1"].find_element(By.LINK_TEXT, "0:05.0").click()
        WebDriverWait(browser, 20).until(lambda page: (page.execute_script(AT) or 0.0) >= 5.0)
        assert browser.current_url.endswith("/overlay.mp4#t=5.000")


def test_a_run_that_is_stopped_has_a_page(clip: Path, make_runner: Any, tmp_path: Path) -> None:
    cancel, out = threading.Event(), tmp_path / "out"
    segment(
        make_runner(96, 128),
        clip,
        SegmentOptions(out),
        progress=lambda done: cancel.set() if done.done >= 10 else None,
        cancel=cancel,
    )
    page = (out / "procedure.html").read_text(encoding="utf-8")
    assert "<td>interrupted: stopped after" in page and 'id="lesion-1"' in page
