"""Small shared libraries compiled in tests: plugin libraries of the stand-in, and files that are not."""

from __future__ import annotations

import functools
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmkla.engines.tensorrt.plugins import CREATORS

CROSS_COMPILER = "aarch64-linux-gnu-g++"
_MARK = "creators of the stand-in: "


def compile_library(path: Path, source: str, *flags: str, compiler: str = "g++") -> Path:
    """Compile C++ source into a shared library at ``path``."""
    command = [compiler, "-x", "c++", "-shared", "-fPIC", "-o", str(path), "-", "-x", "none", *flags]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def write_plugin(path: Path, creators: tuple[str, ...] = CREATORS, *, note: bytes = b"") -> Path:
    """Compile a plugin library of the stand-in, whose registry reads these creators from it.

    Args:
        path: of the library; one that is loaded is replaced, not overwritten.
        creators: names.
        note: at the file's end, so that its sha256 differs.
    """
    partial = path.with_name(f"part-{path.name}")
    partial.write_bytes(_plugin(creators) + note)
    partial.replace(path)
    return path


def creators_of(path: Path) -> list[str]:
    """Read the creators' names in a library of ``write_plugin``; empty for another file."""
    found = re.search(_MARK.encode() + rb"([\w ]*);", path.read_bytes())
    return found[1].decode().split() if found else []


@functools.cache
def _plugin(creators: tuple[str, ...]) -> bytes:
    source = (
        'extern "C" void* const* getCreators(int& count) { count = 0; return nullptr; }\n'
        f'extern "C" const char stand_in_creators[] = "{_MARK}{" ".join(creators)};";\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        return compile_library(Path(folder, "plugin.so"), source).read_bytes()


@dataclass(frozen=True)
class Unusable:
    """A file that is not a plugin library for this process.

    Attributes:
        source: what it is compiled from; None for a file of text.
        reason: what is to be reported.
        compiler: for another architecture.
        needs: name of a library that it is linked with, and that is gone.
    """

    source: str | None
    reason: str
    compiler: str = "g++"
    needs: str | None = None

    def write(self, path: Path) -> Path:
        """Write the file at ``path``."""
        if self.source is None:
            path.write_text("not a library " * 100, encoding="utf-8")
            return path
        if self.needs is None:
            return compile_library(path, self.source, compiler=self.compiler)
        gone = path.with_name(self.needs)
        compile_library(gone, "", f"-Wl,-soname,{self.needs}")
        compile_library(path, self.source, "-Wl,--no-as-needed", str(gone))
        gone.unlink()
        return path


_ENTRY = 'extern "C" void* const* getCreators(int& count)'
UNUSABLE = {
    "a missing library": Unusable(
        _ENTRY + " { count = 0; return nullptr; }",
        "libgone_of_a_test.so.1: cannot open shared object file: No such file or directory",
        needs="libgone_of_a_test.so.1",
    ),
    "an undefined function": Unusable(
        f'extern "C" void** nowhere_at_all();\n{_ENTRY} {{ return nowhere_at_all(); }}',
        "undefined symbol: nowhere_at_all",
    ),
    "another architecture": Unusable(
        _ENTRY + " { count = 0; return nullptr; }",
        "it is compiled for aarch64 (64 bit), and this process is x86-64 (64 bit)",
        compiler=CROSS_COMPILER,
    ),
    "a library without plugins": Unusable(
        'extern "C" int another() { return 3; }',
        "it is a shared library without plugins for TensorRT: it has no function getCreators",
    ),
    "a file of text": Unusable(None, "it is not a shared library"),
}
UNUSABLE_KINDS = [
    pytest.param(
        kind,
        marks=[
            pytest.mark.hardware,
            pytest.mark.skipif(
                shutil.which(CROSS_COMPILER) is None or platform.machine() != "x86_64",
                reason=f"needs x86-64 and {CROSS_COMPILER}: apt-get install g++-aarch64-linux-gnu",
            ),
        ]
        if unusable.compiler == CROSS_COMPILER
        else [],
    )
    for kind, unusable in UNUSABLE.items()
]
"""Parameters: keys of ``UNUSABLE``."""
