"""Check and time everything that needs a GPU on this machine's, and write benchmarks/<gpu>.md.

    python benchmarks/gpu_check.py                       # everything, some minutes
    python benchmarks/gpu_check.py --no-times            # correctness alone
    python benchmarks/gpu_check.py --only scan harness   # parts

| part | what |
|---|---|
| `scan` | the torch backends (Triton, mamba-ssm) against float64, and their times |
| `harness` | the CUDA kernels of the TensorRT plugin: compiled, held against float64, timed |
| `tensorrt-rtx` | engines of TensorRT-RTX as far as the GPU allows, against ONNX Runtime |
| `tensorrt` | engines of TensorRT with the plugin, where it is installed |

Each part stands alone: one that breaks is reported, and the others still run; the file is written after each.
On a machine without a network, from a checkout, with torch, numpy and CMake there:

    python -m pip install --no-build-isolation --no-deps -e . && python benchmarks/gpu_check.py

The engines' parts also want av, onnx and onnxruntime; `--models FILE.onnx ...` spares the export.

Exit status: 0 all right; 1 a part broke; 4 no GPU, or nothing could run; 5 a result is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import gpu_engines
import gpu_harness
import gpu_scan
import torch
from gpu_report import Part, Result, document, exit_status, machine, run_part, say, slug

HERE = Path(__file__).resolve().parent


def parts(args: argparse.Namespace, sm: int) -> list[Part]:
    """All of them, in order; ``sm`` is the GPU's compute capability, for instance 90."""
    return [
        Part("scan", "the scan in torch", lambda: gpu_scan.scan_part(times=not args.no_times)),
        Part(
            "harness",
            "the CUDA kernels",
            lambda: gpu_harness.harness_part(
                sm, args.work, times=not args.no_times, separate_ms=gpu_scan.separate_ms
            ),
        ),
        Part(
            "tensorrt-rtx",
            "engines of TensorRT-RTX",
            lambda: gpu_engines.engines_part("tensorrt-rtx", sm, args.models, args.work),
        ),
        Part(
            "tensorrt",
            "engines of TensorRT",
            lambda: gpu_engines.engines_part("tensorrt", sm, args.models, args.work),
        ),
    ]


def run_parts(chosen: Sequence[Part], gpu: str, about: Sequence[str], output: Path) -> list[Result]:
    """Run one after the other; the file grows with each, so that a cut loses the rest alone."""
    results: list[Result] = []
    for part in chosen:
        say(f"== {part.title}")
        results.append(run_part(part))
        say(f"{part.name}: {results[-1].verdict}")
        output.write_text(document(gpu, about, results), encoding="utf-8")
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-times", action="store_true", help="time neither the scan nor the kernels")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts to run; default: all")
    parser.add_argument("--models", nargs="+", type=Path, default=[], metavar="FILE", help="ONNX files")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu-check"), help="for what is built")
    parser.add_argument("--output", type=Path, help="default: benchmarks/<gpu>.md")
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        say(f"no CUDA GPU here (torch {torch.__version__}): nothing was checked")
        return 4
    major, minor = torch.cuda.get_device_capability()
    chosen = parts(args, 10 * major + minor)
    names = [part.name for part in chosen]
    if unknown := sorted(set(args.only or []) - set(names)):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(names)}")
    args.work.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.get_device_name()
    output = args.output or HERE / f"{slug(gpu)}.md"
    picked = [part for part in chosen if not args.only or part.name in args.only]
    results = run_parts(picked, gpu, machine(), output)
    for result in results:
        for line in result.outcome.wrong if result.outcome else ():
            say(f"WRONG: {line}")
    print(output)
    return exit_status(results)


if __name__ == "__main__":
    sys.exit(main())
