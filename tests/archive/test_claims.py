"""Claims: one owner at a time, taken over after a lease in the file system's time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.archive.batches import open_red
from vmkla.archive.claims import Claims
from vmkla.archive.layout import BatchFolder, find_batch


def age(folder: BatchFolder, name: str, seconds: float) -> None:
    """Let a claim be as old as if its owner had died."""
    path = folder.claims / name
    then_ns = path.stat().st_mtime_ns - int(seconds * 1e9)
    os.utime(path, ns=(then_ns, then_ns))


def test_a_claim_has_one_owner(tmp_path: Path) -> None:
    first, second = open_red(tmp_path), find_batch(tmp_path)
    with Claims(first, 60) as mine, Claims(second, 60) as theirs:
        claim = mine.take("k")
        assert claim is not None and claim.attempt == 1
        assert theirs.take("k") is None
        mine.release(claim)
        again = theirs.take("k")
        assert again is not None and again.attempt == 1
        theirs.finish(again)
    assert list(first.claims.iterdir()) == [] and list((tmp_path / ".batch" / "clock").iterdir()) == []


def test_a_claim_is_taken_over_after_its_own_lease(tmp_path: Path) -> None:
    first, second = open_red(tmp_path), find_batch(tmp_path)
    with Claims(first, 1000) as mine, Claims(second, 1) as theirs:
        claim = mine.take("k")
        assert claim is not None
        age(first, "k.1", 900)
        assert theirs.take("k") is None  # the owner's lease counts, not the observer's
        age(first, "k.1", 200)
        taken = theirs.take("k")
        assert taken is not None and taken.attempt == 2
        assert not mine.holds(claim) and theirs.holds(taken)
        mine.release(claim)  # a lost claim leaves the new owner's alone
        assert mine.take("k") is None
        theirs.finish(taken)
    assert list(first.claims.iterdir()) == []


def test_a_claim_that_was_not_written_has_the_observers_lease(tmp_path: Path) -> None:
    folder = open_red(tmp_path)
    (folder.claims / "k.1").touch()  # its owner died between creation and writing
    with Claims(folder, 60) as claims:
        assert claims.take("k") is None
        age(folder, "k.1", 61)
        claim = claims.take("k")
        assert claim is not None and claim.attempt == 2


def test_claims_are_touched_while_their_owner_lives(tmp_path: Path) -> None:
    first, second = open_red(tmp_path), find_batch(tmp_path)
    with Claims(first, 1.0) as mine, Claims(second, 1.0) as theirs:
        claim = mine.take("k")
        assert claim is not None
        until_s = time.monotonic() + 2.5
        while time.monotonic() < until_s:
            assert theirs.take("k") is None
            time.sleep(0.1)
        assert mine.holds(claim)


def test_an_abandoned_attempt_counts_and_nobody_waits_for_it(tmp_path: Path) -> None:
    first, second = open_red(tmp_path), find_batch(tmp_path)
    with Claims(first, 60) as mine, Claims(second, 60) as theirs:
        claim = mine.take("k", 4)
        assert claim is not None and claim.attempt == 4
        mine.abandon(claim)
        taken = theirs.take("k", 4)
        assert taken is not None and taken.attempt == 5
        assert mine.take("k", 4) is None
        theirs.release(taken)
        again = mine.take("k", 4)
        assert again is not None and again.attempt == 5


CLAIMANTS = """
import sys, threading
from pathlib import Path
from vmkla.archive.claims import Claims
from vmkla.archive.layout import find_batch

def work():
    with Claims(find_batch(Path(sys.argv[1])), 60) as claims:
        ready.wait()
        won.extend(number for number in range(40) if claims.take(f"k{number}") is not None)
        tried.wait()
        all_tried.wait()  # nobody gives a claim back before all have tried

won = []
ready, tried, all_tried = threading.Barrier(17), threading.Barrier(17), threading.Event()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads:
    thread.start()
print("up", flush=True)
sys.stdin.readline()
ready.wait()
tried.wait()
print("tried", flush=True)
sys.stdin.readline()
all_tried.set()
print(*won)
"""


def test_64_claimants_of_one_folder_never_claim_the_same(tmp_path: Path) -> None:
    """Four processes of 16 threads, all let go at one moment."""
    open_red(tmp_path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-I", "-c", CLAIMANTS, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for word in ("up", "tried"):
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == f"{word}\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
    won = [int(word) for process in processes for word in process.communicate(timeout=60)[0].split()]
    assert sorted(won) == list(range(40))


def test_of_many_that_take_over_one_claim_one_succeeds(tmp_path: Path) -> None:
    folder = open_red(tmp_path)
    for number in range(20):
        (folder.claims / f"k{number}.1").write_text('{"lease_s": 5}')
        age(folder, f"k{number}.1", 10)
    won: list[int] = []
    ready = threading.Barrier(8)

    def take() -> None:
        with Claims(find_batch(tmp_path), 60) as claims:
            ready.wait()
            won.extend(number for number in range(20) if claims.take(f"k{number}") is not None)
            ready.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(20))


def test_a_claim_that_cannot_be_written_is_not_left(tmp_path: Path) -> None:
    folder = open_red(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Claims(folder, 60) as claims:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            with pytest.raises(OSError):
                claims.take("k")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert list(folder.claims.iterdir()) == []
