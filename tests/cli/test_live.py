"""``vmkla infer --live``: flags, exit statuses, and an orderly end whatever ends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.video.small_videos import write_video

VMKLA = str(Path(sys.executable).with_name("vmkla"))
SAMPLE = "sample://?size=160x120&seed=8"
PATIENT = ("--max-staleness-ms", "1000")
"""``nano`` on one slow core with AVX2 misses the default limit on the age of a marker."""


def test_a_run_prints_its_figures(vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--duration-s", "3", "--json", "--threads", "1", "--deinterlace", "no")
    done = vmkla("infer", "--source", SAMPLE, "--live", *flags)
    assert done.status in (0, 7), done.stderr  # 7 where others leave the machine too little
    out = tmp_path / "runs" / "infer" / "live-sample"
    written = json.loads((out / "report.json").read_text())
    assert done.json == {"out_dir": "runs/infer/live-sample", **written}
    assert done.status == written["exit_status"] and written["counts"]["shown"] > 30
    assert written["settings"]["max_staleness_ms"] == 120
    assert written["settings"]["deinterlace"] == "no" and written["worker"]["deinterlaced"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--live", "--stride", "2"), "--stride"),
        (("--live", "--save-masks"), "--save-masks"),
        (("--live", "--continue"), "--continue"),
        (("--live", "--track", "2"), "--track"),
        (("--display",), "--display"),
        (("--record",), "--record"),
        (("--max-staleness-ms", "50"), "--max-staleness-ms"),
        (("--monitor", "127.0.0.1:8080"), "--monitor"),
        (("--duration-s", "5"), "--duration-s"),
        (("--loop",), "--loop"),
        (("--hysteresis", "0.3"), "--hysteresis"),
        (("--min-lesion-age-ms", "100"), "--min-lesion-age-ms"),
        ((), "--live"),
        (("--live", "--max-staleness-ms", "-1"), "-1 ms"),
        (("--live", "--segment-s", "5"), "--record"),
        (("--live", "--hide", "0,0,5,5"), "--record"),
        (("--live", "--stills", "--hide", "0,0,5"), "0,0,5"),
        (("--stills",), "--stills"),
        (("--live", "--record", "--hide", "0,0,5"), "0,0,5"),
        (("--live", "--monitor", "nowhere"), "nowhere"),
        (("--live", "--monitor-token-file", "token"), "--monitor"),
        (("--live", "--monitor", "0.0.0.0:0"), "token"),
        (("--live", "--hysteresis", "2"), "hysteresis"),
        (("--live", "--min-fraction", "1"), "smallest area"),
        (("--live", "--threshold", "7"), "threshold is 7"),
        (("--live", "--peak", "0.3", "--threshold", "0.5"), "peak is 0.3"),
        (("--live", "--roi", "1,2"), "1,2"),
        (("--live", "--duration-s", "0"), "duration is 0"),
    ],
)
def test_wrong_flags_are_status_2_and_leave_nothing(
    vmkla: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = vmkla("infer", "--source", SAMPLE, "--out", tmp_path / "out", *arguments)
    assert done.status == 2 and message in done.stderr, done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()


def test_a_live_flag_at_its_default_value_is_still_of_live_mode(
    vmkla: Any, clip: Path, tmp_path: Path
) -> None:
    done = vmkla("infer", "--video", clip, "--out", tmp_path / "out", "--max-staleness-ms", "120")
    assert done.status == 2 and "--live" in done.stderr


@pytest.mark.parametrize(
    ("source", "model", "status", "message"),
    [
        ("http://127.0.0.1/x", "nano", 2, "not a live source"),
        ("missing.mp4", "nano", 3, "missing.mp4"),
        (SAMPLE, "nanoo", 3, "nanoo"),
        (SAMPLE, "gone.onnx", 3, "gone.onnx"),
    ],
)
def test_what_cannot_begin_leaves_nothing(
    vmkla: Any, tmp_path: Path, source: str, model: str, status: int, message: str
) -> None:
    done = vmkla("infer", "--source", source, "--live", "--model", model, "--out", tmp_path / "out")
    assert done.status == status and message in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_password_is_nowhere(vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "rtsp://doctor:secret99@127.0.0.1:9/room?token=secret99"
    done = vmkla("infer", "--source", source, "--live", "--duration-s", "1.5")
    assert done.status == 7 and "gave no frame" in done.stderr
    out = tmp_path / "runs" / "infer" / "live-rtsp"
    written = [path.read_text() for path in out.iterdir()]
    assert not any("secret99" in text or "doctor" in text for text in (done.stdout, done.stderr, *written))


def start(*arguments: object, **settings: Any) -> subprocess.Popen[str]:
    command = [VMKLA, "infer", "--live", *PATIENT, *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **settings,
    )


def wait_for(path: Path, text: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert process.poll() is None and time.monotonic() < until, f"{text!r} is not in {path.name}"
        time.sleep(0.02)


def in_session(session: int) -> list[str]:
    """Processes of a session that have not ended, by name."""
    names = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:
            continue  # it has just ended
        after = text[text.rindex(")") + 2 :].split()
        if int(after[3]) == session and after[0] != "Z":
            names.append(text[text.index("(") + 1 : text.rindex(")")])
    return names


def wait_until_all_ended(session: int) -> None:
    """Python's own helper process ends a moment after the last one that it serves."""
    until = time.monotonic() + 30
    while in_session(session) and time.monotonic() < until:
        time.sleep(0.05)
    assert in_session(session) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "status", "group"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False), (signal.SIGTERM, 143, True)],
)
def test_a_signal_ends_it_with_everything_closed(
    tmp_path: Path, signum: signal.Signals, status: int, group: bool
) -> None:
    """Ctrl-C in a terminal goes to all processes of the group, and so may a service manager's SIGTERM."""
    out = tmp_path / "out"
    with start("--source", SAMPLE, "--out", out, "--record", "--monitor", "127.0.0.1:0", "--json") as process:
        try:
            wait_for(out / "events.jsonl", "screen ai on", process)
            wait_for(out / "events.jsonl", "recording on", process)
            (os.killpg if group else os.kill)(process.pid, signum)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == status, stderr
    report = json.loads(stdout)
    assert report["outcome"] == "interrupted" and report["exit_status"] == status
    assert report["ended_by"] == "stopped" and "Traceback" not in stderr
    wait_until_all_ended(process.pid)
    events = [json.loads(line)["kind"] for line in (out / "events.jsonl").read_text().splitlines()]
    assert "run ends" in events
    if not group:  # otherwise it reached the worker as well, at the same moment
        assert "worker fault" not in events
    assert report["recording"]["streams"]["raw"]["written"] > 0


