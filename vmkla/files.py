"""Files on disk: written whole or not at all, and known by their hash. No torch here."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vmkla.errors import BadInputError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name only when the block has ended without an error.

    Until then it lies beside ``path`` under another name, and a file that is there already stays. The folder
    is made when missing.

    Raises:
        BadInputError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # nothing to remove, or the folder itself is no folder
            partial.unlink()


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, read in pieces.

    Raises:
        BadInputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
