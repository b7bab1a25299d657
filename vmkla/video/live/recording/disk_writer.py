"""Write the files of a recording on a thread of its own, which alone waits for the disk."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vmkla.bounded import MalformedError, parse_json
from vmkla.files import create_file
from vmkla.video.channel import Channel
from vmkla.video.live.recording.disk_guard import DiskGuard, RecordingStoppedError, stop_reason
from vmkla.video.media.sinks import to_json

INDEX = "recording.jsonl"

Row = dict[str, Any]
Block = tuple[int, bytes]
"""Offset in the file, and the bytes there."""

_ROW_MAX_BYTES = 1 << 20
_DEPTH = 512
"""Number of frames that may wait for a slow disk: 8 s of two streams at 30 fps, 50 kB each at 1080p."""
_CHECK_EVERY_S = 0.25


class SegmentFile:
    """One file of a recording; each write is on the disk completely or not at all.

    Args:
        path: the file; an existing one is never written to.
        opened: row of the index for the start of the file.
    """

    def __init__(self, path: Path, opened: Row) -> None:
        self.path = path
        self.row = opened
        self.end = 0
        self._fd = -1

    def create(self) -> None:
        """Create the file, and force its name to the disk."""
        self._fd = create_file(self.path, replace=False)
        sync_folder(self.path.parent)

    def write(self, blocks: list[Block], row: Row) -> None:
        """Write blocks at their offsets; after an error the file ends where it ended before.

        Args:
            blocks: blocks in the order in which they must reach the disk.
            row: row of the index that describes the file with these blocks.
        """
        end = self.end
        try:
            for at, data in blocks:
                if at < self.end:
                    os.fdatasync(self._fd)  # the data that the changed head refers to must be there first
                _write_at(self._fd, at, data)
                self.end = max(self.end, at + len(data))
        except OSError:
            with contextlib.suppress(OSError):  # the first error counts
                os.ftruncate(self._fd, end)
            self.end = end
            raise
        self.row = row

    def sync(self) -> None:
        """Force what was written to the disk."""
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def finish(self) -> None:
        """Force everything to the disk and close the file. A second call does nothing."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Index:
    """The index of a recording, ``recording.jsonl``: a row when a file is started, closed or removed.

    Args:
        folder: folder of the recording.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._fd = create_file(folder / INDEX, replace=False, append=True)
        except FileExistsError:  # of an earlier run into this folder
            self._fd = os.open(folder / INDEX, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        self._torn = bool(size) and os.pread(self._fd, 1, size - 1) != b"\n"

    def add(self, row: Row) -> None:
        """Append a row completely or not at all, and force it to the disk."""
        line = (b"\n" if self._torn else b"") + to_json(row) + b"\n"
        start = os.fstat(self._fd).st_size
        try:
            _write_at(self._fd, start, line)
        except OSError:
            os.ftruncate(self._fd, start)
            raise
        self._torn = False
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the index."""
        os.close(self._fd)


def read_index(folder: Path) -> list[Row]:
    """Read the rows of a recording's index; a row that a power cut left incomplete is skipped."""
    rows = []
    for line in (folder / INDEX).read_bytes().split(b"\n"):
        try:
            row = parse_json(line, _ROW_MAX_BYTES)
        except MalformedError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


class DiskWriter:
    """Writes for several streams, in order. A stream waits only when the queue is full.

    Args:
        folder: folder of the recording, which exists.
        guard: checked four times a second.
        sync_s: longest part of an open segment that a power cut can destroy, seconds.

    Attributes:
        failure: why writing has stopped, in a few words; empty while it continues.
    Raises:
        OSError: the index cannot be created.
    """

    def __init__(self, folder: Path, guard: DiskGuard, *, sync_s: float) -> None:
        self._folder = folder
        self._guard = guard
        self._sync_s = sync_s
        self._jobs: Channel[Callable[[], None]] = Channel(_DEPTH)
        self._open: list[SegmentFile] = []
        self._next_check_s = self._next_sync_s = 0.0
        self._busy_since_s: float | None = None
        self.failure = ""
        self._index = Index(folder)
        self._thread = threading.Thread(target=self._work, name="vmkla-disk", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """How long the thread has been waiting for the disk, seconds."""
        since = self._busy_since_s
        return 0.0 if since is None else time.monotonic() - since

    def create(self, name: str, opened: Row) -> SegmentFile:
        """Start a file.

        Args:
            name: name of the file in the folder.
            opened: first row of the file in the index.
        Raises:
            ChannelClosedError: writing has failed.
        """
        file = SegmentFile(self._folder / name, opened)
        self._jobs.put(partial(self._create, file))
        return file

    def write(self, file: SegmentFile, blocks: list[Block], row: Row) -> None:
        """Add to a file; see ``SegmentFile.write``.

        Raises:
            ChannelClosedError: writing has failed.
        """
        self._jobs.put(partial(file.write, blocks, row))

    def finish(self, file: SegmentFile) -> None:
        """Close a file.

        Raises:
            ChannelClosedError: writing has failed.
        """
        self._jobs.put(partial(self._finish, file))

    def close(self, timeout_s: float) -> bool:
        """Finish the queue and end; return False when the disk took too long."""
        self._jobs.finish()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            for job in self._jobs.items():
                self._busy_since_s = time.monotonic()
                self._check_disk(self._busy_since_s)
                job()
                self._busy_since_s = None
        except RecordingStoppedError as error:
            self.failure = str(error)
        except OSError as error:
            self.failure = stop_reason(error)
        except BaseException as error:  # no other thread would report it
            self.failure = f"unexpected {type(error).__name__}"
            raise
        finally:
            self._jobs.close()
            self._close_all()
            self._busy_since_s = None

    def _check_disk(self, now_s: float) -> None:
        if now_s >= self._next_check_s:
            self._next_check_s = now_s + _CHECK_EVERY_S
            self._guard.check()
        if now_s >= self._next_sync_s:
            for file in self._open:
                file.sync()
            self._next_sync_s = time.monotonic() + self._sync_s

    def _create(self, file: SegmentFile) -> None:
        self._guard.check()
        file.create()
        self._open.append(file)
        self._index.add({"event": "opened", **file.row})

    def _finish(self, file: SegmentFile) -> None:
        self._open.remove(file)
        file.finish()
        if file.row.get("frames"):
            self._index.add({"event": "closed", **file.row, "bytes": file.end})
        else:  # without one complete frame no player opens the file
            file.path.unlink()
            self._index.add({"event": "removed", **file.row})

    def _close_all(self) -> None:
        """Close all files; after an error, complete frames stay and the index lists them if it can."""
        for file in list(self._open):
            try:
                self._finish(file)
            except OSError as error:
                self.failure = self.failure or stop_reason(error)
        self._index.close()


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_at(fd: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written
