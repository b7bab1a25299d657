"""The examples of the API page and of examples/ run and show what they state."""

from __future__ import annotations

import csv
import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vmkla
from tests import ROOT
from vmkla.video.media.clip import write_clip

API = ROOT / "docs" / "api.md"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "clip.mp4"
    write_clip(path, seed=8, height=120, width=160, frames=6)
    return path


def run(name: str, *arguments: object) -> str:
    script = ROOT / "examples" / name
    done = subprocess.run(
        [sys.executable, "-I", str(script), *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_segment_image(clip: Path, tmp_path: Path) -> None:
    from vmkla.video.media.images import read_image, write_png

    with vmkla.open("nano", threads=1) as segmenter:
        frame = next(frame for frame in segmenter.video(clip) if frame.findings.any)
    write_png(tmp_path / "frame.png", frame.rgb)
    printed = run("segment_image.py", tmp_path / "frame.png", tmp_path / "overlay.png")
    assert len(printed.splitlines()) == len(frame.findings.regions)
    drawn = read_image(tmp_path / "overlay.png")
    assert (drawn == vmkla.draw(frame.rgb, frame.findings)).all() and (drawn != frame.rgb).any()


def test_video_to_csv(clip: Path, tmp_path: Path) -> None:
    run("video_to_csv.py", clip, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and {int(row["frame"]) for row in rows} <= set(range(6))
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)


def test_operating_point(clip: Path) -> None:
    counts = [int(line.split()[2]) for line in run("operating_point.py", clip).splitlines()]
    assert len(counts) == 4 and counts == sorted(counts, reverse=True)


def test_own_loop(clip: Path) -> None:
    lines = run("own_loop.py", clip).splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(index) for index in range(6)]


def test_every_script_is_listed_and_tested() -> None:
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    listed = set(
        re.findall(r"\]\((\w+\.py)\)", (ROOT / "examples" / "README.md").read_text(encoding="utf-8"))
    )
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))
    assert scripts == listed == tested


@pytest.mark.telling
@pytest.mark.slow
def test_the_api_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(API), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0 and result.attempted > 40


def test_every_public_name_is_on_the_api_page_with_an_example() -> None:
    text = API.read_text(encoding="utf-8")
    documented = re.findall(r"\.\. auto(?:function|class|exception):: ([\w.]+)", text)
    examples = "\n".join(re.findall(r"```pycon\n(.*?)```", text, re.DOTALL))
    missing = {f"vmkla.{name}" for name in vmkla.__all__} - set(documented)
    assert not missing
    unused = [name for name in documented if not re.search(rf"\b{name.rpartition('.')[2]}\b", examples)]
    assert not unused
