"""Measure time and memory of TensorRT-RTX builds on this CPU; write benchmarks/gpu/tensorrt-rtx.md.

    python benchmarks/gpu/build.py                  # nano and small, float32 and half: about three minutes
    python benchmarks/gpu/build.py --presets nano

Each engine is built by `vmkla build` in a process of its own, for every GPU that TensorRT-RTX builds these
networks for. No GPU is needed; the weights are random, since neither time nor memory depends on them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.common import SIZE, Table
from vmkla.cpu_features import cpu_name

HERE = Path(__file__).resolve().parent
VMKLA = Path(sys.executable).with_name("vmkla")
SECONDS_GOAL, GIGABYTES_GOAL = 300, 6.0


@dataclass(frozen=True)
class Measured:
    """One run of a command.

    Attributes:
        seconds: of wall time, the start of Python included.
        peak_bytes: largest resident size.
        document: what it printed with ``--json``.
    """

    seconds: float
    peak_bytes: int
    document: dict[str, Any]


def run_vmkla(*arguments: str, threads: int) -> Measured:
    """Run a command with ``--json``; ends the benchmark when it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile("w+") as stdout:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [str(VMKLA), *arguments, "--json", "--quiet"], stdout=stdout, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"vmkla {' '.join(arguments)} ended with {process.returncode}")
        stdout.seek(0)
        return Measured(seconds, usage.ru_maxrss * 1024, json.load(stdout))


def build_table(presets: list[str], precisions: list[str], threads: int) -> Table:
    """Build each preset in each precision; return one row for each."""
    table = Table(
        f"Engine builds, {SIZE}x{SIZE}, batch 1",
        ("preset", "precision", "ONNX MB", "layers", "engine MB", "s", "peak GB", "GPUs (SM)"),
        notes=[
            "Seconds and peak resident memory are of the whole `vmkla build`; layers are the parser's.",
            f"Goal for `small` on two cores: under {SECONDS_GOAL} s and {GIGABYTES_GOAL:g} GB.",
            "SM 75 (Turing) is left out: TensorRT-RTX has no float32 matrix product there, and the scan's "
            "state is float32. SM 87, 90, 100 and 110 are not among its targets: TensorRT serves them.",
            "No engine of this table has been run on a GPU.",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        for preset in presets:
            for precision in precisions:
                print(f"{preset}, {precision}", file=sys.stderr, flush=True)
                table.add(*_row(preset, precision, Path(folder), threads))
    return table


def _row(preset: str, precision: str, folder: Path, threads: int) -> list[object]:
    model, plan = folder / f"{preset}.{precision}.onnx", folder / f"{preset}.{precision}.plan"
    size = ("--imgsz", str(SIZE), "--batch", "1")
    weights = ("--random-weights", "--skip-gates", "--precision", precision)
    run_vmkla("export", "--model", preset, "--output", str(model), *size, *weights, threads=threads)
    built = run_vmkla(
        "build", str(model), "--runtime", "tensorrt-rtx", "--output", str(plan), threads=threads
    )
    manifest = built.document["manifest"]
    row: list[object] = [
        preset,
        precision,
        model.stat().st_size / 1e6,
        sum(built.document["layers"].values()),
        manifest["engine_bytes"] / 1e6,
        built.seconds,
        built.peak_bytes / 1e9,
        " ".join(map(str, manifest["target_sms"])),
    ]
    model.unlink()
    plan.unlink()
    return row


def main() -> int:
    """Build the engines and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", default=["nano", "small"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "fp16"), default=["fp32", "fp16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE / "tensorrt-rtx.md")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    table = build_table(args.presets, args.precisions, args.threads)
    lines = [
        "# TensorRT-RTX engines built without a GPU",
        "",
        "Written by `python benchmarks/gpu/build.py`; one run of each.",
        "",
        f"- {datetime.date.today().isoformat()}, {cpu_name()}, {len(os.sched_getaffinity(0))} CPUs",
        f"- {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"tensorrt-rtx {importlib.metadata.version('tensorrt-rtx-cu13')}",
        f"- load average before the run: {load:.2f}",
        "",
        table.markdown(),
    ]
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
