"""``vmkla bench --conformance``: it measures what it says, and it refuses what falls short."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from vmkla.cli.main import main
from vmkla.errors import UsageError
from vmkla.video.latency import LatencyStats
from vmkla.video.live.conformance import check
from vmkla.video.live.conformance.check import (
    ConformanceLimits,
    ConformancePlan,
    check_phases,
)
from vmkla.video.live.conformance.measuring import Measured
from vmkla.video.live.conformance.page import conformance_page, conformance_tables
from vmkla.video.live.conformance.power import power_mode

COUNT = 100


def stats(*values_ms: float) -> LatencyStats:
    filled = LatencyStats()
    for value_ms in values_ms:
        filled.add(value_ms)
    return filled


def measured(**changes: Any) -> Measured:
    """A phase within all limits."""
    values: dict[str, Any] = {
        "video_delay_ms": stats(*[1.0] * COUNT),
        "marker_delay_ms": stats(*[60.0] * COUNT),
        "shown": COUNT,
        "ai_on": COUNT,
        "marked": COUNT,
    }
    return Measured(**{**values, **changes})


def failing(seen: Measured, **limits: Any) -> set[str]:
    checks = check_phases({"warm": seen}, ConformanceLimits(**limits), known=True)
    return {check["name"] for check in checks if not check["passed"]}


def test_what_is_within_all_limits_passes() -> None:
    assert failing(measured()) == set()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"video_delay_ms": stats(*[1.0] * 98, 6.0, 6.0)}, "video delay p99, ms"),
        ({"marker_delay_ms": stats(*[60.0] * 94, *[130.0] * 6)}, "marker delay p95, ms"),
        ({"ai_on": 94}, "pictures without AI ON, %"),
        ({"wrong_pixels": 1}, "pixels changed outside markers"),
        ({"strangers": 1}, "pictures that the source does not have"),
        ({"disordered": 1}, "pictures out of order"),
    ],
)
def test_each_limit_is_held(changes: dict[str, Any], name: str) -> None:
    assert failing(measured(**changes)) == {name}


def test_percentiles_leave_out_what_they_may() -> None:
    assert failing(measured(video_delay_ms=stats(*[1.0] * 99, 50.0))) == set()
    assert failing(measured(marker_delay_ms=stats(*[60.0] * 95, *[130.0] * 5), ai_on=95)) == set()


def test_nothing_measured_is_not_passed() -> None:
    assert failing(measured(marker_delay_ms=stats())) == {"marker delay p95, ms"}


@pytest.mark.parametrize("times", [{"duration_s": 0}, {"idle_s": -1}, {"after_idle_s": 0}])
def test_a_plan_without_time_is_refused(times: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        ConformancePlan(**times)


def test_the_page_says_what_is_exceeded_and_escapes_what_it_is_told() -> None:
    phases = {"warm": measured(wrong_pixels=3)}
    checks = check_phases(phases, ConformanceLimits(), known=True)
    document = {
        "vmkla_version": "1", "begun": "now", "passed": False, "checks": checks,
        "phases": {name: phase.to_dict() for name, phase in phases.items()}, "plan": {"duration_s": 60.0},
        "machine": {"cpu": "<b>fast</b>"}, "power": {}, "artefacts": {"model": "ab12", "source": None},
        "pictures_known": True, "warnings": ["a < b"], "run": {},
    }  # fmt: skip
    page = conformance_page(document)
    assert page.count("EXCEEDED") == 2  # of the whole, and of one check
    assert "&lt;b&gt;fast" in page and "<b>fast" not in page and "a &lt; b" in page and "ab12" in page
    assert [table.title for table in conformance_tables(document)] == ["Limits", "Delays, ms", "Frames"]


def test_power_mode_is_plain() -> None:
    json.dumps(power_mode())


def run(model: Path, *arguments: object) -> int:
    flags = ["--duration-s", "2", "--idle-s", "1", "--model", model, *arguments]
    return main(["bench", "--conformance", *map(str, flags)])


@pytest.mark.quiet
@pytest.mark.slow
def test_nano_on_a_clip(
    live_clip: Path, small_nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command as a whole. Milliseconds are the machine's, so what is held is what is not."""
    out = tmp_path / "conformance"
    status = run(small_nano, "--source", live_clip, "--out", out, "--json")
    document = json.loads((out / "conformance.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out)["checks"] == document["checks"]
    assert status == (0 if document["passed"] else 5)
    held = {(check["name"], check["phase"]): check for check in document["checks"]}
    for phase in ("warm", "after idle"):
        assert document["phases"][phase]["shown"] > 20
        assert held["pixels changed outside markers", phase]["passed"]
        assert held["pictures that the source does not have", phase]["passed"]
        assert held["pictures out of order", phase]["passed"]
        assert held["marker delay p95, ms", phase]["of"] > 0
    assert document["pictures_known"]
    assert document["artefacts"]["model"] and document["artefacts"]["source"]
    assert document["machine"]["cpu"]
    assert document["run"]["signal_s"]["lost"] > 0.3  # it was idle as if there were no source
    page = (out / "conformance.html").read_text(encoding="utf-8")
    assert document["artefacts"]["model"] in page and "<script" not in page


@pytest.mark.quiet
@pytest.mark.slow
def test_a_limit_that_is_exceeded_ends_with_status_5(
    live_clip: Path,
    small_nano: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No machine hands a frame over in no time; the reports are written all the same."""
    strict = functools.partial(ConformanceLimits, video_delay_p99_ms=0.0)
    monkeypatch.setattr(check, "ConformanceLimits", strict)
    assert run(small_nano, "--source", live_clip, "--out", tmp_path / "out") == 5
    assert "video delay p99" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "conformance.json").read_bytes())["passed"] is False
    assert "EXCEEDED" in (tmp_path / "out" / "conformance.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "flag", [("--source", "sample://"), ("--duration-s", "3"), ("--out", "x"), ("--display",)]
)
def test_flags_of_conformance_need_it(flag: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *flag]) == 2
    assert "--conformance" in capsys.readouterr().err
