"""The output folder of a live run, and the report in it."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla.files import FULL, output_errors, write_whole
from vmkla.folders import RESERVE, check_free
from vmkla.procedures.files import EVENTS, LESIONS, PAGE, REPORT, RESULTS, STILLS
from vmkla.procedures.stills import remove_stills
from vmkla.video.media.sinks import DiskReserve, to_json

FRAMES, RECORDING = "frames.jsonl", "recording"
REPLACED = (REPORT, EVENTS, FRAMES, RESULTS, LESIONS, PAGE)


@dataclass
class LiveFolder:
    """The output folder of a live run.

    Attributes:
        path: the folder.
        full: whether the disk was full at the start, without space for a reserve.
    """

    path: Path
    full: bool = False
    _reserve: DiskReserve | None = field(default=None, repr=False)

    def outputs(self) -> dict[str, str]:
        """Return the files that exist, and the report: output name to path relative to the folder."""
        names = {
            "events": EVENTS,
            "results": RESULTS,
            "lesions": LESIONS,
            "procedure": PAGE,
            "stills": STILLS,
            "frames": FRAMES,
            "recording": RECORDING,
        }
        return {key: name for key, name in names.items() if (self.path / name).exists()} | {"report": REPORT}

    def write_report(self, report: dict[str, Any]) -> None:
        """Write ``report.json`` as a whole; a full disk has the reserved space for it.

        Raises:
            BadInputError: it cannot be written.
        """
        self.release()
        write_whole(self.path / REPORT, to_json(report, indent=2) + b"\n")

    def release(self) -> None:
        """Free the space that is reserved for the report."""
        if self._reserve is not None:
            self._reserve.release()
            self._reserve = None

    def discard(self) -> None:
        """Remove what ``open_folder`` created, after a run that did not begin."""
        self.release()
        for name in REPLACED:
            (self.path / name).unlink(missing_ok=True)


def open_folder(path: Path, *, exist_ok: bool) -> LiveFolder:
    """Take over the folder of a live run.

    Args:
        path: the folder, which this run has locked.
        exist_ok: replace the log and the report of an earlier run. Its recordings are always kept, and new
            ones get the numbers after theirs.
    Raises:
        UsageError: the folder holds an earlier run, and ``exist_ok`` is not set.
        BadInputError: the folder cannot be written to.
    """
    check_free(path, (*REPLACED, RECORDING, STILLS), exist_ok=exist_ok)
    with output_errors(path):
        for name in REPLACED:
            (path / name).unlink(missing_ok=True)
        remove_stills(path)
        try:
            return LiveFolder(path, _reserve=DiskReserve(path / RESERVE))
        except OSError as error:
            if error.errno not in (*FULL, errno.EFBIG):
                raise
            return LiveFolder(path, full=True)  # showing the video matters more than the report
