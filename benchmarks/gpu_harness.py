"""The CUDA kernels of the TensorRT plugin: compile the harness for this GPU, run it, read what it says.

The harness (engines/plugins/harness) holds both kernels against float64 and times them beside their floors.
It writes one JSON object a line.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Table
from gpu_process import Done, call
from gpu_report import Goal, Outcome, say

from vmkla.errors import MissingDependencyError, VmklaError

ROOT = Path(__file__).resolve().parents[1]
TARGET = "vmkla_harness"
WRONG = 5
"""Exit status of the harness for a wrong result."""
MOST_OVER_FLOOR, LEAST_FASTER = 3.0, 3.0
Record = Mapping[str, Any]


def build(sm: int, work: Path) -> Path:
    """Compile the harness for one compute capability.

    Args:
        sm: for instance 90.
        work: folder for the build.
    Returns:
        The program.
    Raises:
        MissingDependencyError: there is no CMake, or no CUDA compiler.
        VmklaError: it does not compile.
    """
    if shutil.which("cmake") is None:
        raise MissingDependencyError("no cmake here", hint="Run: pip install cmake")
    folder = work / f"harness-{sm}"
    configure = ("cmake", "-S", ROOT, "-B", folder, f"-DVMKLA_CUDA_ARCHITECTURES={sm}")
    done = checked(call(configure), "cmake")
    if "GPU kernels:" not in done.stdout:
        left_out = [line for line in done.stdout.splitlines() if "left out" in line]
        raise MissingDependencyError(
            f"the kernels cannot be compiled here: {' '.join(left_out) or 'CMake found no CUDA compiler'}",
            hint="Install the CUDA toolkit, or set CUDACXX to its nvcc.",
        )
    jobs = str(len(os.sched_getaffinity(0)))
    checked(call(("cmake", "--build", folder, "--target", TARGET, "--parallel", jobs)), "cmake --build")
    return folder / "engines" / "plugins" / "harness" / TARGET


def checked(done: Done, what: str) -> Done:
    """A process that has to end with status 0.

    Raises:
        VmklaError: it did not.
    """
    if done.status != 0:
        raise VmklaError(f"{what}: {done.reason}", hint=f"Its output ends: {done.stdout[-500:].strip()}")
    return done


def parse(text: str) -> list[Record]:
    """The records of the harness's output.

    Raises:
        VmklaError: a line is no JSON object.
    """
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError as error:
            raise VmklaError(f"the harness wrote {line[:200]!r}, expected JSON: {error}") from error
        if not isinstance(record, dict):
            raise VmklaError(f"the harness wrote {line[:200]!r}, expected an object")
        records.append(record)
    return records


def check_table(records: Sequence[Record]) -> tuple[Table, list[str]]:
    """The checks, one row for each op and type, and every one that failed.

    Raises:
        VmklaError: there is not one check.
    """
    checks = [record for record in records if "check" in record]
    if not checks:
        raise VmklaError("the harness wrote no check")
    table = Table(
        "CUDA kernels: error against float64, as a part of the largest element",
        ("op", "type", "checks", "largest error", "limit", "same bits", "from a graph", "writes inside"),
    )
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in checks:
        groups.setdefault((record["check"], record["element"]), []).append(record)
    for (op, element), group in groups.items():
        found = [record["error_ppm"] for record in group]
        largest = "not finite" if None in found else f"{max(found) * 1e-6:.1e}"
        flags = (
            "yes" if all(record[name] for record in group) else "NO"
            for name in ("repeats", "graph", "guards")
        )
        table.add(op, element, len(group), largest, f"{group[0]['limit_ppm'] * 1e-6:.0e}", *flags)
    wrong = [
        f"CUDA {record['check']} {record['shape']} {record['element']}{cut_of(record)}: "
        f"error {record['error_ppm']} ppm "
        f"of {record['limit_ppm']:g}, same bits {record['repeats']}, from a graph {record['graph']}, "
        f"writes inside {record['guards']}"
        for record in checks
        if not record["ok"]
    ]
    return table, wrong


def cut_of(record: Record) -> str:
    """The GPU's size that a scan was cut for, and its states, lanes and chunks; empty for bases."""
    if "plan" not in record:
        return ""
    return f" cut for {record['multiprocessors']} multiprocessors into {record['plan']}"


