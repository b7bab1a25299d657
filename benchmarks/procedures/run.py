"""Measure the tracker on scripted procedures: identities, and time per frame.

    python benchmarks/procedures/run.py --procedures 30 --minutes 5 --workers 2
    python benchmarks/procedures/run.py --time-only         # on a quiet machine

Rendering takes nearly all the time. Rendered lesions are evidence for the machinery, not for accuracy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.common import Table, replace_section
from benchmarks.procedures.script import scripted_procedure
from vmkla.cpu_features import cpu_name
from vmkla.evaluation.identities import Agreement, Identities, agreement, boxes_by_number
from vmkla.procedures.look_ahead import CANDIDATE_S, LookAhead
from vmkla.procedures.tracker import LesionTracker, TrackerOptions
from vmkla.segment.preprocess import Rect, union
from vmkla.video.media.clip import FPS

RESULTS = Path(__file__).with_name("results.md")
SEEDS_FROM = 19_000
SIZES = {"480x360": (360, 480), "1920x1080": (1080, 1920)}
TARGETS_MS = {"480x360": 1.0, "1920x1080": 3.0}
TIMED_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """Identities of one procedure, as live mode and as file mode give them."""

    online: Identities
    joined: Identities


def track(seed: int, minutes: float, height: int, width: int, errors: bool) -> Outcome:
    """Render and track one procedure."""
    cv2.setNumThreads(1)
    tracker = LesionTracker(TrackerOptions(candidate_s=CANDIDATE_S))
    look_ahead, online = LookAhead(), Identities()
    for frame in scripted_procedure(seed, minutes, height, width, errors=errors):
        tracked = tracker.update(frame.time_s, frame.regions, frame.rgb)
        events = [event.to_dict() for event in tracked.events]
        look_ahead.add({"pts_s": frame.time_s, "box_lesions": tracked.numbers, "lesion_events": events})
        online.truth.append({**frame.lesions})
        online.given.append(boxes_by_number(tracked.numbers, frame.regions))
    finals = look_ahead.joined()
    joined = Identities(online.truth, [_renumbered(boxes, finals) for boxes in online.given])
    return Outcome(online, joined)


def _renumbered(boxes: dict[int, Rect], finals: dict[int, int]) -> dict[int, Rect]:
    result: dict[int, list[Rect]] = {}
    for number, box in boxes.items():
        result.setdefault(finals.get(number, number), []).append(box)
    return {number: box for number, group in result.items() if (box := union(group)) is not None}


def identities(procedures: int, minutes: float, workers: int, errors: bool) -> Table:
    """Measure identities over procedures of 480x360."""
    height, width = SIZES["480x360"]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [
            pool.submit(track, SEEDS_FROM + number, minutes, height, width, errors)
            for number in range(procedures)
        ]
        outcomes = [future.result() for future in futures]
    kind = "with the network's errors" if errors else "with perfect findings"
    table = Table(
        f"Identities {kind}",
        ("numbers", "HOTA", "AssA", "IDF1", "lesions", "switches per lesion", "numbers per lesion"),
    )
    for name, chosen in (
        ("online", [outcome.online for outcome in outcomes]),
        ("joined with all rows at hand", [outcome.joined for outcome in outcomes]),
    ):
        table.add(name, *_cells(agreement(chosen)))
    table.notes.append(f"{procedures} scripted procedures of {minutes:g} minutes at 30 frames a second.")
    return table


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
            small = scripted_procedure(seed, 10 / FPS / 60, 90, 120, errors=False)
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
    table.notes.append(f"{cpu_name()}, one thread, {TIMED_S:g} s of a scripted procedure with lesions.")
    return table


def main() -> None:
    """Measure, print, and write results.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--procedures", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--time-only", action="store_true", help="measure the time per frame only")
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    tables = [times()]
    if not chosen.time_only:
        tables += [
            identities(chosen.procedures, chosen.minutes, chosen.workers, errors) for errors in (False, True)
        ]
    if not chosen.output.exists():
        chosen.output.write_text("# Lesions of scripted procedures\n", encoding="utf-8")
    for table in tables:
        print(table.markdown())
        replace_section(chosen.output, table.title, table.markdown())


if __name__ == "__main__":
    main()
