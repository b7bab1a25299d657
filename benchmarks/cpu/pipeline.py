"""Measure `vmkla infer` and the command line as a user runs them, in processes of their own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import Table
from vmkla.engines import load_runner
from vmkla.runner import Runner
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment

VMKLA = str(Path(sys.executable).with_name("vmkla"))
BESIDE_THE_MODEL = ("decode", "preprocess", "postprocess", "overlay", "write")
HELP_RUNS = 15


def measure(threads: int) -> list[Table]:
    """Measure the cost beside the model, memory for clips of two lengths, and start-up."""
    columns = ["frames", "fps", "CPU ms per frame, all", "CPU ms per frame, all but the model"]
    columns += [f"{stage} p50 ms" for stage in ("inference", *BESIDE_THE_MODEL)]
    stages = Table(
        f"`vmkla infer` on a rendered 480x360 clip, nano, {threads} threads for the model",
        [*columns, "peak MB"],
        notes=[
            "Stages overlap: each is timed in its own thread, so their sum is not the time of a frame.",
            "Goals: all but the model at most 8 ms of CPU a frame; under 800 MB whatever the length.",
        ],
    )
    start = Table("Start-up", ("what", "median s", "goal"))
    help_s = statistics.median(timed([VMKLA, "--help"]) for _ in range(HELP_RUNS))
    start.add("`vmkla --help`", help_s, "under 0.3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, one = folder / "clip.mp4", folder / "one.mp4"
        sample = [VMKLA, "sample", str(clip), "--frames", "60", "--size", "360x480", "--quiet"]
        subprocess.run(sample, check=True, capture_output=True)
        repeat(clip, one, 1)
        one_s = statistics.median(infer(one, folder / f"one{i}", threads)[1] for i in range(5))
        start.add("`vmkla infer` on a clip of one frame, start to end", one_s, "under 2")
        for frames in (120, 1200):
            long = folder / f"{frames}.mp4"
            repeat(clip, long, frames)
            report, _, cpu_s, peak_mb = infer(long, folder / f"out{frames}", threads)
            p50 = [float(report["latency_ms"][s]["p50"]) for s in ("inference", *BESIDE_THE_MODEL)]
            beside = cpu_beside_the_model_ms(long, folder / f"beside{frames}", frames)
            stages.add(frames, float(report["fps"]), 1e3 * cpu_s / frames, beside, *p50, f"{peak_mb:.0f}")
    return [stages, start]


class NoModel:
    """A runner that returns the same disc at no cost, so that only the cost of everything else is left."""

    name = "none"

    def __init__(self, runner: Runner) -> None:
        self.spec = runner.spec
        rows, columns = np.mgrid[: self.spec.height, : self.spec.width]
        disc = np.hypot(rows - self.spec.height / 2, columns - self.spec.width / 3) < self.spec.height / 5
        self.probability = np.where(disc, 0.9, 0.1).astype(np.float32)[None, None]

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, H, W, 3) -> (n, 1, H, W)."""
        return np.repeat(self.probability, len(frames_rgb), axis=0)

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


def cpu_beside_the_model_ms(video: Path, out: Path, frames: int) -> float:
    """Measure the CPU time per frame of everything but the model, over all threads, in ms."""
    runner = load_runner("nano", threads=1)
    begun = time.process_time()
    segment(NoModel(runner), str(video), SegmentOptions(out_dir=out))
    spent = time.process_time() - begun
    runner.close()
    return 1e3 * spent / frames


def timed(command: list[str]) -> float:
    """Measure the wall time of a command, in s."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def infer(video: Path, out: Path, threads: int) -> tuple[dict[str, Any], float, float, float]:
    """Run `vmkla infer` once; return report.json, wall s, CPU s and peak MB."""
    script = (
        "import sys, time; from vmkla.cli.main import run\n"
        "try: run()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "from vmkla.engines.bench import peak_memory_bytes\n"
        "print(time.process_time(), peak_memory_bytes(), file=sys.stderr)"
    )
    command = ["infer", "--video", str(video), "--out", str(out), "--quiet", "--threads", str(threads)]
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, *command], check=True, capture_output=True, text=True
    )
    wall = time.perf_counter() - begun
    cpu_s, peak_bytes = (float(v) for v in done.stderr.split()[-2:])
    return json.loads((out / "report.json").read_text(encoding="utf-8")), wall, cpu_s, peak_bytes / 2**20


def repeat(clip: Path, to: Path, frames: int) -> None:
    """Write a clip of ``frames`` frames that plays the given one back and forth."""
    import av

    with av.open(str(clip)) as source:
        pictures = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    cycle = pictures + pictures[::-1]
    with av.open(str(to), "w") as sink:
        stream = sink.add_stream("libx264", rate=30)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(cycle[i % len(cycle)], format="rgb24")))
        sink.mux(stream.encode())
