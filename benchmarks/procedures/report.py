"""Measure the report of long procedures with many false alarms: seconds, size, memory.

    python benchmarks/procedures/report.py                 # 10 minutes, half an hour and five hours
    python benchmarks/procedures/report.py --keep DIR      # keeps the run's folders, to open their pages
    python benchmarks/procedures/report.py --open          # also opens each page in a headless Chromium

The rows are made up: half an hour has three lesions and 500 false alarms of one to ten frames, cuts, and
poor pictures. Stills are noise, so that each has nearly the largest size that is allowed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from tests.browser import headless_chromium
from vmkla.procedures.files import LESIONS, OVERLAY_VIDEO, PAGE, REPORT, ROWS, STILLS, still_names
from vmkla.procedures.lesions import LesionRecords
from vmkla.procedures.stills import Still, encode_still
from vmkla.segment.preprocess import Rect

RATE, ALARMS_PER_MINUTE = 30, 500 / 30
MEASURE = """
import sys, time
from pathlib import Path
from vmkla.procedures.report.page import write_page
def peak_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, began = peak_kib(), time.perf_counter()
write_page(Path(sys.argv[1]))
print(time.perf_counter() - began, peak_kib() - before)
"""


OPENED = """
const [page] = performance.getEntriesByType("navigation");
const paint = performance.getEntriesByName("first-contentful-paint")[0];
return page.loadEventEnd && paint ? [page.loadEventEnd, paint.startTime] : null;
"""
"""Time from the begin of the navigation to the end of the load event, and to the first paint, ms."""


def write_run(folder: Path, minutes: float, seed: int = 0) -> None:
    """Write the files of a run over a procedure of that length.

    Args:
        folder: a new folder.
        minutes: length of the procedure.
        seed: seed of what happens.
    """
    rng = np.random.default_rng(seed)
    (folder / STILLS).mkdir(parents=True)
    frames = round(minutes * 60 * RATE)
    seen: dict[int, list[int]] = {}  # frame to the lesions in it
    lesions = [(place * frames // 4, 20 * RATE) for place in (1, 2, 3)]
    alarms = round(minutes * ALARMS_PER_MINUTE)
    lesions += [(int(rng.integers(frames - 10)), int(rng.integers(1, 11))) for _ in range(alarms)]
    for number, (start, length) in enumerate(sorted(lesions), 1):
        for frame in range(start, min(frames, start + length)):
            if length <= 10 or frame % 40:  # single gaps in the real ones
                seen.setdefault(frame, []).append(number)
    records, poor = LesionRecords(), rng.random(frames // RATE + 1) < 0.05
    with open(folder / ROWS, "w", encoding="utf-8") as file:
        for index in range(frames):
            row = _row(index, seen.get(index, []), bool(poor[index // RATE]))
            records.add(row, marked=True)
            file.write(json.dumps(row) + "\n")
    stills = [encode_still(rng.integers(0, 256, (172, 230, 3), dtype=np.uint8)) for _ in range(4)]
    with open(folder / LESIONS, "w", encoding="utf-8") as file:
        for number, record in records.by_number.items():
            record.still = Still(number, record.first_s, Rect(100, 80, 60, 50), 0.2)
            for place, name in enumerate(still_names(number)):
                (folder / name).write_bytes(stills[(number + place) % len(stills)])
            file.write(json.dumps(record.to_dict()) + "\n")
    (folder / REPORT).write_text(json.dumps({"input": {"kind": "video", "name": "made up"}}))
    (folder / OVERLAY_VIDEO).touch()


def _row(index: int, numbers: list[int], poor: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"index": index, "pts_s": index / RATE, "frame_hw": [480, 640], "segmented": True}
    row |= {"boxes": [[100, 80, 60, 50]] * len(numbers), "box_areas_px": [2400] * len(numbers)}
    row |= {"box_peaks": [0.9 if number % 2 else 0.7 for number in numbers], "box_lesions": numbers}
    row |= {"poor": "blur"} if poor else {}
    row |= {"lesion_events": [{"kind": "cut"}]} if index % 700 == 0 else {}
    return row | {"max_probability": 0.4, "latency_ms": {"total": 21.123, "inference": 12.345}}


def open_page(page: Path) -> tuple[float, float]:
    """Open a page in a browser that has just started.

    Returns:
        Times to the end of its load event and to its first paint, seconds.
    """
    with tempfile.TemporaryDirectory() as profile, headless_chromium(Path(profile)) as browser:
        browser.get(page.resolve().as_uri())
        while (times_ms := browser.execute_script(OPENED)) is None:
            time.sleep(0.05)
    return times_ms[0] / 1e3, times_ms[1] / 1e3


def main() -> None:
    """Print a table with one row per length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 30, 300])
    parser.add_argument("--keep", type=Path, help="Keep the folders here.")
    parser.add_argument("--open", action="store_true", help="Open each page three times in Chromium.")
    arguments = parser.parse_args()
    opened = ("load event, s", "first paint, s") if arguments.open else ()
    columns = ("minutes", "lesions", "s", "MB", "more memory, MB", *opened)
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as temporary:
        for minutes in arguments.minutes:
            folder = (arguments.keep or Path(temporary)) / f"{minutes:g}"
            write_run(folder, minutes)
            done = subprocess.run(
                [sys.executable, "-I", "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True
            )
            spent_s, more_kib = map(float, done.stdout.split())
            lesions = len((folder / LESIONS).read_text().splitlines())
            size_mb = (folder / PAGE).stat().st_size / 1e6
            cells = [f"{minutes:g}", f"{lesions}", f"{spent_s:.1f}", f"{size_mb:.2f}"]
            cells.append(f"{more_kib * 1.024e-3:.0f}")
            if arguments.open:
                times_s = [open_page(folder / PAGE) for _ in range(3)]
                cells += [
                    ", ".join(f"{each:.2f}" for each in column) for column in zip(*times_s, strict=True)
                ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
