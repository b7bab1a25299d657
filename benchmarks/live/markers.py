"""Measure the Dice of markers on later frames, the cost of drawing, and the effect of temporal filters.

Measures on rendered clips, whose masks are exact, and on real videos that are named on the command line.
Writes benchmarks/live/markers.md:

    python benchmarks/live/markers.py [--videos FILE...] [--boxes VIDEO JSON] [--only PART...]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.common import Table
from benchmarks.cpu.run import machine
from benchmarks.live import temporal
from vmkla.engines import load_runner
from vmkla.procedures.scene import CHANGE_LIMIT, CUT_LIMIT, Thumbnail, change, thumbnail
from vmkla.runner import Runner
from vmkla.segment.findings import Findings, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect, field_of_view, prepare
from vmkla.video.live.frame import LiveFrame, LiveResult
from vmkla.video.live.markers.marker_board import MarkerBoard
from vmkla.video.media.clip import FPS, Scene

HERE = Path(__file__).resolve().parent
Image = npt.NDArray[np.uint8]
T = TypeVar("T")

HEIGHT, WIDTH = 360, 480
SEEDS = range(90_000_000, 90_000_016)
"""Of clips that no weights were trained on."""
CLIP_FRAMES, FRAMES_APART = 120, 6
LAGS = (1, 2, 3, 4, 6, 8, 12)
LEAST_FRACTION = 0.002
"""Frames with less of a polyp are left out: a pixel or two decide their Dice."""
DRAW_REPEATS = 300


@dataclass(frozen=True)
class Clip:
    """Frames, and the true masks of some of them.

    Attributes:
        frames: (H, W, 3) uint8 each.
        truth: by frame, (H, W) bool.
        marked: what a marker of that frame marks; the truth where it is exact.
        fps: of the source.
    """

    frames: Sequence[Image]
    truth: dict[int, npt.NDArray[np.bool_]]
    marked: dict[int, npt.NDArray[np.bool_]]
    fps: float


def rendered(seed: int) -> Clip:
    """Render a clip with exact masks."""
    scene = Scene(seed, HEIGHT, WIDTH)
    frames, truth = [], {}
    for index in range(CLIP_FRAMES):
        rgb, mask = scene.frame(index)
        frames.append(rgb)
        truth[index] = mask > 0
    return Clip(frames, truth, truth, FPS)


def read_video(path: Path) -> tuple[list[Image], float]:
    """Read all frames of a video and its frame rate."""
    import av

    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], float(rate or FPS)


def network_mask(runner: Runner, rgb: Image) -> npt.NDArray[np.bool_]:
    """Compute the network's mask of a frame."""
    metadata = runner.spec.metadata
    rect = field_of_view(rgb, metadata.preprocess.roi)
    probability = runner.infer(prepare(rgb, metadata.preprocess, rect)[None])[0]
    return find(probability, rect, (rgb.shape[0], rgb.shape[1]), OperatingPoint(metadata.threshold)).mask > 0


def boxes_clip(video: Path, boxes: Path) -> Clip:
    """Read a real clip whose polyps were boxed by hand in every frame."""
    frames, fps = read_video(video)
    truth = {}
    for index, listed in enumerate(json.loads(boxes.read_text(encoding="utf-8"))["frames"]):
        truth[index] = np.zeros(frames[0].shape[:2], np.bool_)
        for left, top, right, bottom in (entry["bbox"] for entry in listed):
            truth[index][top:bottom, left:right] = True
    return Clip(frames, truth, truth, fps)


def findings_of(mask: npt.NDArray[np.bool_]) -> Findings:
    """Make findings from a mask."""
    height, width = mask.shape
    return find(
        mask[None].astype(np.float32), Rect(0, 0, width, height), (height, width), OperatingPoint(0.5)
    )


