"""The harness without a GPU: it says so; and over the emulation its checks pass, and see what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.plugins.emulated_kernels import CUTS, EMULATION, KERNELS, PLUGINS, compile_emulation

HARNESS = tuple(f"harness/{name}" for name in ("main.cpp", "checks.cpp", "host_reference.cpp", "timing.cu"))
SCAN, PASSES = "cuda/scan2d_chunk.h", "cuda/scan2d_kernels.h"
MISTAKES = {
    "routes exchanged": (SCAN, "k(axis_ + 2 * direction)", "k(axis_ + 2 * (1 - direction))"),
    "carried in one direction": (PASSES, "k < 2 ? first + i : q.chunks - 1 - first - i", "first + i"),
    "barrier forgotten": (
        SCAN,
        "if (count > 0) stage_tile(pixel, count);\n      __syncthreads();",
        "if (count > 0) stage_tile(pixel, count);",
    ),
    "second direction overwrites": (SCAN, "= sum[i] + before[i];", "= sum[i] + 0.0f * before[i];"),
    "written beyond the channels": (
        SCAN,
        "kWithY && channel < q.d && Sums::stores",
        "kWithY && Sums::stores",
    ),
    "one direction at a barrier": (
        SCAN,
        "      if (count > 0) visit_tile",
        "      if (direction == 0) __syncthreads();\n      if (count > 0) visit_tile",
    ),
    "states in half": (
        SCAN,
        "h[j + l] = kernels::next_state<DeviceLane>(h[j + l], delta.x, A_log2e[j + l], delta.y, b.v[l]);",
        "h[j + l] = to_float(__float2half_rn("
        "kernels::next_state<DeviceLane>(h[j + l], delta.x, A_log2e[j + l], delta.y, b.v[l])));",
    ),
    "neighbouring basis": (
        "cuda/bspline_basis.cu",
        "static_cast<float>(basis + j)",
        "static_cast<float>(basis + j + 1)",
    ),
}
"""Name -> file, what stands there, what stands there instead."""

BY_HAND = {
    "carried in one direction",
    "second direction overwrites",
    "written beyond the channels",
    "states in half",
}
"""The others show each way in which a check fails: by a scan's value, a barrier, and a basis's value."""

# Each compilation takes ten seconds and more.
pytestmark = pytest.mark.slow


def compile_harness(folder: Path, root: Path = PLUGINS) -> Path:
    return compile_emulation((*KERNELS, *EMULATION, *HARNESS), folder / "harness", root=root)


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness over the kernels as they are."""
    return compile_harness(tmp_path_factory.mktemp("harness"))


def test_checks_pass_and_times_are_taken(harness: Path) -> None:
    done = run(harness, "--quick", "--size", "4", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["gpu"] == "emulation"
    checks = [line for line in lines if "check" in line]
    assert {(c["check"], c["element"]) for c in checks} == {
        (op, element) for op in ("selective_scan2d", "bspline_basis") for element in ("float", "half")
    }
    assert all(c["ok"] and c["error_ppm"] <= c["limit_ppm"] for c in checks)
    # Whatever the GPU's size, here 4: what other sizes run is checked too.
    for element in ("float", "half"):
        plans = [c["plan"] for c in checks if "plan" in c and c["element"] == element]
        assert {(states, lanes, chunks > 1) for states, lanes, chunks in plans} == CUTS
    times = [line for line in lines if line.get("time") == "selective_scan2d"]
    assert len(times) == 2 * 2 * 2 * 4  # networks, types, batches, stages
    for line in times:
        assert min(line["ms"], line["exponentials_ms"], line["bytes_ms"]) > 0
        states, lanes, chunks = line["plan"]
        assert states * lanes >= 16 and chunks >= 1


def test_checks_can_be_left_out(harness: Path) -> None:
    done = run(harness, "--no-checks", "--size", "4", "--rounds", "1")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and not any("check" in line for line in lines)
    assert sum("time" in line for line in lines) == 2 * 2 * (2 * 4 + 1)  # stages and batches, and the bases


def test_one_launch_of_each_kernel(harness: Path) -> None:
    done = run(harness, "--once", "--size", "16")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1), done.stderr  # the GPU's line


def test_arguments_are_read_strictly(harness: Path) -> None:
    for arguments in (("--siez", "4"), ("--size",), ("--size", "0"), ("--rounds", "0")):
        done = run(harness, *arguments)
        assert done.returncode == 2
        assert "usage" in done.stderr


@pytest.mark.parametrize(
    "mistake",
    [pytest.param(name, marks=[pytest.mark.long] if name in BY_HAND else []) for name in MISTAKES],
)
def test_a_mistake_in_the_kernels_is_seen(mistake: str, tmp_path: Path) -> None:
    root = tmp_path / "plugins"
    shutil.copytree(PLUGINS, root)
    name, right, wrong = MISTAKES[mistake]
    source = (root / name).read_text()
    assert right in source
    (root / name).write_text(source.replace(right, wrong))
    done = run(compile_harness(tmp_path, root), "--quick", "--no-times")
    if mistake == "one direction at a barrier":
        assert done.returncode == 1
        assert "meets at lines" in done.stderr or "do not come" in done.stderr
        return
    assert done.returncode == 5, done.stdout + done.stderr
    wrong_checks = [json.loads(line) for line in done.stdout.splitlines()[1:] if not json.loads(line)["ok"]]
    op = "bspline_basis" if name.endswith(".cu") else "selective_scan2d"
    assert {check["check"] for check in wrong_checks} == {op}
