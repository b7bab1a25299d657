"""What INT8's weights may have on a CPU without VNNI: 7 bits, 8 bits, or 8 in ONNX Runtime's precise mode.

    python benchmarks/int8_bits.py --data DIR:LIST --test NAME=DIR:LIST ... [--every N] [--out FILE]

Quantizes all of shipped ``nano``, and runs each file as each kind of CPU that this one can be (see
``tests/other_cpus``). Writes the section "Bits of a weight" of ``benchmarks/int8_choices.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Table, replace_section
from cpu import machine

from vmkla import weights
from vmkla.calibration.artefact import open_artefact
from vmkla.calibration.channels import measure_channels
from vmkla.calibration.equalise import equalise, find_divisors
from vmkla.calibration.layers import Target
from vmkla.calibration.ranges import measure
from vmkla.calibration.reader import FrameSet, read_frames
from vmkla.data import DataSource, iter_samples
from vmkla.engines import onnxruntime_runner
from vmkla.engines.clinical import verify_runners
from vmkla.engines.onnxruntime_runner import OnnxRuntimeRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import other_cpus

THREADS = 2
REPEATS = 60
TITLE = "Bits of a weight"
COLUMNS = (
    "CPU", "weights", "set", "mean drop", "worst drop", "probability error, mean", "largest",
    "float32 ms", "int8 ms", "times as fast",
)  # fmt: skip
VARIANTS: tuple[tuple[str, Target, bool], ...] = (
    ("8 bits", "cpu-vnni", False),
    ("8 bits, precise mode", "cpu-vnni", True),
    ("7 bits", "cpu", False),
)


def quantized(target: Target, frames: FrameSet, folder: Path) -> Path:
    """Shipped ``nano`` with everything quantized for a target."""
    source = open_artefact(weights.resolve("nano", ".onnx"), target, "fp32")
    given: dict[str, Any] = {"input_type": "uint8", "batch": None, "threads": THREADS}
    channels = measure_channels(source.path, source.layers, frames.frames, **given)
    divisors = find_divisors(source.model, source.layers, channels)
    model, layers = equalise(source.model, source.layers, divisors)
    equalised, path = folder / "equalised.onnx", folder / f"{target}.onnx"
    equalised.write_bytes(model.SerializeToString())
    ranges = measure(equalised, layers, frames.frames, "percentile", **given)
    source.quantized(source.layers, ranges, path, divisors=divisors)
    return path


def judge(path: Path, tests: list[str], every: int, *, precise: bool) -> dict[str, Any]:
    """Measure a file in this process, whatever CPU it runs as."""
    onnxruntime_runner.missing_for_int8 = lambda: None  # what is refused is what is measured here
    reference = OnnxRuntimeRunner(weights.resolve("nano", ".onnx"), threads=THREADS)
    if precise:
        other_cpus.ask_for_precise_mode()
    candidate = OnnxRuntimeRunner(path, threads=THREADS, warn_unverified=False)
    sets = {}
    for test in tests:
        name, _, what = test.partition("=")
        report = verify_runners(reference, candidate, list(iter_samples([DataSource.parse(what)]))[::every])
        sets[f"{name}, {report.figures['frames']}"] = report.figures
    spec = reference.spec
    frame = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
    seconds: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for runner, seen in zip((reference, candidate), seconds, strict=True):
            begun = time.perf_counter()
            runner.infer(frame)
            seen.append(time.perf_counter() - begun)
    return {"sets": sets, "ms": [1e3 * statistics.median(values[3:]) for values in seconds]}


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", metavar="DIR:LIST")
    parser.add_argument("--test", action="append", required=True, metavar="NAME=DIR:LIST")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th test image")
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("int8_choices.md"))
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precise", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge is not None:
        print(json.dumps(judge(arguments.judge, arguments.test, arguments.every, precise=arguments.precise)))
        return
    about = machine(THREADS)
    table = Table(TITLE, COLUMNS)
    preprocess = open_artefact(weights.resolve("nano", ".onnx"), "cpu", "fp32").metadata.preprocess
    frames = read_frames(arguments.data, preprocess, count=arguments.frames, check_count=0)
    with tempfile.TemporaryDirectory() as text:
        copies = other_cpus.build(Path(text) / "copies")
        files = {target: quantized(target, frames, Path(text)) for target in ("cpu", "cpu-vnni")}
        for profile in other_cpus.PROFILES.values():
            for variant, target, precise in VARIANTS if profile.runs_here() else ():
                command = [sys.executable, __file__, "--judge", files[target], "--every", arguments.every]
                command += [word for test in arguments.test for word in ("--test", test)]
                command += ["--precise"] if precise else []
                done = subprocess.run(
                    [str(word) for word in command],
                    env=other_cpus.environment(profile.name, copies) | {"OMP_NUM_THREADS": str(THREADS)},
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                found = json.loads(done.stdout.splitlines()[-1])
                before, after = found["ms"]
                for name, seen in found["sets"].items():
                    dice, error = seen["dice"], seen["probability_error"]
                    table.add(
                        profile.label,
                        variant,
                        name,
                        f"{dice['mean_drop']:.4f}",
                        f"{dice['worst_drop']:.3f}",
                        f"{error['mean']:.1e}",
                        f"{error['max']:.3f}",
                        before,
                        after,
                        before / after,
                    )
                    print(table.markdown().splitlines()[-1], flush=True)
    table.notes += [
        *about,
        f"- load average after the run: {os.getloadavg()[0]:.2f}",
        "",
        f"Written by `benchmarks/int8_bits.py --every {arguments.every}`; everything is quantized, nothing "
        "put back. The kinds of CPU are this one with instruction sets hidden from ONNX Runtime and from "
        "vmkla's kernels. `--target cpu` takes 7 bits, `--target cpu-vnni` 8.",
    ]
    replace_section(arguments.out, TITLE, table.markdown())


if __name__ == "__main__":
    main()
