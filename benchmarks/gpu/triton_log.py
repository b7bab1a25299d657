"""Compile the Triton kernels ahead of time for GPUs that are not here; report their registers.

    python benchmarks/gpu/triton_log.py FOLDER... --output docs/triton-builds.md

Each folder holds one more version of Triton, see ``COMMANDS``; the installed one comes first. Needs no GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.gpu.plugin_log import Usage, register_table

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = """\
pip install --no-deps --target /tmp/triton-3.6 triton==3.6.0
python benchmarks/gpu/triton_log.py /tmp/triton-3.6
PYTHONPATH=/tmp/triton-3.6 pytest tests/ops/test_triton_compile.py tests/ops/test_triton_bspline.py
"""
"""How the page is written, and how another version of Triton is tested."""
ARCHITECTURES = (80, 87, 90)
SCAN_KERNELS: dict[str, tuple[str, dict[str, bool]]] = {
    "chunk_ends": ("triton_forward.chunk_ends", {}),
    "carry_chunks": ("triton_forward.carry_chunks", {"REVERSE": False}),
    "carry_chunks, reverse": ("triton_forward.carry_chunks", {"REVERSE": True}),
    "scan_chunks": ("triton_forward.scan_chunks", {"ACCUMULATE": False, "FROM_ZERO": False}),
    "scan_chunks, whole": ("triton_forward.scan_chunks", {"ACCUMULATE": True, "FROM_ZERO": True}),
    "adjoint_ends": ("triton_backward.adjoint_ends", {}),
    "scan_chunks_backward": ("triton_backward.scan_chunks_backward", {"ACCUMULATE": True}),
}
BASIS_KERNELS = ("uniform_cubic", "uniform_cubic_backward")
RANKED_KERNELS = ("chunk_ends", "scan_chunks", "adjoint_ends", "scan_chunks_backward")
"""Those whose registers grow with the rank of delta."""
RANKS = (2, 4, 8, 16, 32, 64)
"""dt ranks of ``nano``'s stages (2, 4, 8, 16) and of ``small``'s (6, 12, 24, 48), as powers of two."""


def compiled_scan(
    name: str, architecture: int, *, rank: int = 8, n: int = 16, dtype: str = "fp32", ones: bool = False
) -> Any:
    """Compile a kernel of the scan as a GPU would run it for n a multiple of 16.

    ``ones``: as it would get it if every size were 1, which Triton may compile in as a constant.
    """
    path, flags = SCAN_KERNELS[name]
    half = {pointer: dtype for pointer in ("u_ptr", "p_ptr", "weight_ptr", "dy_ptr")}
    constants = {"N": n, "RANK": rank, "CHANNELS": 32, **flags}
    return _compiled(path, architecture, constants, half, warps=max(1, n // 16), ones=ones)


def compiled_basis(name: str, architecture: int, *, bases: int = 8, dtype: str = "fp32") -> Any:
    """Compile a kernel of the spline bases as a GPU would run it."""
    import triton

    from vmkla.ops.triton_bspline import TILE

    padded = triton.next_power_of_2(bases)
    types = dict.fromkeys(("x_ptr", "bases_ptr", "grad_ptr", "grad_x_ptr"), dtype)
    constants = {"COUNT": bases, "BASES": padded, "VALUES": TILE // padded}
    return _compiled(f"triton_bspline.{name}", architecture, constants, types, warps=4)


def _compiled(
    path: str,
    architecture: int,
    constants: dict[str, Any],
    types: dict[str, str],
    *,
    warps: int,
    ones: bool = False,
) -> Any:
    """Compile a kernel of ``vmkla.ops``. Pointers are aligned, and to float32 unless ``types`` says more."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vmkla.ops import triton_backward, triton_bspline, triton_forward

    modules = {m.__name__.split(".")[-1]: m for m in (triton_backward, triton_bspline, triton_forward)}
    module, name = path.split(".")
    kernel = getattr(modules[module], name)
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    plain = {parameter.name for parameter in kernel.params if parameter.do_not_specialize}
    signature, attributes = {}, {}
    for i, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument.endswith("_ptr"):
            signature[argument] = f"*{types.get(argument, 'fp32')}"
            attributes[i,] = [["tt.divisibility", 16]]
        elif argument in ("grid_min", "step"):
            signature[argument] = "fp32"
        elif ones and argument not in plain:
            signature[argument], constants[argument] = "constexpr", 1
        else:
            signature[argument] = "i32"
            if argument not in plain:
                attributes[i,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Triton's notices about its own defaults
        return triton.compile(
            source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": warps}
        )


def resources(kernel: Any) -> dict[str, int]:
    """Read the registers per thread, and the stack and shared memory in bytes, of a compiled kernel."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        done = subprocess.run(
            [tool, "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
    if found is None:
        raise ValueError(f"cuobjdump names no registers:\n{done.stdout}")
    return {
        "registers": int(found[1]),
        "stack": int(found[2]),
        "shared": int(kernel.metadata.shared),
    }


def kernels(architecture: int) -> Iterator[tuple[str, Any]]:
    """Compile every kernel of the page; yield it with its name."""
    for name in SCAN_KERNELS:
        for rank in RANKS if name in RANKED_KERNELS else (8,):
            label = f"{name}, R = {rank:2}" if name in RANKED_KERNELS else name
            yield label, compiled_scan(name, architecture, rank=rank)
    for name in BASIS_KERNELS:
        for dtype in ("fp32", "fp16", "bf16"):
            yield f"{name}, {dtype}", compiled_basis(name, architecture, dtype=dtype)


def print_usages() -> None:
    """Compile with the Triton that this process imports; print its version and each kernel's use."""
    import triton

    found = []
    for architecture in ARCHITECTURES:
        for label, kernel in kernels(architecture):
            used = resources(kernel)
            found.append(Usage(label, f"sm_{architecture}", used["registers"], used["stack"]))
    print(json.dumps([triton.__version__, [dataclasses.asdict(usage) for usage in found]]))


def usages_with(folder: Path | None) -> tuple[str, list[Usage]]:
    """Compile with the Triton in a folder, or the installed one; return its version and each kernel's use."""
    environment = dict(os.environ)
    if folder is not None:
        environment["PYTHONPATH"] = str(folder.resolve())
    done = subprocess.run(
        [sys.executable, __file__, "--print"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    version, found = json.loads(done.stdout)
    return version, [Usage(**usage) for usage in found]


def report(folders: list[Path]) -> str:
    """Write the whole page."""
    parts = [
        "# Registers of the Triton kernels",
        f"{datetime.date.today().isoformat()}, written by the commands at the end. No GPU took part: this is "
        "what the compilers make of the kernels, not how fast they run. float32 unless the row names a type, "
        "n = 16, eight bases.",
    ]
    for folder in (None, *folders):
        version, found = usages_with(folder)
        table = register_table(found)
        table.title = f"Triton {version}: registers of a thread (bytes of stack, where spills go)"
        parts.append(table.markdown())
    parts += ["## Commands", f"```sh\n{COMMANDS}```"]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Compile with each version and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "triton-builds.md")
    parser.add_argument("--print", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.print:
        print_usages()
        return
    arguments.output.write_text(report(arguments.folders), encoding="utf-8")
    print(f"{arguments.output}: {len(arguments.folders) + 1} versions of Triton")


if __name__ == "__main__":
    main()
