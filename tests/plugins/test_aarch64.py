"""The CPU library for 64-bit ARM, cross-compiled and run in an emulator: what a Jetson's CPU runs.

The self-test (engines/plugins/cpu/self_test.cpp) compares with definitions in double. It runs on this
machine's own library as well, and every one of its checks is seen to fail when its expectation is wrong.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from vmkla.native import find_library

TARGET = "vmkla_cpu_self_test"
TOOLS = ("aarch64-linux-gnu-g++", "qemu-aarch64", "cmake")
INSTRUCTION_SETS = {"avx512", "avx2", "neon", "baseline"}


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """A command's output, whatever its exit status."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def must(command: Sequence[str | Path]) -> None:
    """A command that has to work."""
    done = run(command)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def cross_built(source: Path, build: Path) -> list[str | Path]:
    """Build library and self-test for aarch64; the command that runs it here."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"no {', '.join(missing)}: apt-get install g++-aarch64-linux-gnu qemu-user cmake")
    toolchain = source / "engines" / "plugins" / "cmake" / "aarch64-linux-gnu.cmake"
    must(["cmake", "-S", source, "-B", build, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", "-DVMKLA_CUDA=OFF"])
    must(["cmake", "--build", build, "--target", TARGET, "--parallel", str(len(os.sched_getaffinity(0)))])
    program = build / "engines" / "plugins" / "cpu" / TARGET
    return ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program]


@pytest.fixture(scope="module")
def on_aarch64(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The self-test for aarch64."""
    return cross_built(root, tmp_path_factory.mktemp("aarch64"))


@pytest.fixture(scope="module")
def here(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The self-test on the library that is installed on this machine."""
    if "VMKLA_TEST_CPU_BITS" in os.environ:
        pytest.skip("as another CPU the library is a copy whose CPUID only a Python process answers")
    library = find_library()
    program = tmp_path_factory.mktemp("native") / TARGET
    source = root / "engines" / "plugins" / "cpu"
    must(
        [
            *("g++", "-std=gnu++17", "-O1", "-pthread", source / "self_test.cpp", source / "half.cpp"),
            *(library, f"-Wl,-rpath,{library.parent}", "-o", program),
        ]
    )
    return [program]


def failed(output: str) -> set[str]:
    """Names of the checks that do not hold."""
    return {line.split()[2].rstrip(":") for line in output.splitlines() if line.startswith("FAILED")}


def sets_in(output: str) -> set[str]:
    """Instruction sets that results were printed for."""
    return {line.split()[1] for line in output.splitlines() if line.startswith(("ok", "FAILED"))}


@pytest.mark.slow
def test_on_aarch64(on_aarch64: list[str | Path]) -> None:
    done = run([*on_aarch64, "--expect", "neon"])
    assert done.returncode == 0 and failed(done.stdout) == set(), done.stdout + done.stderr
    assert sets_in(done.stdout) == {"neon"}
    assert {line.split()[2].rstrip(":") for line in done.stdout.splitlines() if line.startswith("ok")} == set(
        run([*on_aarch64, "--list"]).stdout.split()
    )


@pytest.mark.slow
def test_it_is_an_aarch64_library(on_aarch64: list[str | Path]) -> None:
    library = Path(on_aarch64[-1]).with_name("libvmkla_cpu.so")
    assert library.read_bytes()[18:20] == bytes([183, 0])  # e_machine of the ELF header: EM_AARCH64


@pytest.mark.slow
def test_another_instruction_set_is_noticed(on_aarch64: list[str | Path]) -> None:
    done = run([*on_aarch64, "--expect", "avx2"])
    assert done.returncode == 1 and failed(done.stdout) == {"instruction-set"}


def test_on_this_machine(here: list[str | Path]) -> None:
    done = run(here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sets_in(done.stdout) <= INSTRUCTION_SETS
    if platform.machine() == "x86_64":
        assert "baseline" in sets_in(done.stdout)


def test_every_check_can_fail(here: list[str | Path]) -> None:
    checks = run([*here, "--list"]).stdout.split()
    assert len(checks) > 15
    for check in checks:
        done = run([*here, "--spoil", check])
        assert done.returncode == 1 and failed(done.stdout) == {check}, done.stdout


@pytest.mark.slow
def test_a_check_can_fail_on_aarch64(on_aarch64: list[str | Path]) -> None:
    done = run([*on_aarch64, "--spoil", "scan-forward"])
    assert done.returncode == 1 and failed(done.stdout) == {"scan-forward"}


@pytest.mark.parametrize("wrong", [["--spoil", "no-such"], ["--spoil"], ["--no-such", "x"]])
def test_wrong_usage(here: list[str | Path], wrong: list[str]) -> None:
    assert run([*here, *wrong]).returncode == 2


FAULTS = {
    "neon-max": ("cpu/simd.h", "vmaxq_f32(", "vminq_f32(", "scan-forward"),
    "nan-lost": ("cpu/simd.h", "vmaxq_f32(", "vmaxnmq_f32(", "scan-nan"),
    "flush-kept": (
        "cpu/simd.h",
        '~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }',
        "~FlushDenormals() {}",
        "denormals-kept",
    ),
    "route-order": ("kernels/selective_scan2d.h", "(k & 1) ?", "(k & 2) ?", "scan-backward"),
    "half-rounding": ("cpu/half.cpp", "0xfffu", "0xff7u", "float-to-half"),
}
"""File under engines/plugins, what stands there, the fault, and the check that must see it."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(name, marks=[] if name in ("neon-max", "route-order") else [pytest.mark.long])
        for name in FAULTS
    ],
)
def test_a_fault_in_the_source_is_seen(root: Path, tmp_path: Path, fault: str) -> None:
    name, right, wrong, check = FAULTS[fault]
    source = tmp_path / "source"
    shutil.copytree(root / "engines" / "plugins", source / "engines" / "plugins")
    shutil.copy(root / "CMakeLists.txt", source)
    path = source / "engines" / "plugins" / name
    text = path.read_text(encoding="utf-8")
    assert right in text
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    done = run(cross_built(source, tmp_path / "build"))
    assert done.returncode == 1 and check in failed(done.stdout), done.stdout
