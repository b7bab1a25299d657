"""Live mode with the shipped network: what is shown, what is written, and what happens when parts fail."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.video.live.screens import NullScreen
from tests.video.red_runner import RedRunner
from tests.video.small_videos import count_frames, write_video
from vmkla.engines import load_runner
from vmkla.errors import BadInputError, DegradedError, StoppedError, UsageError
from vmkla.runner import Runner
from vmkla.segment.operating_point import PointOverrides
from vmkla.video.cancellation import Cancellation
from vmkla.video.live.frame import AiState
from vmkla.video.live.monitor.access import MonitorOptions
from vmkla.video.live.network.options import StillOptions, TemporalOptions, WorkerOptions
from vmkla.video.live.options import MAX_STALENESS_MS, LiveOptions
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.live.report import LiveReport
from vmkla.video.live.run import run_live
from vmkla.video.live.screen import FileScreen, Shown
from vmkla.video.media.address import parse_address
from vmkla.video.media.clip import render_clip

NANO: Callable[[], Runner] = functools.partial(load_runner, "nano", threads=1)
SAMPLE = "sample://?size=160x120&fps=30&seed=8"
PATIENT_MS = 1000.0
"""Largest age of a marker where the default is not the point: one slow core with AVX2 misses that."""


class Watcher(NullScreen):
    """A screen that calls a function with each frame shown."""

    def __init__(self, look: Callable[[Shown], None]) -> None:
        super().__init__()
        self._look = look

    def show(self, shown: Shown) -> None:
        super().show(shown)
        self._look(shown)


def stop_when(ready: Callable[[Shown], bool], *, signum: int | None = None) -> tuple[Cancellation, Watcher]:
    """A run that ends when what is shown is as wished, or after a minute."""
    cancel, until = Cancellation(), time.monotonic() + 60

    def look(shown: Shown) -> None:
        if ready(shown) or time.monotonic() > until:
            cancel.stop(signum)

    return cancel, Watcher(look)


def live(
    out: Path, source: str = SAMPLE, *, load: Callable[[], Runner] = NANO, **more: Any
) -> tuple[LiveReport | None, BaseException | None]:
    """Run; the report, and what was raised."""
    names = ("cancel", "screen", "notify")
    arguments = {name: more.pop(name) for name in names if name in more}
    try:
        options = LiveOptions(out, **{"max_staleness_ms": PATIENT_MS, **more})
        return run_live(load, parse_address(source), options, **arguments), None
    except Exception as error:
        return None, error


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def test_the_ai_comes_on_and_every_pixel_outside_markers_is_the_sources(
    tmp_path: Path, small_nano: Path
) -> None:
    out = tmp_path / "out"
    before = {thread.name for thread in threading.enumerate()}
    cancel = Cancellation()
    watcher = threading.Thread(target=lambda: _stop_after_ai_on(out / "events.jsonl", cancel))
    watcher.start()
    load = functools.partial(load_runner, small_nano, threads=1)
    report, error = live(out, load=load, cancel=cancel, max_staleness_ms=MAX_STALENESS_MS)
    watcher.join()
    assert error is None and report is not None and report.outcome == "interrupted"
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    sources = {zlib.crc32(rgb) for rgb, _ in render_clip(8, 120, 160, 60)}
    shown = [row for row in rows if row["sequence"] and not row["again"]]
    assert len(shown) == report.shown > 5
    assert all(row["crc32_outside"] == row["crc32_source_outside"] for row in shown)
    assert all(row["crc32"] == row["crc32_source"] for row in shown if not row["marked"])
    assert {row["crc32_source"] for row in shown} <= sources
    assert [row["sequence"] for row in shown] == sorted({row["sequence"] for row in shown})
    states = [row["ai"] for row in shown]
    assert states[0] != "on" and "on" in states
    assert all(row["marker_age_ms"] <= 120 for row in shown if row["marker_age_ms"] is not None)
    # What is written, for whom.
    assert out.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in out.iterdir()} == {
        *("events.jsonl", "frames.jsonl", "results.jsonl", "lesions.jsonl", "procedure.html", "report.json")
    }
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}
    written = report_of(out)
    assert written == json.loads(json.dumps(report.to_dict()))
    assert written["counts"]["shown"] == len(shown) <= written["counts"]["received"]
    assert written["model"]["name"] == "nano" and written["runtime"]["runner"] == "onnxruntime"
    assert written["latency_ms"]["inference"]["p50"] > 0 and written["video_delay_ms"]["p99"] > 0
    assert written["events"]["run begins"] == written["events"]["run ends"] == 1
    assert {thread.name for thread in threading.enumerate()} <= before


@pytest.mark.parametrize("pause", [True, False])
def test_poor_pictures_pause_markers_when_asked(tmp_path: Path, write_clip: Any, pause: bool) -> None:
    """Blurred frames with a finding in each: markers, or a strip that states why there are none."""
    frames = []
    for index in range(50):
        frame = np.full((120, 160, 3), (60, 40, 40), np.uint8)
        cv2.circle(frame, (40 + index, 60), 24, (255, 30, 30), -1)
        frames.append(cv2.GaussianBlur(frame, (0, 0), 7))
    clip, wanted = str(write_clip("blurred.mp4", frames)), AiState.PAUSED if pause else AiState.ON
    seen: list[Shown] = []

    def ready(shown: Shown) -> bool:
        if shown.status.ai in (AiState.ON, AiState.PAUSED):
            seen.append(shown)
        return len(seen) > 10

    cancel, screen = stop_when(ready)
    load = functools.partial(RedRunner, 60, 80)
    report, error = live(
        tmp_path / "out", clip, load=load, cancel=cancel, screen=screen, loop=True, pause_on_poor=pause
    )
    assert error is None and report is not None
    assert {shown.status.ai for shown in seen} == {wanted}
    if pause:
        assert {shown.status.ai_reason for shown in seen} == {"poor picture: blur"}
        assert all(shown.marker is None and shown.rgb is shown.frame.rgb for shown in seen if shown.frame)
    else:
        assert any(shown.marker is not None and shown.marker.drawing.layers for shown in seen)
    written = report_of(tmp_path / "out")
    assert written["settings"]["pause_on_poor"] is pause and written["ai_s"][wanted.value] > 0
    assert (written["counts"]["marked"] == 0) is pause
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert rows and all(row["poor"] == "blur" and row["boxes"] for row in rows)  # the findings are kept
    page = (tmp_path / "out" / "procedure.html").read_text(encoding="utf-8")
    assert f"<th>markers pause on poor pictures</th><td>{'yes' if pause else 'no'}</td>" in page
    assert "settings: " not in page and "input: " not in page  # every key has words


def _stop_after_ai_on(events: Path, cancel: Cancellation) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if events.exists() and "screen ai on" in events.read_text():
            time.sleep(0.5)
            break
        time.sleep(0.05)
    cancel.stop()


def test_a_file_is_played_at_its_own_speed_to_its_end(tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mp4", frames=50)  # 25 a second
    began = time.monotonic()
    report, error = live(tmp_path / "out", str(source))
    assert time.monotonic() - began > 1.8
    assert (report is not None and report.ended_by == "source ended") or isinstance(error, DegradedError)
    written = report_of(tmp_path / "out")
    assert written["ended_by"] == "source ended" and written["counts"]["received"] == 50
    assert written["counts"]["shown"] + written["dropped"].get("not taken", 0) == 50


def test_a_source_that_never_comes_is_no_signal_and_degraded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        address = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/nothing"
        report, error = live(tmp_path / "out", address, duration_s=1.5)
    assert report is None and isinstance(error, DegradedError) and "gave no frame" in error.message
    written = report_of(tmp_path / "out")
    assert written["exit_status"] == 7 and written["counts"]["shown"] == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "frames.jsonl").read_text().splitlines()]
    assert rows and {(row["sequence"], row["signal"]) for row in rows} == {(0, "lost")}
    assert written["counts"]["replaced"] == len(rows)


def test_a_file_that_is_none_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    report, error = live(tmp_path / "out", str(tmp_path / "missing.mp4"))
    assert report is None and isinstance(error, BadInputError) and "missing.mp4" in error.message
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_loaded_leaves_the_frame_alone(tmp_path: Path) -> None:
    noted: list[str] = []
    load = functools.partial(load_runner, tmp_path / "gone.onnx")
    cancel, screen = stop_when(lambda shown: bool(noted))
    report, error = live(tmp_path / "out", load=load, cancel=cancel, screen=screen, notify=noted.append)
    assert error is None and report is not None and report.shown > 0
    assert any("gone.onnx" in text and "AI OFF" in text for text in noted)
    written = report_of(tmp_path / "out")
    assert written["ai_s"]["on"] == 0 and any("gone.onnx" in text for text in written["warnings"])
    report, error = live(tmp_path / "two", load=load, duration_s=1.0)
    assert isinstance(error, DegradedError) and "never on" in error.message


def test_settings_that_the_model_refuses_end_the_run(tmp_path: Path) -> None:
    options = {
        "worker": WorkerOptions(point=PointOverrides(0.5), temporal=TemporalOptions(hysteresis_low=0.6))
    }
    report, error = live(tmp_path / "out", duration_s=60.0, **options)
    assert report is None and error is not None and getattr(error, "exit_status", None) == 2
    assert report_of(tmp_path / "out")["exit_status"] == 2


def test_a_worker_that_is_killed_changes_no_frame_and_comes_back(tmp_path: Path) -> None:
    """The worker is found among this process's children, as a person with a shell would."""
    seen: list[Shown] = []
    killed: list[int] = []

    def ready(shown: Shown) -> bool:
        seen.append(shown)
        if shown.status.ai.value == "on" and not killed:
            killed.extend(children("vmkla-worker"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        off = next((n for n, one in enumerate(seen) if killed and one.status.ai.value == "off"), None)
        return off is not None and shown.status.ai.value == "on"

    cancel, screen = stop_when(ready)
    report, error = live(tmp_path / "out", cancel=cancel, screen=screen)
    assert error is None and report is not None and len(killed) == 1
    assert report.worker["restarts"] >= 1
    for shown in seen:
        if shown.frame is not None and shown.marker is None:
            assert shown.rgb is shown.frame.rgb
        assert shown.marker is None or shown.status.ai.value == "on"
    assert seen[-1].status.ai.value == "on" and not children("vmkla-worker")


def children(name: str) -> list[int]:
    """Child processes of this one, by the name that they gave themselves."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:
            continue  # it has just ended
        inside, after = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        if inside == name and int(after[1]) == os.getpid() and after[0] != "Z":
            found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_recorder_and_monitor_run_beside_it(tmp_path: Path) -> None:
    noted: list[str] = []
    status: dict[str, Any] = {}
    out = tmp_path / "out"

    def look_on() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            url = next((text.split(" ", 1)[1] for text in noted if text.startswith("monitor:")), None)
            try:
                if url is not None:
                    with urllib.request.urlopen(f"{url}status.json", timeout=5) as answer:
                        status.update(json.load(answer)["status"] or {})
            except OSError:
                time.sleep(0.1)  # the page's process is starting
                continue
            if status.get("ai") == "on" and status.get("recording"):
                break
            time.sleep(0.1)
        time.sleep(1.0)
        cancel.stop(signal.SIGTERM)

    cancel = Cancellation()
    looker = threading.Thread(target=look_on)
    looker.start()
    report, error = live(
        out,
        cancel=cancel,
        notify=noted.append,
        recording=RecordOptions(2.0),
        monitor=MonitorOptions("127.0.0.1", 0),
    )
    looker.join()
    assert isinstance(error, StoppedError) and error.exit_status == 143
    assert status["ai"] == "on" and status["recording"] is True and status["shown"] > 0
    assert "sample" not in json.dumps(status)
    written = report_of(out)
    streams = written["recording"]["streams"]
    for name in ("raw", "overlay"):
        files = sorted((out / "recording").glob(f"{name}-*"))
        assert files and {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert sum(count_frames(path) for path in files) == streams[name]["written"] > 10
    assert written["exit_status"] == 143 and written["outputs"]["recording"] == "recording"
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert any(row["recording"] for row in rows)


def test_a_folder_with_a_run_in_it_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    live(out, duration_s=0.3)
    first = (out / "report.json").read_bytes()
    report, error = live(out, duration_s=0.3)
    assert isinstance(error, UsageError) and "--exist-ok" in str(error)
    assert (out / "report.json").read_bytes() == first
    live(out, duration_s=0.3, exist_ok=True)
    assert (out / "report.json").read_bytes() != first


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below", Path("/proc/vmkla")):
        report, error = live(out)
        assert report is None and isinstance(error, BadInputError) and "cannot write" in error.message
    assert (tmp_path / "taken").read_text() == "mine"


def test_the_screen_is_closed_whatever_happens(tmp_path: Path) -> None:
    class Screen(NullScreen):
        closes = 0

        def close(self) -> None:
            self.closes += 1

    (tmp_path / "taken").write_text("mine")
    for out, source in (
        (tmp_path / "taken", SAMPLE),
        (tmp_path / "a", "missing.mp4"),
        (tmp_path / "b", SAMPLE),
    ):
        screen = Screen()
        live(out, source, screen=screen, duration_s=0.3)
        assert screen.closes >= 1


@pytest.mark.parametrize("kept", [False, True])
def test_the_procedure_is_written_at_the_end_with_stills_when_asked(tmp_path: Path, kept: bool) -> None:
    """The run ends right after the first marker, so that its still is in the worker's memory only."""
    out = tmp_path / "out"
    cancel, watcher = stop_when(lambda shown: shown.marker is not None and bool(shown.marker.lesions))
    worker = WorkerOptions(stills=StillOptions() if kept else None)
    report, error = live(out, cancel=cancel, screen=watcher, worker=worker, label="lesion")
    assert error is None and report is not None and report.lesions is not None
    lesions = [json.loads(line) for line in (out / "lesions.jsonl").read_text().splitlines()]
    assert len(lesions) == report.lesions >= 1
    marked = [one for one in lesions if one["first_marker_after_s"] is not None]
    assert marked and all(0 <= one["first_marker_after_s"] < 5 for one in marked)
    with_still = [one for one in lesions if one["still"] is not None]  # a slow disk may cost some
    page = (out / "procedure.html").read_text(encoding="utf-8")
    assert (page.count("<figure>") > 0) == kept and bool(with_still) == kept
    names = {path.name for path in out.iterdir()}
    expected = {"events.jsonl", "results.jsonl", "lesions.jsonl", "procedure.html", "report.json"}
    assert names == expected | ({"lesions"} if kept else set())
    if kept:
        files = {path.relative_to(out).as_posix() for path in (out / "lesions").iterdir()}
        assert files == {one["still"][key] for one in with_still for key in ("image", "marked")}
        assert (out / "lesions").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (out / "lesions").iterdir()} == {0o600}
        for one in with_still:  # the worker may have seen a frame or two after the last result that was taken
            assert one["first_s"] <= one["still"]["pts_s"] <= one["last_s"] + 1
    written = report_of(out)
    assert written["lesions"] == report.lesions and written["outputs"]["procedure"] == "procedure.html"
    assert written["settings"]["stills"] == kept and written["latency_ms"]["track"]["p50"] > 0


def test_a_screen_that_breaks_ends_the_run_with_everything_closed(tmp_path: Path) -> None:
    def look(shown: Shown) -> None:
        if shown.sequence == 5:
            raise RuntimeError("the display fell off the bus")

    before = {thread.name for thread in threading.enumerate()}
    report, error = live(tmp_path / "out", screen=Watcher(look))
    assert report is None and isinstance(error, RuntimeError)
    assert "fell off the bus" in report_of(tmp_path / "out")["message"]
    assert not children("vmkla-worker") and {thread.name for thread in threading.enumerate()} <= before


def test_a_full_disk_from_the_start_is_said_and_the_frame_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vmkla.video.live.folder.DiskReserve", full)
    noted: list[str] = []
    live(tmp_path / "out", duration_s=0.5, notify=noted.append)
    assert any("disk is full" in text for text in noted)
    assert report_of(tmp_path / "out")["counts"]["shown"] > 3


def test_names_of_a_source_do_not_get_out() -> None:
    address = parse_address("rtsp://doctor:secret@theatre3.example:8554/room7")
    names = address.names
    assert {"theatre3", "example", "8554", "room7", "secret"} <= set(names)
    assert parse_address(SAMPLE).names == ()


def test_the_file_screen_in_the_run_folder_survives_the_folders_cleaning(tmp_path: Path) -> None:
    screen = FileScreen(tmp_path / "elsewhere.jsonl")
    live(tmp_path / "out", screen=screen, duration_s=0.5)
    assert len((tmp_path / "elsewhere.jsonl").read_text().splitlines()) > 3
    assert not (tmp_path / "out" / "frames.jsonl").exists()


def test_a_disk_that_fills_up_takes_the_log_and_not_the_frame(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk, from the moment that the AI is on."""
    out = tmp_path / "out"
    script = tmp_path / "filling.py"
    script.write_text(f"""
import functools, resource
from pathlib import Path
from vmkla.engines import load_runner
from vmkla.errors import BadInputError
from vmkla.video.media.address import parse_address
from vmkla.video.live.options import LiveOptions
from vmkla.video.live.run import run_live
from vmkla.video.live.screen import FileScreen
from vmkla.video.cancellation import Cancellation

class Screen(FileScreen):
    on = after = 0
    def show(self, shown):
        super().show(shown)
        self.on += shown.status.ai.value == "on"
        if self.on == 1 and not self.after:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        self.after += self.on > 0
        if self.after == 60:
            cancel.stop()

if __name__ == "__main__":
    cancel = Cancellation()
    screen = Screen(Path({str(tmp_path / "frames.jsonl")!r}))
    load = functools.partial(load_runner, "nano", threads=1)
    try:
        options = LiveOptions(Path({str(out)!r}), max_staleness_ms={PATIENT_MS})
        run_live(load, parse_address({SAMPLE!r}), options, cancel, screen=screen)
    except BadInputError as error:
        print(error.message)
    print(screen.after, screen.unwritten[0] > 30)
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    message, shown = done.stdout.strip().splitlines()
    # On a real disk the report has a place held back for it; such a limit leaves none.
    assert "cannot write" in message and "report.json" in message
    assert shown == "60 True"
    assert "Traceback" not in done.stderr
