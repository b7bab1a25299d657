"""vmkla.cli.options and vmkla.cli.console: parsing of values, numbering of folders, JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.cli.console import _Pace, print_json, progress_bar
from vmkla.cli.options import parse_size, run_folder
from vmkla.errors import UsageError


@given(st.integers(1, 10**5), st.integers(1, 10**5), st.sampled_from([",", "x"]))
def test_sizes(height: int, width: int, separator: str) -> None:
    assert parse_size(f"{height}{separator}{width}", flag="--imgsz") == (height, width)
    assert parse_size(f" {height} ", flag="--imgsz") == (height, height)


@given(st.text(max_size=12).filter(lambda text: not re.fullmatch(r"\s*\d+([,x]\d+)?\s*", text)))
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--imgsz"):
        parse_size(text, flag="--imgsz")


@pytest.mark.parametrize("text", ["0", "0,64", "64,0", "-64", "64,64,64", "64.0", ""])
def test_senseless_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="expected H or H,W"):
        parse_size(text, flag="--size")


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    default = tmp_path / "runs" / "clip"
    with run_folder(tmp_path / "mine", default, again=False) as folder:
        assert folder == tmp_path / "mine" and not folder.exists()
    with run_folder(None, default, again=True) as folder:
        assert folder == default and not folder.exists()
    for name in ("clip", "clip-2"):
        with run_folder(None, default, again=False) as folder:
            assert folder == default.with_name(name) and folder.is_dir()
            (folder / "report.json").write_bytes(b"{}")
    with pytest.raises(ZeroDivisionError), run_folder(None, default, again=False) as folder:
        assert folder.name == "clip-3"
        raise ZeroDivisionError
    assert not folder.exists()  # nothing was written
    with run_folder(None, default, again=True) as folder:
        assert folder.name == "clip-2"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [1.5, math.inf], "c": (Path("x/y"), None, True), 3: "ü"})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None],
        "c": ["x/y", None, True],
        "3": "ü",
    }


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("segmenting", "frames", quiet=True, every_s=0.001) as bar:
        assert bar is None
    with progress_bar("segmenting", "frames", quiet=False) as bar:  # a short run prints none
        assert bar is not None
        bar(1, 2)
    assert capsys.readouterr() == ("", "")
    lines: list[str] = []

    def line(expected: str) -> None:
        """Wait for it: lines come from a thread of their own, also while a step takes long."""
        until_s = time.monotonic() + 20
        while not any(re.fullmatch(expected, one) for one in lines):
            assert time.monotonic() < until_s, lines
            lines.extend(capsys.readouterr().err.splitlines())
        lines.clear()

    with progress_bar("calibrating", "steps", quiet=False, every_s=0.005) as bar:
        assert bar is not None
        line(r"calibrating: 0 steps, \d+ s so far")
        bar(1, 10, "measuring ranges")
        line(r"calibrating: 1 of 10 steps, measuring ranges, \d+ s so far")
        bar(2, 10, "measuring ranges")
        line(r"calibrating: 2 of 10 steps, measuring ranges, about \d+ s left")
        bar(1, 3, "checking")  # other work, whose pace is not known yet
        line(r"calibrating: 1 of 3 steps, checking, \d+ s so far")


def test_the_estimate_is_of_the_present_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("vmkla.cli.console.time.monotonic", lambda: now_s[0])
    pace = _Pace()
    pace.update(0, 12, "")
    now_s[0] += 60.0
    pace.update(2, 12, "")
    assert pace.line("building", "steps") == "building: 2 of 12 steps, about 5 min 0 s left"
    pace.update(5, 40, "kernels")  # another piece, taken up at its fifth step
    now_s[0] += 10.0
    pace.update(10, 40, "kernels")
    assert pace.line("building", "steps") == "building: 10 of 40 steps, kernels, about 1 min 0 s left"
    pace.update(40, 40, "kernels")
    assert pace.line("building", "steps").endswith("about 0 s left")


def test_an_estimated_total_that_changes_begins_no_other_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("vmkla.cli.console.time.monotonic", lambda: now_s[0])
    pace = _Pace(one_part=True, began_s=now_s[0])
    pace.update(0, None, "")
    now_s[0] += 60.0
    pace.update(20, 100, "1 pieces done")
    pace.update(20, 120, "1 pieces done")
    assert pace.line("segmenting", "frames") == (
        "segmenting: 20 of 120 frames, 1 pieces done, about 5 min 0 s left"
    )


def test_progress_goes_to_the_terminal_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        with progress_bar("segmenting", "frames", quiet=False) as bar:
            assert bar is not None
            bar(3, 7, "2 with a finding")
        with progress_bar("segmenting", "frames", quiet=True) as silent:
            assert silent is None
    shown = ""
    with contextlib.suppress(OSError):  # what a terminal gives when nobody writes to it any more
        while more := os.read(master, 65536):
            shown += more.decode()
    os.close(master)
    assert "segmenting" in shown and "3/7" in shown and "2 with a finding" in shown
    assert capsys.readouterr().out == ""