def time_tables(records: Sequence[Record]) -> list[Table]:
    """The times, one table for each op; none where nothing was timed."""
    tables = []
    scans = [record for record in records if record.get("time") == "selective_scan2d"]
    if scans:
        table = Table(
            "CUDA kernels: one scan at 256x256",
            ("network", "type", "stage", "b, H, W, d, n, R", "ms", "exponentials ms", "bytes ms", "copy ms",
             "over the larger"),
            notes=["Copy: a device copy of as many bytes as the scan must read and write."],
        )  # fmt: skip
        for record in scans:
            table.add(
                *(record["network"], record["element"], record["stage"], record["shape"]),
                *(f"{record[name]:.4f}" for name in ("ms", "exponentials_ms", "bytes_ms", "copy_ms")),
                float(record["over_floor"]),
            )
        tables.append(table)
    bases = [record for record in records if record.get("time") == "bspline_basis"]
    if bases:
        table = Table(
            "CUDA kernels: the bases of one KAN layer",
            ("network", "type", "values", "ms", "bytes ms", "copy ms", "over the bytes"),
        )
        for record in bases:
            table.add(
                *(record["network"], record["element"], record["count"]),
                *(f"{record[name]:.4f}" for name in ("ms", "bytes_ms", "copy_ms")),
                float(record["over_floor"]),
            )
        tables.append(table)
    return tables


def first_stage(records: Sequence[Record], element: str, batch: int) -> Record | None:
    """The time of `small`'s first stage; None where it was not taken."""
    wanted = {"time": "selective_scan2d", "network": "small", "stage": 1, "batch": batch, "element": element}
    return next((r for r in records if all(r.get(key) == value for key, value in wanted.items())), None)


def goals(records: Sequence[Record], separate_ms: Callable[[int], float]) -> list[Goal]:
    """The goals at `small`'s first stage, batch 1 and 8.

    Args:
        records: of the harness.
        separate_ms: time of four separate scans in torch for a batch, float32.
    """
    found = []
    for batch in (1, 8):
        for element in ("float", "half"):
            record = first_stage(records, element, batch)
            if record is None:
                continue
            over = float(record["over_floor"])
            what = f"CUDA, {element}, `small`'s first stage, batch {batch}, over the larger of its floors"
            found.append(Goal(what, "at most 3", over, over <= MOST_OVER_FLOOR))
            if element == "float":
                faster = separate_ms(batch) / float(record["ms"])
                what = f"CUDA, {element}: four separate scans in torch, batch {batch}, take so much longer"
                found.append(Goal(what, "at least 3", faster, faster >= LEAST_FASTER))
    return found


def read(done: Done, separate_ms: Callable[[int], float]) -> Outcome:
    """What a run of the harness came to.

    Raises:
        VmklaError: it did not run through.
    """
    if done.status not in (0, WRONG):
        raise VmklaError(f"{TARGET}: {done.reason}")
    records = parse(done.stdout)
    table, wrong = check_table(records)
    if done.status == WRONG and not wrong:
        wrong = [f"{TARGET}: {done.reason}"]
    rates = [record for record in records if "exponentials_per_second" in record]
    notes = [
        f"{record['exponentials_per_second']:.3g} exponentials and {record['copy_bytes_per_second']:.3g} "
        "copied bytes (read and written both count) a second"
        for record in rates
    ]
    return Outcome([table, *time_tables(records)], wrong, notes, goals(records, separate_ms))


def harness_part(sm: int, work: Path, *, times: bool, separate_ms: Callable[[int], float]) -> Outcome:
    """Compile, run, read.

    Args:
        sm: compute capability of the GPU, for instance 90.
        work: folder for the build.
        times: take times as well.
        separate_ms: time of four separate scans in torch for a batch, float32.
    Raises:
        MissingDependencyError: there is no compiler.
        VmklaError: it does not compile or run.
    """
    program = build(sm, work)
    say(f"running {program}")
    return read(call((program, *(() if times else ("--no-times",)))), separate_ms)
