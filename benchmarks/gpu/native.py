"""Steps of `make gpu-proof` that run programs: the harness, the plugin's host, compute-sanitizer, ncu.

The harness (engines/plugins/harness) compares both CUDA kernels with float64 and times them; the host
(tests/plugins/host) drives the TensorRT plugin as TensorRT would. `make gpu-proof-pack` compiles them.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.floors import BYTES, EXPONENTIALS, cuda_instructions, floor_cells, floors_ms, visits
from benchmarks.gpu.machine import find_tool, read_carried
from benchmarks.gpu.process import Done, call
from benchmarks.gpu.records import Context, Recorder, SkippedError, parse_rows

HARNESS, HOST, PLUGIN = "bin/vmkla_harness", "bin/plugin_host", "bin/libvmkla_tensorrt.so"
WRONG, NO_GPU, HOST_SKIPS = 5, 4, 77
"""Exit statuses of the harness, and of the host for a case that cannot run here."""
FOUND_FAULTS = 99
"""Exit status that compute-sanitizer is told to use."""
METRICS = {
    "gpu__time_duration.sum": "ns",
    "smsp__inst_executed.sum": "warp instructions",
    "sm__inst_executed_pipe_xu.sum": "of them special functions",
    "dram__bytes.sum": "bytes of DRAM",
    "launch__registers_per_thread": "registers",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue slots in use, %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps of the most, %",
}
NCU = (
    *"--clock-control none --csv --page raw --print-units base --print-kernel-base demangled".split(),
    *("--metrics", ",".join(METRICS)),
)
Record = Mapping[str, Any]


class StepError(Exception):
    """A program did not do what the step needs."""


def carried(context: Context, name: str) -> Path:
    """Return the path of a program that was carried.

    Raises:
        SkippedError: it was not; says why.
    """
    path = context.carry / name
    if not path.is_file():
        left_out = (read_carried(context.carry) or {}).get("left_out", {})
        raise SkippedError(left_out.get(path.name, f"{path.name} is not among what was carried"))
    return path


def run_harness(context: Context, *arguments: str) -> list[dict[str, Any]]:
    """Run the harness and read its JSON lines.

    Raises:
        SkippedError: it is not here, or sees no GPU.
        StepError: it did not run through.
    """
    done = call((carried(context, HARNESS), *arguments), context.seconds)
    (context.work / "harness.jsonl").write_text(done.stdout, encoding="utf-8")
    print(done.stderr, file=sys.stderr)
    if done.status == NO_GPU:
        raise SkippedError(done.reason)
    if done.status not in (0, WRONG):
        raise StepError(f"the harness: {done.reason}")
    records = parse_rows(done.stdout)
    if done.status == WRONG and all(record.get("ok", True) for record in records):
        raise StepError(f"the harness: {done.reason}, and it named no wrong result")
    return records


def harness(context: Context, out: Recorder) -> None:
    """Compare both kernels with float64."""
    quick = ("--quick",) if context.dry else ()
    checks = [record for record in run_harness(context, "--no-times", *quick) if "check" in record]
    if not checks:
        raise StepError("the harness wrote no check")
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in checks:
        groups.setdefault((record["check"], record["element"]), []).append(record)
    for (op, element), group in groups.items():
        errors = [record["error_ppm"] for record in group]
        cells = {
            "op": op, "type": element, "checks": len(group),
            "largest error": "not finite" if None in errors else f"{max(errors) * 1e-6:.1e}",
            "limit": f"{group[0]['limit_ppm'] * 1e-6:.0e}",
        }  # fmt: skip
        for name, flag in (("same bits", "repeats"), ("from a graph", "graph"), ("writes inside", "guards")):
            cells[name] = "yes" if all(record[flag] for record in group) else "NO"
        out.row("CUDA kernels: error against float64, over the largest element", cells)
    for record in checks:
        if not record["ok"]:
            out.wrong(f"CUDA kernels: {dict(record)}")


def times(context: Context, out: Recorder) -> None:
    """Time both kernels as CUDA graphs on an otherwise idle GPU, with their lower bounds."""
    small = ("--size", "4", "--rounds", "1") if context.dry else ()
    records = run_harness(context, "--no-checks", *small)
    figures = {}
    for record in records:
        if "exponentials_per_second" in record:
            figures[EXPONENTIALS] = record["exponentials_per_second"] / 1e3
            figures[BYTES] = record["copy_bytes_per_second"] / 1e3
    for key, value in figures.items():
        out.figure(key, value)
    for record in records:
        if record.get("time") == "selective_scan2d":
            add_scan_time(record, figures, out)
        elif record.get("time") == "bspline_basis":
            out.row(
                "CUDA kernels: the bases of one KAN layer, by CUDA graph",
                {"network": record["network"], "type": record["element"], "values": record["count"],
                 "ms": round(record["ms"], 5), "bytes, ms": round(record["bytes_ms"], 5),
                 "over the bytes": round(record["over_floor"], 2)},
            )  # fmt: skip


def add_scan_time(record: Record, figures: Mapping[str, float], out: Recorder) -> None:
    """Add a row of times, and the figures of `small`'s first stage."""
    shape, plan, ms = tuple(record["shape"]), tuple(record["plan"]), record["ms"]
    b, H, W, d, n, R = shape
    size = (2 if record["element"] == "half" else 4) * b * H * W * (2 * d + 4 * (2 * n + R))
    floors = floors_ms(shape, size, figures, cuda_instructions(shape, plan))
    out.row(
        "CUDA kernels: one scan, by CUDA graph",
        {"network": record["network"], "stage": record["stage"], "b, H, W, d, n, R": str(list(shape)),
         "type": record["element"], "chunks": plan[2], **floor_cells(ms, floors)},
    )  # fmt: skip
    if (record["network"], record["stage"]) == ("small", 1) and floors:
        key = f"cuda.{record['element']}.{record['batch']}"
        out.figure(f"{key}.us", ms * 1e3)
        out.figure(f"{key}.exponentials", ms / floors["exponentials"])
        out.figure(f"{key}.over", ms / max(floors.values()))


