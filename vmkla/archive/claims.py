"""Claims of pieces: files that are created exclusively and touched while their owner lives.

The claim ``KEY.N`` is the Nth attempt at a piece. One that was not touched for its lease is taken over by the
exclusive creation of ``KEY.N+1``. No claim is removed or renamed to take it, so of many processes that
try at one moment, one succeeds. See docs/adr/0015.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from vmkla.archive.layout import BatchFolder, modified, touch
from vmkla.bounded import MalformedError, parse_names, read_file
from vmkla.files import create_file
from vmkla.video.media.sinks import to_json

_TOUCHES = 5
"""Touches of a claim in one lease."""
_CONTENT_MAX_BYTES = 4 << 10


@dataclass
class Claim:
    """A claim of this process.

    Attributes:
        key: what is claimed.
        attempt: number of the attempt, from 1.
        lost: whether another process has taken it over, or it can no longer be touched.
        touched_s: local time of the last touch, for this process alone, seconds.
    """

    key: str
    attempt: int
    lost: bool = False
    touched_s: float = field(default_factory=time.monotonic)


class Claims:
    """The claims of this process; its context touches them from a thread.

    Args:
        folder: folder of the batch.
        lease_s: time after which a claim of this process that is not touched may be taken over, seconds.
    """

    def __init__(self, folder: BatchFolder, lease_s: float) -> None:
        self._folder, self._lease_s = folder, lease_s
        self._held: dict[str, Claim] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._touch_all, name="vmkla-claims", daemon=True)
        self._content = to_json({"owner": folder.owner, "lease_s": lease_s}) + b"\n"

    def __enter__(self) -> Claims:
        if not self._folder.clock.exists():
            os.close(create_file(self._folder.clock))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for claim in list(self._held.values()):
            with contextlib.suppress(OSError):
                self.release(claim)
        self._folder.clock.unlink(missing_ok=True)

    def take(self, key: str, first: int = 1) -> Claim | None:
        """Claim something; return None when another process holds it.

        Args:
            key: what is claimed.
            first: number of the first attempt that may be made.
        Raises:
            OSError: the claim cannot be written, for instance on a full disk.
        """
        attempt = first
        while not self._create(key, attempt):
            if not self._path(key, attempt + 1).exists() and not self._is_stale(key, attempt):
                return None
            attempt += 1
        claim = Claim(key, attempt)
        with self._lock:
            self._held[key] = claim
        return claim

    def holds(self, claim: Claim) -> bool:
        """Check whether a claim is still this process's."""
        if not claim.lost:
            self._touch(claim)
        return not claim.lost

    def release(self, claim: Claim) -> None:
        """Give a claim up without counting the attempt; a lost claim is left to its new owner."""
        self._forget(claim)
        if not claim.lost:
            self._path(claim.key, claim.attempt).unlink(missing_ok=True)

    def abandon(self, claim: Claim) -> None:
        """Give a claim up and count the attempt; nobody need wait for its lease."""
        self._forget(claim)
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(claim.key, claim.attempt), (0, 0))

    def finish(self, claim: Claim) -> None:
        """Remove a claim and those of earlier attempts, after the piece has its record."""
        self._forget(claim)
        for attempt in range(1, claim.attempt + 1):
            with contextlib.suppress(OSError):  # what stays is checked against the record
                self._path(claim.key, attempt).unlink(missing_ok=True)

    def _forget(self, claim: Claim) -> None:
        with self._lock:
            self._held.pop(claim.key, None)

    def _path(self, key: str, attempt: int) -> Path:
        return self._folder.claims / f"{key}.{attempt}"

    def _create(self, key: str, attempt: int) -> bool:
        try:
            descriptor = create_file(self._path(key, attempt), replace=False)
        except FileExistsError:
            return False
        with open(descriptor, "wb", buffering=0) as file:
            try:
                file.write(self._content)
            except OSError:  # a full disk: no work may begin
                self._path(key, attempt).unlink(missing_ok=True)
                raise
        return True

    def _is_stale(self, key: str, attempt: int) -> bool:
        """Check whether a claim was not touched for its lease, in times of the file system."""
        path = self._path(key, attempt)
        try:
            now_ns, then_ns = touch(self._folder.clock), modified(path)
        except FileNotFoundError:
            return False  # it was given up just now, and is tried again later
        return (now_ns - then_ns) / 1e9 > self._lease_of(path)

    def _lease_of(self, path: Path) -> float:
        """Return the lease that a claim states, or this process's where its owner had no time to write it."""
        try:
            lease_s = parse_names(read_file(path, _CONTENT_MAX_BYTES), _CONTENT_MAX_BYTES).get("lease_s")
        except (OSError, MalformedError):
            return self._lease_s
        return float(lease_s) if isinstance(lease_s, int | float) else self._lease_s

    def _touch_all(self) -> None:
        while not self._ended.wait(self._lease_s / _TOUCHES):
            with self._lock:
                held = list(self._held.values())
            for claim in held:
                self._touch(claim)

    def _touch(self, claim: Claim) -> None:
        with self._lock:
            if claim.key not in self._held:
                return  # it ended meanwhile
            try:
                if self._path(claim.key, claim.attempt + 1).exists():
                    claim.lost = True
                    return
                touch(self._path(claim.key, claim.attempt))
                claim.touched_s = time.monotonic()
            except FileNotFoundError:
                claim.lost = True
            except OSError:  # the disk does not answer for a moment
                claim.lost = claim.lost or time.monotonic() - claim.touched_s > self._lease_s / 2
