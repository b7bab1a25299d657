"""Measure the video when the source fails: one function per fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.faults.figures import SETTLE_S, Figures, reasons, sum_up
from tests.faults.harness import LiveRun, Setup, live_run, longest_gap_ms
from tests.faults.pipe_camera import PipeCamera


def stalled(folder: Path, setup: Setup, *, seconds: float = 5.0) -> Figures:
    """Pause the source for a while; it stays open."""
    return _gone(
        folder, setup, f"source stalls for {seconds:g} s", seconds, PipeCamera.pause, PipeCamera.go_on
    )


def died(folder: Path, setup: Setup, *, seconds: float = 3.0) -> Figures:
    """Close the source and open it again."""
    name = f"source gone for {seconds:g} s, and back"
    return _gone(folder, setup, name, seconds, PipeCamera.hang_up, PipeCamera.come_back)


def resized(folder: Path, setup: Setup) -> Figures:
    """Change the size of the frames within the stream."""
    figures = Figures("picture size changes in flight")
    with _camera(folder) as camera, live_run(folder / "live", _of(setup, camera)) as run:
        _ready(run)
        before = tuple(run.lines[-1]["size_hw"])
        hurt_s = camera.set_size(144, 176)
        new = run.wait_for(
            "a picture of the new size", lambda line: line["size_hw"] == [144, 176], after_s=hurt_s
        )
        on = run.wait_ai("on", after_s=new["shown_s"])
        figures.to_on_ms.append((on["shown_s"] - new["shown_s"]) * 1e3)
        sum_up(figures, run, hurt_s)
        markers = [
            line for line in run.lines if line["shown_s"] >= new["shown_s"] and line["marker_sequence"]
        ]
        figures.more["markers of the old size on the new one"] = sum(
            line["marker_sequence"] < new["sequence"] for line in markers
        )
        figures.more["to the new size, ms"] = (new["shown_s"] - hurt_s) * 1e3
        figures.more["sizes"] = [list(before), new["size_hw"]]
        return figures


def corrupted(folder: Path, setup: Setup, *, pictures: int = 15) -> Figures:
    """Corrupt bytes of some frames of the stream."""
    figures = Figures(f"{pictures} corrupted pictures in the stream")
    with _camera(folder) as camera, live_run(folder / "live", _of(setup, camera)) as run:
        _ready(run)
        hurt_s = camera.spoil(pictures)
        run.watch(pictures / 30 + 2 * SETTLE_S)
        sum_up(figures, run, hurt_s)
        counts = run.report["counts"]
        figures.more["damaged"] = counts["damaged"]
        figures.more["dropped"] = run.report["dropped"]
        figures.more["shown after it"] = sum(line["shown_s"] > hurt_s + pictures / 30 for line in run.lines)
        return figures


def _gone(
    folder: Path,
    setup: Setup,
    name: str,
    seconds: float,
    hurt: Callable[[PipeCamera], float],
    mend: Callable[[PipeCamera], float],
) -> Figures:
    figures = Figures(name)
    with _camera(folder) as camera, live_run(folder / "live", _of(setup, camera)) as run:
        _ready(run)
        hurt_s = hurt(camera)
        lost = run.wait_for(
            "NO SIGNAL", lambda line: line["signal"] == "lost" and line["captured_s"] is None, after_s=hurt_s
        )
        figures.more["to NO SIGNAL, ms"] = (lost["shown_s"] - hurt_s) * 1e3
        run.watch(seconds - (lost["shown_s"] - hurt_s))
        last_s = max(line["shown_s"] for line in run.lines if line["captured_s"] is not None)
        mended_s = mend(camera)
        back = run.wait_for("the picture", lambda line: line["captured_s"] is not None, after_s=mended_s)
        figures.more["reasons said meanwhile"] = reasons(run, hurt_s, mended_s)
        figures.more["to the picture again, ms"] = (back["shown_s"] - mended_s) * 1e3
        on = run.wait_ai("on", after_s=back["shown_s"])
        figures.to_on_ms.append((on["shown_s"] - back["shown_s"]) * 1e3)
        sum_up(figures, run, hurt_s)
        figures.more["without a picture, ms"] = (back["shown_s"] - last_s) * 1e3
        figures.more["earlier markers on pictures after"] = sum(
            line["marker_sequence"] is not None and line["marker_sequence"] < back["sequence"]
            for line in run.lines
            if line["shown_s"] >= back["shown_s"]
        )
        figures.longest_gap_ms = longest_gap_ms(run.lines, from_s=back["shown_s"])
        return figures


@contextmanager
def _camera(folder: Path) -> Iterator[PipeCamera]:
    """Make a camera on a pipe, and close it with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    camera = PipeCamera(folder / "camera.ts").start()
    try:
        yield camera
    finally:
        camera.close()


def _of(setup: Setup, camera: PipeCamera) -> Setup:
    return replace(setup, source=str(camera.path), known=False)


def _ready(run: LiveRun) -> None:
    run.wait_ai("on")
    run.watch(SETTLE_S)
