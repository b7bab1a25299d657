"""The log of a live run: whole lines, for its owner only, and nobody waits for the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vmkla.errors import BadInputError
from vmkla.video.live.events import EventLog
from vmkla.video.live.line_log import LineLog


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_counts_and_the_last_ones(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(5):
        log.add("ai off", f"reason {number}", number=number)
    log.add("ai on")
    assert log.counts == {"ai off": 5, "ai on": 1}
    assert [event.kind for event in log.recent(2)] == ["ai off", "ai on"] and log.recent(0) == []
    log.close()
    written = rows(tmp_path / "events.jsonl")
    assert [row["kind"] for row in written] == ["ai off"] * 5 + ["ai on"]
    assert written[3]["detail"] == "reason 3" and written[3]["number"] == 3
    times = [float(str(row["monotonic_s"])) for row in written]
    assert times == sorted(times) and abs(times[-1] - time.monotonic()) < 60
    assert str(written[0]["wall"]).endswith("+00:00")
    assert log.unwritten == (0, "")


def test_only_its_owner_may_read_it_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("an earlier one\n")
    path.chmod(0o666)
    log = EventLog(path)
    assert path.stat().st_mode & 0o777 == 0o600
    log.add("run begins")
    log.close()
    assert [row["kind"] for row in rows(path)] == ["run begins"]


def test_from_many_threads_each_line_is_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    threads = [
        threading.Thread(target=lambda n=n: [log.add("event", "x" * 200, n=n, i=i) for i in range(100)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    written = rows(tmp_path / "events.jsonl")
    assert {(row["n"], row["i"]) for row in written} == {(n, i) for n in range(8) for i in range(100)}


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot write"):
        EventLog(tmp_path / "missing" / "events.jsonl")


def test_a_disk_that_hangs_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The file is a pipe that nobody reads any more: writing to it blocks once it is full."""
    log = LineLog(tmp_path / "frames.jsonl")
    reading, writing = os.pipe()
    os.dup2(writing, log._descriptor)  # what the writing thread writes to
    os.close(writing)
    began = time.monotonic()
    for number in range(5000):
        log.put({"number": number, "text": "x" * 1000})
    assert time.monotonic() - began < 5
    log.close()  # waits its time and no longer
    assert time.monotonic() - began < 15
    assert log.unwritten > 0 and log.unwritten_because == "the disk hangs"
    os.close(reading)


def test_lines_are_forced_to_the_disk_in_time_and_not_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, forced = tmp_path / "results.jsonl", []
    forcing = os.fsync

    def fsync(descriptor: int) -> None:
        forcing(descriptor)
        forced.append(path.stat().st_size)

    monkeypatch.setattr("vmkla.video.live.line_log.os.fsync", fsync)
    log = LineLog(path, durable=True, sync_s=0.3)
    for number in range(100):
        log.put({"number": number})
        time.sleep(0.001)
    until = time.monotonic() + 20
    while (len(rows(path)) < 100 or not forced or forced[-1] < path.stat().st_size) and (
        time.monotonic() < until
    ):
        time.sleep(0.01)  # the last lines as well, though none follows them
    assert len(rows(path)) == 100 and forced[-1] == path.stat().st_size and len(forced) < 20
    log.put({"number": 100})
    log.close()
    assert len(rows(path)) == 101 and forced[-1] == path.stat().st_size


def test_a_full_disk_loses_lines_and_not_the_run(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk; when it is lifted, lines are whole again."""
    path = tmp_path / "events.jsonl"
    code = f"""
import resource, time
from pathlib import Path
from vmkla.video.live.events import EventLog
log = EventLog(Path({str(path)!r}))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for number in range(50):
    log.add("first", "x" * 50, number=number)
    time.sleep(0.01)
until = time.monotonic() + 20
while not log.unwritten[0] and time.monotonic() < until:
    time.sleep(0.01)
before = log.unwritten
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.add("last")
log.close()
assert log.counts == {{"first": 50, "last": 1}}, log.counts
print(before[0], before[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    lost, cause = done.stdout.strip().split(" ", 1)
    assert 0 < int(lost) < 50 and cause
    lines = path.read_text().splitlines()
    whole = []
    for line in lines:
        try:
            whole.append(json.loads(line))
        except ValueError:
            continue  # the one that the disk took half of
    assert len(lines) - len(whole) <= 1 and whole[-1]["kind"] == "last"
    assert len(whole) == 51 - int(lost)
