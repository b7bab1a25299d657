"""What a live run keeps of its procedure, and what becomes of it at the end or after a power cut."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from tests import ROOT
from vmkla.cli.main import app
from vmkla.procedures.events import Event
from vmkla.procedures.quality import small_view
from vmkla.procedures.report.gather import gather
from vmkla.procedures.stills import Stills
from vmkla.segment.findings import Findings, Region
from vmkla.segment.preprocess import Rect
from vmkla.video.live.frame import FrameLesions, LiveResult
from vmkla.video.live.procedure import LiveProcedure

SCHEMAS = {
    name: json.loads((ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    for name in ("frames", "lesions")
}
DOCUMENT = {"ended_by": "stopped", "input": {"kind": "sample"}, "counts": {"shown": 70}}
ORIGIN_S = 5000.0


def result(index: int, numbers: list[int], *events: Event, poor: str | None = None) -> LiveResult:
    """A result of a source of 10 frames a second; each lesion has a place of its own."""
    mask = np.zeros((60, 80), np.uint8)
    regions = []
    for number in numbers:
        box = Rect(10 * number, 5, 8, 10 + number)
        mask[box.y : box.y + box.h, box.x : box.x + box.w] = 1
        regions.append(Region(box, box.w * box.h, 1, 0.9, 0.5 + number / 10))
    captured_s = ORIGIN_S + index / 10
    lesions = FrameLesions(tuple(numbers), events, poor)
    findings = Findings(mask, tuple(regions), 0.9 if regions else 0.1)
    return LiveResult(
        index, captured_s, captured_s + 0.02, (60, 80), findings, {"track": 1.0}, lesions=lesions
    )


def kept(folder: Path, *, classes: bool = False) -> LiveProcedure:
    """Three lesions: 1, again as number 3 after a gap of three seconds, and 2 in single frames."""
    folder.mkdir(exist_ok=True)
    procedure = LiveProcedure(folder)
    procedure.origin_s = ORIGIN_S
    seen: dict[int, list[int]] = {index: [1] for index in range(10, 20)}
    seen |= {index: [3] for index in range(50, 61)} | {22: [2], 24: [2]}
    events = {50: Event("started", 3, candidates=((1, 0.8),)), 30: Event("cut")}
    for index in range(70):
        found = [events[index]] if index in events else []
        poor = "black" if 40 <= index < 45 else None
        procedure.add(result(index, seen.get(index, []), *found, poor=poor), classes=classes)
    procedure.close()
    return procedure


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("classes", [False, True])
def test_the_end_of_a_run_by_hand(tmp_path: Path, classes: bool) -> None:
    procedure = kept(tmp_path, classes=classes)
    marked_s = {1: ORIGIN_S + 1.08, 3: ORIGIN_S + 5.2}
    assert procedure.finish(DOCUMENT, marked_s) == 2
    first, second = lines_of(tmp_path / "lesions.jsonl")
    for lesion in (first, second):
        jsonschema.validate(lesion, SCHEMAS["lesions"], cls=jsonschema.Draft202012Validator)
    assert (first["id"], first["joined"], first["frames"]) == (1, [3], 21)
    assert (first["first_s"], first["last_s"], first["gaps"]) == (1.0, 6.0, [[1.9, 5.0]])
    assert first["first_marker_after_s"] == pytest.approx(0.08) and first["peak_probability"] == 0.8
    assert (second["id"], second["gaps"], second["largest_area_px"]) == (2, [[2.2, 2.4]], 96)
    assert second["first_marker_after_s"] is None and second["still"] is None
    rows = lines_of(tmp_path / "results.jsonl")
    assert len(rows) == 70 and rows[55]["box_lesions"] == [1] and rows[22]["box_lesions"] == [2]
    for row in rows:
        jsonschema.validate(row, SCHEMAS["frames"], cls=jsonschema.Draft202012Validator)
        assert ("box_classes" in row) == classes
    page = (tmp_path / "procedure.html").read_text(encoding="utf-8")
    assert "70 shown, 70 seen by the network, 23 with a finding" in page and "sample" in page
    assert "scene cuts" in page and "black 0.5 s" in page
    assert "<th>also drawn as</th><td>3</td>" in page
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_still_without_a_row_is_left_out(tmp_path: Path) -> None:
    """The worker's last frame may come after the last result that the display process has taken."""
    procedure = kept(tmp_path)
    stills = Stills(tmp_path, resumable=True)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    view = small_view(noise, Rect(0, 0, 80, 60))
    for number, index in ((1, 12), (3, 55), (2, 22), (4, 70)):
        one = result(index, [number])
        stills.offer(one.captured_s, noise, view, one.findings, one.lesions.numbers)
    stills.flush()
    assert procedure.finish(DOCUMENT, {}, stills=True) == 2
    names = {f"000{number}{kind}.jpg" for number in (1, 2) for kind in ("", ".marked")}
    assert {path.name for path in (tmp_path / "lesions").iterdir()} == names
    found = [line["still"] for line in lines_of(tmp_path / "lesions.jsonl")]
    assert [still["pts_s"] for still in found] == [5.5, 2.2]  # the larger one of 1 and 3
    assert not (tmp_path / ".lesions.partial").exists()


