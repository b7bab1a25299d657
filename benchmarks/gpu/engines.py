"""The step of `make gpu-proof` that builds and times engines, for each runtime that is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from benchmarks.gpu.process import call
from benchmarks.gpu.records import Context, Recorder
from vmkla.engines.runners.onnxruntime_cuda import require_cuda
from vmkla.errors import MissingDependencyError

MODEL = Path(__file__).resolve().parents[2] / "vmkla" / "weights" / "nano.onnx"
VMKLA = (sys.executable, "-c", "from vmkla.cli.main import run; run()")
FAILED_GATE = 5
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def missing(runtime: str) -> str:
    """Return why a runtime cannot be used here; an empty text when it can."""
    if runtime in MODULES:
        here = importlib.util.find_spec(MODULES[runtime]) is not None
        return "" if here else f"the Python package {MODULES[runtime]} is not installed here"
    try:
        require_cuda(0)
    except MissingDependencyError as error:
        return error.message
    return ""


def engines(context: Context, out: Recorder) -> None:
    """Run `nano` with each runtime on the GPU; `vmkla build` verifies an engine before it keeps it."""
    for runtime in (*MODULES, "onnxruntime"):
        what = f"`nano` by {runtime}{' on CUDA' if runtime == 'onnxruntime' else ''}"
        if reason := missing(runtime):
            out.absent(what, reason)
            continue
        if context.dry:
            out.absent(what, "dry run without a GPU")
            continue
        model, device = MODEL, ("--runtime", runtime, "--device", "cuda:0")
        if runtime in MODULES:
            model = context.work / f"nano.{runtime}.plan"
            build = ("build", MODEL, "--runtime", runtime, "--output", model, "--quiet")
            done = call((*VMKLA, *build), context.seconds)
            if done.status == FAILED_GATE:
                out.wrong(f"{what}: vmkla build: {done.reason}")
            if done.status != 0:  # a GPU that the library does not list is refused: no wrong result
                out.absent(what, f"vmkla build: {done.reason}")
                continue
        done = call((*VMKLA, "bench", "--model", model, *device, "--json"), context.seconds)
        if done.status != 0:
            out.absent(what, f"vmkla bench: {done.reason}")
            continue
        latency = json.loads(done.stdout)["latency_ms"]["whole"]
        cells = {name: latency[name] for name in ("p50", "p99")}
        out.row("Latency of `nano`, one frame, ms", {"runtime": runtime, **cells})
