"""The CUDA kernels compile for Orin and for Hopper, and every one without spills and within its registers."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.plugins.emulated_kernels import KERNELS, PLUGINS

ARCHITECTURES = ("sm_87", "sm_90")
MOST_REGISTERS = 128
"""A block's launch bounds promise 16 warps a multiprocessor: 65536 / (16 x 32)."""
SCAN = re.compile(r"(chunk_ends|scan_chunks)I(f|6__half)Li\d+ELi\d+ELi\d+E")
"""Passes of the scan, of every number of states and lanes a channel."""

ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<spilled>\d+) bytes spill stores"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Kernel:
    """One kernel as ptxas reports it."""

    name: str
    spilled_bytes: int
    registers: int


def find_nvcc() -> str | None:
    """On the path, in CUDA_HOME, or in the pip package of CUDA's compiler."""
    candidates = [shutil.which("nvcc")]
    if home := os.environ.get("CUDA_HOME"):
        candidates.append(str(Path(home) / "bin" / "nvcc"))
    spec = importlib.util.find_spec("nvidia")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        candidates += [str(path) for path in sorted(Path(location).glob("*/bin/nvcc"))]
    return next((c for c in candidates if c and os.access(c, os.X_OK)), None)


def compiled(nvcc: str, source: str, architecture: str, folder: Path) -> list[Kernel]:
    """Kernels of a source file, compiled; warnings are failures."""
    command = [
        nvcc, "-std=c++17", "-O3", f"-arch={architecture}", "-Xptxas", "-v", "-Werror", "all-warnings",
        "-Xcompiler=-Wall,-Wextra", "-c", str(PLUGINS / source), "-o", str(folder / "kernels.o"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return [
        Kernel(match["name"], int(match["spilled"]), int(match["registers"]))
        for match in ENTRY.finditer(output)
    ]


@pytest.mark.slow
@pytest.mark.hardware
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_and_spill_nothing(architecture: str, tmp_path: Path) -> None:
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc on the path, in CUDA_HOME or in a pip package of CUDA's compiler")
    kernels = [k for source in KERNELS for k in compiled(nvcc, source, architecture, tmp_path)]
    scans = [kernel for kernel in kernels if SCAN.search(kernel.name)]
    assert len(scans) == 2 * 2 * 6  # passes, types, splits of a channel's states
    assert [kernel for kernel in kernels if kernel.spilled_bytes] == []
    assert max(kernel.registers for kernel in kernels) <= MOST_REGISTERS


def test_the_launch_interface_is_plain_cpp(tmp_path: Path) -> None:
    """The TensorRT plugin is compiled by g++, against CUDA's runtime header alone."""
    source = tmp_path / "use.cpp"
    source.write_text('#include "launch.h"\nint main() { return vmkla::cuda::kMaxStates == 0; }\n')
    done = subprocess.run(
        ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-DVMKLA_CUDA_EMULATION",
         f"-I{PLUGINS / 'cuda'}", f"-I{PLUGINS / 'harness' / 'emulation'}", "-fsyntax-only", str(source)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.hardware
def test_the_harness_says_that_there_is_no_gpu(tmp_path: Path) -> None:
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc on the path, in CUDA_HOME or in a pip package of CUDA's compiler")
    harness = sorted((PLUGINS / "harness").glob("*.c[up]*"))
    program = tmp_path / "harness"
    command = [nvcc, "-std=c++17", "-arch=sm_87", *(str(PLUGINS / k) for k in KERNELS), *map(str, harness)]
    built = subprocess.run(
        [*command, "-o", str(program)], capture_output=True, text=True, timeout=500, check=False
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [str(program)], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert done.returncode == 4
    assert "no GPU" in done.stderr
    assert done.stdout == ""
