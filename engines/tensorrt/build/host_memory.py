"""Check that the machine has enough memory for a build. A Jetson's GPU shares it."""

from __future__ import annotations

from pathlib import Path

from vmkla.errors import MissingDependencyError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_SWAPS = Path("/proc/swaps")


def check_memory(onnx_bytes: int, *, rtx: bool) -> None:
    """Check that a build has enough memory before it begins.

    Args:
        onnx_bytes: size of the ONNX file.
        rtx: whether TensorRT-RTX builds.
    Raises:
        MissingDependencyError: less memory is free than the build needs.
    """
    needed, free = needed_memory_bytes(onnx_bytes, rtx=rtx), free_memory_bytes()
    if free < needed:
        raise MissingDependencyError(
            f"this build takes about {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free",
            hint="End other programs, or add swap: sudo fallocate -l 8G /swap && sudo chmod 600 /swap && "
            "sudo mkswap /swap && sudo swapon /swap",
        )


def needed_memory_bytes(onnx_bytes: int, *, rtx: bool) -> int:
    """Estimate the host memory that a build needs, in bytes.

    TensorRT-RTX 1.7 was measured (benchmarks/gpu/tensorrt-rtx.md): 0.75 GB for nano, 1.35 GB for small's 90
    MB in half precision, 1.7 GB for its 179 MB in float32, for any number of targets. TensorRT loads more
    kernel libraries and was not measured: 2 GiB and six times the file.
    """
    return (3 << 28 if rtx else 1 << 31) + 6 * onnx_bytes


def free_memory_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP, swaps: Path = _SWAPS) -> int:
    """Return the memory and swap that this process may still use, in bytes: the machine's or its container's.

    Args:
        meminfo: path of the kernel's table of memory.
        cgroup: folder of the container's limits; empty on a bare machine.
        swaps: path of the kernel's table of swap. Compressed memory (zram, a Jetson's default) does not
            count.
    """
    kib = _numbers(meminfo)
    swap = max(0, kib.get("SwapFree", 0) - _free_zram_kib(swaps))
    free = 1024 * (kib["MemAvailable"] + swap)
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except OSError:
        return free
    if limit == "max":
        return free
    try:
        stat = _numbers(cgroup / "memory.stat")
    except OSError:
        stat = {}
    # Cached file pages count as used, but the kernel drops them when a program needs memory.
    cache = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    return min(free, max(0, int(limit) - max(0, used - cache)))


def _numbers(table: Path) -> dict[str, int]:
    """Parse a kernel table, ``name: number unit`` or ``name number`` a line, into name to number."""
    rows = (line.replace(":", " ").split() for line in table.read_text(encoding="ascii").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}


def _free_zram_kib(swaps: Path) -> int:
    """Return the free swap that is compressed memory, in KiB; 0 where the kernel has no table of swap."""
    try:
        rows = [line.split() for line in swaps.read_text(encoding="utf-8", errors="replace").splitlines()[1:]]
    except OSError:
        return 0
    # Columns: file name, type, size, used, priority.
    return sum(int(row[2]) - int(row[3]) for row in rows if row and row[0].startswith("/dev/zram"))
