"""Small archives, and stand-ins for the network that do what poisoned files do to a decoder."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tests.video.red_runner import RedRunner
from tests.video.small_videos import write_video
from vmkla.archive.identity import batch_settings
from vmkla.archive.layout import BatchFolder, open_batch
from vmkla.archive.options import DriverOptions
from vmkla.archive.piece import Event, Job, perform
from vmkla.archive.worker import Died
from vmkla.video.file.options import SegmentOptions

POISONS = {"crash": 60, "memory": 110, "hang": 160}
"""What a poisoned image does -> its grey level."""
_HOG_BYTES = 1 << 30
STORED = "the network ran earlier"
"""Warning of a report that some answers of the network were stored."""


class PoisonedRunner(RedRunner):
    """Crashes, takes memory or hangs on images of one grey level, in the worker's process."""

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        kind = next((kind for kind, level in POISONS.items() if (frames_rgb == level).all()), None)
        if kind == "crash":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == "memory":
            hog = [np.ones(_HOG_BYTES // 64, np.uint8) for _ in range(64)]
            time.sleep(60)
            del hog
        if kind == "hang":
            time.sleep(60)
        return super().infer(frames_rgb)


class SlowRunner(RedRunner):
    """Takes a while for each frame."""

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        time.sleep(0.05)
        return super().infer(frames_rgb)


class InlineExecutor:
    """Does the jobs in this process, when the driver waits; ``lose`` makes the next jobs lose their workers.

    Args:
        count: number of workers.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.jobs: dict[int, Job] = {}
        self.performed: list[Job] = []
        self.lose: list[Died] = []
        self.before: Any = lambda job: None

    def available(self) -> range:
        return range(self.count)

    def submit(self, worker: int, job: Job) -> None:
        assert worker not in self.jobs
        self.jobs[worker] = job

    def wait(self, timeout_s: float) -> list[tuple[int, Event | Died]]:
        if not self.jobs:
            time.sleep(0.01)
        events: list[tuple[int, Event | Died]] = []
        for worker, job in list(self.jobs.items()):
            del self.jobs[worker]
            self.before(job)
            self.performed.append(job)
            if self.lose:
                events.append((worker, self.lose.pop(0)))
            else:
                perform(RedRunner(), job, lambda event, worker=worker: events.append((worker, event)))  # type: ignore[misc]
        return events

    def kill(self, worker: int) -> None:
        self.jobs.pop(worker, None)

    def close(self) -> None:
        self.jobs.clear()


def write_archive(folder: Path, videos: int = 3, *, frames: int = 4) -> Path:
    """Write different short videos."""
    folder.mkdir(exist_ok=True)
    for number in range(videos):
        write_video(folder / f"clip{number}.mp4", frames, size_wh=(64, 48), seed=number)
    return folder


def write_grey(folder: Path, level: int) -> Path:
    """Write a folder with one image of one grey level."""
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "image.png"), np.full((48, 64, 3), level, np.uint8))
    return folder


def driver_options(out: Path, **changes: Any) -> DriverOptions:
    """Return options for the red runner."""
    segment = SegmentOptions(out, save_masks=True)
    return DriverOptions(segment, batch_settings(RedRunner(), segment), **{"lease_s": 60.0, **changes})


def open_red(out: Path) -> BatchFolder:
    """Open the folder of a batch with the red runner."""
    return open_batch(out, driver_options(out).settings)


def published(out: Path) -> int:
    """Return the number of pieces that are done."""
    return len(os.listdir(out / "results")) if (out / "results").exists() else 0


def contents(results: Path, *, ignore: Sequence[str] = ()) -> dict[str, Any]:
    """Return every file of published results: JSON without times and workers, of others the bytes.

    What a report states of answers that were stored is left out too.
    """
    found: dict[str, Any] = {}
    for path in sorted(results.rglob("*")):
        name = str(path.relative_to(results))
        if not path.is_file() or path.name in ignore:
            continue
        if path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name != "procedure.html":  # it shows the report
            found[name] = path.read_bytes()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        own = ("latency_ms", "wall_s", "fps", "seconds", "attempts", "worker")
        return {key: _timeless(each) for key, each in value.items() if key not in own}
    if isinstance(value, list):
        return [_timeless(each) for each in value if STORED not in str(each)]
    return value
