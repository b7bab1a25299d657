"""Compare INT8 with float32 on each kind of CPU that this one can run as: speed, size and Dice.

    python benchmarks/int8/run.py --data DIR [--check DIR] [--test NAME=DIR:LIST ...] [--out FILE]

Writes ``benchmarks/int8/results.md``. Files are calibrated on the CPU as it is and measured as each
kind of CPU, see ``tests/other_cpus``. ``small`` has random weights: speed and size do not depend on them.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.common import Table, apart, exported
from benchmarks.cpu.run import machine
from benchmarks.int8.measure import BUSY, THREADS, measured_as, other_cpus
from vmkla import weights
from vmkla.calibration.calibrate import CalibrateReport, calibrate
from vmkla.calibration.layers import Target
from vmkla.calibration.request import CHECK_FRAMES, FRAMES, CalibrateRequest

TARGETS: tuple[Target, ...] = ("cpu", "cpu-vnni")
FILES = ("preset", "target", "MB", "of float32 MB", "layers", "put back", "made in s", "memory GB")
DICE = ("set", "images", "target", "CPU", "Dice float32", "Dice int8", "mean drop", "worst drop", "all gates")
REFUSED = "refused"


def made(
    model: Path,
    target: Target,
    data: tuple[str, ...],
    check: tuple[str, ...],
    frames: tuple[int, int],
    folder: Path,
    trained: bool,
) -> tuple[CalibrateReport, float, float]:
    """Calibrate a file in this process.

    Returns:
        The report, seconds, and the process's largest memory in GB.
    """
    request = CalibrateRequest(
        model=str(model),
        data=data,
        check=check,
        frames=frames[0],
        check_frames=frames[1],
        target=target,
        output=folder / f"{target}.onnx",
        out=folder / "out",
        threads=THREADS,
        measure_sensitivity=trained,
    )
    start = time.perf_counter()
    report = calibrate(request, print)
    return report, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def float32_bytes(path: Path) -> int:
    """Return the size of a file with float32 weights; the shipped file stores them in half precision."""
    from vmkla.engines.runners.model_file import open_model

    outline = open_model(path).outline
    return max(outline.size_bytes, 4 * outline.parameters)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--check", action="append", default=[])
    parser.add_argument("--test", action="append", default=[], metavar="NAME=DIR:LIST")
    parser.add_argument("--frames", type=int, default=FRAMES, help="to calibrate with")
    parser.add_argument("--check-frames", type=int, default=CHECK_FRAMES, help="to check the result with")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th test image")
    parser.add_argument("--busy", action="store_true", help=BUSY)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.md"))
    arguments = parser.parse_args()
    if not (profiles := other_cpus.available()):
        parser.error("the kinds of CPU are those of x86-64 with AVX2 and more")
    targets = TARGETS if profiles[-1].name == "vnni" else TARGETS[:1]
    parts = [f"{profile.described}: {what}" for profile in profiles for what in ("float32", "int8", "times")]
    how = "1 thread, processor time" if arguments.busy else f"{THREADS} threads"
    speed = Table(f"One frame, batch 1, {how}: ms, and times as fast", ("preset", "target", *parts))
    files = Table(f"The files, and what making them takes with {arguments.frames} frames", FILES)
    dice = Table("Shipped nano on test sets, against their masks", DICE)
    about = machine(THREADS)
    with tempfile.TemporaryDirectory() as text, exported("small") as small:
        copies = other_cpus.build(Path(text) / "copies")
        for preset, model in (("small", small), ("nano", weights.resolve("nano", ".onnx"))):
            trained = preset == "nano"
            tests = arguments.test if trained else []
            for target in targets:
                folder = Path(text) / preset / target
                counts = (arguments.frames, arguments.check_frames)
                report, seconds, memory = apart(
                    made,
                    model,
                    target,
                    tuple(arguments.data),
                    tuple(arguments.check),
                    counts,
                    folder,
                    trained,
                )
                share = report.size_bytes / float32_bytes(model)
                facts = report.calibration
                put_back = ", ".join(back["group"] for back in facts["put_back"]) or "-"
                layers = f"{facts['layers']} of {facts['of_layers']}"
                megabytes = report.size_bytes / 1e6
                files.add(preset, target, megabytes, share, layers, put_back, seconds, memory)
                cells: list[Any] = []
                for profile in profiles:
                    if target == "cpu-vnni" and profile.name != "vnni":
                        cells += [REFUSED, REFUSED, REFUSED]
                        continue
                    found = measured_as(
                        profile, copies, model, report.path, tests, every=arguments.every, busy=arguments.busy
                    )
                    before, after = found["ms"]
                    cells += [before, after, before / after]
                    for name, seen in found["sets"].items():
                        add_dice(dice, name, target, profile.described, seen)
                speed.add(preset, target, *cells)
                print(speed.markdown().splitlines()[-1], flush=True)
    speed.notes += [other_cpus.EXPLANATION, "", "cpu-vnni is refused without VNNI (status 6)."]
    lines = ["# INT8 on a CPU", "", *about, f"- load average after the run: {os.getloadavg()[0]:.2f}"]
    for table in (speed, files, dice):
        lines += ["", table.markdown()]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def add_dice(table: Table, name: str, target: Target, cpu: str, seen: dict[str, Any]) -> None:
    """Add the row of a test set."""
    found = seen["figures"]["dice"]
    table.add(
        name,
        seen["figures"]["frames"],
        target,
        cpu,
        *(f"{found[part]:.4f}" for part in ("reference", "candidate", "mean_drop", "worst_drop")),
        "; ".join(seen["failures"]) or "passed",
    )


if __name__ == "__main__":
    main()
