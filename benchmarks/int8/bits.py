"""Compare weights of 7 bits, 8 bits, and 8 bits in ONNX Runtime's precise mode on CPUs with and without VNNI.

    python benchmarks/int8/bits.py --data DIR:LIST --test NAME=DIR:LIST ... [--every N] [--out FILE]

Quantizes all of shipped ``nano``, and runs each file as each kind of CPU that this one can be (see
``tests/other_cpus``). Writes the section "Bits of a weight" of ``benchmarks/int8/choices.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.common import Table, replace_section
from benchmarks.cpu.run import machine
from benchmarks.int8.measure import BUSY, THREADS, measured_as, other_cpus
from vmkla import weights
from vmkla.calibration.artefact import open_artefact
from vmkla.calibration.channels import measure_channels
from vmkla.calibration.equalise import equalise, find_divisors
from vmkla.calibration.layers import Target
from vmkla.calibration.ranges import measure_ranges
from vmkla.calibration.reader import FrameSet, read_frames

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
    """Quantize all layers of the shipped ``nano`` for a target."""
    source = open_artefact(weights.resolve("nano", ".onnx"), target, "fp32")
    given: dict[str, Any] = {"input_type": "uint8", "batch": None, "threads": THREADS}
    channels = measure_channels(source.model, source.layers, frames.frames, **given)
    divisors = find_divisors(source.model, source.layers, channels)
    model, layers = equalise(source.model, source.layers, divisors)
    equalised, path = folder / "equalised.onnx", folder / f"{target}.onnx"
    equalised.write_bytes(model.SerializeToString())
    ranges = measure_ranges(equalised, layers, frames.frames, "percentile", **given)
    source.write_quantized(source.layers, ranges, path, divisors=divisors)
    return path


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", required=True, metavar="DIR:LIST")
    parser.add_argument("--test", action="append", required=True, metavar="NAME=DIR:LIST")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th test image")
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--busy", action="store_true", help=BUSY)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("choices.md"))
    arguments = parser.parse_args()
    if not (profiles := other_cpus.available()):
        parser.error("the kinds of CPU are those of x86-64 with AVX2 and more")
    about = machine(THREADS)
    table = Table(TITLE, COLUMNS)
    nano = weights.resolve("nano", ".onnx")
    preprocess = open_artefact(nano, "cpu", "fp32").metadata.preprocess
    frames = read_frames(arguments.data, preprocess, count=arguments.frames, check_count=0)
    with tempfile.TemporaryDirectory() as text:
        copies = other_cpus.build(Path(text) / "copies")
        files = {target: quantized(target, frames, Path(text)) for _, target, _ in VARIANTS}
        for profile in profiles:
            for variant, target, precise in VARIANTS:
                found = measured_as(
                    profile, copies, nano, files[target], arguments.test,
                    every=arguments.every, precise=precise, busy=arguments.busy,
                )  # fmt: skip
                before, after = found["ms"]
                for name, seen in found["sets"].items():
                    figures = seen["figures"]
                    dice, error = figures["dice"], figures["probability_error"]
                    table.add(
                        profile.described,
                        variant,
                        f"{name}, {figures['frames']}",
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
        f"Written by `benchmarks/int8/bits.py --frames {arguments.frames} --every {arguments.every}"
        f"{' --busy' if arguments.busy else ''}`; "
        "everything is quantized, nothing put back. " + other_cpus.EXPLANATION,
        "",
        "`--target cpu` takes 7 bits: without VNNI they are faster than the precise mode and compute what "
        "they compute with VNNI, and they lose about as much Dice as 8. `--target cpu-vnni` takes 8.",
    ]
    replace_section(arguments.out, TITLE, table.markdown())


if __name__ == "__main__":
    main()
