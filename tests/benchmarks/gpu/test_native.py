"""What the steps of `make gpu-proof` make of the harness's lines and of NVIDIA's tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import native as gpu_native
from benchmarks.gpu.floors import BYTES, EXPONENTIALS
from benchmarks.gpu.machine import CARRIED
from benchmarks.gpu.native import StepError
from benchmarks.gpu.process import Done
from benchmarks.gpu.records import Context, Recorder, SkippedError, read_rows
from tests.plugins.emulated_kernels import PLUGINS

CHECK = {
    "check": "selective_scan2d", "shape": [1, 3, 4, 5, 16, 2], "multiprocessors": 46, "plan": [8, 2, 1],
    "element": "float", "error_ppm": 0.5, "limit_ppm": 100, "repeats": True, "graph": True, "guards": True,
    "ok": True,
}  # fmt: skip
RATES = {"exponentials_per_second": 3.7e12, "copy_bytes_per_second": 3e12}
TIME = {
    "time": "selective_scan2d", "network": "small", "stage": 1, "batch": 1, "element": "float",
    "shape": [1, 64, 64, 192, 16, 6], "ms": 0.06, "exponentials_ms": 0.0136, "bytes_ms": 0.003,
    "copy_ms": 0.003, "plan": [16, 1, 44],
}  # fmt: skip
BASES = {
    "time": "bspline_basis", "network": "small", "element": "half", "count": 393216, "ms": 0.01,
    "bytes_ms": 0.005, "copy_ms": 0.005, "over_floor": 2.0,
}  # fmt: skip
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a step on a harness that writes these records, and returns the step's rows."""
    context = Context("cuda", tmp_path, tmp_path, tmp_path, 20.0)
    (tmp_path / "bin").mkdir()

    def call(
        step: Callable[[Context, Recorder], None], *records: object, ends: str = "exit 0"
    ) -> list[dict[str, Any]]:
        (tmp_path / "lines").write_text("\n".join(map(json.dumps, records)) + "\n")
        program = tmp_path / gpu_native.HARNESS
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/lines\necho why >&2\n{ends}\n")
        program.chmod(0o755)
        rows = tmp_path / "rows.jsonl"
        step(context, Recorder(rows))
        return read_rows(rows)

    return call


def test_the_keys_are_those_that_the_harness_writes() -> None:
    source = "".join(
        (PLUGINS / "harness" / name).read_text(encoding="utf-8") for name in ("checks.cpp", "timing.cu")
    )
    written = source.replace("\\", "").replace('"\n', "")
    for record in (CHECK, RATES, TIME, BASES):
        assert all(f'"{key}"' in written for key in record), record


def test_checks_become_a_row_for_each_op_and_type(run: Run) -> None:
    (row,) = run(gpu_native.harness, CHECK, {**CHECK, "error_ppm": 2.5})
    assert row["cells"] == {
        "op": "selective_scan2d", "type": "float", "checks": 2, "largest error": "2.5e-06", "limit": "1e-04",
        "same bits": "yes", "from a graph": "yes", "writes inside": "yes",
    }  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [{"error_ppm": 500.0}, {"error_ppm": None}, {"repeats": False}, {"graph": False}, {"guards": False}],
)
def test_a_failed_check_is_wrong(fault: dict[str, object], run: Run) -> None:
    row, wrong = run(gpu_native.harness, CHECK, {**CHECK, **fault, "ok": False}, ends="exit 5")
    assert "[1, 3, 4, 5, 16, 2]" in wrong["wrong"]
    assert {"NO", "not finite", "5.0e-04"} & set(row["cells"].values())


@pytest.mark.parametrize(
    ("records", "ends", "error", "says"),
    [
        ((CHECK,), "exit 5", StepError, "named no wrong result"),
        ((CHECK,), "exit 1", StepError, "status 1: why"),
        ((CHECK,), "kill -ABRT $$", StepError, "signal 6 .SIGABRT.: why"),
        ((CHECK,), "exit 4", SkippedError, "why"),
        ((RATES,), "exit 0", StepError, "no check"),
    ],
)
def test_a_run_that_says_nothing_is_no_success(
    records: tuple[object, ...], ends: str, error: type[Exception], says: str, run: Run
) -> None:
    with pytest.raises(error, match=says):
        run(gpu_native.harness, *records, ends=ends)


