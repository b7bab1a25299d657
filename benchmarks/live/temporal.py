"""Measure how hysteresis and minimum size and age of lesions change sensitivity, false alarms and delay."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from benchmarks.common import Table
from vmkla.engines import load_runner
from vmkla.runner import Runner
from vmkla.segment.findings import find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect, field_of_view, prepare
from vmkla.video.live.network.options import TemporalOptions
from vmkla.video.live.network.temporal import TemporalFilter
from vmkla.video.media.clip import FPS, Scene

Image = npt.NDArray[np.uint8]

HEIGHT, WIDTH = 360, 480
SEEDS = range(90_000_000, 90_000_030)
FRAMES = 300
LEAST_FRACTION = 0.002
HIT_SHARE = 0.1
"""A polyp is found when so much of it is covered."""


def choices(own: OperatingPoint) -> dict[str, tuple[TemporalOptions, OperatingPoint]]:
    """Return what is compared: the model's own point without and with filters, and other points."""

    def steadied(low: float | None = None, age_ms: float = 0.0) -> tuple[TemporalOptions, OperatingPoint]:
        return TemporalOptions(low, age_ms), own

    lows = [round(own.threshold * share, 3) for share in (0.75, 0.5, 0.25)]
    off = TemporalOptions()
    return {
        "threshold only": (off, OperatingPoint(own.threshold)),
        "operating point (default)": (off, own),
        **{f"hysteresis {low:g}": steadied(low) for low in lows},
        **{f"peak {peak:g}": (off, replace(own, peak=peak)) for peak in (0.8, 0.9)},
        **{f"size {size:g}": (off, replace(own, min_fraction=size)) for size in (0.001, 0.002, 0.005, 0.01)},
        **{f"age {age:g} ms": steadied(age_ms=age) for age in (50, 100, 200, 400)},
        f"hysteresis {lows[1]:g}, age 100 ms": steadied(lows[1], 100),
    }


@dataclass(frozen=True)
class Answer:
    """The network's mask of one frame, and the true mask.

    Attributes:
        probability: (1, h, w) float16: a clip's fit into memory, and no figure here sees the rounding.
        rect: the field of view that it is of.
        truth: (H, W) bool.
    """

    probability: npt.NDArray[np.float16]
    rect: Rect
    frame_hw: tuple[int, int]
    truth: npt.NDArray[np.bool_]


@dataclass
class Tally:
    """Counts over clips."""

    polyp_frames: int = 0
    hits: int = 0
    dices: list[float] = field(default_factory=list)
    empty_frames: int = 0
    alarms: int = 0
    false_regions: int = 0
    frames: int = 0
    switches: int = 0
    lesions: int = 0
    delays_ms: list[float] = field(default_factory=list)


def answers(runner: Runner, frames: Iterator[tuple[Image, Image]]) -> list[Answer]:
    """Run the network on every frame."""
    spec = runner.spec.metadata.preprocess
    found = []
    for rgb, mask in frames:
        rect = field_of_view(rgb, spec.roi)
        probability = runner.infer(prepare(rgb, spec, rect)[None])[0].astype(np.float16)
        found.append(Answer(probability, rect, (rgb.shape[0], rgb.shape[1]), mask > 0))
    return found


def judge(
    clip: Sequence[Answer],
    options: TemporalOptions,
    point: OperatingPoint,
    every: int,
    fps: float,
    tally: Tally,
) -> None:
    """Run one clip through a filter and count."""
    steady = TemporalFilter(options, point)
    came_s: float | None = None
    found, before = False, None
    for index in range(0, len(clip), every):
        answer, at_s = clip[index], index / fps
        probability = steady.apply(answer.probability.astype(np.float32), at_s)
        findings = find(probability, answer.rect, answer.frame_hw, point)
        tally.frames += 1
        tally.switches += before is not None and findings.any != before
        before = findings.any
        truth = answer.truth
        if not truth.any():
            came_s = None
            tally.empty_frames += 1
            tally.alarms += findings.any
            tally.false_regions += len(findings.regions)
        elif truth.mean() >= LEAST_FRACTION:
            if came_s is None:
                came_s, found = at_s, False
                tally.lesions += 1
            over = int((findings.mask > 0)[truth].sum())
            hit = over >= HIT_SHARE * int(truth.sum())
            tally.polyp_frames += 1
            tally.hits += hit
            tally.dices.append(2 * over / (findings.area_px + int(truth.sum())))
            if hit and not found:
                found = True
                tally.delays_ms.append(1e3 * (at_s - came_s))


def measure() -> list[Table]:
    """Measure rendered clips at two rates of the worker."""
    runner = load_runner("nano", threads=1)
    compared = choices(runner.spec.operating_point)
    clips = []
    for seed in SEEDS:
        scene = Scene(seed, HEIGHT, WIDTH)
        clips.append(answers(runner, (scene.frame(index) for index in range(FRAMES))))
    tables = []
    for every in (1, 3):
        rows = {name: Tally() for name in compared}
        for name, (options, point) in compared.items():
            for clip in clips:
                judge(clip, options, point, every, FPS, rows[name])
        tables.append(_table(rows, every))
        tables[-1].notes.append(f"nano's operating point: {runner.spec.operating_point}.")
    runner.close()
    return tables


def _table(rows: dict[str, Tally], every: int) -> Table:
    first = next(iter(rows.values()))
    table = Table(
        f"Steadied findings, nano on {len(SEEDS)} rendered clips of {FRAMES / FPS:g} s, "
        f"{FPS / every:g} results a second",
        (
            "options",
            "sensitivity %",
            "mean Dice",
            "empty frames with an alarm %",
            "false regions a frame",
            "polyps found",
            "delay ms, median",
            "switches a minute",
        ),
        notes=[
            f"{first.polyp_frames} frames with a polyp of at least {100 * LEAST_FRACTION:g} % of the frame, "
            f"found when {100 * HIT_SHARE:g} % of it are covered; {first.empty_frames} frames with none. "
            "Delay: from a polyp's first frame of that size to the first frame that finds it, over the "
            f"{first.lesions} appearances; one that is never found counts as endless.",
            "Rendered clips rank the choices; they are not evidence of accuracy, and nano finds much in "
            "their folds that it does not find in real ones.",
        ],
    )
    for name, tally in rows.items():
        delays = tally.delays_ms + [float("inf")] * (tally.lesions - len(tally.delays_ms))
        table.add(
            name,
            f"{100 * tally.hits / tally.polyp_frames:.1f}",
            f"{statistics.mean(tally.dices):.3f}",
            f"{100 * tally.alarms / tally.empty_frames:.1f}",
            f"{tally.false_regions / tally.empty_frames:.2f}",
            f"{len(tally.delays_ms)} of {tally.lesions}",
            f"{statistics.median(delays):.0f}",
            f"{60 * FPS * tally.switches / (tally.frames * every):.0f}",
        )
    return table
