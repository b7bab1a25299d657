"""Options and counts of a batch, and the interface of the executors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from vmkla.archive.piece import Event, Job
from vmkla.archive.worker import Died
from vmkla.video.file.options import SegmentOptions


class Executor(Protocol):
    """Workers by number; each does one job at a time."""

    def available(self) -> Collection[int]:
        """Return the workers that can take a job, also those that have one.

        Raises:
            VmklaError: no worker can be started.
        """

    def submit(self, worker: int, job: Job) -> None:
        """Have an idle worker do a job."""

    def wait(self, timeout_s: float) -> list[tuple[int, Event | Died]]:
        """Return what happened, after at most this time."""

    def kill(self, worker: int) -> None:
        """End a worker and its job; it is started again for the next one."""

    def close(self) -> None:
        """End all workers."""


@dataclass(frozen=True)
class DriverOptions:
    """Options of a driver.

    Attributes:
        segment: options of every run; ``out_dir`` is set for each piece.
        settings: see ``batch_settings``.
        retry_failed: try pieces again that had failed before this run.
        max_failures: stop claiming after more failures; None never stops.
        lease_s: see ``Claims``.
        part_s: shortest part of a long video, seconds; 0 cuts none.
    """

    segment: SegmentOptions
    settings: dict[str, Any]
    retry_failed: bool = False
    max_failures: int | None = None
    lease_s: float = 120.0
    part_s: float = 0.0


@dataclass
class Tally:
    """How the entries of a batch ended.

    Attributes:
        done, degraded, failed: pieces that this run ended.
        earlier, degraded_earlier: entries that had their result already, or get it from another process.
        failed_earlier: entries that had failed before this run.
        copies: entries that are the same piece as an earlier entry.
        left: entries that were not begun, or not finished.
        repeated: attempts that had to be made again.
        parts: parts of long videos that this run did.
        stopped: why no further piece was claimed; empty where all were.
    """

    done: int = 0
    degraded: int = 0
    failed: int = 0
    earlier: int = 0
    degraded_earlier: int = 0
    failed_earlier: int = 0
    copies: int = 0
    left: int = 0
    repeated: int = 0
    parts: int = 0
    stopped: str = ""