def dice(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Compute the Dice of two masks."""
    both = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / both if both else 1.0


@dataclass(frozen=True)
class Stale:
    """One marker on one later frame: its Dice if it was drawn, and the Dice without motion compensation."""

    drawn: float | None
    left: float


def stale_markers(clip: Clip, lag: int, motion: bool) -> Iterator[Stale]:
    """Place markers ``lag`` frames later with live mode's own board."""
    apart = FRAMES_APART if len(clip.frames) >= CLIP_FRAMES else 1
    for start in range(0, len(clip.frames) - lag, apart):
        marked, later = clip.marked.get(start), clip.truth.get(start + lag)
        if marked is None or later is None or marked.mean() < LEAST_FRACTION:
            continue
        board = MarkerBoard("fill", 1.0, max_staleness_s=10, motion=motion)
        pictures = [LiveFrame(1 + i, i / clip.fps, clip.frames[start + i]) for i in range(lag + 1)]
        result = LiveResult(1, 0.0, 0.0, (marked.shape[0], marked.shape[1]), findings_of(marked), {})
        marker = board.prepare(result)
        for picture in pictures:
            board.draw(picture, None)
        _, drawn = board.draw(LiveFrame(lag + 1, lag / clip.fps, pictures[-1].rgb), marker)
        covered = None if drawn is None else drawn.drawing.covered()
        yield Stale(None if covered is None else dice(covered, later), dice(marked, later))


def staleness(videos: Sequence[Path], boxes: tuple[Path, Path] | None) -> list[Table]:
    """Make the table of Dice by age of the marker, with and without motion compensation."""
    clips = [rendered(seed) for seed in SEEDS]
    clips = [clip for clip in clips if any(mask.mean() >= LEAST_FRACTION for mask in clip.truth.values())]
    tables = [
        _staleness_table(
            f"Staleness against Dice, {len(clips)} rendered clips of {WIDTH}x{HEIGHT} with exact masks",
            clips,
            "The marker is a frame's exact mask; its Dice is against the exact mask of the later frame, so "
            "it is 1 at 0 ms. Mean of each clip, then median and worst over the clips.",
        )
    ]
    if boxes is not None:
        clip = boxes_clip(*boxes)
        tables.append(
            _staleness_table(
                f"The same on a real sequence, {len(clip.frames)} frames at {clip.fps:g} fps, boxed by hand",
                [clip],
                "The camera moves fast. Boxes do not turn with what they hold, so they agree less well than "
                "masks.",
            )
        )
    runner = load_runner("nano", threads=1)
    for video in videos:
        frames, fps = read_video(video)
        wanted = {
            start + lag for start in range(0, len(frames) - max(LAGS), FRAMES_APART) for lag in (0, *LAGS)
        }
        masks = {index: network_mask(runner, frames[index]) for index in sorted(wanted)}
        truth = {index: mask for index, mask in masks.items() if mask.mean() >= LEAST_FRACTION}
        tables.append(
            _staleness_table(
                f"The same on a real video, {len(frames)} frames at {fps:g} fps, against nano's later answer",
                [Clip(frames, truth, truth, fps)],
                "There is no truth: the figure is how well a moved marker agrees with nano's own answer for "
                "the later frame, so nano's unrest is in it. Frames where it finds nothing are left out.",
            )
        )
    runner.close()
    return tables


def _staleness_table(title: str, clips: Sequence[Clip], note: str) -> Table:
    columns = ["staleness ms", "left where it was", "left, but cleared like the moved", "moved"]
    columns += ["left: worst clip", "moved: worst clip"]
    table = Table(
        title,
        (*columns, "cleared % of markers", "Dice of those, had they stayed"),
        notes=[
            note,
            "Moved: the mean over the markers that live mode draws. It clears those whose scene has changed "
            "or whose region is not found again.",
        ],
    )
    for lag in LAGS:
        left, kept, moved, cleared = [], [], [], []
        for clip in clips:
            stale = list(stale_markers(clip, lag, motion=True))
            if not stale:
                continue
            left.append(statistics.mean(each.left for each in stale))
            cleared += [each.left if each.drawn is None else None for each in stale]
            drawn = [each.drawn for each in stale if each.drawn is not None]
            if drawn:
                moved.append(statistics.mean(drawn))
                kept.append(statistics.mean(each.left for each in stale if each.drawn is not None))
        gone = [value for value in cleared if value is not None]
        table.add(
            f"{1e3 * lag / clips[0].fps:.0f}",
            f"{statistics.median(left):.3f}",
            f"{statistics.median(kept):.3f}",
            f"{statistics.median(moved):.3f}",
            f"{min(left):.3f}",
            f"{min(moved):.3f}",
            f"{100 * len(gone) / len(cleared):.1f}",
            f"{statistics.mean(gone):.2f}" if gone else "-",
        )
    return table


def scenes(videos: Sequence[Path], boxes: tuple[Path, Path] | None) -> list[Table]:
    """Compare the differences of neighbouring and of unrelated frames with the limits."""
    streams = {"rendered": [[thumbnail(rgb) for rgb in rendered(seed).frames] for seed in SEEDS]}
    for number, video in enumerate(dict.fromkeys([*videos, *([] if boxes is None else [boxes[0]])]), 1):
        frames, fps = read_video(video)
        streams[f"real {number}, {frames[0].shape[1]}x{frames[0].shape[0]}, {fps:g} fps"] = [
            [thumbnail(rgb) for rgb in frames]
        ]
    table = Table(
        "Change of picture: neighbours, and pictures of different scenes",
        ("what", "pairs", "p50", "p99", "max", f"% above {CUT_LIMIT:g}", f"% above {CHANGE_LIMIT:g}"),
        notes=[
            f"Neighbours above {CUT_LIMIT:g} are taken for a cut; a marker ends when its own picture and the "
            f"one to be shown differ by more than {CHANGE_LIMIT:g}.",
        ],
    )
    for name, clips in streams.items():
        for lag in (1, 2, 3, 4):
            pairs = (pair for clip in clips for pair in zip(clip, clip[lag:], strict=False))
            table.add(f"{name}: {lag} frames apart" if lag > 1 else f"{name}: neighbours", *_changes(pairs))
    everyone = [(name, clip) for name, clips in streams.items() for clip in clips]
    unrelated = Table(
        "The same between unrelated pictures",
        ("what", "pairs", "p1", "p5", "p50", f"% above {CUT_LIMIT:g}", f"% above {CHANGE_LIMIT:g}"),
        notes=[
            "What the limits let pass meets another guard: a region must be found again, with 20 % of its "
            "points moving together.",
        ],
    )
    pairs = [
        (first[i], second[j])
        for number, (_, first) in enumerate(everyone)
        for _, second in everyone[:number]
        for i in range(0, len(first), 30)
        for j in range(0, len(second), 30)
    ]
    unrelated.add("pictures of different clips", *_changes(pairs, low=True))
    for name, clips in streams.items():
        far = [pair for clip in clips for pair in zip(clip, clip[600:], strict=False)]
        if far:
            unrelated.add(f"{name}: 600 frames apart", *_changes(far, low=True))
    return [table, unrelated]


def _changes(pairs: Iterable[tuple[Thumbnail, Thumbnail]], *, low: bool = False) -> list[str]:
    values = np.array([change(*pair) for pair in pairs])
    percents = (1, 5, 50) if low else (50, 99, 100)
    shares = [f"{100 * float((values > limit).mean()):.2f}" for limit in (CUT_LIMIT, CHANGE_LIMIT)]
    return [str(len(values)), *(f"{value:.3f}" for value in np.percentile(values, percents)), *shares]


def _spin() -> None:
    while True:
        sum(range(10_000))


def drawing(videos: Sequence[Path], boxes: tuple[Path, Path] | None) -> list[Table]:
    """Time the display loop on an idle machine and with every core busy."""
    table = Table(
        "Drawing: time in the display loop, ms of its core (median / 95 %), and by the clock (median)",
        ("picture", "cores", "no marker", "marker left", "marker moved", "prepared (other thread)"),
        notes=[
            "No marker includes the thumbnail and the comparison for a cut. Busy: one endless process for "
            "each core beside it, at the same priority. Goals at 1080p: 2 ms without, 4 ms with a marker.",
        ],
    )
    cv2.setNumThreads(1)
    for busy in (False, True):
        spinners = [
            multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
            for _ in range(len(os.sched_getaffinity(0)) if busy else 0)
        ]
        for spinner in spinners:
            spinner.start()
        try:
            for height, width in ((360, 480), (1080, 1920)):
                cells = _draw_times(height, width)
                table.add(f"{width}x{height}", "busy" if busy else "idle", *cells)
        finally:
            for spinner in spinners:
                spinner.kill()
                spinner.join()
    return [table]


def _draw_times(height: int, width: int) -> list[str]:
    scene = Scene(1, HEIGHT, WIDTH)
    rendered_frames = [scene.frame(index) for index in range(4)]
    frames = [np.asarray(cv2.resize(rgb, (width, height)), np.uint8) for rgb, _ in rendered_frames]
    mask = cv2.resize(rendered_frames[0][1], (width, height), interpolation=cv2.INTER_NEAREST) > 0
    times: dict[str, list[tuple[float, float]]] = {"none": [], "left": [], "moved": [], "prepared": []}
    for motion in (False, True):
        board = MarkerBoard(motion=motion)
        findings = findings_of(mask)
        for turn in range(DRAW_REPEATS):
            first = 4 * turn + 1
            result = LiveResult(first, first / FPS, 0.0, (height, width), findings, {})
            marker, spent = _timed(board.prepare, result)
            times["prepared"].append(spent)
            board.clear()
            for index, rgb in enumerate(frames[:3]):
                picture = LiveFrame(first + index, (first + index) / FPS, rgb)
                _, spent = _timed(board.draw, picture, marker if index == 2 else None)
                times["none" if index < 2 else "moved" if motion else "left"].append(spent)
        assert not board.cleared, board.cleared
    cells = []
    for spent_ms in (1e3 * np.array(values) for values in times.values()):
        own, clock = spent_ms.T
        cells.append(f"{np.median(own):.2f} / {np.percentile(own, 95):.2f}, {np.median(clock):.2f}")
    return cells


def _timed(call: Callable[..., T], *args: object) -> tuple[T, tuple[float, float]]:
    """Call a function; return its result, the thread's CPU time and the wall time, in s."""
    own_s, clock_s = time.thread_time(), time.perf_counter()
    given = call(*args)
    return given, (time.thread_time() - own_s, time.perf_counter() - clock_s)


DECISIONS = """\
What follows from the figures:

- Markers move along by default. Without motion a marker of 120 ms ago is far off its polyp.
- A marker whose region is not found again, or whose scene has changed, is cleared: left where they were,
  those would miss their polyps.
- Hysteresis, least size and least age stay off by default: each of them buys fewer false alarms or less
  unrest with sensitivity or delay (hysteresis: with false alarms), and how much of one is worth how much of
  the other is for the user to say. A least size of 0.0005 is the cheapest, a least age the most effective.
"""


PARTS: dict[str, Callable[[Sequence[Path], Any], list[Table]]] = {
    "staleness": staleness,
    "scenes": scenes,
    "drawing": drawing,
    "temporal": lambda videos, boxes: temporal.measure(),
}


def main() -> int:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--videos", nargs="*", type=Path, default=[], help="real videos, for unlabelled figures"
    )
    parser.add_argument("--boxes", nargs=2, type=Path, metavar=("VIDEO", "JSON"))
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--output", type=Path, default=HERE / "markers.md")
    args = parser.parse_args()
    boxes = None if args.boxes is None else (args.boxes[0], args.boxes[1])
    lines = ["# Markers in live mode", "", *machine(1), "", *DECISIONS.splitlines(), ""]
    for name in PARTS:
        if name in args.only:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            for table in PARTS[name](args.videos, boxes):
                print(table.markdown(), file=sys.stderr, flush=True)
                lines += [table.markdown(), ""]
    args.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
