"""CMake says which GPU code it leaves out and why, and refuses what cannot be meant."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import ROOT

IN_PIP = "-DSKBUILD=2"
NVCC = "-DVMKLA_NVCC=/bin/true"
"""Found, and not called: each of these builds leaves the kernels out."""


def configure(folder: Path, *options: str) -> tuple[int, str]:
    """Status and messages, in one line, of a fresh configuration."""
    environment = {name: value for name, value in os.environ.items() if name != "TENSORRT_ROOT"}
    done = subprocess.run(
        ["cmake", "-S", str(ROOT), "-B", str(folder / "build"), *options],
        capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def old_headers(tmp_path: Path) -> str:
    """A TensorRT of JetPack 5."""
    include = tmp_path / "old" / "include"
    include.mkdir(parents=True)
    (include / "NvInfer.h").touch()
    parts = {"MAJOR": 8, "MINOR": 5, "PATCH": 2}
    version = "".join(f"#define NV_TENSORRT_{part} {number} //!<\n" for part, number in parts.items())
    (include / "NvInferVersion.h").write_text(version, encoding="utf-8")
    return f"-DTENSORRT_ROOT={include.parent}"


def test_off(tmp_path: Path) -> None:
    status, said = configure(tmp_path, "-DVMKLA_CUDA=OFF")
    assert status == 0 and "GPU code is left out: VMKLA_CUDA is OFF" in said


def test_unknown_value(tmp_path: Path) -> None:
    status, said = configure(tmp_path, "-DVMKLA_CUDA=YES")
    assert status != 0 and "VMKLA_CUDA is YES, expected AUTO, ON or OFF" in said


def test_wrong_folder(tmp_path: Path) -> None:
    status, said = configure(tmp_path, f"-DTENSORRT_ROOT={tmp_path}")
    assert status != 0 and "include/NvInfer.h does not exist" in said


def test_headers_that_are_too_old_are_left_out_aloud(tmp_path: Path, old_headers: str) -> None:
    status, said = configure(tmp_path, IN_PIP, NVCC, old_headers)
    assert status == 0
    assert "libvmkla_tensorrt.so is left out although TENSORRT_ROOT is set" in said
    assert "is TensorRT 8.5.2, older than 10.0" in said
    assert "GPU kernels:" not in said


def test_on_refuses_headers_that_are_too_old(tmp_path: Path, old_headers: str) -> None:
    status, said = configure(tmp_path, IN_PIP, NVCC, old_headers, "-DVMKLA_CUDA=ON")
    assert status != 0 and "VMKLA_CUDA is ON, but" in said and "older than 10.0" in said


def architectures(folder: Path, *options: str) -> tuple[int, str]:
    """Status and messages, in one line, of choosing architectures: gpu.cmake alone, without a compiler."""
    script = folder / "choose.cmake"
    script.write_text(
        f'include("{ROOT}/engines/plugins/cmake/gpu.cmake")\nmessage("for ${{CMAKE_CUDA_ARCHITECTURES}}")\n',
        encoding="utf-8",
    )
    environment = {name: value for name, value in os.environ.items() if name != "TENSORRT_ROOT"}
    done = subprocess.run(
        ["cmake", *options, "-P", str(script)],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("named", ["87;90;120", "120;87;90", "120;90;87"])
def test_ptx_is_that_of_the_newest_architecture(tmp_path: Path, named: str) -> None:
    status, said = architectures(tmp_path, NVCC, f"-DVMKLA_CUDA_ARCHITECTURES={named}")
    assert status == 0 and "for 87-real;90-real;120-real;120-virtual" in said


def test_a_compiler_of_no_supported_architecture(tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho sm_50\necho sm_52\n", encoding="utf-8")
    nvcc.chmod(0o755)
    status, said = architectures(tmp_path, f"-DVMKLA_NVCC={nvcc}")
    assert status != 0
    assert 'lists "sm_50 sm_52 "' in said and "none of the supported architectures: 75 80 86" in said


def test_no_header_of_ours_hides_one_of_the_system() -> None:
    """<math.h> must not find kernels/math.h: that folder is on no include path."""
    paths = [
        line
        for file in sorted((ROOT / "engines").rglob("CMakeLists.txt"))
        for line in re.findall(r"include_directories\(([^)]*)\)", file.read_text(encoding="utf-8"))
    ]
    assert any("INCLUDE" in line for line in paths)
    assert [line for line in paths if "/kernels" in line] == []


def test_another_machine_is_not_compiled_for(tmp_path: Path) -> None:
    status, said = configure(tmp_path, "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=x86_64")
    assert status == 0 and "libvmkla_tensorrt.so is left out: this build is for another machine" in said
