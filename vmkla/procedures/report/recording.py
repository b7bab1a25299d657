"""Find the place of a time in the recording of a live run, which is in files of some seconds."""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla.procedures.report.stored import Lines

FOLDER = "recording"
_INDEX = "recording.jsonl"
_NAME = re.compile(r"overlay-\d{6,}\.mp4")
_SLACK_S = 0.2
"""How far a time may lie before or after the frames of a file and still lead to it."""


@dataclass(frozen=True)
class _File:
    """A file with markers: its name, and the times of its first and last frame; the last may be unknown."""

    name: str
    first_s: float
    last_s: float


class Recording:
    """The files with markers of a live run's recording.

    Args:
        folder: folder of the run.
        origin_s: begin of the run, seconds of ``time.monotonic()``.
    Raises:
        BadInputError: its index cannot be read.
    """

    def __init__(self, folder: Path, origin_s: float) -> None:
        self._files: list[_File] = []
        index = folder / FOLDER / _INDEX
        if not index.is_file():
            return
        files: dict[str, _File] = {}
        newest_s = -math.inf
        for file in Lines(index, _to_file):
            if file.first_s < newest_s:  # what stands before is of a run before the machine was started again
                files.clear()
            newest_s = file.first_s
            files[file.name] = file
        for file in files.values():
            if file.first_s >= origin_s and (folder / FOLDER / file.name).is_file():
                self._files.append(_File(file.name, file.first_s - origin_s, file.last_s - origin_s))
        self._files.sort(key=lambda file: file.first_s)

    def __bool__(self) -> bool:
        return bool(self._files)

    def place(self, time_s: float) -> str | None:
        """Return the file relative to the run's folder and the time in it, as a link has them.

        Args:
            time_s: time from the begin of the run, seconds.
        Returns:
            Such as ``recording/overlay-000002.mp4#t=3.250``; None where nothing was recorded.
        """
        number = bisect.bisect(self._files, time_s + _SLACK_S, key=lambda file: file.first_s) - 1
        if number < 0 or time_s > self._files[number].last_s + _SLACK_S:
            return None
        file = self._files[number]
        if number and time_s < file.first_s:  # between two files, the earlier one has it
            file = self._files[number - 1] if time_s <= self._files[number - 1].last_s else file
        # Rounded up: a thousandth of a second before a frame, a browser shows the one before.
        thousandths = math.ceil(round(1000 * max(0.0, time_s - file.first_s), 3))
        return f"{FOLDER}/{file.name}#t={thousandths / 1000:.3f}"


def _to_file(values: dict[str, Any]) -> _File:
    name = str(values["file"])
    first_s = float(values["first_captured_s"])
    last_s = values.get("last_captured_s")
    last_s = math.inf if last_s is None else float(last_s)
    if not _NAME.fullmatch(name) or values["event"] not in ("opened", "closed"):
        raise ValueError("not a file with markers")
    if not (math.isfinite(first_s) and last_s >= first_s):
        raise ValueError("its times are not in order")
    return _File(name, first_s, last_s)
