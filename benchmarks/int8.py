"""INT8 against float32 on this CPU: speed, size and Dice; writes ``benchmarks/int8.md``.

    python benchmarks/int8.py --data DIR [--check DIR] [--test NAME=DIR:LIST ...] [--out FILE]

``small`` has random weights: speed and size do not depend on them.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Table, apart, exported
from cpu import machine

from vmkla import weights
from vmkla.calibration.calibrate import CalibrateReport, calibrate
from vmkla.calibration.request import CalibrateRequest
from vmkla.data import DataSource, iter_samples
from vmkla.engines.clinical import verify_runners
from vmkla.engines.onnxruntime_runner import OnnxRuntimeRunner

THREADS = 2
REPEATS = 60
SPEED = ("preset", "float32 ms", "int8 ms", "times as fast", "MB", "of float32 MB", "layers", "put back")

DICE = ("set", "images", "Dice float32", "Dice int8", "mean drop", "worst drop", "all gates")


def made(
    model: Path, data: tuple[str, ...], check: tuple[str, ...], folder: Path, trained: bool
) -> tuple[CalibrateReport, float, float]:
    """Calibrate a file in this process.

    Returns:
        The report, seconds, and the process's largest memory in GB.
    """
    request = CalibrateRequest(
        model=str(model),
        data=data,
        check=check,
        target="cpu",
        output=folder / "int8.onnx",
        out=folder / "out",
        threads=THREADS,
        measure_sensitivity=trained,
    )
    start = time.perf_counter()
    report = calibrate(request, print)
    return report, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def alternating_ms(paths: tuple[Path, Path]) -> tuple[float, float]:
    """Median of a frame by each file, run in turns so that both see the same load."""
    runners = [OnnxRuntimeRunner(path, threads=THREADS, warn_unverified=False) for path in paths]
    spec = runners[0].spec
    frame = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for runner, seen in zip(runners, seconds, strict=True):
            start = time.perf_counter()
            runner.infer(frame)
            seen.append(time.perf_counter() - start)
    before, after = (1e3 * statistics.median(values[3:]) for values in seconds)
    return before, after


def float32_bytes(path: Path) -> int:
    """Size of a file with its weights stored as float32: the shipped file stores them in half."""
    from vmkla.engines.onnx_file import read_outline

    outline = read_outline(path)
    return max(outline.size_bytes, 4 * outline.parameters)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--check", action="append", default=[])
    parser.add_argument("--test", action="append", default=[], metavar="NAME=DIR:LIST")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("int8.md"))
    arguments = parser.parse_args()
    speed = Table("One frame, batch 1, 2 threads", SPEED)
    cost = Table("Calibration, 2 threads", ("preset", "frames", "s", "largest memory GB"))
    dice = Table("Shipped nano on test sets, against their masks", DICE)
    about = machine(THREADS)
    with tempfile.TemporaryDirectory() as text, exported("small") as small:
        for preset, model in (("small", small), ("nano", weights.resolve("nano", ".onnx"))):
            folder = Path(text) / preset
            trained = preset == "nano"
            report, seconds, memory = apart(
                made, model, tuple(arguments.data), tuple(arguments.check), folder, trained
            )
            before, after = alternating_ms((model, report.path))
            share = report.size_bytes / float32_bytes(model)
            facts = report.calibration
            put_back = ", ".join(back["group"] for back in facts["put_back"]) or "-"
            layers = f"{facts['layers']} of {facts['of_layers']}"
            megabytes = report.size_bytes / 1e6
            speed.add(preset, before, after, before / after, megabytes, share, layers, put_back)
            cost.add(preset, facts["data"]["frames"], seconds, memory)
            for test in arguments.test if trained else ():
                name, _, source = test.partition("=")
                reference, candidate = (
                    OnnxRuntimeRunner(path, threads=THREADS) for path in (model, report.path)
                )
                seen = verify_runners(reference, candidate, iter_samples([DataSource.parse(source)]))
                found = seen.figures["dice"]
                dice.add(
                    name,
                    seen.figures["frames"],
                    *(f"{found[part]:.4f}" for part in ("reference", "candidate", "mean_drop", "worst_drop")),
                    "passed" if seen.passed else "; ".join(seen.failures),
                )
    lines = ["# INT8 on a CPU", "", *about]
    for table in (speed, cost, dice):
        lines += ["", table.markdown()]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
