"""The page: what it shows and links to, that text of files is escaped, and how large it may be."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.procedures.report.made_up import lesion, row, write_run
from vmkla.procedures.files import PAGE
from vmkla.procedures.report.page import write_page
from vmkla.procedures.report.times import clock, link
from vmkla.procedures.stills import STILL_MAX_BYTES, encode_still

EVIL = '<script>alert("x")</script>'
ROWS = [row(index) for index in range(60)]


class Tags(HTMLParser):
    """Collects tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [found[attribute] or "" for name, found in self.tags if name == tag and attribute in found]


def page_of(folder: Path) -> Tags:
    write_page(folder)
    return Tags((folder / PAGE).read_text(encoding="utf-8"))


def test_cards_show_stills_and_link_times(tmp_path: Path) -> None:
    lesions = [lesion(1, 1.0, 3.0, gaps=[[1.4, 2.2]]), lesion(2, 4.0, 4.5, still=None)]
    document = {"settings": {"threshold": 0.4, "peak": 0.6, "min_fraction": 0.005, "stride": 1}}
    document |= {"model": {"path": "nano.onnx", "sha256": "cd" * 32}, "outcome": "done"}
    folder = write_run(tmp_path / "run", ROWS, lesions, document)
    (folder / "overlay.mp4").touch()
    page = page_of(folder)
    images = page.values("img", "src")
    assert len(images) == 2 and all(image.startswith("data:image/jpeg;base64,/9j/") for image in images)
    links = page.values("a", "href")
    for time in ("1.000", "2.200", "4.000"):
        assert f"overlay.mp4#t={time}" in links
    assert "#lesion-1" in links and page.values("section", "id") == ["lesion-1", "lesion-2"]
    assert "threshold: 0.4; peak: 0.6; smallest area, share of the field of view: 0.005" in page.text
    for text in ("Research use", "cd" * 32, "nano.onnx", "0:01.0 to 0:01.4", "0:02.2 to 0:03.0", "missing"):
        assert text in page.text
    assert "2 findings over time, also false ones; 1 of them seen for at least 1 s" in page.text
    assert (folder / PAGE).stat().st_mode & 0o777 == 0o600


def test_it_needs_no_network_and_no_script(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, ROWS, [lesion(1)]))
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "base", "form")]
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "url(" not in text and "http" not in text and "@import" not in text


def test_text_of_files_is_escaped(tmp_path: Path) -> None:
    document = {
        "input": {"kind": "video", "name": EVIL, EVIL: EVIL}, "warnings": [EVIL, {"a": EVIL}],
        "message": EVIL, "model": {"class_names": ["background", EVIL]}, "runtime": EVIL,
        "settings": {EVIL: [EVIL]}, "outcome": EVIL, "vmkla_version": EVIL,
    }  # fmt: skip
    rows = [*ROWS, row(60, [1], poor=EVIL)]
    page = page_of(write_run(tmp_path, rows, [lesion(1, **{"class": 1})], document))
    assert "<script" not in (tmp_path / PAGE).read_text(encoding="utf-8")
    assert page.text.count(EVIL) > 8 and f"1, {EVIL}" in page.text


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    write_run(tmp_path, ROWS)
    (tmp_path / "report.json").write_text('{"input": {"kind": "video", "name": "a\\udcff.mp4"}}')
    assert r"a\udcff.mp4" in page_of(tmp_path).text


@pytest.mark.parametrize("spoil", ["link", "folder link", "too large", "no JPEG", "missing", "named pipe"])
def test_stills_that_are_not_ours_are_left_out(tmp_path: Path, spoil: str) -> None:
    folder = write_run(tmp_path / "run", ROWS, [lesion(1)])
    still, other = folder / "lesions/0001.jpg", tmp_path / "other.jpg"
    data = still.read_bytes()
    if spoil == "folder link":
        (folder / "lesions").rename(tmp_path / "elsewhere")
        (folder / "lesions").symlink_to(tmp_path / "elsewhere")
    else:
        still.unlink()
    if spoil == "link":
        other.write_bytes(data)
        still.symlink_to(other)
    elif spoil == "too large":
        still.write_bytes(data + bytes(STILL_MAX_BYTES))
    elif spoil == "no JPEG":
        still.write_bytes(b"secret" * 100)
    elif spoil == "named pipe":
        os.mkfifo(still)
    page = page_of(folder)
    assert len(page.values("img", "src")) == (0 if spoil == "folder link" else 1)
    assert "stillmissing" in page.text


def test_further_lesions_link_to_their_stills(tmp_path: Path) -> None:
    lesions = [lesion(number, number / 100, number / 100 + 0.5) for number in range(1, 44)]
    page = page_of(write_run(tmp_path, ROWS, lesions))
    assert len(page.values("img", "src")) == 80
    assert len([href for href in page.values("a", "href") if href.startswith("lesions/")]) == 3
    assert "Further lesions: 3" in page.text and "40 of 43 lesions" in page.text


def test_a_page_without_lesions(tmp_path: Path) -> None:
    assert "None: no finding reached the operating point." in page_of(write_run(tmp_path, ROWS)).text
    rows = [{name: value for name, value in each.items() if name != "box_lesions"} for each in ROWS]
    older = page_of(write_run(tmp_path / "older", rows, None)).text
    assert "What is missing" in older and "older than lesions" in older and "Not known." in older


def test_the_largest_page_is_below_five_megabytes(tmp_path: Path) -> None:
    """40 lesions with stills of the largest size, 1,000 listed ones and as many spans as are drawn."""
    lesions = [lesion(number, number / 10, number / 10 + 0.05) for number in range(1, 1100)]
    for each in lesions:
        each["gaps"] = [[each["first_s"] + place / 1000] * 2 for place in range(40)]
    rows = [row(index, **({"poor": "blur"} if index % 2 else {})) for index in range(3000)]
    folder = write_run(tmp_path, rows, lesions[:40])
    largest = encode_still(np.random.default_rng(0).integers(0, 256, (300, 320, 3), dtype=np.uint8))
    largest += bytes(STILL_MAX_BYTES - len(largest))
    for path in (folder / "lesions").iterdir():
        path.write_bytes(largest)
    write_run(folder / "all", rows, lesions)
    (folder / "all" / "overlay.mp4").touch()
    for path in (folder / "all" / "lesions").iterdir():
        path.write_bytes(largest)
    write_page(folder / "all")
    size = (folder / "all" / PAGE).stat().st_size
    assert 80 * 4 / 3 * STILL_MAX_BYTES < size < 5_000_000
    text = (folder / "all" / PAGE).read_text(encoding="utf-8")
    assert 2 * len(re.findall("<rect", text)) <= 2000


def test_times_as_people_write_them() -> None:
    assert [clock(time_s) for time_s in (0, 9.96, 59.97, 65.25, 3599.99, 3725.3, -1.5, -0.01)] == [
        "0:00.0", "0:10.0", "1:00.0", "1:05.2", "1:00:00.0", "1:02:05.3", "-0:01.5", "0:00.0"
    ]  # fmt: skip


def test_a_link_does_not_lead_to_the_frame_before() -> None:
    """Chromium shows the frame of 0.100 s at 0.133 s, and that of 4/30 s from 0.134 s on."""
    times = [link(time_s, "x", video=True) for time_s in (4 / 30, 2.2, 0, -3)]
    assert times == [f'<a href="overlay.mp4#t={at}">x</a>' for at in ("0.134", "2.200", "0.000", "0.000")]
