"""Whole networks in ONNX Runtime with vmkla's kernels, and in OpenVINO."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from common import SIZE, Table, apart, exported, median_ms

DENSE = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Conv", "FusedConv"}
RUNS = 30
GOALS = {"small": 1.7, "nano": 2.5}


def measure(threads: int) -> list[Table]:
    """Latency beside OpenVINO, and where the time goes."""
    latency = Table(
        f"One frame, {SIZE}x{SIZE}, batch 1, FP32, {threads} threads",
        ("preset", "runtime", "median ms"),
        notes=[
            "OpenVINO gets the same exported file with the function bodies written into the graph.",
            "The last row of each preset is the same file with every scan left out (its input passed on).",
        ],
    )
    ratio = Table(
        "Kernel time in ONNX Runtime, ms per frame (medians of its own profile)",
        ("preset", "all kernels", "MatMul + Gemm + Conv", "ratio", "goal at most"),
    )
    where = Table("Where the rest goes, ms per frame", ("preset", "op", "kernels per frame", "ms"))
    for preset in ("small", "nano"):
        with exported(preset) as path:
            frame = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
            latency.add(
                preset, "ONNX Runtime, vmkla kernels", apart(ort_latency, path, frame, threads, "native")
            )
            latency.add(
                preset, "ONNX Runtime, function bodies", apart(ort_latency, path, frame, threads, "bodies")
            )
            latency.add(preset, "OpenVINO, same file", apart(openvino_latency, path, frame, threads))
            stripped = without_scans(path)
            latency.add(preset, "OpenVINO, scans left out", apart(openvino_latency, stripped, frame, threads))
            per_op = apart(profile, path, frame, threads)
        total = sum(ms for _, ms in per_op.values())
        dense = sum(ms for op, (_, ms) in per_op.items() if op in DENSE)
        ratio.add(preset, total, dense, total / dense, GOALS[preset])
        for op, (count, ms) in sorted(per_op.items(), key=lambda item: -item[1][1])[:14]:
            where.add(preset, op, f"{count:.0f}", ms)
    return [latency, ratio, where]


def ort_latency(path: Path, frame: Any, threads: int, kernels: str) -> float:
    """Median latency through vmkla's runner, ms."""
    from vmkla.engines import load_runner

    runner = load_runner(path, "onnxruntime", threads=threads, kernels=kernels)
    try:
        return median_ms(lambda: runner.infer(frame), repeats=RUNS)
    finally:
        runner.close()


def openvino_latency(path: Path, frame: Any, threads: int) -> float | str:
    """Median latency of OpenVINO, ms, or why there is none."""
    import onnx
    import onnx.inliner

    try:
        import openvino
    except ImportError:
        return "not installed"
    # OpenVINO reads no model-local functions, so their bodies are written into the graph first.
    inlined = path.with_name(f"{path.stem}.inlined.onnx")
    onnx.save(onnx.inliner.inline_local_functions(onnx.load(path)), inlined)
    path = inlined
    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        return f"refused: {' '.join(str(error).split())[-90:]}"
    return median_ms(lambda: request.infer({0: frame}), repeats=RUNS)


def without_scans(path: Path) -> Path:
    """The file with ``u`` in place of every scan's output."""
    import onnx

    model = onnx.load(path)
    for node in [node for node in model.graph.node if node.op_type == "SelectiveScan2d"]:
        node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name))
    stripped = path.with_name(f"{path.stem}.without_scans.onnx")
    onnx.save(model, stripped)
    return stripped


def profile(path: Path, frame: Any, threads: int) -> dict[str, tuple[float, float]]:
    """Op type to kernels and ms per frame: sums over nodes of their medians over RUNS frames."""
    from vmkla.engines.custom_ops import register
    from vmkla.imports import require

    onnxruntime = require("onnxruntime", extra=None, purpose="this benchmark")

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        register(options)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS):
            session.run(None, {"frames": frame})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)  # (op, node) -> ms, one a frame
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
    per_op: dict[str, tuple[float, float]] = {}
    for (op, _), values in times.items():
        count, ms = per_op.get(op, (0.0, 0.0))
        per_op[op] = (count + len(values) / RUNS, ms + statistics.median(values) * len(values) / RUNS)
    return per_op
