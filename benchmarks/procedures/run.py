"""Measure the tracker on scripted procedures: identities, and time per frame.

    python benchmarks/procedures/run.py --procedures 30 --minutes 5 --workers 2
    python benchmarks/procedures/run.py --time-only         # on a quiet machine

Rendering takes nearly all the time: each procedure is rendered once for all trackers. What was measured
of a procedure is appended to a file beside the output, so that an interrupted run continues after the last
whole procedure. Rendered lesions are evidence for the machinery, not for accuracy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import vmkla.procedures
from benchmarks.common import Table, replace_section
from benchmarks.procedures import script
from benchmarks.procedures.script import scripted_procedure
from vmkla.cpu_features import cpu_name
from vmkla.evaluation.identities import Agreement, Identities, agreement, boxes_by_number
from vmkla.procedures.look_ahead import CANDIDATE_S, LookAhead
from vmkla.procedures.tracker import LesionTracker, TrackerOptions
from vmkla.segment.findings import Region
from vmkla.segment.preprocess import Rect, union
from vmkla.video.media.clip import FPS

RESULTS = Path(__file__).resolve().parents[1] / "procedures.md"
SEEDS_FROM = 19_000
SIZES = {"480x360": (360, 480), "1920x1080": (1080, 1920)}
TARGETS_MS = {"480x360": 1.0, "1920x1080": 3.0}
TIMED_S = 5.0
TRACKER = (
    *("appearance", "assignment", "boxes", "carrying", "events", "look_ahead", "motion"),
    *("scene", "scoring", "tracker", "tracker_state", "tracker_step"),
)
"""Modules of ``vmkla.procedures`` that decide on a lesion's number."""
FINDINGS = ("with perfect findings", "with the network's errors")

Boxes = dict[int, Rect]


@dataclass
class Outcome:
    """Numbers that one tracker gave in one procedure.

    Attributes:
        given: box of each number, frame by frame, as live mode gives them.
        joined: number of a lesion -> that of the earlier one that file mode joins it to.
    """

    given: list[Boxes] = field(default_factory=list)
    joined: dict[int, int] = field(default_factory=dict)

    def online(self, truth: list[Boxes]) -> Identities:
        """Return the identities as live mode gives them."""
        return Identities([{**boxes} for boxes in truth], self.given)

    def final(self, truth: list[Boxes]) -> Identities:
        """Return the identities as file mode gives them, with all rows at hand."""
        return Identities(
            [{**boxes} for boxes in truth], [_renumbered(boxes, self.joined) for boxes in self.given]
        )


@dataclass(frozen=True)
class Procedure:
    """One scripted procedure: its true lesions by frame, and an outcome for each of ``FINDINGS``."""

    truth: list[Boxes]
    outcomes: tuple[Outcome, ...]


class _Follower:
    """A tracker with everything that numbers its lesions."""

    def __init__(self) -> None:
        self._tracker = LesionTracker(TrackerOptions(candidate_s=CANDIDATE_S))
        self._look_ahead, self.given = LookAhead(), list[Boxes]()

    def add(self, time_s: float, regions: Sequence[Region], rgb: cv2.typing.MatLike) -> None:
        """Number the findings of the next frame."""
        tracked = self._tracker.update(time_s, regions, np.asarray(rgb, np.uint8))
        events = [event.to_dict() for event in tracked.events]
        self._look_ahead.add({"pts_s": time_s, "box_lesions": tracked.numbers, "lesion_events": events})
        self.given.append(boxes_by_number(tracked.numbers, regions))

    def outcome(self) -> Outcome:
        """Return what was given, after the last frame."""
        return Outcome(self.given, self._look_ahead.joined())


def track(seed: int, minutes: float, height: int, width: int) -> Procedure:
    """Render one procedure, and track its findings without and with errors."""
    cv2.setNumThreads(1)
    perfect, real = _Follower(), _Follower()
    truth: list[Boxes] = []
    for frame in scripted_procedure(seed, minutes, height, width):
        truth.append(frame.lesions)
        perfect.add(frame.time_s, frame.perfect, frame.rgb)
        real.add(frame.time_s, frame.regions, frame.rgb)
    return Procedure(truth, (perfect.outcome(), real.outcome()))


def _renumbered(boxes: Boxes, finals: dict[int, int]) -> Boxes:
    result: dict[int, list[Rect]] = {}
    for number, box in boxes.items():
        result.setdefault(finals.get(number, number), []).append(box)
    return {number: box for number, group in result.items() if (box := union(group)) is not None}