def test_what_was_not_carried_is_named(tmp_path: Path) -> None:
    (tmp_path / CARRIED).write_text(json.dumps({"left_out": {"plugin_host": "no headers"}}))
    context = Context("cuda", tmp_path, tmp_path, tmp_path, 20.0)
    with pytest.raises(SkippedError, match="no headers"):
        gpu_native.carried(context, gpu_native.HOST)


def test_times_stand_beside_three_floors(run: Run) -> None:
    slower = {**TIME, "batch": 8, "shape": [8, 64, 64, 192, 16, 6], "plan": [16, 1, 6], "ms": 0.6}
    other = {**TIME, "stage": 2, "shape": [1, 32, 32, 384, 16, 12]}  # nobody counted its issue slots
    rows = run(gpu_native.times, RATES, TIME, slower, other, BASES)
    figures = {row["figure"]: row["value"] for row in rows if "figure" in row}
    assert figures[EXPONENTIALS] == 3.7e9 and figures[BYTES] == 3e9
    first, second, third, bases = [row["cells"] for row in rows if "table" in row]
    # 4 x 4096 x 192 x 16 exponentials; 4 x 4096 x 6 visits of 211 + 167 slots at 3.7e9 / 4 a ms.
    assert (first["exponentials, ms"], first["issue slots, ms"]) == (0.0136, 0.04017)
    assert first["over the largest"] == 1.49 == round(figures["cuda.float.1.over"], 2)
    assert second["over the largest"] == round(0.6 / (8 * 0.04017), 2)
    assert third["issue slots, ms"] == "-" and third["over the largest"] == round(0.06 / 0.0068, 2)
    assert bases["over the bytes"] == 2.0


RACES = "========= COMPUTE-SANITIZER\n{}========= RACECHECK SUMMARY: {} hazards displayed\n"


@pytest.mark.parametrize(
    ("done", "kind", "says"),
    [
        (Done(0, RACES.format("", 0), "", 1.0), "table", "0 hazards"),
        (Done(99, RACES.format("========= Error: Race\n", 3), "", 1.0), "wrong", "3 hazards"),
        (Done(5, RACES.format("", 0), "2 checks failed", 1.0), "wrong", "2 checks failed"),
        (Done(1, "========= Error: Device not supported\n", "", 1.0), "absent", "Device not supported"),
        (Done(0, "", "", 1.0), "absent", "does not work here"),
        (Done(None, RACES.format("", 0), "", 40.0), "absent", "time limit"),
    ],
)
def test_compute_sanitizer_is_believed_with_its_summary_alone(
    done: Done, kind: str, says: str, tmp_path: Path
) -> None:
    gpu_native.judge_sanitizer("racecheck", done, Recorder(tmp_path / "rows"))
    row = read_rows(tmp_path / "rows")[-1]
    assert kind in row and says in json.dumps(row)


def test_hardware_counters_give_the_issue_slots(tmp_path: Path) -> None:
    names = ["ID", "Kernel Name", "Grid Size", *gpu_native.METRICS]
    counts = {
        "scan_chunks<float, (int)16, (int)1>": 20_000_000,
        "chunk_ends<float, (int)16, (int)1>": 16_000_000,
    }
    lines = ["==PROF== Connected", ",".join(f'"{name}"' for name in names), ",".join('""' for _ in names)]
    for kernel, count in counts.items():
        cells = [
            "0",
            f"void vmkla::cuda::{kernel}(vmkla::cuda::Scan2dTask)",
            "(3, 1, 1)",
            "50000",
            f"{count:,}",
            "1",
            "2",
            "128",
            "3",
            "n/a",
        ]
        lines.append(",".join(f'"{cell}"' for cell in cells))
    first, second = gpu_native.read_ncu("\n".join(lines))
    assert first["kernel"] == "scan_chunks<float, 16, 1>" and first["warp instructions"] == 2e7
    assert second["warps of the most, %"] == "-"
    gpu_native.add_slots("CUDA", [first, second], Recorder(tmp_path / "rows"))
    figures = {row["figure"]: row["value"] for row in read_rows(tmp_path / "rows")}
    assert figures["cuda.first_pass.slots"] == pytest.approx(16e6 / (4 * 4096 * 6))
    assert figures["cuda.last_pass.slots"] == pytest.approx(20e6 / (4 * 4096 * 6))
    assert gpu_native.read_ncu("==ERROR== ERR_NVGPUCTRPERM") == []
