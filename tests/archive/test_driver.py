"""The driver: each piece once, whatever else happens to it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.archive.batches import (
    InlineExecutor,
    contents,
    driver_options,
    open_red,
    write_archive,
    write_grey,
)
from tests.video.red_runner import RedRunner
from vmkla.archive.batch import raise_end, run_batch
from vmkla.archive.claims import Claims
from vmkla.archive.layout import find_batch
from vmkla.archive.options import Tally
from vmkla.archive.piece import HashJob, Job, SegmentJob
from vmkla.archive.records import PieceRecord, Records
from vmkla.archive.work import find_work
from vmkla.archive.worker import Died
from vmkla.errors import BadInputError, DegradedError, StoppedError
from vmkla.video.cancellation import Cancellation
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment


class Batch:
    """A batch over a folder with the red runner, which can be run again."""

    def __init__(self, tmp_path: Path, videos: int = 3) -> None:
        self.archive = write_archive(tmp_path / "archive", videos)
        self.out = tmp_path / "out"
        self.executor = InlineExecutor()

    def run(self, cancel: threading.Event | None = None, **changes: Any) -> tuple[Tally, list[PieceRecord]]:
        work = find_work([self.archive], self.out)
        options = driver_options(self.out, **changes)
        return run_batch(open_red(self.out), work.entries, self.executor, options, cancel or Cancellation())

    def jobs(self, kind: type[Job]) -> list[str]:
        return [job.entry.id for job in self.executor.performed if isinstance(job, kind)]


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


def test_results_equal_those_of_single_runs(batch: Batch, tmp_path: Path) -> None:
    write_grey(batch.archive / "images", 200)
    tally, records = batch.run()
    assert (tally.done, tally.left) == (4, 0)
    for record in records:
        alone = tmp_path / "alone"
        shutil.rmtree(alone, ignore_errors=True)
        segment(RedRunner(), batch.archive / record.source, SegmentOptions(alone, save_masks=True))
        published = batch.out / str(record.folder)
        assert contents(published, ignore=("piece.json",)) == contents(alone, ignore=(".settings.json",)) | {
            name: value for name, value in contents(published).items() if name == ".settings.json"
        }
        assert record.facts["frames"] == (1 if record.source == "images" else 4)
    assert os.listdir(batch.out / ".batch" / "work") == [] == os.listdir(batch.out / ".batch" / "claims")


def test_the_same_command_repeats_nothing(batch: Batch) -> None:
    batch.run()
    before = contents(batch.out / "results")
    batch.executor.performed.clear()
    tally, _ = batch.run()
    assert (tally.done, tally.earlier, batch.executor.performed) == (0, 3, [])
    assert contents(batch.out / "results") == before


def test_renamed_and_copied_sources_are_recognised_and_changed_ones_done_again(batch: Batch) -> None:
    batch.run()
    (batch.archive / "clip0.mp4").rename(batch.archive / "renamed.mp4")
    shutil.copy(batch.archive / "clip1.mp4", batch.archive / "copy.mp4")
    with (batch.archive / "clip2.mp4").open("ab") as file:
        file.write(bytes(8))  # FFmpeg ignores what follows the last box
    batch.executor.performed.clear()
    tally, records = batch.run()
    assert (tally.done + tally.degraded, tally.earlier, tally.copies) == (1, 2, 1)
    assert batch.jobs(SegmentJob) == ["clip2.mp4"]
    # A renamed file keeps its inode, but its path is part of the cache's key.
    assert sorted(batch.jobs(HashJob)) == ["clip2.mp4", "copy.mp4", "renamed.mp4"]
    assert len(records) == 4


def test_a_failed_piece_costs_that_piece(batch: Batch) -> None:
    (batch.archive / "a-bad.mp4").write_text("no video" * 50)
    tally, records = batch.run()
    assert (tally.done, tally.failed) == (3, 1)
    failed = next(record for record in records if record.outcome == "failed")
    assert failed.message.startswith("a-bad.mp4 (400 bytes) is not a video") and failed.hint
    assert failed.folder is None and failed.attempts == 1
    with pytest.raises(DegradedError, match="1 failed") as caught:
        raise_end(tally, Cancellation(), batch.out)
    assert caught.value.exit_status == 7 and "--retry-failed" in str(caught.value.hint)
    assert batch.run()[0].failed_earlier == 1
    tally, records = batch.run(retry_failed=True)
    assert (tally.failed, tally.failed_earlier, tally.earlier) == (1, 0, 3)
    assert next(record for record in records if record.outcome == "failed").attempts == 2


def test_a_source_that_cannot_be_read_fails_and_is_tried_again(batch: Batch) -> None:
    link = batch.archive / "a-link.mp4"
    link.symlink_to(batch.archive / "gone.mp4")
    tally, records = batch.run()
    assert (tally.done, tally.failed) == (3, 1)
    assert "a link that leads nowhere" in records[0].message and records[0].source_sha256 is None
    link.unlink()
    shutil.copy(batch.archive / "clip0.mp4", link)
    assert batch.run()[0].failed_earlier == 1
    tally, records = batch.run(retry_failed=True)
    assert tally.earlier + tally.copies == 4 and [record.outcome for record in records] == ["done"] * 3


def test_a_degraded_piece_stays_degraded(batch: Batch) -> None:
    whole = (batch.archive / "clip0.mp4").read_bytes()
    (batch.archive / "clip0.mp4").write_bytes(whole[:-60])
    tally, records = batch.run()
    assert (tally.done, tally.degraded) == (2, 1)
    assert records[0].outcome == "degraded" and records[0].message.startswith("clip0.mp4 is not complete")
    assert records[0].hint == f"All that could be read is in {records[0].folder}"
    for _ in range(2):
        with pytest.raises(DegradedError, match="1 degraded"):
            raise_end(tally, Cancellation(), batch.out)
        tally = batch.run()[0]
        assert (tally.earlier, tally.degraded_earlier) == (2, 1)


def test_a_driver_that_lost_its_claim_records_no_failure(batch: Batch) -> None:
    """Its new owner removed the folder that the worker still writes to, so the worker fails."""
    other, seen = open_red(batch.out), threading.Event()

    def take_over(job: Job) -> None:
        if isinstance(job, SegmentJob) and not seen.is_set():
            seen.set()
            key = job.options.out_dir.name.split(".")[0]
            (other.claims / f"{key}.2").write_text('{"lease_s": 0.5}')
            os.mkdir(job.options.out_dir)
            job.options.out_dir.chmod(0o500)
            batch.executor.lose = [Died("limit", "cannot write")]

    batch.executor.before = take_over
    tally, records = batch.run(lease_s=1.0)
    assert (tally.done, tally.failed) == (3, 0) and {record.outcome for record in records} == {"done"}


def test_claiming_stops_after_too_many_failures(batch: Batch) -> None:
    for number in range(3):
        (batch.archive / f"a{number}.mp4").write_text(f"no video {number}")
    tally, _ = batch.run(max_failures=1)
    assert (tally.failed, tally.done, tally.left) == (2, 0, 4)
    with pytest.raises(DegradedError, match=r"2 pieces failed, allowed are 1 .*; 4 pieces are left"):
        raise_end(tally, Cancellation(), batch.out)
    assert batch.run()[0].done == 3


def test_a_source_that_changes_while_it_is_read_fails(batch: Batch) -> None:
    def change(job: Job) -> None:
        if isinstance(job, SegmentJob) and job.entry.id == "clip1.mp4":
            os.utime(job.entry.path, (1, 1))

    batch.executor.before = change
    tally, records = batch.run()
    assert (tally.done, tally.failed) == (2, 1)
    assert [record.message for record in records if record.message] == ["clip1.mp4 changed while it was read"]


LOST, CRASH, LIMIT = (
    Died("lost", "killed"),
    Died("crash", "the worker crashed"),
    Died("limit", "too long", "more"),
)


@pytest.mark.parametrize(
    ("deaths", "outcome", "message", "attempts"),
    [
        ([LOST] * 9, "done", "", 10),
        ([LOST] * 10, "failed", "its worker or its machine was lost 10 times", 10),
        ([CRASH], "done", "", 2),
        ([CRASH, LOST, CRASH], "failed", "the worker crashed", 3),
        ([LIMIT], "failed", "too long", 1),
    ],
)
def test_what_a_dead_worker_costs(
    batch: Batch, deaths: list[Died], outcome: str, message: str, attempts: int
) -> None:
    def begin(job: Job) -> None:
        if isinstance(job, SegmentJob) and job.entry.id == "clip0.mp4" and left:
            batch.executor.lose = [left.pop(0)]

    left = list(deaths)
    batch.executor.before = begin
    tally, records = batch.run()
    assert (records[0].outcome, records[0].message, records[0].attempts) == (outcome, message, attempts)
    assert tally.done == 2 + (outcome == "done") and not left
    assert os.listdir(batch.out / ".batch" / "work") == [] == os.listdir(batch.out / ".batch" / "claims")


def test_a_worker_that_dies_before_the_job_begins_costs_no_attempt(batch: Batch) -> None:
    batch.executor.lose = [Died("lost", "killed", began=False)] * 20
    tally, records = batch.run()
    assert tally.done == 3 and [record.attempts for record in records] == [1, 1, 1]


def test_workers_that_crash_while_they_load_the_model_end_the_run(batch: Batch) -> None:
    batch.executor.lose = [Died("load", "the worker crashed while it loaded the model", began=False)] * 3
    with pytest.raises(Exception, match="while it loaded the model"):
        batch.run()
    assert batch.run()[0].done == 3


def test_a_piece_that_another_process_has_is_left_to_it(batch: Batch, tmp_path: Path) -> None:
    """The other one publishes while this one waits; and a lost claim's work is dropped."""
    other = find_batch(open_red(batch.out).path)
    stolen = threading.Event()

    def steal(job: Job) -> None:
        if not isinstance(job, SegmentJob) or stolen.is_set():
            return
        stolen.set()
        key = job.options.out_dir.name.split(".")[0]
        (other.claims / f"{key}.2").write_text('{"lease_s": 0.5}')  # taken over, and its new owner dies

    batch.executor.before = steal
    tally, records = batch.run(lease_s=1.0)
    assert stolen.is_set() and tally.done == 3
    assert sorted(record.attempts for record in records) == [1, 1, 3]


