"""The page in a real Chromium: it shows everything, at several widths and on paper."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
from selenium.webdriver.common.by import By

from tests.browser import headless_chromium
from tests.procedures.report.made_up import lesion, row, write_run
from vmkla.procedures.files import PAGE
from vmkla.procedures.report.page import write_page
from vmkla.procedures.stills import encode_still

OVER_THE_EDGE = """
return [...document.querySelectorAll("body *")]
    .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((element) => element.tagName + " " + element.textContent.slice(0, 60));
"""
SHOWN = "return [...document.images].map((image) => image.complete && image.naturalWidth > 0)"


def test_screen_and_paper(tmp_path: Path) -> None:
    lesions = [lesion(number, number / 10, number / 10 + 0.5) for number in range(1, 52)]
    document: dict[str, Any] = {"settings": {"threshold": 0.5}, "outcome": "done", "warnings": ["a" * 300]}
    folder = write_run(tmp_path / "run", [row(index) for index in range(100)], lesions, document)
    tall = encode_still(np.random.default_rng(0).integers(0, 256, (320, 40, 3), dtype=np.uint8))
    (folder / "lesions/0001.jpg").write_bytes(tall)
    (folder / "overlay.mp4").touch()
    write_page(folder)
    with headless_chromium(tmp_path / "chromium") as browser:
        for width in (1280, 720):
            browser.set_window_size(width, 900)
            browser.get((folder / PAGE).as_uri())
            assert browser.execute_script(SHOWN) == [True] * 80, width
            assert browser.execute_script(OVER_THE_EDGE) == [], width
        assert browser.get_log("browser") == []
        bars = browser.find_elements(By.CSS_SELECTOR, ".timeline rect")
        assert len(bars) == 41 and all(bar.size["width"] >= 0.5 for bar in bars)  # 11 others are one span
        printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    sizes = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert len(sizes) > 9  # 40 cards, at most five on a page
    assert {(round(float(width)), round(float(height))) for width, height in sizes} == {(595, 842)}  # A4
    assert len(re.findall(rb"/Subtype\s*/Image", pdf)) >= 2
