"""Query the CPU: its name, its instruction sets, and the one that the kernels use."""

from __future__ import annotations

import ctypes
import platform

from vmkla.errors import MissingDependencyError
from vmkla.native import find_library

VNNI = "vnni"
"""Instruction set that adds products of 8-bit integers in 32 bits: AVX-512 VNNI or AVX-VNNI."""

FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8",
    "asimd", "asimdhp", "asimddp", "sve", "bf16", "i8mm",
)  # fmt: skip
"""Flags of /proc/cpuinfo that determine the speed of dense arithmetic."""
_X86 = ("x86_64", "AMD64")
_AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}


def cpu_name() -> str:
    """Return the CPU's name, or its architecture where it has no name."""
    names = [value for key, value in _cpuinfo() if key in ("model name", "CPU part")]
    return names[0] if names else platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Return the instruction sets of ``FLAGS`` that the CPU has, by their names in /proc/cpuinfo.

    On x86-64 the compiled library queries the CPU, as ONNX Runtime does; elsewhere the file is read.

    Raises:
        MissingDependencyError: on x86-64, the library is missing or has another version.
    """
    if platform.machine() in _X86:
        present = set(_from_library("vmkla_cpu_features").split())
    else:
        present = {flag for key, value in _cpuinfo() if key == "Features" for flag in value.split()}
    return tuple(flag for flag in FLAGS if flag in present)


def missing_for_int8() -> str | None:
    """Return ``vnni`` where this CPU lacks it and so cannot multiply full 8-bit integers; else None.

    x86-64 without VNNI adds two such products in 16 bits, which saturates (up to 255 x 127 x 2 = 64770).
    ONNX Runtime prefers AVX-512 to AVX-VNNI, so a CPU with AVX-512 needs AVX-512 VNNI. On aarch64 its kernels
    add in 32 bits, or two products of signed integers in 16 bits: 128 x 127 x 2 = 32512 fits.

    Raises:
        MissingDependencyError: see ``cpu_flags``.
    """
    if platform.machine() not in _X86:
        return None
    flags = set(cpu_flags())
    needed = "avx512_vnni" if flags >= _AVX512 else "avx_vnni"
    return None if needed in flags else VNNI


def lacks_bfloat16() -> bool:
    """Report whether bfloat16 is emulated on this CPU, which takes several times as long as float32.

    oneDNN, which multiplies matrices for PyTorch, has kernels of it from AVX-512 on.

    Raises:
        MissingDependencyError: see ``cpu_flags``.
    """
    return platform.machine() in _X86 and not set(cpu_flags()) >= _AVX512


def kernel_instruction_set() -> str:
    """Return the instruction set of vmkla's CPU kernels here: ``avx512``, ``avx2``, ``neon`` or ``baseline``.

    Raises:
        MissingDependencyError: the library is missing or has another version.
    """
    return _from_library("vmkla_cpu_instruction_set")


def _from_library(function: str) -> str:
    path = find_library()
    try:
        ask = getattr(ctypes.CDLL(str(path)), function)
    except (OSError, AttributeError) as error:
        raise MissingDependencyError(
            f"the compiled library {path} cannot be used: {error}",
            hint="Run: pip install --force-reinstall vmkla   (from a checkout: pip install .)",
        ) from error
    ask.restype = ctypes.c_char_p
    return str(ask().decode())


def _cpuinfo() -> list[tuple[str, str]]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    return [
        (key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines) if value
    ]
