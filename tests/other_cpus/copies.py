"""Copies of compiled libraries in which each CPUID instruction is a breakpoint."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

CPUID, BREAKPOINT = b"\x0f\xa2", b"\xcc\x90"  # the breakpoint is one byte long; a no-op follows


def copy_patched(source: Path, target: Path) -> int:
    """Copy a library and replace its CPUID instructions; return their number.

    A disassembler finds them: the same two bytes also occur within other instructions.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    content = bytearray(source.read_bytes())
    listing = subprocess.run(
        ["objdump", "--disassemble", "--no-show-raw-insn", source], stdout=subprocess.PIPE, check=True
    ).stdout
    places = [
        int(found[1], 16) for found in re.finditer(rb"^ *([0-9a-f]+):\s+cpuid\b", listing, re.MULTILINE)
    ]
    for place in places:
        offset = _file_offset(content, place)
        if content[offset : offset + 2] != CPUID:
            raise ValueError(f"{source} has no CPUID instruction at {place:#x}")
        content[offset : offset + 2] = BREAKPOINT
    target.write_bytes(content)
    return len(places)


def copy_onnxruntime(folder: Path) -> None:
    """Link the package ``onnxruntime`` with a patched copy of its compiled module."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("onnxruntime")
    source, target = Path(spec.origin).parent, folder / "onnxruntime"
    shutil.copytree(source, target, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    (library,) = (target / "capi").glob("onnxruntime_pybind11_state*.so")
    original = library.resolve()
    library.unlink()
    if copy_patched(original, library) == 0:
        raise ValueError(f"{original} does not ask the CPU what it is")


def _file_offset(content: bytes | bytearray, address: int) -> int:
    """Return the file offset of an address in a 64-bit ELF library."""
    (table,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    for index in range(count):
        kind, _, offset, start, _, length = struct.unpack_from("<IIQQQQ", content, table + index * size)
        if kind == 1 and start <= address < start + length:  # PT_LOAD
            return int(offset + address - start)
    raise ValueError(f"no segment holds the address {address:#x}")
