"""A file of JSON lines, written by a thread of its own."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from vmkla.files import create_file, output_errors

_WAITING_MAX = 10_000
"""Lines that may wait for a disk that hangs; further ones are counted and dropped."""
_CLOSE_S = 2.0
_MAX_BYTES = 1 << 30
"""Size limit of the file, so that a long run cannot fill a disk with its log."""


class LineLog:
    """Writes JSON lines from a thread of its own, so that ``put`` never waits for the disk.

    When the disk refuses a line the run continues, and lines that are not in the file are counted. The file
    is readable by its owner only.

    Args:
        path: the file; an existing one is replaced.
        durable: force lines to the disk, so that they survive a power cut.
        sync_s: with ``durable``: longest time that a line waits for that, seconds; 0 forces each batch.

    Attributes:
        unwritten: number of lines that are not in the file.
        unwritten_because: why the first of them is missing; empty when none is.

    Raises:
        BadInputError: the file cannot be created.
    """

    def __init__(self, path: Path, *, durable: bool = False, sync_s: float = 0.0) -> None:
        self.path = path
        self.unwritten = 0
        self.unwritten_because = ""
        self._durable, self._sync_s = durable, sync_s
        self._synced_s = time.monotonic()
        self._unsynced = False
        self._changed = threading.Condition()
        self._waiting: deque[dict[str, Any]] = deque()
        self._closing = self._torn = False
        self._size_bytes = self._in_hand = 0
        with output_errors(path):
            self._descriptor = create_file(path, append=True)
        self._thread = threading.Thread(target=self._write_all, name=f"vmkla-{path.stem}", daemon=True)
        self._thread.start()

    def put(self, line: dict[str, Any]) -> None:
        """Queue a line for writing.

        Args:
            line: plain values, not to be changed afterwards.
        """
        with self._changed:
            if self._closing or len(self._waiting) >= _WAITING_MAX:
                self._fail("the disk does not take lines as fast as they come", 1)
                return
            self._waiting.append(line)
            self._changed.notify()

    def close(self) -> None:
        """Write the queued lines and close the file, within two seconds even when the disk hangs."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            with self._changed:
                self._fail("the disk hangs", len(self._waiting) + self._in_hand)

    def _write_all(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._waiting and not self._closing:
                        if not self._changed.wait(self._sync_s if self._unsynced else None):
                            break
                    closing = self._closing and not self._waiting
                    lines = list(self._waiting)
                    self._waiting.clear()
                self._write(lines)
                if closing or time.monotonic() - self._synced_s >= self._sync_s:
                    self._sync()
                if closing:
                    return
        finally:
            os.close(self._descriptor)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        done, self._in_hand = 0, len(lines)
        try:
            for line in lines:
                if self._size_bytes >= _MAX_BYTES:
                    raise OSError(errno.EFBIG, f"the file has {_MAX_BYTES >> 20} MiB, which is enough")
                data = json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n"
                # After half a line a newline comes first, so that only that line is lost.
                written = os.write(self._descriptor, b"\n" + data if self._torn else data)
                self._size_bytes += written
                self._torn = written < len(data) + self._torn
                if self._torn:
                    raise OSError(0, "the disk took half a line")
                done += 1
                self._in_hand = len(lines) - done
                self._unsynced = self._durable
        except OSError as error:
            with self._changed:
                self._fail(error.strerror or str(error), len(lines) - done)
        self._in_hand = 0

    def _sync(self) -> None:
        if not self._unsynced:
            return
        self._unsynced, self._synced_s = False, time.monotonic()
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            with self._changed:
                self._fail(error.strerror or str(error), 0)

    def _fail(self, cause: str, lines: int) -> None:
        self.unwritten += lines
        self.unwritten_because = self.unwritten_because or cause
