"""vmkla.cli.options and vmkla.cli.console: parsing of values, numbering of folders, JSON."""

from __future__ import annotations

import json
import math
import os
import pty
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.cli.console import print_json, progress_bar
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


@pytest.mark.parametrize("quiet", [True, False])
def test_no_progress_without_a_terminal(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("segmenting", "frames", quiet=quiet) as bar:
        assert bar is None
    assert capsys.readouterr() == ("", "")


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
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "segmenting" in shown and "3/7" in shown and "2 with a finding" in shown
    assert capsys.readouterr().out == ""
