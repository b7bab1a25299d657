"""The folder of a live run, and the report in it."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla.errors import UsageError
from vmkla.files import output_errors, write_atomically
from vmkla.folders import RESERVE
from vmkla.video.media.sinks import DiskReserve, to_json

EVENTS, REPORT, FRAMES, RECORDING = "events.jsonl", "report.json", "frames.jsonl", "recording"
REPLACED = (REPORT, EVENTS, FRAMES)


@dataclass
class LiveFolder:
    """The folder, made.

    Attributes:
        path: the folder.
        full: there was no space for a reserve: the disk is full from the start.
    """

    path: Path
    full: bool = False
    _reserve: DiskReserve | None = field(default=None, repr=False)

    def outputs(self) -> dict[str, str]:
        """What is there, by name, relative to the folder."""
        names = {"events": EVENTS, "frames": FRAMES, "recording": RECORDING, "report": REPORT}
        return {key: name for key, name in names.items() if (self.path / name).exists()}

    def write_report(self, report: dict[str, Any]) -> None:
        """Write ``report.json``, whole or not at all; on a full disk into the space that was held back.

        Raises:
            BadInputError: it cannot be written.
        """
        self.release()
        path = self.path / REPORT
        with output_errors(path):
            write_atomically(path, to_json(report, indent=2) + b"\n", durable=True)

    def release(self) -> None:
        """Give the space back that is held for the report."""
        if self._reserve is not None:
            self._reserve.release()
            self._reserve = None

    def discard(self) -> None:
        """Remove what ``open_folder`` made: the run did not begin."""
        self.release()
        for name in REPLACED:
            (self.path / name).unlink(missing_ok=True)


def open_folder(path: Path, *, exist_ok: bool) -> LiveFolder:
    """Take over the folder of a live run.

    Args:
        path: the folder, which this run has locked.
        exist_ok: replace the log and the report of an earlier run. Its recordings stay in any case, and new
            ones get the numbers after theirs.
    Raises:
        UsageError: it holds an earlier run, and ``exist_ok`` is not set.
        BadInputError: it cannot be written to.
    """
    taken = [name for name in (*REPLACED, RECORDING) if (path / name).exists()]
    if taken and not exist_ok:
        raise UsageError(
            f"{path} holds outputs already: {', '.join(taken)}",
            hint="Give another folder (--out DIR), or add --exist-ok to replace them.",
        )
    with output_errors(path):
        for name in REPLACED:
            (path / name).unlink(missing_ok=True)
        try:
            return LiveFolder(path, _reserve=DiskReserve(path / RESERVE))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            return LiveFolder(path, full=True)  # the frame matters more than the report
