"""Records of pieces: published results, failures, and ``status.jsonl``, which lists them all."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from vmkla.archive.layout import BatchFolder, is_taken
from vmkla.bounded import MalformedError, parse_names, read_file
from vmkla.files import write_whole
from vmkla.plain_values import from_plain
from vmkla.procedures.files import ROW_MAX_BYTES
from vmkla.video.media.sinks import to_json

RECORD = "piece.json"
STATUS = "status.jsonl"


@dataclass(frozen=True)
class PieceRecord:
    """The record of a piece, a line of ``status.jsonl``.

    Attributes:
        piece: its key.
        source: name of its source; without a name in an anonymous batch.
        outcome: how it ended.
        message, hint: those of the single run; empty and None where all went well.
        attempts: number of attempts.
        worker: name of the process that published it.
        seconds: time of the last attempt.
        source_sha256: digest of the source; None where it cannot be read.
        folder: its results, relative to the batch's folder; None for a failed piece.
        facts: what was found, see ``vmkla.archive.piece``; empty for a failed piece.
    """

    piece: str
    source: str
    outcome: Literal["done", "degraded", "failed"]
    message: str
    hint: str | None
    attempts: int
    worker: str
    seconds: float
    source_sha256: str | None
    folder: str | None
    facts: dict[str, Any]


class Records:
    """The records in a batch's folder.

    Args:
        folder: folder of the batch.
    """

    def __init__(self, folder: BatchFolder) -> None:
        self._folder = folder
        self._done: dict[str, PieceRecord] = {}

    def is_done(self, key: str) -> bool:
        """Return whether a piece has its result."""
        return key in self._done or (self._folder.results / key).is_dir()

    def result(self, key: str) -> PieceRecord | None:
        """Return the record of a published piece, or None."""
        return self._done.get(key) or _read(self._folder.results / key / RECORD)

    def failure(self, key: str) -> PieceRecord | None:
        """Return the record of a failed piece, or None."""
        return _read(self._folder.failed / f"{key}.json")

    def publish(self, private: Path, record: PieceRecord) -> bool:
        """Publish a private folder as the result of its piece; False when the piece has one already.

        Raises:
            BadInputError, OSError: the disk is full or cannot be written to.
        """
        final = self._folder.results / record.piece
        write_whole(private / RECORD, _line(record))
        try:
            os.rename(private, final)
        except OSError as error:
            # A server that lost its answer renames once, and reports that the old name is missing.
            if not private.exists() and _read(final / RECORD) == record:
                return True
            if not is_taken(error):
                raise
            shutil.rmtree(private, ignore_errors=True)
            return False
        _sync(self._folder.results)
        self.forget_failure(record.piece)
        return True

    def fail(self, record: PieceRecord) -> None:
        """Record that a piece failed.

        Raises:
            BadInputError: the disk is full or cannot be written to.
        """
        write_whole(self._folder.failed / f"{record.piece}.json", _line(record))

    def all(self) -> list[PieceRecord]:
        """Return the records of all pieces, sorted by source; each published result is read once."""
        for key in self._keys(self._folder.results, ""):
            if key not in self._done and (found := _read(self._folder.results / key / RECORD)) is not None:
                self._done[key] = found
        failed = [
            found
            for key in self._keys(self._folder.failed, ".json")
            if key not in self._done and (found := self.failure(key)) is not None
        ]
        return sorted([*self._done.values(), *failed], key=lambda record: (record.source, record.piece))

    def write_status(self) -> list[PieceRecord]:
        """Write ``status.jsonl`` and return its records.

        It is written until nothing was added meanwhile, so that the last of many that write has every record.

        Raises:
            BadInputError: the disk is full or cannot be written to.
        """
        records = self.all()
        while True:
            write_whole(self._folder.path / STATUS, b"".join(map(_line, records)), durable=False)
            now = self.all()
            if now == records:
                return records
            records = now

    def done_keys(self) -> set[str]:
        """Return the keys of the published pieces."""
        return set(self._keys(self._folder.results, ""))

    def failed_keys(self) -> set[str]:
        """Return the keys of the failed pieces."""
        return set(self._keys(self._folder.failed, ".json"))

    def forget_failure(self, key: str) -> None:
        """Remove the record of a failure that no longer counts."""
        with contextlib.suppress(OSError):  # a result is worth more than a failure
            (self._folder.failed / f"{key}.json").unlink(missing_ok=True)

    def _keys(self, folder: Path, suffix: str) -> list[str]:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found]
        return [
            name[: len(name) - len(suffix)]
            for name in names
            if name.endswith(suffix) and not name.startswith(".")
        ]


def _read(path: Path) -> PieceRecord | None:
    try:
        return _parse(read_file(path, ROW_MAX_BYTES))
    except (OSError, MalformedError):
        return None


def _parse(text: bytes) -> PieceRecord | None:
    try:
        values = parse_names(text, ROW_MAX_BYTES)
        known = {field.name for field in fields(PieceRecord)}
        found: PieceRecord = from_plain(
            PieceRecord, {name: value for name, value in values.items() if name in known}, "the record"
        )
    except (MalformedError, TypeError, KeyError):
        return None
    return found


def _line(record: PieceRecord) -> bytes:
    return to_json(asdict(record)) + b"\n"


def _sync(folder: Path) -> None:
    """Have the disk keep the names in a folder, where it can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
