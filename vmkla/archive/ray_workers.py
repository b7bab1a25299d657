"""Workers on a Ray cluster: one actor for each, which watches a worker process of its own.

Ray places the actors and reports those whose node died. It repeats no job and restarts no actor: the driver
counts the attempt, and begins it again in a new private folder, since a node that only seems dead may still
write to the old one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from vmkla.archive.piece import Ended, Event, Job, LoadFailed
from vmkla.archive.worker import Died, Limits, WatchedWorker
from vmkla.errors import MissingDependencyError
from vmkla.imports import require
from vmkla.runner import Runner

_PURPOSE = "vmkla batch --executor ray"
_POLL_S = 0.25
_STARTS_MAX = 3


@dataclass(frozen=True)
class RayOptions:
    """Options of the cluster.

    Attributes:
        address: address of an existing cluster; None starts one on this machine.
        cpus, gpus: resources that each worker reserves.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


class Host:
    """The actor: it has a worker process do one job at a time, and is not ended by what ends that process.

    Args:
        load, limits: see ``WatchedWorker``.
    """

    def __init__(self, load: Callable[[], Runner], limits: Limits) -> None:
        self._worker = WatchedWorker(load, limits)

    def is_up(self) -> bool:
        """Return True: the actor has a place in the cluster."""
        return True

    def run(self, job: Job) -> Generator[Event | Died, None, None]:
        """Do a job, and yield what happens until it has ended."""
        self._worker.submit(job)
        while True:
            wait(self._worker.waits, _POLL_S)
            for event in self._worker.poll():
                yield event
                if isinstance(event, Ended | Died | LoadFailed):
                    return


class RayExecutor:
    """Workers on a Ray cluster; the folder of the batch and the sources have one path on all of its nodes.

    Args:
        load: loads the model; it is pickled.
        count: number of workers; those that the cluster has no room for wait.
        limits: limits of a piece.
        options: the cluster.
    Raises:
        MissingDependencyError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, load: Callable[[], Runner], count: int, limits: Limits, options: RayOptions) -> None:
        self._ray = require("ray", extra="ray", purpose=_PURPOSE)
        self._load, self._limits, self._count = load, limits, count
        _connect(self._ray, count, options)
        remote = self._ray.remote(
            num_cpus=options.cpus, num_gpus=options.gpus, max_restarts=0, max_task_retries=0
        )
        self._host = remote(Host)
        self._actors: dict[int, Any] = {}
        self._starting: dict[int, Any] = {}  # worker -> answer of its actor that it is up
        self._streams: dict[int, Any] = {}
        self._not_started = 0

    def available(self) -> Collection[int]:
        """See ``Executor``; an actor without a place in the cluster is not available."""
        for worker in range(self._count):
            if worker not in self._actors:
                self._actors[worker] = self._host.remote(self._load, self._limits)
                self._starting[worker] = self._actors[worker].is_up.remote()
        if self._starting:
            answers = list(self._starting.values())
            up, _ = self._ray.wait(answers, num_returns=len(answers), timeout=0)
            for worker, answer in list(self._starting.items()):
                if answer in up:
                    del self._starting[worker]
                    self._check_start(worker, answer)
        return self._actors.keys() - self._starting.keys()

    def submit(self, worker: int, job: Job) -> None:
        """See ``Executor``."""
        self._streams[worker] = self._actors[worker].run.options(num_returns="streaming").remote(job)

    def wait(self, timeout_s: float) -> list[tuple[int, Event | Died]]:
        """See ``Executor``."""
        if not self._streams:
            time.sleep(timeout_s)
            return []
        streams = list(self._streams.values())
        ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=timeout_s, fetch_local=False)
        found: list[tuple[int, Event | Died]] = []
        for worker, stream in list(self._streams.items()):
            if any(stream is each for each in ready):
                event = self._next(worker, stream)
                found += [] if event is None else [(worker, event)]
        return found

    def kill(self, worker: int) -> None:
        """See ``Executor``."""
        self._streams.pop(worker, None)
        self._starting.pop(worker, None)
        actor = self._actors.pop(worker, None)
        if actor is not None:
            with contextlib.suppress(Exception):  # it, or its node, is gone already
                self._ray.kill(actor)

    def close(self) -> None:
        """See ``Executor``."""
        for worker in list(self._actors):
            self.kill(worker)
        self._ray.shutdown()

    def _next(self, worker: int, stream: Any) -> Event | Died | None:
        """Return the next event of a job, or the end of its actor."""
        try:
            event: Event | Died = self._ray.get(next(stream))
        except StopIteration:
            self._streams.pop(worker, None)
            return None
        except self._ray.exceptions.RayError as error:
            self.kill(worker)
            return Died("lost", f"the worker or its node was lost: {_why(error)}")
        if isinstance(event, Ended | Died | LoadFailed):
            self._streams.pop(worker, None)
        return event

    def _check_start(self, worker: int, answer: Any) -> None:
        """Count actors that did not come up; a node may die, but three in a row have one cause.

        Raises:
            VmklaError: no actor comes up.
        """
        try:
            self._ray.get(answer)
            self._not_started = 0
        except self._ray.exceptions.RayError as error:
            self.kill(worker)
            self._not_started += 1
            if self._not_started >= _STARTS_MAX:
                raise MissingDependencyError(
                    f"the cluster starts no worker: {_why(error)}",
                    hint="Install the same vmkla on all of its nodes: pip install 'vmkla[ray]'",
                ) from error


def _why(error: Exception) -> str:
    """Return the line of a message that names the cause: below a traceback the last one, else the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if any("Traceback" in line or line.startswith("  File ") for line in lines) else 0]


@contextlib.contextmanager
def _in_own_folder() -> Iterator[None]:
    """Work in the folder of the interpreter: Ray has workers import from the driver's working folder first.

    In a checkout they would find the sources of a package instead of the installed one.
    """
    before = Path.cwd()
    os.chdir(Path(sys.executable).parent)
    try:
        yield
    finally:
        os.chdir(before)


def _connect(ray: Any, count: int, options: RayOptions) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises:
        MissingDependencyError: there is no cluster at the address, or it does not accept this process.
    """
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        with _in_own_folder():
            if options.address is None:
                ray.init(
                    address="local",
                    num_cpus=max(1, round(count * options.cpus)),
                    include_dashboard=False,
                    **quiet,
                )
            else:
                ray.init(address=options.address, **quiet)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        where = "on this machine" if options.address is None else f"at {options.address}"
        raise MissingDependencyError(
            f"there is no Ray cluster {where} that answers: {_why(error)}",
            hint="Start one with `ray start --head`, and give its --ray-address and its --ray-auth.",
        ) from error
