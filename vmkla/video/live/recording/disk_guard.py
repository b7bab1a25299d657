"""Keep the folder of recordings private and its disk from filling up."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from vmkla.errors import BadInputError
from vmkla.files import FULL, make_folder, output_errors
from vmkla.video.live.recording.options import MIN_FREE_BYTES


class RecordingStoppedError(Exception):
    """Recording cannot continue; the message is a few words for the screen, without a path."""


def stop_reason(error: OSError) -> str:
    """Return a few words for an error of the disk, without a path."""
    if error.errno in FULL:
        return "disk full"
    return f"disk: {error.strerror or type(error).__name__}"


@dataclass(frozen=True)
class DiskGuard:
    """Checks the free space on the disk of a folder.

    Attributes:
        folder: folder on the disk.
        min_free_bytes: free space that this account must keep, bytes.
    """

    folder: Path
    min_free_bytes: int = MIN_FREE_BYTES

    def free_bytes(self) -> int:
        """Return the space that this account may still use, bytes.

        Raises:
            OSError: the folder is gone.
        """
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def check(self) -> None:
        """Check the free space.

        Raises:
            RecordingStoppedError: there is too little space.
            OSError: the folder is missing.
        """
        free = self.free_bytes()
        if free < self.min_free_bytes:
            raise RecordingStoppedError(
                f"disk nearly full: {_megabytes(free)} free, {_megabytes(self.min_free_bytes)} are kept free"
            )

    def prepare(self) -> None:
        """Create the folder and check the disk before a recording starts.

        Raises:
            BadInputError: the folder cannot be created or written to, or the disk has too little space.
        """
        with output_errors(self.folder):
            make_folder(self.folder)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            free = self.free_bytes()
        if free < self.min_free_bytes:
            raise BadInputError(
                f"the disk of {self.folder} has {_megabytes(free)} free, and recording keeps "
                f"{_megabytes(self.min_free_bytes)} free",
                hint="Free some space there, or give another folder: --out DIR",
            )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
