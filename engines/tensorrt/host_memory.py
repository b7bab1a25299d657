"""Whether the machine has the memory that a build takes. A Jetson's GPU shares it."""

from __future__ import annotations

from pathlib import Path

from vmkla.errors import MissingDependencyError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def check_memory(onnx_bytes: int, *, rtx: bool) -> None:
    """Look before the build begins.

    Args:
        onnx_bytes: length of the file.
        rtx: the build is TensorRT-RTX's.
    Raises:
        MissingDependencyError: it would end for want of memory.
    """
    needed, free = needed_memory_bytes(onnx_bytes, rtx=rtx), free_memory_bytes()
    if free < needed:
        raise MissingDependencyError(
            f"this build takes about {needed / 2**30:.1f} GiB of memory, free are {free / 2**30:.1f} GiB",
            hint="End other programs, or add swap: sudo fallocate -l 8G /swap && sudo chmod 600 /swap && "
            "sudo mkswap /swap && sudo swapon /swap",
        )


def needed_memory_bytes(onnx_bytes: int, *, rtx: bool) -> int:
    """Host memory that a build takes, about.

    TensorRT-RTX 1.7 was measured (benchmarks/tensorrt-rtx.md): 0.75 GB for nano, 1.35 GB for small's 90 MB in
    half precision, 1.7 GB for its 179 MB in float32, whatever the number of targets. TensorRT loads more
    libraries of kernels and was not measured: 2 GiB beside the file.
    """
    return (3 << 28 if rtx else 1 << 31) + 6 * onnx_bytes


def free_memory_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Memory and swap that this process may still take: the machine's, or what its container leaves it.

    Args:
        meminfo: the kernel's table.
        cgroup: folder of the container's limits; it has none on a bare machine.
    """
    kib = {}
    for line in meminfo.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        kib[name] = int(value.split()[0])
    free = 1024 * (kib["MemAvailable"] + kib.get("SwapFree", 0))
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except OSError:
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))