def plugin(context: Context, out: Recorder) -> None:
    """Test the TensorRT plugin through its interfaces, then compare enqueue with float64."""
    library, host = carried(context, PLUGIN), carried(context, HOST)
    cases = call((host, "--list"), 20).stdout.split()
    if not cases:
        raise StepError("the plugin's host lists no case")
    ends = {case: call((host, library, case), 20) for case in cases}
    skipped = [case for case, done in ends.items() if done.status == HOST_SKIPS]
    wrong = [case for case, done in ends.items() if done.status not in (0, HOST_SKIPS)]
    for case in wrong:
        out.wrong(f"plugin, case {case}: {ends[case].reason} {ends[case].stdout[-300:].strip()}")
    good = len(cases) - len(skipped) - len(wrong)
    out.row("Plugin: its cases", {"cases": len(cases), "good": good, "skipped": ", ".join(skipped)})
    for element, dtype in (("float", np.float32), ("half", np.float16)):
        for what, inputs, expected, arguments in enqueue_cases(dtype):
            folder = context.work / f"{what} {element}"
            folder.mkdir()
            for i, array in enumerate(inputs):
                np.ascontiguousarray(array).tofile(folder / f"{i}.bin")
            op, *sizes = map(str, arguments)
            done = call((host, library, "--enqueue", op, folder, element, *sizes), 60)
            if done.status != 0:
                out.wrong(f"plugin, {what}, {element}: {done.reason} {done.stdout[-300:].strip()}")
            else:
                judge_enqueue(what, element, folder, expected, out)


def enqueue_cases(dtype: type[np.floating]) -> Iterator[tuple[str, list[Any], Any, tuple[object, ...]]]:
    """Make the cases of enqueue: name, inputs, exact result and the host's arguments."""
    import torch

    from tests.plugins.emulated_kernels import random_inputs, recurrence
    from vmkla.ops import bspline_basis

    for what, shape in (("one chunk", (2, 5, 7, 33, 16, 3)), ("in chunks", (1, 24, 16, 64, 16, 6))):
        inputs = random_inputs(shape, dtype, seed=11)
        expected = recurrence(inputs).sum(axis=0) + inputs.D * inputs.u
        yield f"scan, {what}", inputs.typed(dtype), expected, ("scan", *shape, 8)
    knots, x_shape = 12, (3, 5, 17)
    grid = (-1.5 + 0.25 * np.arange(knots)).astype(np.float32)
    x = np.random.default_rng(3).uniform(grid[0] - 0.5, grid[-1] + 0.5, x_shape).astype(dtype)
    wide = (torch.from_numpy(a.astype(np.float64)) for a in (x, grid))
    bases = bspline_basis(*wide, 3, backend="reference").numpy()
    yield "cubic bases", [x, grid], bases, ("spline", 3, 1, -1.5, 0.25, knots, *x_shape)