class Progress:
    """What was measured of each procedure, in a file of one line each.

    Lines of other lengths, sizes, trackers or scripts are left out. Frames are not compared: tests hold that
    equal seeds give equal ones.

    Args:
        path: the file; it may be missing.
        minutes: length of the procedures.
        size: name of their frames' size, see ``SIZES``.
    """

    def __init__(self, path: Path, minutes: float, size: str) -> None:
        self._path = path
        package = Path(vmkla.procedures.__path__[0])
        sources = [*(package / f"{name}.py" for name in TRACKER), Path(script.__file__)]
        code = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
        self._key = {"minutes": minutes, "size": size, "code": code}
        self.done: dict[int, Procedure] = dict(self._stored())

    def add(self, seed: int, procedure: Procedure) -> None:
        """Keep a procedure, and append its line."""
        self.done[seed] = procedure
        outcomes = [
            {"given": _packed(outcome.given), "joined": list(outcome.joined.items())}
            for outcome in procedure.outcomes
        ]
        line = self._key | {"seed": seed, "truth": _packed(procedure.truth), "outcomes": outcomes}
        with open(self._path, "a", encoding="utf-8") as file:
            # The newline first: a line that an interruption cut off ends here.
            file.write("\n" + json.dumps(line, separators=(",", ":")))

    def _stored(self) -> Iterator[tuple[int, Procedure]]:
        if not self._path.exists():
            return
        for text in self._path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # cut off by the interruption
                continue
            if {name: line[name] for name in self._key} == self._key:
                outcomes = (
                    Outcome(_unpacked(each["given"]), dict(each["joined"])) for each in line["outcomes"]
                )
                yield line["seed"], Procedure(_unpacked(line["truth"]), tuple(outcomes))


def _packed(frames: list[Boxes]) -> list[list[Any]]:
    return [[[number, *box] for number, box in boxes.items()] for boxes in frames]


def _unpacked(frames: list[list[Any]]) -> list[Boxes]:
    return [{number: Rect(*box) for number, *box in boxes} for boxes in frames]


def measure(procedures: int, minutes: float, workers: int, progress: Progress) -> list[Procedure]:
    """Track procedures of 480x360, those that are missing only, and report each as it ends."""
    height, width = SIZES["480x360"]
    seeds = range(SEEDS_FROM, SEEDS_FROM + procedures)
    left = [seed for seed in seeds if seed not in progress.done]
    began, context = time.monotonic(), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(track, seed, minutes, height, width): seed for seed in left}
        for future in as_completed(futures):
            progress.add(futures[future], future.result())
            done = procedures - len(left) + sum(each.done() for each in futures)
            spent_s = time.monotonic() - began
            print(f"{done} of {procedures} procedures, {spent_s:.0f} s", file=sys.stderr, flush=True)
    return [progress.done[seed] for seed in seeds]


def identities(procedures: Sequence[Procedure], minutes: float) -> list[Table]:
    """Return a table of the identities for each of ``FINDINGS``."""
    tables = []
    for place, kind in enumerate(FINDINGS):
        table = Table(
            f"Identities {kind}",
            ("numbers", "HOTA", "AssA", "IDF1", "lesions", "switches per lesion", "fragments per lesion"),
        )
        online = [each.outcomes[place].online(each.truth) for each in procedures]
        final = [each.outcomes[place].final(each.truth) for each in procedures]
        table.add("as live mode gives them", *_cells(agreement(online)))
        table.add("joined at the end, as in files", *_cells(agreement(final)))
        table.notes.append(
            f"{len(procedures)} scripted procedures of {minutes:g} minutes of 480x360 at 30 frames a second, "
            f"{cpu_name()}, {_today()}. Fragments of a lesion are the numbers that it was given: 1 is right."
        )
        tables.append(table)
    return tables


def _cells(result: Agreement) -> tuple[object, ...]:
    lesions = max(1, result.lesions)
    parts = (result.hota, result.assa, result.idf1)
    return (
        *(f"{part:.3f}" for part in parts),
        result.lesions,
        result.switches / lesions,
        result.numbers / lesions,
    )


def times() -> Table:
    """Measure the tracker's time per frame, thumbnail included, on one thread."""
    table = Table("Time per frame", ("frame", "median ms", "p95 ms", "max ms", "target ms"))
    cv2.setNumThreads(1)
    for name, (height, width) in SIZES.items():
        # The first procedure whose first seconds show lesions in most frames.
        for seed in range(SEEDS_FROM, SEEDS_FROM + 100):
            small = scripted_procedure(seed, 10 / FPS / 60, 90, 120)
            if sum(bool(frame.lesions) for frame in small) >= 8:
                break
        frames = list(scripted_procedure(seed, TIMED_S / 60, height, width))
        tracker, laps_ms = LesionTracker(), []
        for frame in frames:
            began = time.perf_counter()
            tracker.update(frame.time_s, frame.regions, frame.rgb)
            laps_ms.append(1e3 * (time.perf_counter() - began))
        median_ms, p95_ms = np.percentile(laps_ms, (50, 95))
        table.add(name, float(median_ms), float(p95_ms), max(laps_ms), TARGETS_MS[name])
    table.notes.append(
        f"{cpu_name()}, one thread, {TIMED_S:g} s of a scripted procedure with lesions, {_today()}."
    )
    return table


def _today() -> str:
    return time.strftime("%d %B %Y").lstrip("0")


def main() -> None:
    """Measure, print, and write the sections of procedures.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--procedures", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=1)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--time-only", action="store_true", help="measure the time per frame only")
    only.add_argument("--identities-only", action="store_true", help="measure the identities only")
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    tables = [] if chosen.identities_only else [times()]
    if not chosen.time_only:
        progress = Progress(chosen.output.with_suffix(".partial.jsonl"), chosen.minutes, "480x360")
        procedures = measure(chosen.procedures, chosen.minutes, chosen.workers, progress)
        tables += identities(procedures, chosen.minutes)
    if not chosen.output.exists():
        chosen.output.write_text("# Lesions over time\n", encoding="utf-8")
    for table in tables:
        print(table.markdown())
        replace_section(chosen.output, table.title, table.markdown())


if __name__ == "__main__":
    main()
