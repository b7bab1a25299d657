"""Reading what the CUDA harness writes; the harness itself runs over the emulation of a GPU."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import gpu_harness
import pytest
from emulated_kernels import EMULATION, KERNELS, PLUGINS, compile_emulation
from gpu_process import Done, call

from vmkla.errors import MissingDependencyError, VmklaError

CHECK = {
    "check": "selective_scan2d",
    "shape": [1, 3, 4, 5, 16, 2],
    "multiprocessors": 46,
    "plan": [8, 2, 1],
    "element": "float",
    "error_ppm": 0.5,
    "limit_ppm": 100,
    "repeats": True,
    "graph": True,
    "guards": True,
    "ok": True,
}
RATES = {"exponentials_per_second": 4e12, "copy_bytes_per_second": 3e12}
TIME = {
    "time": "selective_scan2d",
    "network": "small",
    "stage": 1,
    "batch": 1,
    "element": "float",
    "shape": [1, 64, 64, 192, 16, 6],
    "ms": 0.02,
    "exponentials_ms": 0.01,
    "bytes_ms": 0.004,
    "copy_ms": 0.004,
    "over_floor": 2.0,
}
BASES = {
    "time": "bspline_basis",
    "network": "small",
    "element": "half",
    "count": 393216,
    "ms": 0.01,
    "bytes_ms": 0.005,
    "copy_ms": 0.005,
    "over_floor": 2.0,
}


def ran(*records: dict[str, object], status: int = 0, stderr: str = "") -> Done:
    """A run of the harness that wrote these."""
    return Done(status, "\n".join(map(json.dumps, records)) + "\n", stderr, 1.0, 1)


def test_the_keys_are_those_that_the_harness_writes() -> None:
    source = "".join(
        (PLUGINS / "harness" / name).read_text(encoding="utf-8") for name in ("checks.cpp", "timing.cu")
    )
    written = source.replace("\\", "").replace('"\n', "")
    for record in (CHECK, RATES, TIME, BASES):
        assert all(f'"{key}"' in written for key in record), record


def test_figures_and_goals() -> None:
    slow = {**TIME, "batch": 8, "ms": 0.5, "over_floor": 3.2}
    other = {**TIME, "stage": 2, "over_floor": 99.0}  # no goal is about it
    outcome = gpu_harness.read(ran(CHECK, RATES, TIME, slow, other, BASES), lambda batch: 0.1 * batch)
    assert outcome.wrong == []
    checks, scans, bases = (table.markdown() for table in outcome.tables)
    assert "| selective_scan2d | float | 1 | 5.0e-07 | 1e-04 | yes | yes | yes |" in checks
    assert (
        "| small | float | 1 | [1, 64, 64, 192, 16, 6] | 0.0200 | 0.0100 | 0.0040 | 0.0040 | 2.00 |" in scans
    )
    assert "| small | half | 393216 | 0.0100 |" in bases
    assert [(goal.measured, goal.met) for goal in outcome.goals] == [
        (2.0, True),
        (pytest.approx(5.0), True),  # 0.1 ms / 0.02 ms
        (3.2, False),
        (pytest.approx(1.6), False),  # 0.8 ms / 0.5 ms
    ]
    assert "4e+12 exponentials" in outcome.notes[0]


@pytest.mark.parametrize(
    "fault",
    [{"error_ppm": 500.0}, {"error_ppm": None}, {"repeats": False}, {"graph": False}, {"guards": False}],
)
def test_a_failed_check_is_wrong(fault: dict[str, object]) -> None:
    bad = {**CHECK, **fault, "ok": False}
    outcome = gpu_harness.read(ran(CHECK, bad, status=5, stderr="1 checks failed"), lambda batch: 1.0)
    assert len(outcome.wrong) == 1 and (
        "[1, 3, 4, 5, 16, 2] float cut for 46 multiprocessors into [8, 2, 1]" in outcome.wrong[0]
    )
    text = outcome.tables[0].markdown()
    assert "not finite" in text if fault == {"error_ppm": None} else ("NO" in text or "5.0e-04" in text)


def test_status_5_is_wrong_whatever_the_lines_say() -> None:
    outcome = gpu_harness.read(ran(CHECK, status=5, stderr="1 checks failed"), lambda batch: 1.0)
    assert outcome.wrong == ["vmkla_harness: status 5: 1 checks failed"]


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (ran(CHECK, status=4, stderr="no GPU: none"), "status 4: no GPU: none"),
        (ran(CHECK, status=-6), "status -6"),
        (Done(None, "", "", 900.0, 0), "stopped after 900 s"),
        (ran(RATES), "no check"),
        (Done(0, "hello\n", "", 1.0, 0), "hello"),
        (Done(0, "[1]\n", "", 1.0, 0), "an object"),
    ],
)
def test_a_run_that_says_nothing_is_no_success(done: Done, says: str) -> None:
    with pytest.raises(VmklaError) as caught:
        gpu_harness.read(done, lambda batch: 1.0)
    assert says in str(caught.value)


def cmake_that(folder: Path, text: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program ``cmake`` on the path that writes a text."""
    program = folder / "bin" / "cmake"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{text}'\necho went wrong >&2\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


def test_without_a_cuda_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmake_that(tmp_path, "-- libvmkla_tensorrt.so is left out: there is no nvcc.", 0, monkeypatch)
    with pytest.raises(MissingDependencyError, match="left out: there is no nvcc"):
        gpu_harness.build(90, tmp_path)


def test_a_build_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmake_that(tmp_path, "-- configuring", 1, monkeypatch)
    with pytest.raises(VmklaError, match="went wrong"):
        gpu_harness.build(90, tmp_path)


def test_without_cmake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="no cmake"):
        gpu_harness.build(90, tmp_path)


@pytest.mark.slow
def test_it_builds_the_harness(tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    program = gpu_harness.build(90, tmp_path)
    done = call((program, "--quick", "--no-times"))
    assert done.status in (0, 4), done  # 4: it runs, and finds no GPU
    if done.status == 4:
        with pytest.raises(VmklaError, match="no GPU"):
            gpu_harness.read(done, lambda batch: 1.0)


@pytest.mark.slow
def test_what_the_harness_writes_is_read(tmp_path: Path) -> None:
    sources = (path for path in (PLUGINS / "harness").iterdir() if path.suffix in (".cpp", ".cu"))
    harness = sorted(str(path.relative_to(PLUGINS)) for path in sources)
    program = compile_emulation((*KERNELS, *EMULATION, *harness), tmp_path / "harness")
    outcome = gpu_harness.read(call((program, "--quick", "--no-times")), lambda batch: 1.0)
    assert outcome.wrong == [] and len(outcome.tables) == 1
    assert len(outcome.tables[0].rows) == 4  # two ops, two types
