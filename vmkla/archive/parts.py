"""Files with the network's answers to the parts of long videos, until the whole is done."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vmkla.archive.layout import BatchFolder
from vmkla.archive.tasks import VideoPart
from vmkla.files import make_folder


class PartFiles:
    """The files of answers in a batch's folder, and which videos this process runs whole nevertheless.

    Args:
        folder: folder of the batch.
    """

    def __init__(self, folder: BatchFolder) -> None:
        self._folder = folder
        self._begun: set[str] = set()
        self._given_up: set[str] = set()

    def missing(self, parts: Sequence[VideoPart]) -> list[VideoPart]:
        """Return the parts of a video that are to be done before it; none of one that is run whole."""
        return [part for part in parts if self.is_wanted(part)]

    def is_wanted(self, part: VideoPart) -> bool:
        """Return whether a part is still to be done."""
        return part.key not in self._given_up and not self._path(part).exists()

    def is_begun(self, key: str) -> bool:
        """Return whether this process has begun the parts of a video."""
        return key in self._begun

    def begin(self, key: str) -> None:
        """Note that this process has begun the parts of a video."""
        self._begun.add(key)

    def give_up(self, key: str) -> None:
        """Run a video whole, because one of its parts cannot be done."""
        self._given_up.add(key)

    def publish(self, part: VideoPart, private: Path) -> None:
        """Give the file of a part its name.

        Raises:
            OSError: the disk is full or cannot be written to.
        """
        make_folder(self._path(part).parent)
        os.replace(private, self._path(part))

    def files(self, key: str) -> tuple[Path, ...]:
        """Return the files of a video, for the run over the whole."""
        with contextlib.suppress(OSError):
            return tuple(sorted((self._folder.parts / key).iterdir()))
        return ()

    def remove(self, key: str) -> None:
        """Remove the files of a video that has its result, or has failed."""
        shutil.rmtree(self._folder.parts / key, ignore_errors=True)

    def _path(self, part: VideoPart) -> Path:
        return self._folder.parts / part.key / f"{part.part.first}-{part.part.end}"