def test_nothing_is_kept_in_memory(tmp_path: Path) -> None:
    """The attributes of a procedure do not grow with its rows."""
    procedure = LiveProcedure(tmp_path)
    for index in range(3000):
        procedure.add(result(index, [1]), classes=False)
    until = time.monotonic() + 30
    while procedure._lines._waiting and time.monotonic() < until:
        time.sleep(0.01)
    assert not procedure._lines._waiting and procedure.unwritten == (0, "")
    containers = [value for value in vars(procedure).values() if isinstance(value, (list, dict, set))]
    procedure.close()
    assert not containers and len(lines_of(tmp_path / "results.jsonl")) == procedure.rows == 3000


def test_lines_that_a_disk_has_damaged_are_left_out(tmp_path: Path) -> None:
    procedure = kept(tmp_path)
    rows = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_bytes(b"".join([*rows[:15], rows[15][:40] + b"\n", *rows[16:]]))
    assert procedure.finish(DOCUMENT, {}) == 2
    first = lines_of(tmp_path / "lesions.jsonl")[0]
    assert (first["frames"], first["joined"], first["gaps"]) == (20, [3], [[1.9, 5.0]])
    assert "1 damaged lines of the rows were left out." in gather(tmp_path, DOCUMENT).missing


def test_a_killed_run_is_reported_from_its_rows(tmp_path: Path) -> None:
    kept(tmp_path)
    with open(tmp_path / "results.jsonl", "ab") as file:
        file.write(b'{"index": 70, "pts_s"')  # what a power cut leaves
    events = [
        (5000.0, "run begins", ""),
        (5000.4, "signal", "lost became good"),
        (5000.9, "ai on", ""),
        (5003.0, "ai off", "worker was killed"),
        (5003.0, "worker fault", "worker was killed"),
        (5004.5, "ai on", ""),
        (5006.0, "signal", "good became lost"),
        (5006.5, "signal", "lost became good"),
        (5008.0, "run ends", "source ended"),
        (5008.1, "ai off", "ended"),
    ]
    lines = [{"monotonic_s": at_s, "kind": kind, "detail": detail} for at_s, kind, detail in events]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["lesions"] == 3  # none are joined
    procedure = gather(tmp_path)
    assert procedure.live and procedure.segmented == 70
    assert procedure.lanes.spans["AI off"] == [(0.0, 0.9), (3.0, 4.5)]
    assert procedure.lanes.spans["no signal"] == [(0.0, 0.4), (6.0, 6.5)]
    assert (procedure.first_s, procedure.last_s) == (0.0, 8.0)
    assert procedure.lanes.spans["lesion 2"] == [(2.2, 2.2), (2.4, 2.4)]
    assert procedure.missing[0] == "The run was killed before its end: the page shows results.jsonl."
    page = (tmp_path / "procedure.html").read_text(encoding="utf-8")
    assert "AI off, 0:03.0 to 0:04.5" in page