@pytest.mark.telling
@pytest.mark.slow
def test_kill_9_of_the_display_process_ends_all_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start("--source", SAMPLE, "--out", out, "--record", "--monitor", "127.0.0.1:0") as process:
        try:
            wait_for(out / "events.jsonl", "screen ai on", process)
            assert "vmkla-worker" in in_session(process.pid)
        finally:
            process.kill()
        process.wait(30)
        wait_until_all_ended(process.pid)


@pytest.mark.slow
def test_in_a_window(tmp_path: Path) -> None:
    """On a virtual display; the window is closed with a key."""
    if shutil.which("xvfb-run") is None or shutil.which("xdotool") is None:
        pytest.skip("xvfb-run and xdotool are not installed")
    out, clip = tmp_path / "out", write_video(tmp_path / "clip.mp4", frames=100)
    script = tmp_path / "press.sh"
    script.write_text(
        f'{VMKLA} infer --live {" ".join(PATIENT)} --display --loop --source "{clip}" --out "{out}" --json '
        f'> "{tmp_path}/said" &\n'
        "for i in $(seq 300); do\n"
        f'  grep -q "screen ai on" "{out}/events.jsonl" && xdotool search --name vmkla key --window %@ q\n'
        "  kill -0 $! || break\n  sleep 0.2\ndone 2> /dev/null\nwait $!\n"
    )
    command = ["xvfb-run", "-a", "-s", "-screen 0 1280x800x24", "bash", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    report = json.loads((tmp_path / "said").read_text())
    assert report["ended_by"] == "closed" and report["counts"]["shown"] > 0, done.stderr
    assert done.returncode == report["exit_status"] and not (out / "frames.jsonl").exists()


@pytest.mark.slow
def test_conformance_in_a_window(tmp_path: Path, small_nano: Path) -> None:
    """The window opens and its time is counted; whether this machine keeps the limits matters elsewhere."""
    if shutil.which("xvfb-run") is None:
        pytest.skip("xvfb-run is not installed")
    said = f"{VMKLA} bench --conformance --display --source {SAMPLE} --duration-s 3 --idle-s 0".split()
    said += ["--model", str(small_nano), "--out", str(tmp_path / "out")]
    command = ["xvfb-run", "-a", "-s", "-screen 0 1280x800x24", *said]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    written = json.loads((tmp_path / "out" / "conformance.json").read_text())
    assert written["phases"]["warm"]["shown"] > 0, done.stderr


def test_display_without_a_display_is_status_4(vmkla: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = vmkla("infer", "--source", SAMPLE, "--live", "--display", "--out", tmp_path / "out")
    assert done.status == 4 and "window" in done.stderr and not (tmp_path / "out").exists()
