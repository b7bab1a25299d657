"""Worker processes: poisoned files, limits, kills from elsewhere, and how a driver lives with them."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archive.batches import POISONS, PoisonedRunner, SlowRunner, driver_options, open_red, write_grey
from tests.video.small_videos import write_video
from vmkla.archive.batch import run_batch
from vmkla.archive.piece import Ended, Event, HashJob, LoadFailed, Ready
from vmkla.archive.records import PieceRecord
from vmkla.archive.work import Entry, find_work
from vmkla.archive.worker import Died, Limits, LocalExecutor, WatchedWorker, machine_memory_bytes
from vmkla.errors import MissingDependencyError
from vmkla.runner import Runner
from vmkla.video.cancellation import Cancellation


def broken_load() -> Runner:
    raise MissingDependencyError("there is no such device", hint="Get one.")


def crashing_load() -> Runner:
    os.abort()


def until(worker: WatchedWorker, wanted: type[Event | Died], limit_s: float = 60) -> list[Event | Died]:
    """Poll a worker until an event of one type comes; return all events."""
    events: list[Event | Died] = []
    until_s = time.monotonic() + limit_s
    while not any(isinstance(event, wanted) for event in events):
        assert time.monotonic() < until_s, events
        events += worker.poll()
        time.sleep(0.02)
    return events


def job(path: Path) -> HashJob:
    return HashJob(Entry(path.name, path, "video"))


def run(
    archive: Path, out: Path, load: Callable[[], Runner], limits: Limits, count: int = 1
) -> dict[str, PieceRecord]:
    entries = find_work([archive], out).entries
    executor = LocalExecutor(load, count, limits)
    _, records = run_batch(open_red(out), entries, executor, driver_options(out), Cancellation())
    return {record.source: record for record in records}


@pytest.mark.slow
def test_poisoned_files_cost_one_failed_line_each(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    for kind, level in POISONS.items():
        write_grey(archive / f"b-{kind}", level)
    for name in ("a", "c"):
        write_video(archive / f"{name}.mp4", 3, size_wh=(64, 48))
    (archive / "c.mp4").write_bytes((archive / "c.mp4").read_bytes() + bytes(8))  # not a copy
    limits = Limits(stall_s=10.0, memory_bytes=350_000_000)
    records = run(archive, tmp_path / "out", PoisonedRunner, limits)
    messages = {name: record.message for name, record in records.items() if record.outcome == "failed"}
    assert messages.keys() == {"b-crash", "b-memory", "b-hang"}
    assert messages["b-crash"] == "the worker crashed with signal 11 (SIGSEGV) in this source"
    assert messages["b-memory"].startswith("the worker used ") and "350" in messages["b-memory"]
    assert messages["b-hang"] == "no frame was finished for 10 s, so the worker was ended"
    assert records["b-crash"].attempts == 2 and records["b-hang"].attempts == 1
    assert records["a.mp4"].folder and records["c.mp4"].folder
    assert os.listdir(tmp_path / "out" / ".batch" / "work") == []


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    for seed in range(2):
        write_video(tmp_path / f"clip{seed}.mp4", 4, size_wh=(64, 48), seed=seed)
    worker = WatchedWorker(SlowRunner, Limits())
    try:
        worker.submit(job(tmp_path / "clip0.mp4"))
        until(worker, Ended)
        assert worker.pid is not None
        first = worker.pid
        os.kill(first, signal.SIGKILL)
        until_s = time.monotonic() + 20
        while worker.pid is not None and time.monotonic() < until_s:
            assert worker.poll() == []  # it was idle: nothing is lost
        worker.submit(job(tmp_path / "clip1.mp4"))
        assert worker.pid != first
        os.kill(worker.pid or 0, signal.SIGKILL)
        died = until(worker, Died)[-1]
        assert isinstance(died, Died) and died.cause == "lost" and not died.began
    finally:
        worker.kill()


@pytest.mark.slow
def test_what_loading_the_model_reports(tmp_path: Path) -> None:
    for load, wanted in ((broken_load, LoadFailed), (crashing_load, Died)):
        worker = WatchedWorker(load, Limits())
        worker.submit(job(tmp_path))
        last = until(worker, wanted)[-1]
        if isinstance(last, LoadFailed):
            assert (last.end.exit_status, last.end.message) == (4, "there is no such device")
        elif isinstance(last, Died):
            assert last.cause == "load" and "signal 6 (SIGABRT)" in last.message
        worker.kill()


@pytest.mark.slow
def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """It is the system that ends it, so this holds for a parent that is killed too."""
    parent = os.fork()
    told = tmp_path / "pid"
    if parent == 0:
        try:
            worker = WatchedWorker(functools.partial(SlowRunner), Limits())
            write_video(tmp_path / "clip.mp4", 2, size_wh=(64, 48))
            worker.submit(job(tmp_path / "clip.mp4"))
            until(worker, Ready)
            told.write_text(str(worker.pid))
            time.sleep(60)
        finally:
            os._exit(1)
    until_s = time.monotonic() + 60
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    child = Path("/proc") / told.read_text()
    while child.exists() and "\nState:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_the_memory_of_the_machine_or_the_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       8000 kB\nMemFree:        1 kB\n")
    (tmp_path / "max").write_text("max\n")
    assert machine_memory_bytes(tmp_path / "meminfo", tmp_path / "max") == 8000 << 10
    (tmp_path / "max").write_text("4096000\n")
    assert machine_memory_bytes(tmp_path / "meminfo", tmp_path / "max") == 4096000
