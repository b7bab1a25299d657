"""vmkla.errors, vmkla.imports and vmkla.native: exit statuses, and messages that say what to run."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

import vmkla
from vmkla import errors
from vmkla.errors import ErrorReport, MissingDependencyError, StoppedError, VmklaError
from vmkla.imports import require
from vmkla.native import CPU_LIBRARY, find_library


def test_exit_statuses_are_those_of_the_design() -> None:
    statuses = {
        name: kind.exit_status
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, VmklaError) and kind is not StoppedError
    }
    assert statuses == {
        "VmklaError": 1,
        "UsageError": 2,
        "BadInputError": 3,
        "ShapeError": 3,
        "MissingDependencyError": 4,
        "GateError": 5,
        "ArtefactMismatchError": 6,
        "DegradedError": 7,
    }
    assert StoppedError(signal.SIGINT, "x").exit_status == 130
    assert StoppedError(signal.SIGTERM, "x").exit_status == 143


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (errors.BadInputError("x", hint="Run y"), ("x", "Run y", 3, "failed")),
        (errors.DegradedError("x"), ("x", None, 7, "degraded")),
        (StoppedError(signal.SIGTERM, "x"), ("x", None, 143, "interrupted")),
        (KeyboardInterrupt(), ("stopped by Ctrl-C", None, 130, "interrupted")),
        (SystemExit(143), ("stopped before its end", None, 143, "interrupted")),
        (SystemExit("x"), ("SystemExit: x", None, 1, "failed")),
        (TypeError(" x\ny"), ("TypeError: x\ny", None, 1, "failed")),
        (TypeError(), ("TypeError: no message", None, 1, "failed")),
    ],
)
def test_every_error_has_one_status_and_one_outcome(
    error: BaseException, report: tuple[str, str | None, int, str]
) -> None:
    assert ErrorReport.of(error) == report
    assert ErrorReport.of_run(error, signum=signal.SIGTERM, stopped="stopped", missing="half") == report
    made = ErrorReport.of(error).error("process 1 failed")
    assert (made.message, made.hint, made.exit_status) == (f"process 1 failed: {report[0]}", *report[1:3])


def test_a_run_without_an_error_is_stopped_or_degraded_or_done() -> None:
    def of_run(signum: int | None, stopped: str, missing: str) -> ErrorReport:
        return ErrorReport.of_run(None, signum=signum, stopped=stopped, missing=missing)

    assert of_run(signal.SIGTERM, "stopped", "half") == ("stopped", None, 143, "interrupted")
    assert of_run(None, "stopped", "half") == ("stopped", None, 130, "interrupted")
    assert of_run(None, "", "half") == ("half", None, 7, "degraded")
    assert of_run(None, "", "") == ("", None, 0, "done")


def test_the_hint_is_a_line_of_its_own() -> None:
    error = errors.BadInputError("a.mp4 does not exist", hint="Check the path.")
    assert str(error).splitlines() == ["a.mp4 does not exist", "Check the path."]
    assert (error.message, error.hint) == ("a.mp4 does not exist", "Check the path.")
    assert str(errors.BadInputError("alone")) == "alone"


def test_require_returns_the_module() -> None:
    assert require("json", extra="export", purpose="a test") is json


def test_require_says_how_to_get_what_is_missing() -> None:
    with pytest.raises(MissingDependencyError, match="vmkla export needs .*'no_such_package_here'") as caught:
        require("no_such_package_here", extra="export", purpose="vmkla export")
    assert caught.value.hint == "Run: pip install 'vmkla[export]'"
    assert isinstance(caught.value.__cause__, ImportError)


def test_require_reports_a_package_that_fails_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_installed.py").write_text("import its_missing_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match="its_missing_part"):
        require("half_installed", extra="train", purpose="vmkla train")
    assert "half_installed" not in sys.modules


def test_find_library_finds_the_installed_one() -> None:
    path = find_library()
    assert path.name == CPU_LIBRARY and path.read_bytes()[:4] == b"\x7fELF"


def test_a_missing_library_is_an_error_that_names_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vmkla, "__path__", [str(tmp_path)])
    with pytest.raises(MissingDependencyError, match=str(tmp_path / "lib")) as caught:
        find_library()
    assert caught.value.hint is not None and "pip install" in caught.value.hint
