"""Long videos are cut, and their results equal those of an uncut run bit for bit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.archive.batches import STORED, InlineExecutor, contents, driver_options, open_red
from tests.video.file.test_answers import write_groups
from vmkla.archive.batch import run_batch
from vmkla.archive.identity import KnownDigests
from vmkla.archive.options import Tally
from vmkla.archive.piece import HashJob, Job, PartJob, SegmentJob
from vmkla.archive.records import PieceRecord
from vmkla.archive.work import find_work
from vmkla.archive.worker import Died
from vmkla.video.cancellation import Cancellation

PART_S = 0.35  # two groups of five frames at 25 frames a second


class LongBatch:
    """A batch over one video of 34 frames in four parts, with two workers."""

    def __init__(self, tmp_path: Path, uncut: Path) -> None:
        self.archive, self.out, self.expected = tmp_path / "archive", tmp_path / "out", uncut / "out"
        shutil.copytree(uncut / "archive", self.archive)
        self.path = self.archive / "long.mp4"
        self.executor = InlineExecutor(2)

    def run(self, **changes: Any) -> tuple[Tally, list[PieceRecord]]:
        entries = find_work([self.archive], self.out).entries
        options = driver_options(self.out, **{"part_s": PART_S, "lease_s": 1.0, **changes})
        return run_batch(open_red(self.out), entries, self.executor, options, Cancellation())

    def parts(self) -> list[int]:
        """Return the first frames of the parts that workers were given."""
        return [job.part.first for job in self.executor.performed if isinstance(job, PartJob)]

    def check(self, *, stored: int) -> None:
        """Compare the results with those of the uncut run, and count the frames whose answers were stored."""
        assert contents(self.out / "results") == contents(self.expected / "results")
        (report,) = self.out.glob("results/*/report.json")
        said = [text for text in json.loads(report.read_text())["warnings"] if STORED in text]
        assert len(said) == (stored > 0) and all(f"for {stored} of 34 frames" in text for text in said)
        for folder in ("work", "claims", "failed", "parts"):
            path = self.out / ".batch" / folder
            assert not path.exists() or os.listdir(path) == []


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, and a batch that does not cut it."""
    folder = tmp_path_factory.mktemp("uncut")
    (folder / "archive").mkdir()
    write_groups(folder / "archive" / "long.mp4", 34, 5)
    entries = find_work([folder / "archive"], folder / "out").entries
    options = driver_options(folder / "out")
    run_batch(open_red(folder / "out"), entries, InlineExecutor(), options, Cancellation())
    return folder


@pytest.fixture
def batch(tmp_path: Path, uncut: Path) -> LongBatch:
    return LongBatch(tmp_path, uncut)


def test_a_long_video_equals_the_uncut_run(batch: LongBatch) -> None:
    tally, (record,) = batch.run()
    assert (tally.done, tally.parts, tally.left, record.attempts) == (1, 4, 0, 1)
    assert batch.parts() == [0, 10, 20, 30]
    batch.check(stored=34)
    assert batch.run()[0].earlier == 1


def test_videos_are_whole_while_every_worker_has_one(batch: LongBatch) -> None:
    for number in range(2):
        write_groups(batch.archive / f"other{number}.mp4", 15 + 5 * number, 5)
    tally, _ = batch.run()
    assert (tally.done, tally.parts) == (3, 2)  # only the last one is cut
    assert batch.run(part_s=0.0)[0].earlier == 3


def test_one_worker_cuts_nothing(batch: LongBatch) -> None:
    batch.executor.count = 1
    assert batch.run()[0].parts == 0
    batch.check(stored=0)


def test_a_lost_worker_repeats_its_part(batch: LongBatch) -> None:
    def lose(job: Job) -> None:
        if isinstance(job, PartJob) and job.part.first == 10 and not batch.executor.lose and not lost:
            lost.append(job)
            job.path.write_bytes(b"half of an answer")
            batch.executor.lose.append(Died("lost", "the worker was ended"))

    lost: list[Job] = []
    batch.executor.before = lose
    tally, _ = batch.run()
    assert (tally.done, tally.parts, tally.repeated) == (1, 4, 1)
    assert sorted(batch.parts()) == [0, 10, 10, 20, 30]
    batch.check(stored=34)


@pytest.mark.parametrize("cause", ["crash", "limit"])
def test_a_part_that_cannot_be_done(batch: LongBatch, cause: Any) -> None:
    """The video is run whole, with the answers that there are."""

    def lose(job: Job) -> None:
        if isinstance(job, PartJob) and job.part.first == 20:
            batch.executor.lose.append(Died(cause, "the worker crashed"))

    batch.executor.before = lose
    tally, _ = batch.run()
    assert (tally.done, tally.failed, tally.parts) == (1, 0, 3)
    batch.check(stored=24)


def test_damaged_answers_are_computed_again(batch: LongBatch) -> None:
    def damage(job: Job) -> None:
        if isinstance(job, SegmentJob):
            first = job.stored[0]
            first.write_bytes(first.read_bytes()[:-1])

    batch.executor.before = damage
    batch.run()
    batch.check(stored=33)


def test_a_failing_video_has_the_message_of_the_single_run(batch: LongBatch, tmp_path: Path) -> None:
    def fail(job: Job) -> None:
        if not isinstance(job, HashJob):
            batch.path.chmod(0)
            batch.path.write_bytes(b"")  # the tests may run as root

    batch.executor.before = fail
    tally, (record,) = batch.run()
    assert (tally.failed, tally.parts) == (1, 0) and not (batch.out / ".batch" / "parts").exists()
    assert "long.mp4" in record.message and record.outcome == "failed"


def test_parts_are_kept_with_the_digest(batch: LongBatch) -> None:
    batch.run()
    hashes = batch.out / ".batch" / "hashes"
    (stamp,) = KnownDigests(hashes, "x")._known
    hashed = KnownDigests(hashes, "x", PART_S).get(stamp)
    assert hashed is not None and [part.first for part in hashed.parts] == [0, 10, 20, 30]
    assert KnownDigests(hashes, "x", 1.0).get(stamp) is None
