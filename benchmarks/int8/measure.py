"""Compare an INT8 file with a float32 file on one kind of CPU; ``run.py`` and ``bits.py`` run this script.

python benchmarks/int8/measure.py FLOAT32 INT8 [--test NAME=DIR:LIST ...] [--every N] [--precise] [--busy]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import numpy as np

from tests import other_cpus
from vmkla.data import DataSource, iter_samples
from vmkla.engines.runners import onnxruntime_runner
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner
from vmkla.engines.verify.clinical import verify_runners

THREADS = 2
REPEATS = 60
BUSY = "for a machine with other work: time one thread, by the clock that stops while others run"


def measured_as(
    profile: other_cpus.Profile,
    copies: Path,
    float32: Path,
    int8: Path,
    tests: Sequence[str] = (),
    *,
    every: int = 1,
    precise: bool = False,
    busy: bool = False,
) -> dict[str, Any]:
    """Call ``measure`` in a process of its own that runs as another CPU.

    Args:
        profile: the kind of CPU.
        copies: of ``other_cpus.build``.
        float32, int8: the files.
        tests: sets with masks, ``NAME=DIR:LIST``.
        every: take every so many-th image.
        precise: ask ONNX Runtime for products that are exact on every CPU.
        busy: the machine has other work: time one thread, by the clock that stops while others run.
    """
    command: list[str | Path] = [sys.executable, Path(__file__), float32, int8, "--every", str(every)]
    command += [word for test in tests for word in ("--test", test)]
    command += [*(["--precise"] if precise else []), *(["--busy"] if busy else [])]
    environment = other_cpus.environment(profile.name, copies)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(float32: Path, int8: Path, tests: Sequence[str], every: int, *, busy: bool) -> dict[str, Any]:
    """Compare two files in this process.

    Returns:
        ``sets``: figures and failed gates by name; ``ms``: medians of a frame by both files, in turns, so
        that both see the same load.
    """
    reference = OnnxRuntimeRunner(float32, threads=THREADS, warn_unverified=False)
    candidate = OnnxRuntimeRunner(int8, threads=THREADS, warn_unverified=False)
    sets = {}
    for test in tests:
        name, _, what = test.partition("=")
        samples = list(iter_samples([DataSource.parse(what)]))[::every]
        report = verify_runners(reference, candidate, samples)
        sets[name] = {"figures": report.figures, "failures": report.failures}
    clock, threads = (time.process_time, 1) if busy else (time.perf_counter, THREADS)
    runners = [OnnxRuntimeRunner(path, threads=threads, warn_unverified=False) for path in (float32, int8)]
    spec = reference.spec
    frame = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for runner, seen in zip(runners, seconds, strict=True):
            begun = clock()
            runner.infer(frame)
            seen.append(clock() - begun)
    return {"sets": sets, "ms": [1e3 * statistics.median(values[3:]) for values in seconds]}


def main() -> None:
    """Print the result of ``measure`` as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("float32", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("--test", action="append", default=[])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--precise", action="store_true")
    parser.add_argument("--busy", action="store_true")
    arguments = parser.parse_args()
    onnxruntime_runner.missing_for_int8 = lambda: None  # what is refused is measured, too
    if arguments.precise:
        other_cpus.ask_for_precise_mode()
    found = measure(arguments.float32, arguments.int8, arguments.test, arguments.every, busy=arguments.busy)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
