"""Compile the TensorRT plugin library in the ways that its tests need, and find headers for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.plugins.emulated_kernels import EMULATION, KERNELS, PLUGINS, compile_emulation

EXPORTS = PLUGINS / "tensorrt" / "exports.map"
HOST = Path(__file__).parent / "host"
SOURCES = tuple(f"tensorrt/{path.name}" for path in sorted((PLUGINS / "tensorrt").glob("*.cpp")))
HOST_SOURCES = tuple(str(path) for path in sorted(HOST.glob("*.cpp")))
ARCHITECTURE = "87"
"""One is enough to look at the library; all of them take minutes."""


def roots() -> list[Path]:
    """List the TensorRT folders of this machine: TENSORRT_ROOTS (separated by colons), or TENSORRT_ROOT."""
    named = os.environ.get("TENSORRT_ROOTS") or os.environ.get("TENSORRT_ROOT") or ""
    return [Path(name) for name in named.split(":") if name]


def version(root: Path) -> tuple[int, int, int]:
    """Read (major, minor, patch) of the headers under ``root``."""
    text = (root / "include" / "NvInferVersion.h").read_text(encoding="utf-8")

    def part(name: str) -> int:
        found = re.search(rf"#define (?:NV_TENSORRT_{name}|TRT_{name}_ENTERPRISE) (\d+)", text)
        assert found is not None, f"{root} names no {name}"
        return int(found[1])

    return part("MAJOR"), part("MINOR"), part("PATCH")


def each_root() -> list[object]:
    """Parameters of a test that runs once for each TensorRT; a skip with its reason when there is none."""
    found = roots()
    if not found:
        reason = "no TensorRT headers: set TENSORRT_ROOT to the folder that has TensorRT's include/"
        return [pytest.param(None, marks=pytest.mark.skip(reason), id="none")]
    return [pytest.param(root, id=".".join(map(str, version(root)))) for root in found]


@dataclass(frozen=True)
class Build:
    """The plugin library and the program that drives it."""

    root: Path
    library: Path
    program: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the program and return its output."""
        command = [str(self.program), str(self.library), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def emulated(root: Path, folder: Path) -> Build:
    """Compile with g++ alone: the kernels run on the CPU, and no CUDA is needed."""
    options = (f"-I{PLUGINS}", "-isystem", str(root / "include"), "-ldl")
    library = compile_emulation(
        (*SOURCES, *KERNELS, *EMULATION), folder / "libvmkla_tensorrt.so", "-shared", "-fPIC",
        "-fvisibility=hidden", f"-Wl,--version-script={EXPORTS}", "-Wl,-z,defs,-z,nodelete", *options,
    )  # fmt: skip
    program = compile_emulation(
        (*HOST_SOURCES, *KERNELS, *EMULATION), folder / "plugin_host", "-rdynamic", *options
    )
    return Build(root, library, program)


def stand_in_tensorrt(root: Path, library: Path) -> None:
    """Compile a libnvinfer.so.N that has only a registry and its version."""
    compile_emulation(
        (str(HOST / "standins.cpp"), *EMULATION), library, "-shared", "-fPIC", f"-Wl,-soname,{library.name}",
        f"-I{PLUGINS}", "-isystem", str(root / "include"), "-ldl",
    )  # fmt: skip


def real(root: Path, folder: Path) -> Build:
    """Compile with CMake and nvcc as the package does; skips the test when there is no nvcc."""
    if shutil.which("nvcc") is None and not Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("no nvcc: install the CUDA toolkit")
    must(
        ["cmake", "-S", str(HOST), "-B", str(folder), f"-DTENSORRT_ROOT={root}",
         f"-DVMKLA_CUDA_ARCHITECTURES={ARCHITECTURE}"]
    )  # fmt: skip
    must(["cmake", "--build", str(folder), "--parallel", str(len(os.sched_getaffinity(0)))])
    return Build(
        root,
        folder / "vmkla" / "engines" / "plugins" / "tensorrt" / "libvmkla_tensorrt.so",
        folder / "plugin_host",
    )


def must(command: Sequence[str]) -> str:
    """Output of a command that has to work."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
