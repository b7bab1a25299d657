"""Which instruction sets the CPU has, and what they mean for 8-bit products."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from tests import other_cpus
from vmkla import cpu_features
from vmkla.errors import MissingDependencyError

AVX2 = ("sse4_2", "avx", "avx2", "fma")
AVX512 = (*AVX2, "avx512f", "avx512dq", "avx512bw", "avx512vl")


def test_the_flags_are_those_of_proc_cpuinfo() -> None:
    """Linux lists what the CPU has and the system has enabled: an answer that the library has no part in."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    listed = {
        flag
        for line in lines
        if line.startswith(("flags", "Features"))
        for flag in line.partition(":")[2].split()
    }
    seen = cpu_features.cpu_flags()
    assert len(seen) > 2 and set(seen) <= listed
    if os.environ.get(other_cpus.PROFILE, "vnni") == "vnni":  # nothing is hidden
        assert set(seen) == listed & set(cpu_features.FLAGS)


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (("sse4_2",), "vnni"),
        (AVX2, "vnni"),
        ((*AVX2, "avx_vnni"), None),
        (AVX512, "vnni"),
        ((*AVX512, "avx512_vnni"), None),
        ((*AVX512, "avx_vnni"), "vnni"),  # ONNX Runtime takes the AVX-512 kernel, which has no VNNI
        ((*AVX2, "avx512f", "avx_vnni"), None),  # too little of AVX-512 for its kernels
    ],
)
def test_what_eight_bits_need(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], missing: str | None
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(cpu_features, "cpu_flags", lambda: flags)
    assert cpu_features.missing_for_int8() == missing


@pytest.mark.parametrize(
    ("machine", "flags", "lacking"),
    [
        ("x86_64", AVX2, True),
        ("x86_64", (*AVX2, "avx512f"), True),
        ("x86_64", AVX512, False),
        ("aarch64", ("asimd",), False),
    ],
)
def test_what_bfloat16_needs(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: tuple[str, ...], lacking: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(cpu_features, "cpu_flags", lambda: flags)
    assert cpu_features.lacks_bfloat16() == lacking


def test_aarch64_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(cpu_features, "cpu_flags", lambda: ("asimd",))
    assert cpu_features.missing_for_int8() is None


def test_a_library_of_another_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.so").write_bytes(b"not a library")
    monkeypatch.setattr(cpu_features, "find_library", lambda: tmp_path / "other.so")
    with pytest.raises(MissingDependencyError, match="cannot be used"):
        cpu_features.kernel_instruction_set()