def judge_enqueue(what: str, element: str, folder: Path, expected: Any, out: Recorder) -> None:
    """Compare what the plugin wrote with the exact result; a replayed graph gives the same bits."""
    direct, graph = ((folder / name).read_bytes() for name in ("direct.bin", "graph.bin"))
    dtype, limit = (np.float16, 1e-3) if element == "half" else (np.float32, 1e-4)
    seen = np.frombuffer(direct, dtype).astype(np.float64).reshape(expected.shape)
    error, same = float(np.abs(seen - expected).max() / np.abs(expected).max()), direct == graph
    out.row(
        "Plugin: enqueue against float64, over the largest element",
        {"what": what, "type": element, "error": f"{error:.1e}", "limit": limit, "from a graph": same},
    )
    if not (error <= limit and same):
        out.wrong(f"plugin, {what}, {element}: error {error:.1e}, same bits from a graph: {same}")


def sanitizer(context: Context, out: Recorder) -> None:
    """Run NVIDIA's compute-sanitizer on the quick harness: races, then memory accesses."""
    program = carried(context, HARNESS)
    tool = find_tool("compute-sanitizer")
    if tool is None:
        raise SkippedError("compute-sanitizer was not found on PATH or in CUDA's folders")
    for name in ("racecheck", "memcheck"):
        done = call(
            (tool, "--tool", name, "--error-exitcode", str(FOUND_FAULTS), "--print-limit", "20", program,
             "--quick", "--no-times"), context.seconds / 2 - 2,
        )  # fmt: skip
        (context.work / f"{name}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        judge_sanitizer(name, done, out)


def judge_sanitizer(name: str, done: Done, out: Recorder) -> None:
    """Record faults as wrong results, and a run without a summary as one that does not work here."""
    said = re.findall(r"={9} (.*)", done.stdout + done.stderr)
    summary = [line for line in said if "SUMMARY" in line]
    if done.status is None or not summary or "Device not supported" in " ".join(said):
        out.absent(
            f"compute-sanitizer {name}", f"it does not work here: {' '.join(said[-3:])} ({done.reason})"
        )
        return
    out.row("compute-sanitizer over the harness's quick checks", {"tool": name, "result": summary[-1]})
    if done.status != 0:
        out.wrong(f"compute-sanitizer {name}: {summary[-1]} ({done.reason})")


def ncu(context: Context, out: Recorder) -> None:
    """Read hardware counters of one launch of each kernel with Nsight Compute."""
    program = carried(context, HARNESS)
    tool = find_tool("ncu")
    if tool is None:
        raise SkippedError("ncu was not found on PATH or in Nsight Compute's folders")
    triton = (sys.executable, str(Path(__file__).with_name("scan.py")))
    targets = (("CUDA", (), (program, "--once")), ("Triton", ("--kernel-name", "regex:chunk"), triton))
    for what, options, command in targets:
        done = call((tool, *NCU, *options, *command), context.seconds / 2 - 2)
        (context.work / f"ncu-{what}.csv").write_text(done.stdout, encoding="utf-8")
        kernels = read_ncu(done.stdout)
        if not kernels:
            said = re.findall(r"==ERROR== (.*)", done.stdout + done.stderr)
            out.absent(f"counters of the {what} kernels", f"ncu: {' '.join(said[:2]) or done.reason}")
        for kernel in kernels:
            out.row(f"{what} kernels: hardware counters of one launch", kernel)
        add_slots(what, kernels, out)


def read_ncu(text: str) -> list[dict[str, Any]]:
    """Parse ncu's raw CSV page into one row per launch; empty when there is no such page."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    found = []
    for row in list(csv.DictReader(lines[start:]))[1:]:  # below the names come the units
        kernel = re.sub(r"\(int\)|^void |vmkla::cuda::", "", row["Kernel Name"]).partition("(")[0]
        cells: dict[str, Any] = {"kernel": kernel, "blocks": row.get("Grid Size", "")}
        for metric, name in METRICS.items():
            value = (row.get(metric) or "").replace(",", "")
            cells[name] = round(float(value), 1) if re.fullmatch(r"[-\d.e+]+", value) else "-"
        found.append(cells)
    return found


def add_slots(what: str, kernels: Sequence[Mapping[str, Any]], out: Recorder) -> None:
    """Record the warp instructions of `small`'s first stage, batch 1, which the lower bounds need.

    Of the CUDA kernels per visit and pass, in float; of the Triton kernels all of a forward pass.
    """
    counts = [(kernel["kernel"], kernel["warp instructions"]) for kernel in kernels]
    if any(count == "-" for _, count in counts):
        return
    for name, key in (("scan_chunks<float", "last_pass"), ("chunk_ends<float", "first_pass")):
        found = [count for kernel, count in counts if kernel.startswith(name)]
        if found:
            out.figure(f"cuda.{key}.slots", found[0] / visits(1, 64 * 64, 192))
    if counts and what == "Triton":
        out.figure("triton.1.instructions", sum(count for _, count in counts))
