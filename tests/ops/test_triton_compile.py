"""The Triton kernels compiled ahead of time for GPUs that are not here: sm_80, sm_87 and sm_90."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vmkla.ops import triton_backward, triton_forward

ARCHITECTURES = (80, 87, 90)
RANKS = (8, 16, 32, 64)
"""dt ranks of ``small``'s stages (6, 12, 24, 48), as powers of two."""
KERNELS: dict[str, tuple[Any, dict[str, bool]]] = {
    "chunk_ends": (triton_forward.chunk_ends, {}),
    "carry_chunks": (triton_forward.carry_chunks, {"REVERSE": False}),
    "carry_chunks, reverse": (triton_forward.carry_chunks, {"REVERSE": True}),
    "scan_chunks": (triton_forward.scan_chunks, {"ACCUMULATE": False, "FROM_ZERO": False}),
    "scan_chunks, whole": (triton_forward.scan_chunks, {"ACCUMULATE": True, "FROM_ZERO": True}),
    "adjoint_ends": (triton_backward.adjoint_ends, {}),
    "scan_chunks_backward": (triton_backward.scan_chunks_backward, {"ACCUMULATE": True}),
}


def compiled(
    name: str, architecture: int, *, rank: int = 8, n: int = 16, dtype: str = "fp32", ones: bool = False
) -> Any:
    """A kernel as a GPU would get it for d and n that are multiples of 16.

    ``ones``: as it would get it if every size were 1, which Triton compiles in as a constant.
    """
    kernel, flags = KERNELS[name]
    constants = {"N": n, "RANK": rank, "CHANNELS": 32, **flags}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    plain = {parameter.name for parameter in kernel.params if parameter.do_not_specialize}
    signature, attributes = {}, {}
    for i, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument.endswith("_ptr"):
            half = argument in ("u_ptr", "p_ptr", "weight_ptr", "dy_ptr")
            signature[argument] = f"*{dtype if half else 'fp32'}"
            attributes[i,] = [["tt.divisibility", 16]]
        elif ones and argument not in plain:
            signature[argument], constants[argument] = "constexpr", 1
        else:
            signature[argument] = "i32"
            if argument in ("d", "n") and argument not in plain:
                attributes[i,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Triton's notices about its own defaults
        return triton.compile(
            source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": max(1, n // 16)}
        )


def resources(binary: bytes, folder: Path) -> dict[str, int]:
    """Registers and stack (where spills go, bytes) of the kernel in a cubin."""
    path = folder / "kernel.cubin"
    path.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run(
        [tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True, timeout=60
    )
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
    assert found is not None, done.stdout
    return dict(zip(("registers", "stack"), map(int, found.groups()), strict=True))


def check(name: str, architecture: int, folder: Path, **options: Any) -> dict[str, int]:
    """Compile, hold what holds for every kernel, and report."""
    kernel = compiled(name, architecture, **options)
    ptx = kernel.asm["ptx"]
    assert re.search(rf"^\.target sm_{architecture}a?\b", ptx, re.MULTILINE)
    assert kernel.asm["cubin"][:4] == b"\x7fELF"
    # Sums in a fixed order: atomics would make a run differ from the next.
    assert not re.search(r"\b(atom|red)\.", ptx)
    used = resources(kernel.asm["cubin"], folder) | {"shared": int(kernel.metadata.shared)}
    print(f"sm_{architecture} {name} {options}: {used}")
    return used


@pytest.mark.parametrize(
    "architecture", [pytest.param(80, marks=pytest.mark.slow), 87, pytest.param(90, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile(name: str, architecture: int, tmp_path: Path) -> None:
    used = check(name, architecture, tmp_path)
    assert used["stack"] == 0, "registers spill at the rank of the first stage"
    assert used["shared"] <= 4096, "several programs must fit on a multiprocessor"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rank", RANKS[1:])
@pytest.mark.parametrize("name", ["chunk_ends", "scan_chunks", "adjoint_ends", "scan_chunks_backward"])
def test_higher_ranks_compile(name: str, rank: int, architecture: int, tmp_path: Path) -> None:
    used = check(name, architecture, tmp_path, rank=rank)
    # dt_weight alone is `rank` registers: ptxas puts a few values aside at 64, and more in the gradient.
    widest, gradient = rank == 64, name == "scan_chunks_backward"
    assert used["stack"] <= (192 if widest and gradient else 16 if widest or gradient else 0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("n", [1, 64])
@pytest.mark.parametrize("name", ["chunk_ends", "scan_chunks", "adjoint_ends", "scan_chunks_backward"])
def test_other_types_and_numbers_of_states_compile(name: str, n: int, dtype: str, tmp_path: Path) -> None:
    check(name, 90, tmp_path, n=n, dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_sizes_of_one_compile(name: str, tmp_path: Path) -> None:
    check(name, 90, tmp_path, n=1, rank=1, ones=True)


@pytest.mark.parametrize("name", ["chunk_ends", "scan_chunks", "adjoint_ends"])
def test_a_thread_holds_a_channel_with_all_its_states(name: str) -> None:
    """Else every step would exchange sums between threads, which costs more than its exponentials."""
    kernel = compiled(name, 90)
    assert "shfl" not in kernel.asm["ptx"] and "bar.sync" not in kernel.asm["ptx"]
    # One exponential per state and step, and those of softplus.
    assert 16 < kernel.asm["ptx"].count("ex2.approx") <= 18