def test_a_piece_that_another_process_finishes_is_not_done_again(batch: Batch) -> None:
    folder = open_red(batch.out)
    finished = threading.Event()

    def finish(job: Job) -> None:
        """Another driver publishes a piece at the moment in which this one begins with it."""
        if isinstance(job, SegmentJob) and not finished.is_set():
            finished.set()
            key = job.options.out_dir.name.split(".")[0]
            private = folder.work / "other"
            private.mkdir()
            record = PieceRecord(key, "x", "done", "", None, 1, "other", 1.0, None, f"results/{key}", {})
            assert Records(folder).publish(private, record)

    batch.executor.before = finish
    tally, records = batch.run()
    assert (tally.done, tally.earlier) == (2, 1)
    assert sorted(record.worker == "other" for record in records) == [False, False, True]


def test_a_stop_drops_what_is_in_hand_and_the_next_run_continues(batch: Batch) -> None:
    cancel = Cancellation()

    def stop(job: Job) -> None:
        if isinstance(job, SegmentJob) and job.entry.id == "clip1.mp4":
            cancel.stop(2)
            batch.executor.lose = [LOST]

    batch.executor.before = stop
    tally, records = batch.run(cancel)
    assert (tally.done, tally.left, len(records)) == (1, 2, 1)
    with pytest.raises(StoppedError) as caught:
        raise_end(tally, cancel, batch.out)
    assert caught.value.exit_status == 130
    assert os.listdir(batch.out / ".batch" / "work") == []
    batch.executor.before = lambda job: None
    tally, _ = batch.run()
    assert (tally.done, tally.earlier) == (2, 1)
    assert os.listdir(batch.out / ".batch" / "claims") == []


