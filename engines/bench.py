"""Measure a runner's speed: latency per stage, throughput and memory, for ``vmkla bench``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.cpu_features import cpu_flags, cpu_name, kernel_instruction_set
from vmkla.cpus import cpu_budget
from vmkla.errors import UsageError, VmklaError
from vmkla.runner import Runner
from vmkla.segment.preprocess import restore
from vmkla.segment.steps import batch as batch_of
from vmkla.segment.steps import check, view


@dataclass(frozen=True)
class Latency:
    """Latency percentiles of one stage, ms."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Latency:
        """Compute the percentiles of measured times."""
        p50, p95, p99 = np.percentile(samples_ms, [50, 95, 99])
        return cls(float(p50), float(p95), float(p99), float(max(samples_ms)))


@dataclass(frozen=True)
class BenchReport:
    """Result of a measurement.

    Attributes:
        latency_ms: latency of one batch: ``whole``, and the stages ``prepare``, ``infer``, ``restore``.
        fps: frames per second, one batch after the other.
        iterations, warmup: number of batches that were measured, and before those.
        batch: frames in a batch.
        frame_hw: height and width of the frames, px.
        peak_memory_bytes: largest resident size of this process so far.
        kernel_instruction_set: instruction set of vmkla's kernels; None where they are not used.
        cpu: name of the CPU.
        cpu_flags: its instruction sets, see ``cpu_features.FLAGS``.
        cores: CPUs that this process may use, within its affinity and quota.
        quota: CPUs that its control groups allow; None without a quota.
        threads: threads of a runtime on the CPU; None on a GPU.
        runner, runtime, device, kernels, notes, path, sha256: the runner's name and spec.
    """

    latency_ms: dict[str, Latency]
    fps: float
    iterations: int
    warmup: int
    batch: int
    frame_hw: tuple[int, int]
    peak_memory_bytes: int
    kernel_instruction_set: str | None
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    quota: float | None
    threads: int | None
    runner: str
    runtime: str
    device: str
    kernels: str
    notes: tuple[str, ...]
    path: str
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return dataclasses.asdict(self)


def benchmark(
    runner: Runner,
    frames: Sequence[npt.NDArray[np.uint8]],
    *,
    warmup: int = 10,
    iterations: int = 100,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> BenchReport:
    """Time a runner from frame to restored probability.

    Args:
        runner: a loaded model.
        frames: (H, W, 3) uint8 RGB each, all of the same size, used in turn; at least one.
        warmup: number of batches before the measurement.
        iterations: number of measured batches, at least 1.
        threads: threads that the runner was loaded with; None for its own choice.
        progress: called with the number of each finished batch, from 1, warm-up included.
    Raises:
        UsageError: there is no frame or no batch to measure.
        ShapeError, VmklaError: the output is not a probability, see ``steps.check``.
    """
    if not frames or iterations < 1 or warmup < 0:
        raise UsageError(
            f"nothing to measure: {len(frames)} frames, {iterations} iterations, {warmup} warm-up batches"
        )
    batch = runner.spec.batch or 1
    spec = runner.spec.metadata.preprocess
    flags = cpu_flags()  # before the measurement: it fails where the library is missing
    times_ms: dict[str, list[float]] = {"whole": [], "prepare": [], "infer": [], "restore": []}
    for i in range(warmup + iterations):
        chosen = [frames[(i * batch + j) % len(frames)] for j in range(batch)]
        marks = [time.perf_counter()]
        views = [view(frame, spec) for frame in chosen]
        inputs = batch_of([seen.pixels_rgb for seen in views])
        marks.append(time.perf_counter())
        probability = runner.infer(inputs)
        marks.append(time.perf_counter())
        for values, seen, frame in zip(probability, views, chosen, strict=True):
            height, width = frame.shape[:2]
            restore(values, seen.rect, (height, width))
        marks.append(time.perf_counter())
        check(probability, runner.spec, batch)
        if i >= warmup:
            for stage, start, end in zip(("prepare", "infer", "restore"), marks, marks[1:], strict=False):
                times_ms[stage].append((end - start) * 1e3)
            times_ms["whole"].append((marks[-1] - marks[0]) * 1e3)
        if progress is not None:
            progress(i + 1)
    height, width = frames[0].shape[:2]
    budget = cpu_budget()
    return BenchReport(
        latency_ms={stage: Latency.of(samples) for stage, samples in times_ms.items()},
        fps=batch * iterations / (sum(times_ms["whole"]) / 1e3),
        iterations=iterations,
        warmup=warmup,
        batch=batch,
        frame_hw=(height, width),
        peak_memory_bytes=peak_memory_bytes(),
        kernel_instruction_set=kernel_instruction_set() if runner.spec.kernels == "native" else None,
        cpu=cpu_name(),
        cpu_flags=flags,
        cores=budget.cpus,
        quota=budget.quota,
        threads=budget.threads if threads is None and runner.spec.device == "cpu" else threads,
        runner=runner.name,
        runtime=runner.spec.runtime,
        device=runner.spec.device,
        kernels=runner.spec.kernels,
        notes=runner.spec.notes,
        path=runner.spec.path,
        sha256=runner.spec.sha256,
    )


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far, bytes.

    It is read from /proc: ``getrusage`` begins at the size of the parent process.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise VmklaError("/proc/self/status has no line VmHWM, so the peak of memory is unknown")
