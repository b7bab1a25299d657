"""What a driver has in hand, and the records of what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vmkla.archive.claims import Claim
from vmkla.archive.records import PieceRecord
from vmkla.archive.work import Entry
from vmkla.errors import BadInputError, ErrorReport, VmklaError
from vmkla.names import DIGITS, Names, given_names, without_folder
from vmkla.video.media.parts import Part

Outcome = Literal["done", "degraded", "failed"]


@dataclass(frozen=True)
class VideoPart:
    """A part of a long video, for which a worker runs the network.

    Attributes:
        entry: the video.
        stamp, digest: those of the video.
        key: key of its piece.
        part: its frames.
    """

    entry: Entry
    stamp: str
    digest: str
    key: str
    part: Part

    @property
    def name(self) -> str:
        """Key of its claim, and beginning of the name of its private file."""
        return f"{self.key}-{self.part.first}-{self.part.end}"


@dataclass
class Task:
    """What a worker does.

    Attributes:
        entry: the source.
        claim: claim of the source while it is hashed, else of the piece, or of a part of it.
        stamp, digest: those of the source; empty while it is hashed.
        private: folder or, of a part, file that the worker writes; None while the source is hashed.
        part: the part; None for a source or a piece.
    """

    entry: Entry
    claim: Claim
    stamp: str = ""
    digest: str = ""
    private: Path | None = None
    part: VideoPart | None = None

    @property
    def item(self) -> Entry | VideoPart:
        """What is queued to begin the task again."""
        return self.part or self.entry


def record_of(
    task: Task,
    worker: int,
    outcome: Outcome,
    end: ErrorReport,
    seconds: float = 0.0,
    facts: dict[str, Any] | None = None,
    *,
    owner: str,
    anonymous: bool,
) -> PieceRecord:
    """Make the record of a piece.

    Args:
        task: the task that ended it.
        worker: number of the worker.
        outcome, end: how it ended.
        seconds: time that it took.
        facts: what was found.
        owner: name of the process that publishes it.
        anonymous: leave out the names of sources.
    """
    key, folder = task.claim.key, None if outcome == "failed" else f"results/{task.claim.key}"
    label = (task.digest[:DIGITS] or "unreadable") if anonymous else task.entry.id
    path = task.entry.path
    names = given_names([str(path)], label) if anonymous else without_folder(path)
    if task.private is not None:
        names = names.also(Names({str(task.private): folder or "its folder"}))
    hint = None if end.hint is None else names.hide(end.hint)
    return PieceRecord(
        piece=key, source=label, outcome=outcome, message=names.hide(end.message), hint=hint,
        attempts=task.claim.attempt, worker=f"{owner}/{worker}", seconds=round(seconds, 3),
        source_sha256=task.digest or None, folder=folder, facts=facts or {},
    )  # fmt: skip


def unreadable(entry: Entry, error: OSError | VmklaError) -> VmklaError:
    """Return the error of a source that cannot be read."""
    if isinstance(error, VmklaError):
        return error
    return BadInputError(f"{entry.path} cannot be read: {error.strerror or error}")


def lost_too_often(times: int) -> ErrorReport:
    """Return the end of a piece whose workers were lost so many times."""
    return ErrorReport(
        f"its worker or its machine was lost {times} times",
        "If the system killed them for memory, use fewer --workers; then --retry-failed.",
        BadInputError.exit_status,
    )
