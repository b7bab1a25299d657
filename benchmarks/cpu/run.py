"""Measure vmkla on this CPU and write the tables of benchmarks/cpu/results.md.

    python benchmarks/cpu/run.py                      # everything, about fifteen minutes on two cores
    python benchmarks/cpu/run.py --only graphs scan   # parts

Medians of one run on a machine that should be doing nothing else. `pip install openvino` adds its rows.
A CPU with AVX-512 also gets a column as a CPU without it (``other_cpu.py``).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.common import Table
from benchmarks.cpu import graphs, kernels, pipeline
from vmkla.cpu_features import cpu_flags, cpu_name, kernel_instruction_set

HERE = Path(__file__).resolve().parent
PARTS: dict[str, Callable[[int], list[Table]]] = {
    "graphs": graphs.measure,
    "sizes": graphs.measure_sizes,
    "scan": kernels.measure_scan,
    "frame": kernels.measure_reference_frame,
    "training": kernels.measure_training_step,
    "pipeline": pipeline.measure,
}


def machine(threads: int) -> list[str]:
    """Describe the machine that was measured."""
    packages = ("torch", "onnxruntime", "numpy", "opencv-python", "av", "openvino")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return [
        f"- {datetime.date.today().isoformat()}, {cpu_name()}, {len(os.sched_getaffinity(0))} CPUs, "
        f"{threads} threads used",
        f"- instruction sets: {' '.join(cpu_flags())}; vmkla's kernels use {kernel_instruction_set()}",
        f"- {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{', '.join(versions)}",
        f"- load average before the run: {os.getloadavg()[0]:.2f}",
    ]


def main() -> int:
    """Measure the parts and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--output", type=Path, default=HERE / "results.md")
    args = parser.parse_args()
    lines = ["# Speed and memory on a CPU", ""]
    only = "" if args.only == list(PARTS) else f" --only {' '.join(args.only)}"
    command = f"python benchmarks/cpu/run.py --threads {args.threads}{only}"
    lines += [f"Written by `{command}`; medians of one run.", ""]
    lines += [*machine(args.threads), ""]
    for name in PARTS:
        if name in args.only:
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            for table in PARTS[name](args.threads):
                print(table.markdown(), file=sys.stderr, flush=True)
                lines += [table.markdown(), ""]
    args.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
