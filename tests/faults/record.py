"""Measure what is left of a recording after the run, the machine or the disk ends: one function per fault."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av

from tests.faults.figures import SETTLE_S, Figures, sum_up
from tests.faults.harness import LiveRun, Setup, live_run, longest_gap_ms, pictures, skipped

_MIB = 1 << 20
_MOUNTED = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'


def ended(folder: Path, setup: Setup, *, seconds: float = 4.0) -> Figures:
    """End the run with SIGTERM while it records; the last shown frames must be in the recording."""
    figures = Figures("SIGTERM while recording")
    with live_run(folder, _recording(setup)) as run:
        _begin(run)
        run.watch(seconds)
        hurt_s = time.monotonic()
        figures.exit_status = run.end()
        figures.more["to the end, ms"] = (time.monotonic() - hurt_s) * 1e3
        figures.more["processes left"] = len(run.children())
        sum_up(figures, run, 0.0)
        _judge_recording(figures, run, until_s=hurt_s)
        figures.more["readable by others"] = sorted(_open_to_others(run.out_dir))
        return figures


def cut_off(folder: Path, setup: Setup, *, seconds: float = 4.0) -> Figures:
    """Kill every process at once with SIGKILL while the run records."""
    figures = Figures("kill -9 of everything while recording")
    with live_run(folder, _recording(setup)) as run:
        _begin(run)
        run.watch(seconds)
        hurt_s = time.monotonic()
        run.kill_all()
        run.read()
        figures.exit_status = run.process.returncode
        figures.shown = len(pictures(run.lines))
        figures.received = figures.shown + skipped(run.lines)
        figures.longest_gap_ms = longest_gap_ms(run.lines)
        figures.wrong_pixels = sum(line["wrong_pixels"] for line in run.lines)
        _judge_recording(figures, run, until_s=hurt_s)
        figures.more["readable by others"] = sorted(_open_to_others(run.out_dir))
        return figures


def disk_full(folder: Path, setup: Setup, *, free_mib: int = 1100) -> Figures:
    """Fill the disk of the run from outside until no space is left.

    The disk is one of memory, in a mount namespace of its own (``unshare``), a little larger than the space
    that recording keeps free.
    """
    figures = Figures("disk full while recording")
    disk = folder / "disk"
    disk.mkdir(parents=True)
    mounted = ("unshare", "-rUm", "sh", "-c", _MOUNTED, f"{free_mib}m", str(disk))
    with live_run(folder, replace(_recording(setup), prefix=mounted, out_dir="disk/run")) as run:
        _begin(run)
        hurt_s = time.monotonic()
        ballast = Path(f"/proc/{run.display_pid}/root{disk}/ballast")
        filled = _fill(ballast)
        off = run.wait_for("the end of recording", lambda line: line["recording"] is False, after_s=hurt_s)
        figures.more["to REC off, ms"] = (off["shown_s"] - hurt_s) * 1e3
        figures.more["bytes left by recording"] = filled
        run.watch(SETTLE_S)
        after = pictures(run.lines, from_s=off["shown_s"])
        figures.more["last pictures with AI ON"] = sum(line["ai"] == "on" for line in after)
        sum_up(figures, run, hurt_s)
        figures.more["recording stopped because of"] = run.report["recording"]["state"]
        return figures


def can_mount() -> bool:
    """Return whether this account may mount a tmpfs for a process of its own."""
    try:
        tried = subprocess.run(["unshare", "-rUm", "true"], capture_output=True, check=False)
    except OSError:
        return False
    return tried.returncode == 0


def _fill(path: Path) -> int:
    """Write until nothing fits; return the bytes that did."""
    written = 0
    block = bytes(_MIB)
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                written += file.write(block)
            except OSError:
                return written


def _recording(setup: Setup) -> Setup:
    return replace(setup, options={"recording": {"segment_s": 2.0}, **setup.options})


def _begin(run: LiveRun) -> None:
    run.wait_ai("on")
    run.wait_for("recording", lambda line: line["recording"] is True)
    run.watch(SETTLE_S)


def _judge_recording(figures: Figures, run: LiveRun, *, until_s: float) -> None:
    """Count the playable frames, and the shown frames that are missing at the end."""
    recording_from_s = next(line["shown_s"] for line in run.lines if line["recording"])
    shown = pictures(run.lines, from_s=recording_from_s, to_s=until_s)
    segment_s = 2.0
    for stream in ("raw", "overlay"):
        files = sorted(run.out_dir.rglob(f"{stream}-*.mp4"))
        frames = [playable_frames(path) for path in files]
        figures.more[f"{stream} segments"] = len(files)
        figures.more[f"{stream} segments unplayable"] = frames.count(0)
        figures.more[f"{stream} frames missing"] = max(0, len(shown) - sum(frames))
    figures.more["a segment, frames"] = round(segment_s * len(shown) / max(1e-9, until_s - recording_from_s))


def playable_frames(path: Path) -> int:
    """Count the frames of a video that can be decoded, up to where it breaks off."""
    frames = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                frames += 1
    except (av.error.FFmpegError, IndexError):
        return frames
    return frames


def _open_to_others(folder: Path) -> Iterator[str]:
    for path in (folder, *folder.rglob("*")):
        if stat.S_IMODE(os.lstat(path).st_mode) & 0o077:
            yield path.name
