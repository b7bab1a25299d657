"""CPUs that a process may use: control groups of both versions, affinity, hyperthreads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vmkla.cpus import CpuBudget, cpu_budget, limit_libraries, read_budget


class Machine:
    """Folders as the kernel shows them."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.groups, self.topology = folder / "proc", folder / "cgroup fs", folder / "cpu"
        for made in (self.proc, self.groups, self.topology):
            made.mkdir()

    def belongs(self, *lines: str) -> None:
        (self.proc / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def mounts(self, *mounts: tuple[str, str, str, str]) -> None:
        """Kind, root, folder below ``groups``, and options of each."""
        lines = ["22 1 0:5 / /proc rw - proc proc rw\n"]
        for kind, root, point, options in mounts:
            place = str(self.groups / point).replace(" ", "\\040")
            lines.append(f"36 25 0:31 {root} {place} rw,nosuid shared:9 - {kind} cgroup {options}\n")
        (self.proc / "mountinfo").write_text("".join(lines))

    def group(self, path: str, **files: str) -> None:
        folder = self.groups / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / f"cpu.{name}").write_text(content + "\n")

    def threads_per_core(self, count: int, cpus: int) -> None:
        for cpu in range(cpus):
            folder = self.topology / f"cpu{cpu}/topology"
            folder.mkdir(parents=True)
            first = cpu - cpu % count
            (folder / "thread_siblings_list").write_text(f"{first}-{first + count - 1}\n")

    def budget(self, affinity: set[int] | None = None, present: int = 16) -> CpuBudget:
        affinity = set(range(present)) if affinity is None else affinity
        return read_budget(affinity, present, proc=self.proc, topology=self.topology)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("content", "cpus", "quota"),
    [
        ("max 100000", 16, None),
        ("100000 100000", 1, 1.0),
        ("50000 100000", 1, 0.5),  # below one CPU there is still one thread
        ("150000 100000", 1, 1.5),  # rounded down
        ("350000 50000", 7, 7.0),
        ("299999 100000", 2, 2.99999),
        ("6400000 100000", 16, 64.0),  # more than there are
        ("nonsense", 16, None),
        ("", 16, None),
        ("-1 100000", 16, None),
        ("100000 0", 16, None),
    ],
)
def test_version_2(machine: Machine, content: str, cpus: int, quota: float | None) -> None:
    machine.belongs("0::/user.slice/session")
    machine.mounts(("cgroup2", "/", "", "rw"))
    machine.group("user.slice/session", max=content)
    assert machine.budget() == CpuBudget(cpus, cpus, quota, limited=cpus < 16)


def test_the_tightest_group_on_the_way_up_counts(machine: Machine) -> None:
    machine.belongs("0::/pod/container/task")
    machine.mounts(("cgroup2", "/", "", "rw"))
    machine.group("pod/container/task", max="max 100000")
    machine.group("pod/container", max="400000 100000")
    machine.group("pod", max="250000 100000")
    machine.group("pod/other", max="100000 100000")
    assert (machine.budget().cpus, machine.budget().quota) == (2, 2.5)


@pytest.mark.parametrize("group", ["/docker/abc", "/"], ids=["namespace of the host", "own namespace"])
def test_version_1_in_a_container(machine: Machine, group: str) -> None:
    """The mount shows the container's own group, whatever the path in ``/proc/self/cgroup`` says."""
    machine.belongs("4:memory:/docker/abc", f"3:cpu,cpuacct:{group}", "0::/")
    machine.mounts(
        ("cgroup", group, "memory", "rw,memory"), ("cgroup", group, "cpu,cpuacct", "rw,cpu,cpuacct")
    )
    machine.group("cpu,cpuacct", cfs_quota_us="300000", cfs_period_us="100000")
    machine.group("memory", cfs_quota_us="100000", cfs_period_us="100000")
    assert (machine.budget().cpus, machine.budget().quota) == (3, 3.0)


def test_version_1_without_a_quota(machine: Machine) -> None:
    machine.belongs("3:cpu:/a", "2:cpuset:/a")
    machine.mounts(("cgroup", "/", "cpu", "rw,cpu"))
    machine.group("cpu/a", cfs_quota_us="-1", cfs_period_us="100000")
    assert machine.budget() == CpuBudget(16, 16, None, limited=False)


