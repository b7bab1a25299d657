"""Measure whole networks in ONNX Runtime with vmkla's kernels, and in OpenVINO."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import SIZE, Table, apart, exported, median_ms
from benchmarks.cpu.other_cpu import children_as, kinds

DENSE = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Conv", "FusedConv"}
RUNS = 30
GOALS = {"small": 1.7, "nano": 2.5}
SIDES = (192, 256)
AS_AVX2 = (
    "avx2: the same CPU with AVX-512 hidden from ONNX Runtime, OpenVINO and vmkla (tests/other_cpus): the\n"
    "code that a CPU without AVX-512 runs, at this CPU's speed."
)


def measure(threads: int) -> list[Table]:
    """Measure latency, OpenVINO's latency and the time of each op, as this CPU and as one without AVX-512."""
    with kinds() as sets:
        latency = Table(
            f"One frame, {SIZE}x{SIZE}, batch 1, FP32, {threads} threads",
            ("preset", "runtime", *(f"{kind}, median ms" for kind in sets)),
            notes=[
                "OpenVINO gets the same exported file with the function bodies written into the graph.",
                "The last row of each preset is the same file with every scan left out (input passed on).",
                *([AS_AVX2] if len(sets) > 1 else []),
            ],
        )
        ratio = Table(
            "Kernel time in ONNX Runtime, ms per frame (medians of its own profile)",
            (
                "preset", "instruction sets", "all kernels", "MatMul + Gemm + Conv", "ratio", "goal at most",
                "scans", "scans over MatMul + Gemm + Conv",
            ),
        )  # fmt: skip
        where = Table(
            "Where the rest goes, ms per frame",
            ("preset", "op", "kernels per frame", *(f"{kind} ms" for kind in sets)),
        )
        for preset in GOALS:
            with exported(preset) as path:
                _measure_preset(preset, path, threads, sets, (latency, ratio, where))
    return [latency, ratio, where]


def measure_sizes(_: int) -> list[Table]:
    """Measure nano on one thread at two input sizes: frames a second, and the time of each op."""
    with kinds() as sets:
        speed = Table(
            "nano on one thread",
            ("input", *(f"{kind}, {what}" for kind in sets for what in ("median ms", "frames/s"))),
            notes=[AS_AVX2] if len(sets) > 1 else [],
        )
        columns = [f"{side}x{side} {kind}" for side in SIDES for kind in sets]
        where = Table("nano on one thread: where the time goes, ms per frame", ("op", "kernels", *columns))
        per_op: list[dict[str, tuple[float, float]]] = []  # of each column
        for side in SIDES:
            frame = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
            cells: list[float] = []
            with exported("nano", size=side) as path:
                for kind, copies in sets.items():
                    with children_as(kind, copies):
                        ms = apart(ort_latency, path, frame, 1, "native")
                        per_op.append(apart(profile, path, frame, 1))
                    cells += [ms, 1e3 / ms]
            speed.add(f"{side}x{side}", *cells)
    for op, (count, _) in sorted(per_op[-1].items(), key=lambda item: -item[1][1]):
        where.add(op, f"{count:.0f}", *(of_column.get(op, (0, 0.0))[1] for of_column in per_op))
    where.add("all", "", *(sum(ms for _, ms in of_column.values()) for of_column in per_op))
    return [speed, where]


def _measure_preset(
    preset: str, path: Path, threads: int, sets: Mapping[str, Path | None], tables: tuple[Table, Table, Table]
) -> None:
    latency, ratio, where = tables
    frame = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    stripped = without_scans(path)
    runs: dict[str, tuple[Callable[..., float | str], tuple[object, ...]]] = {
        "ONNX Runtime, vmkla kernels": (ort_latency, (path, frame, threads, "native")),
        "ONNX Runtime, function bodies": (ort_latency, (path, frame, threads, "bodies")),
        "OpenVINO, same file": (openvino_latency, (path, frame, threads)),
        "OpenVINO, scans left out": (openvino_latency, (stripped, frame, threads)),
    }
    for runtime, (function, arguments) in runs.items():
        cells: list[float | str] = []
        for kind, copies in sets.items():
            with children_as(kind, copies):
                cells.append(apart(function, *arguments))
        latency.add(preset, runtime, *cells)
    per_kind: dict[str, dict[str, tuple[float, float]]] = {}
    for kind, copies in sets.items():
        with children_as(kind, copies):
            per_kind[kind] = apart(profile, path, frame, threads)
        total = sum(ms for _, ms in per_kind[kind].values())
        dense = sum(ms for op, (_, ms) in per_kind[kind].items() if op in DENSE)
        scans = per_kind[kind]["SelectiveScan2d"][1]
        goal = GOALS[preset] if copies is None else "-"
        ratio.add(preset, kind, total, dense, total / dense, goal, scans, scans / dense)
    own = next(iter(per_kind.values()))
    for op, (count, _) in sorted(own.items(), key=lambda item: -item[1][1])[:14]:
        where.add(preset, op, f"{count:.0f}", *(per_op[op][1] for per_op in per_kind.values()))


def ort_latency(path: Path, frame: Any, threads: int, kernels: str) -> float:
    """Measure the median latency of vmkla's runner, in ms."""
    from vmkla.engines import load_runner

    with load_runner(path, "onnxruntime", threads=threads, kernels=kernels) as runner:
        return median_ms(lambda: runner.infer(frame), repeats=RUNS)


def openvino_latency(path: Path, frame: Any, threads: int) -> float | str:
    """Measure the median latency of OpenVINO in ms, or return why it cannot be measured."""
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
    """Write a copy of the file in which every scan returns its input ``u``."""
    import onnx

    model = onnx.load(path)
    for node in [node for node in model.graph.node if node.op_type == "SelectiveScan2d"]:
        node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name))
    stripped = path.with_name(f"{path.stem}.without_scans.onnx")
    onnx.save(model, stripped)
    return stripped


def profile(path: Path, frame: Any, threads: int) -> dict[str, tuple[float, float]]:
    """Map each op type to its number of kernels and ms per frame, summed over medians of RUNS frames."""
    from vmkla.engines.runners.custom_ops import register
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
