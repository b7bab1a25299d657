"""``--device cuda:0`` with an ONNX file, from the command line, on a machine whose driver is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from vmkla.cli.live import live_loader
from vmkla.engines.runners import onnxruntime_cuda
from vmkla.engines.tensorrt import machine
from vmkla.engines.tensorrt.manifest import GpuFacts
from vmkla.errors import MissingDependencyError

CPU = "CPUExecutionProvider"
RUNS = (
    ("infer", "--video", "CLIP", "--out", "OUT"),
    ("infer", "--video", "CLIP", "--runtime", "onnxruntime", "--out", "OUT"),
    ("bench", "--iterations", 1),
)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise MissingDependencyError("no NVIDIA driver (libcuda.so.1) here")

    monkeypatch.setattr(machine, "_driver", absent)


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("command", RUNS)
def test_without_a_gpu_the_message_says_what_was_looked_for(
    vmkla: Any, clip: Path, tmp_path: Path, command: tuple[Any, ...]
) -> None:
    out = tmp_path / "out"
    arguments = [{"CLIP": clip, "OUT": out}.get(word, word) for word in command]
    done = vmkla(*arguments, "--model", "nano", "--device", "cuda:0")
    assert done.status == 4 and "libcuda.so.1" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(("flag", "value"), [("--kernels", "native"), ("--threads", "2")])
def test_flags_of_the_cpu_are_usage_errors(vmkla: Any, flag: str, value: str) -> None:
    done = vmkla("bench", "--model", "nano", "--device", "cuda:0", flag, value)
    assert done.status == 2 and f"Leave {flag} out" in done.stderr


@pytest.mark.usefixtures("no_driver")
def test_live_mode_gives_a_gpu_no_threads() -> None:
    """They would be a usage error, and this is the error of the driver."""
    with pytest.raises(MissingDependencyError, match=r"libcuda.so.1"):
        live_loader("nano", "auto", "cuda:0", None, None)()


def test_verify_compares_the_gpu_with_the_cpu(
    vmkla: Any, tiny_onnx: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's CPU provider in the place of the CUDA provider: flags, threads and the report."""
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", CPU)
    monkeypatch.setattr(onnxruntime_cuda, "provider", lambda index: (CPU, {}))
    facts = GpuFacts("NVIDIA Test", "8.9", 40)
    monkeypatch.setattr(onnxruntime_cuda, "require_cuda", lambda index: (onnxruntime, facts))
    arguments = (
        "--source",
        clip,
        "--threads",
        1,
        "--device-b",
        "cuda:0",
        "--out",
        tmp_path / "out",
        "--json",
    )
    done = vmkla("verify", tiny_onnx, tiny_onnx, *arguments, "--locate")
    assert done.status == 2 and "ONNX Runtime on the CPU" in done.stderr
    done = vmkla("verify", tiny_onnx, tiny_onnx, *arguments)
    assert done.status == 0, done.stderr
    runtime = done.json["candidate_identity"]["runtime"] if "candidate_identity" in done.json else done.json
    assert "cuda:0" in str(runtime)
