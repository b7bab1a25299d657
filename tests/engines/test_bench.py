"""The measurement behind ``vmkla bench``."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.export.exported_models import frames
from vmkla.engines import bench, load_runner
from vmkla.errors import UsageError, VmklaError


def test_report(tiny_onnx: Path) -> None:
    runner = load_runner(tiny_onnx, threads=1)
    seen: list[int] = []
    report = bench.benchmark(
        runner, list(frames(2, 48, 80)), warmup=2, iterations=5, threads=1, progress=seen.append
    )
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    values = json.loads(json.dumps(report.to_dict()))
    assert set(values["latency_ms"]) == {"whole", "prepare", "infer", "restore"}
    for latency in values["latency_ms"].values():
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert values["latency_ms"]["infer"]["p50"] < values["latency_ms"]["whole"]["p50"]
    assert values["frame_hw"] == [48, 80]
    assert values["kernel_instruction_set"] in ("avx512", "avx2", "neon", "baseline")
    assert 20e6 < values["peak_memory_bytes"] < 100e9
    assert values["runtime"].startswith("onnxruntime ")


def test_percentiles() -> None:
    latency = bench.Latency.of([float(i) for i in range(101)])
    assert (latency.p50, latency.p95, latency.p99, latency.max) == (50, 95, 99, 100)


def test_throughput_counts_frames_and_time(tiny_onnx: Path) -> None:
    """A runner slowed to 10 ms cannot come out above 100 frames a second."""
    inner = load_runner(tiny_onnx, threads=1)

    class Slow:
        name, spec = inner.name, inner.spec

        def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            time.sleep(0.01)
            return inner.infer(frames_rgb)

        def close(self) -> None:
            inner.close()

    report = bench.benchmark(Slow(), list(frames(1)), warmup=0, iterations=3)
    assert 1 < report.fps < 100
    assert report.latency_ms["infer"].p50 >= 10


def test_what_is_not_finite_is_not_timed(tiny_onnx: Path) -> None:
    inner = load_runner(tiny_onnx, threads=1)

    class Broken:
        name, spec = inner.name, inner.spec

        def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return inner.infer(frames_rgb) * np.float32(np.nan)

        def close(self) -> None:
            inner.close()

    with pytest.raises(VmklaError, match="NaN or infinity"):
        bench.benchmark(Broken(), list(frames(1)), warmup=1, iterations=1)


def test_nothing_to_measure(tiny_onnx: Path) -> None:
    runner = load_runner(tiny_onnx, threads=1)
    for arguments in ({"frames": []}, {"frames": list(frames(1)), "iterations": 0}):
        with pytest.raises(UsageError, match="nothing to measure"):
            bench.benchmark(runner, **arguments)  # type: ignore[arg-type]