@pytest.mark.parametrize(
    "events", [None, "", '{"kind": "ai on", "monotonic_s": 1.0, "detail": ""}\nnonsense\n']
)
def test_a_log_without_a_begin_is_reported(tmp_path: Path, events: str | None) -> None:
    kept(tmp_path)
    if events is not None:
        (tmp_path / "events.jsonl").write_text(events)
    missing = gather(tmp_path, DOCUMENT).missing
    assert any("when the AI was off is not known" in sentence for sentence in missing)


def test_times_lead_into_the_files_of_the_recording(tmp_path: Path) -> None:
    procedure = kept(tmp_path)
    recording = tmp_path / "recording"
    recording.mkdir()

    def file(number: int, first_s: float, last_s: float | None, event: str = "closed") -> dict[str, Any]:
        return {
            "event": event, "stream": "overlay", "file": f"overlay-{number:06d}.mp4",
            "first_captured_s": first_s, "last_captured_s": last_s,
        }  # fmt: skip

    rows = [
        file(1, 90_000.0, 90_009.0),  # of another day, and of a longer uptime
        file(2, 4000.0, 4009.0),  # of the run before
        file(3, 5000.1, 5001.0, "removed"),
        file(4, 5000.5, None, "opened"),
        file(4, 5000.5, 5002.1),
        {**file(5, 5000.5, 5002.1), "file": "raw-000001.mp4"},
        {**file(6, 5000.6, 5002.1), "file": "../overlay-000006.mp4"},
        file(7, 5002.2, 5003.0),
        file(8, 5005.4, None, "opened"),
        file(9, 5006.5, None, "opened"),  # lost
    ]
    (recording / "recording.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    for number in range(1, 9):
        (recording / f"overlay-{number:06d}.mp4").touch()
    (tmp_path / "events.jsonl").write_text('{"monotonic_s": 5000.0, "kind": "run begins", "detail": ""}\n')
    procedure.finish(DOCUMENT, {})
    found = gather(tmp_path, DOCUMENT).recording
    assert found is not None
    places = {
        time_s: found.place(time_s) for time_s in (0.0, 0.5, 1.23456, 2.1, 2.15, 2.2, 3.1, 4.0, 5.3, 60.0)
    }
    assert places == {
        0.0: None,
        0.5: "recording/overlay-000004.mp4#t=0.000",
        1.23456: "recording/overlay-000004.mp4#t=0.735",
        2.1: "recording/overlay-000004.mp4#t=1.600",
        2.15: "recording/overlay-000007.mp4#t=0.000",
        2.2: "recording/overlay-000007.mp4#t=0.000",
        3.1: "recording/overlay-000007.mp4#t=0.900",
        4.0: None,
        5.3: "recording/overlay-000008.mp4#t=0.000",
        60.0: "recording/overlay-000008.mp4#t=54.600",
    }
    page = (tmp_path / "procedure.html").read_text(encoding="utf-8")
    assert '<a href="recording/overlay-000004.mp4#t=0.500">0:01.0</a>' in page  # lesion 1 begins
    assert "times are not links" not in page


@pytest.mark.slow
def test_after_kill_9_the_report_shows_what_was_stored(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["infer", "--live", "--source", "sample://?size=160x120&fps=30&seed=8", "--out", str(out)]
    code = f"from vmkla.cli.main import main; main({arguments!r})"
    command = [sys.executable, "-I", "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True) as run:
        rows, until = out / "results.jsonl", time.monotonic() + 60
        while time.monotonic() < until and not (rows.is_file() and rows.read_bytes().count(b"\n") > 30):
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)
    stored = rows.read_bytes()
    assert stored.count(b"\n") > 30 and not (out / "report.json").exists()
    done = CliRunner().invoke(app, ["report", str(out)])
    assert done.exit_code == 0, done.output
    assert rows.read_bytes() == stored
    page = (out / "procedure.html").read_text(encoding="utf-8")
    assert re.search(rf"not known how many shown, {stored.count(bytes([10]))} seen by the network", page)
