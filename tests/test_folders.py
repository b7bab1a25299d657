"""Folders of runs: made by one process only, locked while it lives, swept when it is dead."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vmkla.errors import BadInputError, UsageError
from vmkla.folders import LOCK, RESERVE, is_empty, latest_folder, locked_folder, new_folder

HOLD = """
import sys
from pathlib import Path
from vmkla.folders import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its stdin ends."""
    command = [sys.executable, "-I", "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def test_numbering_never_meets_a_folder_that_exists(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "clip"
    assert latest_folder(folder) == folder
    made = []
    for _ in range(4):
        made.append(new_folder(folder))
        assert latest_folder(folder) == made[-1] and made[-1].stat().st_mode & 0o777 == 0o700
    assert [path.name for path in made] == ["clip", "clip-2", "clip-3", "clip-4"]


def test_starts_at_one_moment_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: new_folder(tmp_path / "runs/clip"), range(48)))
    assert len(set(made)) == 48 and all(path.is_dir() for path in made)


def test_a_second_run_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(UsageError) as caught, locked_folder(tmp_path):
            raise AssertionError("the block must not begin")
        assert f"in use by another run, process {process.pid}" in caught.value.message
        process.communicate("")
    with locked_folder(tmp_path):
        assert not is_empty(tmp_path.parent) and is_empty(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / LOCK).exists() and is_empty(tmp_path)
    with locked_folder(tmp_path):
        assert (tmp_path / LOCK).read_text(encoding="utf-8").split()[0] == str(os.getpid())


def test_two_threads_do_not_share_a_folder(tmp_path: Path) -> None:
    with locked_folder(tmp_path), pytest.raises(UsageError, match="in use"), locked_folder(tmp_path):
        pass


def test_a_lock_whose_file_was_just_removed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder ends between our open and our lock: the file that we locked is no longer in the folder."""
    flock, removed = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(os.stat(tmp_path / LOCK).st_ino)
            (tmp_path / LOCK).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr("vmkla.folders.fcntl.flock", late)
    with locked_folder(tmp_path), holder_refused(tmp_path):
        assert removed


@contextmanager
def holder_refused(folder: Path) -> Iterator[None]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", HOLD, str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert b"in use by another run" in done.stderr and done.stdout == b""
    yield


def test_without_locks_nothing_of_another_run_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its owner may be writing it at this moment."""

    def absent(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("vmkla.folders.fcntl.flock", absent)
    partial = tmp_path / ".overlay.partial.mp4"
    partial.write_bytes(b"frames of another run")
    with locked_folder(tmp_path, ("overlay.mp4",)):
        assert partial.exists()
    assert "cannot be locked" in caplog.text


def test_what_a_dead_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "overlay/deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    gone = [RESERVE, ".report.json.77.part", ".overlay.partial.mp4", "overlay/.a.png.77.part",
            "overlay/deep/.a.png.77.part"]  # fmt: skip
    stay = [".frames.partial.jsonl", ".model.onnx.77.part", ".report.json.bak.part", "report.json",
            "other/.a.png.77.part", "overlay/a.png"]  # fmt: skip
    for name in gone + stay:
        (tmp_path / name).write_bytes(b"x")
    with locked_folder(tmp_path, ("report.json", "overlay.mp4", "overlay")):
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*stay, LOCK}


def test_a_folder_that_was_made_and_left_empty_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked_folder(tmp_path / "new"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), locked_folder(tmp_path / "mine"):
        raise ZeroDivisionError
    assert (tmp_path / "mine").is_dir()
    with locked_folder(tmp_path / "new"):
        (tmp_path / "new/file").write_bytes(b"")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("vmkla.folders.fcntl.flock", flock)
    with locked_folder(tmp_path):
        pass
    assert "cannot be locked" in caplog.text and str(tmp_path) in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file/deeper", Path("/proc/here")):
        with pytest.raises(BadInputError, match="cannot write"), locked_folder(path):
            raise AssertionError("the block must not begin")
        with pytest.raises(BadInputError, match="cannot write"):
            new_folder(path / "run")
