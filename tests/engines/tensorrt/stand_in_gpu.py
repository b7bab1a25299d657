"""Build the stand-in for NVIDIA's driver and read what it recorded; see ``stand_in_gpu.cpp``."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
"""What ``cuLaunchHostFunc`` takes."""
needs_pycuda = pytest.mark.skipif(
    importlib.util.find_spec("pycuda") is None, reason="PyCUDA is not installed: make install"
)
"""Marks a test that runs on that package; `make test` does without it."""
PACKAGES = ("cuda-bindings", pytest.param("pycuda", marks=needs_pycuda))
"""Parameters of a test that runs on both packages for the driver."""
SOURCE = Path(__file__).with_name("stand_in_gpu.cpp")


def build(folder: Path) -> Path:
    """Compile ``libcuda.so.1`` into a folder, which a process then finds through LD_LIBRARY_PATH."""
    library = folder / "libcuda.so.1"
    extra = folder / "unused.cpp"
    extra.write_text(_unused_functions(), encoding="ascii")
    compiler = shutil.which("g++") or shutil.which("c++")
    assert compiler is not None, "vmkla itself is built with a C++ compiler"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC"]
    link = ["-Wl,-soname,libcuda.so.1", "-o", str(library), "-ldl"]
    subprocess.run([compiler, *flags, str(SOURCE), str(extra), *link], check=True)
    return library


def _unused_functions() -> str:
    """PyCUDA's extension names the whole of the driver's API, and loads only where all of it exists."""
    spec = importlib.util.find_spec("pycuda")
    if spec is None or not spec.submodule_search_locations:
        return ""
    (extension,) = Path(spec.submodule_search_locations[0]).glob("_driver*.so")
    done = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension)], capture_output=True, text=True, check=True
    )
    wanted = set(re.findall(r" U (cu[A-Z]\w*)", done.stdout))
    there = set(re.findall(r"^int (cu\w+)\(", SOURCE.read_text(encoding="utf-8"), re.MULTILINE))
    not_supported = 801  # CUDA_ERROR_NOT_SUPPORTED
    return "".join(
        f'extern "C" int {name}() {{ return {not_supported}; }}\n' for name in sorted(wanted - there)
    )


@functools.cache
def library() -> ctypes.CDLL:
    """The stand-in, in a process that runs on it."""
    loaded = ctypes.CDLL("libcuda.so.1")
    loaded.stand_in_device_bytes.restype = ctypes.c_size_t
    for name in ("calls", "pageable_copies", "pending", "live"):
        getattr(loaded, f"stand_in_{name}").restype = ctypes.c_long
    loaded.cuLaunchHostFunc.argtypes = [ctypes.c_void_p, HOST_FUNCTION, ctypes.c_void_p]
    loaded.stand_in_launch_failure.argtypes = [ctypes.c_void_p]
    return loaded


def calls(function: str) -> int:
    """Count the calls of a function of the driver's API."""
    return int(library().stand_in_calls(function.encode()))


def fail(function: str, status: int) -> None:
    """Make the next call of a function return a status and do nothing."""
    library().stand_in_fail(function.encode(), status)


def live() -> int:
    """Count the allocations, streams, events, graphs and contexts that were not released."""
    return int(library().stand_in_live())


def pending() -> int:
    """Count the pieces of work that wait on a stream."""
    return int(library().stand_in_pending())


def current_device() -> int:
    """Return the GPU whose context the calling thread has."""
    device = ctypes.c_int(-1)
    assert library().cuCtxGetDevice(ctypes.byref(device)) == 0
    return device.value


def end_capture(stream: int) -> None:
    """End a capture whose own end was made to fail."""
    graph = ctypes.c_void_p()
    assert library().cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph)) == 0
    assert library().cuGraphDestroy(graph) == 0


def forget() -> None:
    """Forget what is alive: after a failure of the GPU nothing can be released."""
    library().stand_in_forget()
