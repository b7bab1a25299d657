"""Find how many CPUs this process may use, from its affinity and the quotas of its control groups.

Every default number of threads follows from ``cpu_budget``. A container with ``--cpus=1`` on a large machine
has a quota and sees all cores. One thread for each core would use up the quota in the first part of each
period, and the kernel would stop the whole process, the display included, until the next one.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc/self")
_TOPOLOGY = Path("/sys/devices/system/cpu")
_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
"""Environment variables that set the threads of OpenMP (torch), OpenBLAS (NumPy), MKL and OpenCV."""


@dataclass(frozen=True)
class CpuBudget:
    """CPUs that this process may use.

    Attributes:
        cpus: number of logical CPUs that it may run on at one time, at least 1: those of its affinity, at
            most its quota. A quota is rounded down, since one more thread would stop all of them in each
            period.
        threads: number of threads for arithmetic, at least 1: physical cores of the affinity, at most the
            quota.
        quota: CPU seconds per second, the lowest of all its control groups; None without a quota.
        limited: the process may use fewer CPUs than the machine has.
    """

    cpus: int
    threads: int
    quota: float | None
    limited: bool


@functools.cache
def cpu_budget() -> CpuBudget:
    """Return the budget of this process, which is read once."""
    return read_budget(os.sched_getaffinity(0), os.cpu_count() or 1)


def read_budget(
    affinity: set[int], present: int, *, proc: Path = _PROC, topology: Path = _TOPOLOGY
) -> CpuBudget:
    """Read a budget from the kernel's files.

    Args:
        affinity: indices of the CPUs that the process may run on.
        present: number of CPUs of the machine.
        proc: folder of the process in ``/proc``: ``cgroup`` names its control groups, ``mountinfo`` their
            places.
        topology: folder that holds one folder for each CPU.
    """
    quota = _quota(proc)
    most = math.inf if quota is None else max(1, math.floor(quota + 1e-6))
    cpus = int(min(len(affinity), most))
    threads = int(min(_physical_cores(affinity, topology), most))
    return CpuBudget(cpus, threads, quota, limited=len(affinity) < present or most < len(affinity))


def runtime_threads(asked: int | None) -> int:
    """Return the number of threads for ONNX Runtime: the requested one, or 0 for its own choice.

    Its own choice, one thread bound to each physical core of the machine, is right where nothing is limited.
    """
    budget = cpu_budget()
    return asked or (budget.threads if budget.limited else 0)


def torch_threads(asked: int | None, own: int) -> int:
    """Return the number of threads for torch: the requested one, or its own choice within the budget."""
    budget = cpu_budget()
    return asked or (min(own, budget.threads) if budget.limited else own)


def codec_threads(most: int) -> int:
    """Return the number of threads for a decoder or encoder; FFmpeg itself would take one per CPU."""
    return min(most, cpu_budget().cpus)


def limit_libraries(environment: MutableMapping[str, str], budget: CpuBudget) -> None:
    """Limit the threads of libraries that this process or its children load later to a quota.

    They read the affinity themselves; a variable that is already set stays.
    """
    if budget.quota is not None and budget.limited:
        for name in _LIBRARIES:
            environment.setdefault(name, str(budget.threads))


def _physical_cores(affinity: set[int], topology: Path) -> int:
    """Count the physical cores of these CPUs, as ONNX Runtime does."""
    cores = set()
    for cpu in affinity:
        folder = topology / f"cpu{cpu}" / "topology"
        cores.add(_text(folder / "core_cpus_list") or _text(folder / "thread_siblings_list") or str(cpu))
    return len(cores)


def _quota(proc: Path) -> float | None:
    """Return the lowest quota of this process's groups and their parents, in CPUs; None without a quota."""
    quotas = []
    mounts = list(_mounts(proc))
    for line in _text(proc / "cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        kind = "cgroup2" if number == "0" and not controllers else "cgroup"
        if kind == "cgroup" and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            if mount.kind == kind and (kind == "cgroup2" or "cpu" in mount.options):
                read = _quota_v2 if kind == "cgroup2" else _quota_v1
                quotas += [quota for folder in mount.folders(path) if (quota := read(folder)) is not None]
    return min(quotas, default=None)


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy of control groups.

    Attributes:
        kind: ``cgroup2`` or ``cgroup`` (version 1).
        root: group that is mounted at ``point``; in a container it may be a path of the host.
        point: folder of the mount.
        options: mount options; those of version 1 name the controllers.
    """

    kind: str
    root: str
    point: Path
    options: frozenset[str]

    def folders(self, group: str) -> Iterator[Path]:
        """Yield the folders of a group and its parents, up to the mount point."""
        inside = Path(group)
        if inside.is_relative_to(self.root):
            inside = inside.relative_to(self.root)
        parts = [part for part in inside.parts if part not in ("/", "..")]
        folder = self.point.joinpath(*parts)
        if not folder.is_dir():  # the path is the host's, and the mount shows this process's own group
            folder = self.point
        yield folder
        while folder != self.point:
            folder = folder.parent
            yield folder


def _mounts(proc: Path) -> Iterator[_Mount]:
    """Parse lines such as ``36 25 0:31 /root /point rw,noexec shared:9 - cgroup cgroup rw,cpu,cpuacct``."""
    for line in _text(proc / "mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) >= 5 and len(after) >= 3 and after[0] in ("cgroup", "cgroup2"):
            root, point = (
                re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), text) for text in before[3:5]
            )
            yield _Mount(after[0], root, Path(point), frozenset(after[2].split(",")))


def _quota_v2(folder: Path) -> float | None:
    return _ratio(*(_text(folder / "cpu.max").split() + ["", ""])[:2])


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Divide a quota by its period, both in microseconds; None for ``max``, -1 and other text."""
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