def test_both_versions_at_once(machine: Machine) -> None:
    machine.belongs("3:cpu,cpuacct:/a", "0::/b")
    machine.mounts(("cgroup2", "/", "unified", "rw"), ("cgroup", "/", "cpu,cpuacct", "rw,cpu,cpuacct"))
    machine.group("cpu,cpuacct/a", cfs_quota_us="500000", cfs_period_us="100000")
    machine.group("unified/b", max="400000 100000")
    assert machine.budget().cpus == 4
    machine.group("cpu,cpuacct/a", cfs_quota_us="200000")
    assert machine.budget().cpus == 2


def test_a_path_outside_of_what_is_mounted(machine: Machine) -> None:
    machine.belongs("0::/../../elsewhere")
    machine.mounts(("cgroup2", "/", "", "rw"))
    machine.group("", max="200000 100000")
    assert machine.budget().cpus == 2


def test_affinity_and_hyperthreads(machine: Machine) -> None:
    machine.threads_per_core(2, 16)
    assert machine.budget() == CpuBudget(16, 8, None, limited=False)
    assert machine.budget({0, 1, 2, 3}) == CpuBudget(4, 2, None, limited=True)
    assert machine.budget({0, 2, 4}) == CpuBudget(3, 3, None, limited=True)
    machine.belongs("0::/")
    machine.mounts(("cgroup2", "/", "", "rw"))
    machine.group("", max="600000 100000")
    assert machine.budget() == CpuBudget(6, 6, 6.0, limited=True)
    assert machine.budget({0, 1, 2, 3}) == CpuBudget(4, 2, 6.0, limited=True)


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    budget = read_budget({0, 1}, 2, proc=tmp_path / "none", topology=tmp_path / "none")
    assert budget == CpuBudget(2, 2, None, limited=False)


def test_this_process() -> None:
    budget = cpu_budget()
    assert 1 <= budget.threads <= budget.cpus <= len(os.sched_getaffinity(0))
    assert cpu_budget() is budget


THREADS = """
import functools, os, sys
import vmkla.cpus as cpus
cpus.cpu_budget = lambda: cpus.CpuBudget(1, 1, 1.0, limited=True)
from vmkla.engines import load_runner
def count():
    return len(os.listdir("/proc/self/task"))
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it has threads of its own
import onnxruntime
before = count()
runner = load_runner(sys.argv[1])
limited = count() - before
runner.close()
runner = load_runner(sys.argv[1], threads=4)
print(limited, count() - before)
"""


def test_onnxruntime_gets_no_thread_beyond_the_quota(tiny_onnx: Path) -> None:
    """The calling thread is one of its threads, so one of four means three more."""
    command = [sys.executable, "-I", "-c", THREADS, str(tiny_onnx)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["0", "3"]


def test_every_count_follows_from_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    from vmkla import cpus
    from vmkla.cli.live import live_loader
    from vmkla.data.arrays import loader_workers

    def with_budget(budget: CpuBudget) -> tuple[int, ...]:
        for module in ("vmkla.cpus", "vmkla.data.arrays"):
            monkeypatch.setattr(f"{module}.cpu_budget", lambda: budget)
        live: Any = live_loader("nano", "onnxruntime", None, None, None)
        return (
            cpus.runtime_threads(None), cpus.torch_threads(None, 4), cpus.codec_threads(2),
            loader_workers("cuda"), live.keywords["threads"],
        )  # fmt: skip

    assert with_budget(CpuBudget(1, 1, 1.0, limited=True)) == (1, 1, 1, 1, 1)
    assert with_budget(CpuBudget(3, 3, 3.5, limited=True)) == (3, 3, 2, 2, 2)
    assert with_budget(CpuBudget(16, 8, None, limited=False)) == (0, 4, 2, 15, 15)
    assert (cpus.runtime_threads(5), cpus.torch_threads(5, 4)) == (5, 5)


def test_libraries_are_limited_by_a_quota_only() -> None:
    environment = {"OMP_NUM_THREADS": "3"}
    limit_libraries(environment, CpuBudget(4, 4, None, limited=True))
    assert environment == {"OMP_NUM_THREADS": "3"}
    limit_libraries(environment, CpuBudget(2, 2, 2.5, limited=True))
    assert environment == {
        "OMP_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "OPENCV_FOR_THREADS_NUM": "2",
    }
