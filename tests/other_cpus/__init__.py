"""Run Python as if this x86-64 CPU had fewer instruction sets, at full speed.

ONNX Runtime and vmkla's kernels choose their code by the CPUID instruction. Copies of both libraries carry a
breakpoint in its place, and a handler of that signal answers without the bits that a profile hides. All else
is the CPU itself. The copies come first on the path of the processes that get ``environment``.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.other_cpus.copies import copy_onnxruntime, copy_patched

HERE = Path(__file__).parent
PROFILE, FOLDER, BITS = "VMKLA_TEST_CPU", "VMKLA_TEST_CPU_FOLDER", "VMKLA_TEST_CPU_BITS"
"""Environment variables of the processes that run as another CPU."""

Row = tuple[int, int, int, int, int, int]
"""Leaf and subleaf of CPUID, and the bits of eax, ebx, ecx and edx that are hidden."""


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


# AMD, "AMD64 Architecture Programmer's Manual", vol. 3, app. E; Intel, "Software Developer's Manual", CPUID.
_AMX_AND_LATER = (
    (7, 0, 0, _bits(21, 26, 27), _bits(1, 6, 11, 12, 14), _bits(2, 3, 8, 22, 23, 24, 25)),
    (7, 1, _bits(4, 5, 21, 23), 0, 0, _bits(4, 5, 8, 10, 19)),
)
"""VNNI in both encodings, AMX, AVX10, and the parts of AVX-512 that came after Skylake."""
_AVX512 = (7, 0, 0, _bits(16, 17, 28, 30, 31), 0, 0)
"""AVX-512 F, DQ, CD, BW, VL."""


@dataclass(frozen=True)
class Profile:
    """A kind of CPU.

    Attributes:
        name: what tests call it.
        label: what tables call it.
        hidden: CPUID bits that it lacks.
        without: flags of /proc/cpuinfo that it lacks.
        flags: alternatives, each the flags of /proc/cpuinfo without which this machine cannot be one.
        switches: environment variables by which torch and its libraries lack the same.
    """

    name: str
    label: str
    hidden: tuple[Row, ...]
    without: frozenset[str]
    flags: tuple[frozenset[str], ...]
    switches: tuple[tuple[str, str], ...] = ()

    @property
    def described(self) -> str:
        """The label, and whether instruction sets are hidden on this CPU to be one."""
        return f"{self.label}, the others hidden" if self.without & _flags() else self.label

    def runs_here(self) -> bool:
        """Return whether this CPU has every instruction set of the profile."""
        return platform.machine() == "x86_64" and any(needed <= _flags() for needed in self.flags)


_AVX2_FLAGS = frozenset({"avx2", "fma"})
_AVX512_FLAGS = _AVX2_FLAGS | {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "avx2",
            "AVX2",
            (*_AMX_AND_LATER, _AVX512),
            frozenset({"avx512f", "avx_vnni"}),
            (_AVX2_FLAGS,),
            (("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2")),
        ),
        Profile(
            "avx512",
            "AVX-512",
            _AMX_AND_LATER,
            frozenset({"avx512_vnni", "avx_vnni"}),
            (_AVX512_FLAGS,),
            (("ONEDNN_MAX_CPU_ISA", "AVX512_CORE"),),
        ),
        Profile(
            "vnni",
            "VNNI",
            (),
            frozenset(),
            (_AVX512_FLAGS | {"avx512_vnni"}, _AVX2_FLAGS | {"avx_vnni"}),
        ),
    )
}


EXPLANATION = (
    "Where others are hidden, this CPU has more instruction sets, which ONNX Runtime and vmkla's kernels "
    "were kept from seeing (`tests/other_cpus`): the code is an older CPU's, caches and clock are not."
)


def available() -> list[Profile]:
    """The profiles that this CPU can stand in for."""
    return [profile for profile in PROFILES.values() if profile.runs_here()]


def build(folder: Path) -> Path:
    """Make the patched copies of the libraries, in about five seconds.

    Args:
        folder: a new folder, which may be moved later.
    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    library = folder / "cpuid.so"
    subprocess.run(["gcc", "-O1", "-fPIC", "-shared", "-o", library, HERE / "cpuid.c"], check=True)
    copy_onnxruntime(folder)
    from vmkla.native import CPU_LIBRARY, find_library

    copy_patched(find_library(), folder / "vmkla" / "lib" / CPU_LIBRARY)
    shutil.copyfile(HERE / "start.py", folder / "sitecustomize.py")
    return folder


def require(name: str) -> None:
    """Skip a test, which must be marked ``hardware``, where this CPU lacks what a profile has."""
    import pytest

    if not PROFILES[name].runs_here():
        pytest.skip(f"this CPU lacks instruction sets of {name}")


def environment(profile: str, folder: Path) -> dict[str, str]:
    """Return the environment of a Python process that runs as another CPU.

    Args:
        profile: ``avx2`` (neither AVX-512 nor VNNI), ``avx512`` (AVX-512 without VNNI) or ``vnni`` (all that
            this CPU has).
        folder: of ``build``.
    """
    chosen = PROFILES[profile]
    numbers = " ".join(f"{number:x}" for row in chosen.hidden for number in row)
    of_profile = {PROFILE: profile, FOLDER: str(folder), BITS: numbers, **dict(chosen.switches)}
    of_profile["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")  # its code is for one kind of CPU
    path = [str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, **of_profile, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


def run(
    profile: str, folder: Path, *arguments: str | Path, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run Python with some arguments as another CPU, away from the checkout and its half of a package."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment(profile, folder), capture_output=True, text=True, check=False,
        timeout=timeout_s,
    )  # fmt: skip


def _flags() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def ask_for_precise_mode() -> None:
    """Make all later sessions of this process use ONNX Runtime's slower products, exact on every CPU."""
    from vmkla.imports import require

    onnxruntime = require("onnxruntime", extra=None, purpose="an exact session")

    plain = onnxruntime.SessionOptions

    def options() -> Any:
        made = plain()
        made.add_session_config_entry("session.x64quantprecision", "1")
        return made

    onnxruntime.SessionOptions = options
