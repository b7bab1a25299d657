"""The Triton kernels compiled ahead of time for GPUs that are not here: sm_80, sm_87 and sm_90."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks.gpu.triton_log import (
    ARCHITECTURES,
    BASIS_KERNELS,
    RANKED_KERNELS,
    SCAN_KERNELS,
    compiled_basis,
    compiled_scan,
    resources,
)

EVERY_ARCHITECTURE = pytest.mark.parametrize(
    "architecture", [pytest.param(80, marks=pytest.mark.slow), 87, pytest.param(90, marks=pytest.mark.slow)]
)
MOST_REGISTERS, MOST_OF_THE_GRADIENT, MOST_OF_THE_BASES = 128, 255, 40
"""16 programs of one warp on a multiprocessor, as ``FORWARD_PROGRAMS`` wants; 8, as ``BACKWARD_PROGRAMS``; 12
of four warps, all that sm_87 holds."""


def check(kernel: Any, architecture: int, name: str) -> dict[str, int]:
    """Assert what holds for every kernel, and report its registers."""
    ptx = kernel.asm["ptx"]
    assert re.search(rf"^\.target sm_{architecture}a?\b", ptx, re.MULTILINE)
    assert kernel.asm["cubin"][:4] == b"\x7fELF"
    # Sums in a fixed order: atomics would make a run differ from the next.
    assert not re.search(r"\b(atom|red)\.", ptx)
    used = resources(kernel)
    print(f"sm_{architecture} {name}: {used}")
    return used


@EVERY_ARCHITECTURE
@pytest.mark.parametrize("name", SCAN_KERNELS)
def test_kernels_compile(name: str, architecture: int) -> None:
    used = check(compiled_scan(name, architecture), architecture, name)
    assert used["stack"] == 0, "registers spill at the rank of the first stage"
    assert used["shared"] <= 4096, "several programs must fit on a multiprocessor"
    most = MOST_OF_THE_GRADIENT if name == "scan_chunks_backward" else MOST_REGISTERS
    assert used["registers"] <= most


@EVERY_ARCHITECTURE
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", BASIS_KERNELS)
def test_basis_kernels_compile(name: str, dtype: str, architecture: int) -> None:
    kernel = compiled_basis(name, architecture, dtype=dtype)
    used = check(kernel, architecture, name)
    assert used["stack"] == 0 and used["registers"] <= MOST_OF_THE_BASES
    ptx = kernel.asm["ptx"]
    widest = re.compile(r"(ld|st)\.global\.v4\.b32")
    assert len(widest.findall(ptx)) == (2 if dtype == "fp32" else 1), "a thread moves eight bases"
    # PTX's own maximum and minimum drop a NaN, which the interpreter's keep.
    assert not re.search(r"\b(max|min)\.f32", ptx)
    assert ptx.count("div.rn.f32") == 1


@pytest.mark.slow
@pytest.mark.parametrize("bases", [4, 13, 33])
@pytest.mark.parametrize("name", BASIS_KERNELS)
def test_other_numbers_of_bases_compile(name: str, bases: int) -> None:
    assert check(compiled_basis(name, 90, bases=bases), 90, name)["stack"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rank", [16, 32, 64])
@pytest.mark.parametrize("name", RANKED_KERNELS)
def test_higher_ranks_compile(name: str, rank: int, architecture: int) -> None:
    used = check(compiled_scan(name, architecture, rank=rank), architecture, name)
    # dt_weight alone is `rank` registers: ptxas puts a few values aside at 64, and more in the gradient.
    widest, gradient = rank == 64, name == "scan_chunks_backward"
    assert used["stack"] <= (192 if widest and gradient else 16 if widest or gradient else 0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("n", [1, 64])
@pytest.mark.parametrize("name", RANKED_KERNELS)
def test_other_types_and_numbers_of_states_compile(name: str, n: int, dtype: str) -> None:
    check(compiled_scan(name, 90, n=n, dtype=dtype), 90, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCAN_KERNELS)
def test_sizes_of_one_compile(name: str) -> None:
    check(compiled_scan(name, 90, n=1, rank=1, ones=True), 90, name)


@pytest.mark.parametrize("name", ["chunk_ends", "scan_chunks", "adjoint_ends"])
def test_a_thread_holds_a_channel_with_all_its_states(name: str) -> None:
    """Else every step would exchange sums between threads, which costs more than its exponentials."""
    kernel = compiled_scan(name, 90)
    assert "shfl" not in kernel.asm["ptx"] and "bar.sync" not in kernel.asm["ptx"]
    # One exponential per state and step, and those of softplus.
    assert 16 < kernel.asm["ptx"].count("ex2.approx") <= 18
