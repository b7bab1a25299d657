"""Measure batches against ``vmkla infer``: two workers of one thread, one worker, and a long video in parts.

    python benchmarks/batch/throughput.py                 # 6 clips of 120 frames; wants a quiet machine
    python benchmarks/batch/throughput.py --clips 2 --frames 30 --long-frames 120

Wall times need a quiet machine. CPU times are those of all processes of a command, and need it less.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.common import Table

VMKLA = str(Path(sys.executable).with_name("vmkla"))


@dataclass(frozen=True)
class Cost:
    """Time of some commands, seconds.

    Attributes:
        wall_s: wall time.
        cpu_s: CPU time of all processes, user and system.
    """

    wall_s: float
    cpu_s: float


def cost(commands: Sequence[Sequence[object]]) -> Cost:
    """Run commands one after another, and return what they cost."""
    before, began_s = _cpu_s(), time.perf_counter()
    for command in commands:
        subprocess.run([VMKLA, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return Cost(time.perf_counter() - began_s, _cpu_s() - before)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _long_video(folder: Path, frames: int) -> Table:
    """Run one video whole and in parts."""
    archive = folder / "long"
    archive.mkdir()
    cost([("sample", archive / "long.mp4", "--frames", frames, "--quiet")])
    batch = ("batch", archive, "--workers", 2, "--threads", 1, "--quiet")
    runs = {
        "whole": cost([(*batch, "--part-s", 0, "--out", folder / "whole")]),
        "in parts of 2 s": cost([(*batch, "--part-s", 2, "--out", folder / "parts")]),
    }
    table = Table(
        f"One video of {frames} frames, 480x360, two workers of one thread",
        ("", "frames a second", "CPU s per frame"),
    )
    for name, each in runs.items():
        table.add(name, frames / each.wall_s, each.cpu_s / frames)
    return table


def main() -> None:
    """Render clips, run them in each way, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--long-frames", type=int, default=600, help="frames of the long video")
    arguments = parser.parse_args()
    frames, cores = arguments.clips * arguments.frames, len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "archive")
        archive.mkdir()
        clips = [archive / f"clip{seed}.mp4" for seed in range(arguments.clips)]
        for seed, clip in enumerate(clips):
            cost([("sample", clip, "--frames", arguments.frames, "--seed", seed, "--quiet")])
        quiet = "--quiet"
        runs = {
            "infer, one after another": cost(
                [("infer", "--video", clip, "--out", Path(folder, clip.stem), quiet) for clip in clips]
            ),
            "batch, one worker": cost(
                [("batch", archive, "--out", Path(folder, "one"), "--workers", 1, quiet)]
            ),
            "batch, two workers of one thread": cost(
                [("batch", archive, "--out", Path(folder, "two"), "--workers", 2, "--threads", 1, quiet)]
            ),
        }
        print(_long_video(Path(folder), arguments.long_frames).markdown())
    first = runs["infer, one after another"]
    columns = ("", "frames a second", "of infer", "CPU s per frame", "of infer")
    table = Table(f"{arguments.clips} clips of {arguments.frames} frames, 480x360, {cores} CPUs", columns)
    for name, each in runs.items():
        table.add(
            name,
            frames / each.wall_s,
            first.wall_s / each.wall_s,
            each.cpu_s / frames,
            each.cpu_s / first.cpu_s,
        )
    two = runs["batch, two workers of one thread"]
    possible = cores * frames / two.cpu_s
    table.notes.append(
        f"Two workers of one thread reach {frames / two.wall_s / possible:.2f} of what {cores} CPUs and "
        f"their CPU time per frame allow ({possible:.1f} frames a second)."
    )
    print(table.markdown())


if __name__ == "__main__":
    main()