def test_a_full_disk_stops_claiming_and_keeps_what_is_published(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Records.publish

    def full(records: Records, private: Path, record: PieceRecord) -> bool:
        if record.source == "clip1.mp4":
            raise BadInputError(f"cannot write {private}: {os.strerror(28)}")
        return publish(records, private, record)

    with monkeypatch.context() as patch:
        patch.setattr(Records, "publish", full)
        tally, records = batch.run()
    assert (tally.done, tally.left) == (1, 2) and [record.source for record in records] == ["clip0.mp4"]
    with pytest.raises(DegradedError, match=r"the disk is full: .*; 2 pieces are left") as caught:
        raise_end(tally, Cancellation(), batch.out)
    assert caught.value.exit_status == 7
    assert os.listdir(batch.out / ".batch" / "work") == [] == os.listdir(batch.out / ".batch" / "claims")
    assert batch.run()[0].done == 2


def test_two_drivers_share_the_work(batch: Batch) -> None:
    tallies: list[Tally] = []

    def run() -> None:
        executor = InlineExecutor()
        entries = find_work([batch.archive], batch.out).entries
        ended = run_batch(open_red(batch.out), entries, executor, driver_options(batch.out), Cancellation())
        tallies.append(ended[0])

    write_archive(batch.archive, 8)
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(tally.done for tally in tallies) == 8
    assert all(tally.done + tally.earlier == 8 for tally in tallies)
    assert len((batch.out / "status.jsonl").read_text().splitlines()) == 8


def test_an_anonymous_batch_names_nothing(batch: Batch) -> None:
    (batch.archive / "patient-name.mp4").write_text("no video")
    options = driver_options(batch.out)
    segment_options = dataclasses.replace(options.segment, anonymous=True)
    options = dataclasses.replace(options, segment=segment_options)
    entries = find_work([batch.archive], batch.out).entries
    run_batch(open_red(batch.out), entries, InlineExecutor(), options, Cancellation())
    kinds = (".json", ".jsonl", ".html", ".csv")
    texts = [path for path in batch.out.rglob("*") if path.is_file() and path.suffix in kinds]
    assert len(texts) > 10
    for path in texts:
        content = path.read_text()
        assert "clip" not in content and "patient-name" not in content, path


def test_leftovers_of_dead_owners_are_removed(batch: Batch) -> None:
    folder = open_red(batch.out)
    seen: list[list[str]] = []

    def look(job: Job) -> None:
        if isinstance(job, SegmentJob):
            seen.append(os.listdir(folder.work))

    batch.executor.before = look
    batch.run()
    key, other = os.listdir(batch.out / "results")[:2]
    (folder.work / f"{other}.1.dead").mkdir()
    shutil.rmtree(batch.out / "results" / key)
    (folder.work / f"{key}.1.dead").mkdir()
    (folder.claims / f"{key}.1").write_text('{"lease_s": 0}')
    os.utime(folder.claims / f"{key}.1", (1, 1))
    assert batch.run()[0].done == 1
    assert seen[-1] == [f"{other}.1.dead"] and os.listdir(folder.work) == []
    with Claims(folder, 60) as claims:
        assert claims.take(key) is not None


def test_claims_that_killed_drivers_left_behind_are_removed(batch: Batch) -> None:
    (batch.archive / "clip1.mp4").write_bytes(b"not a video")
    _, records = batch.run()
    folder = open_red(batch.out)
    done, failed = (
        next(record.piece for record in records if record.outcome == how) for how in ("done", "failed")
    )
    source = find_work([batch.archive], batch.out).entries[0].claim_key
    (folder.failed / f"{done}.json").write_bytes((folder.failed / f"{failed}.json").read_bytes())
    ended = [f"{done}.1", f"{done}.2", f"{done}-0-300.1", f"{source}.1", f"{failed}.1"]
    others = [f"{failed}.2", f"{'0' * len(done)}.1", "source-of-another-shard.1"]
    for name in (*ended, *others):
        (folder.claims / name).write_text('{"lease_s": 60}')
    batch.run()
    assert sorted(os.listdir(folder.claims)) == sorted(others)
