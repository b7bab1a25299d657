"""The folder of a batch: its layout, its settings, and a probe of its file system."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla.bounded import parse_names, read_file
from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.files import create_file, make_folder, output_errors, write_whole
from vmkla.video.media.sinks import to_json

HIDDEN = ".batch"
_SETTINGS, _SETTINGS_MAX_BYTES = "settings.json", 1 << 20
_FOLDERS = ("claims", "failed", "work", "hashes", "clock")
_TIME_STEP_S = 2.5
"""Coarsest step of a file system's times, seconds: two on FAT, and some slack."""
_PROBE_S = 0.05
_OTHER = "Use the same settings, or another folder: --out DIR"


@dataclass(frozen=True)
class BatchFolder:
    """The folder of a batch and the name of this process in it.

    Attributes:
        path: the folder.
        owner: name of this process, unique among all that work there.
    """

    path: Path
    owner: str

    @property
    def results(self) -> Path:
        """Folder of the published pieces."""
        return self.path / "results"

    @property
    def claims(self) -> Path:
        """Folder of the claims."""
        return self.path / HIDDEN / "claims"

    @property
    def failed(self) -> Path:
        """Folder of the records of failed pieces."""
        return self.path / HIDDEN / "failed"

    @property
    def work(self) -> Path:
        """Folder of the private folders."""
        return self.path / HIDDEN / "work"

    @property
    def parts(self) -> Path:
        """Folder of the network's answers to parts of long videos; made when the first is published."""
        return self.path / HIDDEN / "parts"

    @property
    def hashes(self) -> Path:
        """Folder of the known digests of sources."""
        return self.path / HIDDEN / "hashes"

    @property
    def clock(self) -> Path:
        """File that this process touches to read the file system's time."""
        return self.path / HIDDEN / "clock" / self.owner

    @property
    def settings(self) -> Path:
        """File of the batch's settings."""
        return self.path / HIDDEN / _SETTINGS


def owner_name() -> str:
    """Return a name for this process that no other one has."""
    host = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in socket.gethostname())
    return f"{host[:40] or 'host'}.{os.getpid()}.{os.urandom(4).hex()}"


def is_batch(folder: Path) -> bool:
    """Return whether a folder is that of a batch."""
    return (folder / HIDDEN / _SETTINGS).is_file()


def open_batch(path: Path, settings: dict[str, Any]) -> BatchFolder:
    """Open the folder of a batch; a new one gets these settings.

    Args:
        path: the folder; made when missing.
        settings: everything that decides the results, as plain values.
    Raises:
        ArtefactMismatchError: the folder has other settings.
        BadInputError: the folder cannot be written to, or its file system cannot be trusted.
    """
    folder = BatchFolder(path, owner_name())
    with output_errors(path):
        make_folder(path)
        _probe(path / f"{HIDDEN}-probe.{folder.owner}")  # each machine has its own mount
        if not is_batch(path):
            _create(folder, settings)
    check_settings(folder, settings)
    with output_errors(path):
        make_folder(folder.results)
    return folder


def find_batch(path: Path) -> BatchFolder:
    """Return the folder of an existing batch.

    Raises:
        BadInputError: it is not one.
    """
    if not is_batch(path):
        raise BadInputError(
            f"{path} is not the folder of a batch", hint="Give the folder that vmkla batch wrote with --out."
        )
    return BatchFolder(path, owner_name())


def check_settings(folder: BatchFolder, settings: dict[str, Any]) -> None:
    """Compare the settings with those of the folder.

    Raises:
        ArtefactMismatchError: they differ, or the folder's cannot be read.
    """
    there = read_settings(folder)
    wanted = parse_names(to_json(settings), _SETTINGS_MAX_BYTES)
    differ = [
        f"  {name}: {there.get(name)!r} in the folder, {wanted.get(name)!r} now"
        for name in sorted(there.keys() | wanted.keys())
        if there.get(name) != wanted.get(name)
    ]
    if differ:
        raise ArtefactMismatchError(
            f"{folder.path} holds a batch of other settings:\n" + "\n".join(differ), hint=_OTHER
        )


def read_settings(folder: BatchFolder) -> dict[str, Any]:
    """Read the settings of a batch.

    Raises:
        ArtefactMismatchError: they cannot be read.
    """
    try:
        return parse_names(read_file(folder.settings, _SETTINGS_MAX_BYTES), _SETTINGS_MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ArtefactMismatchError(f"{folder.settings} cannot be read: {error}", hint=_OTHER) from error


def _create(folder: BatchFolder, settings: dict[str, Any]) -> None:
    """Make the hidden folder with all that belongs in it, by one rename."""
    private = folder.path / f"{HIDDEN}.{folder.owner}"
    try:
        for name in _FOLDERS:
            make_folder(private / name)
        write_whole(private / _SETTINGS, to_json(settings, indent=2) + b"\n")
        with contextlib.suppress(OSError):  # another process was faster; its settings are compared next
            private.rename(folder.path / HIDDEN)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def remove_private(path: Path) -> None:
    """Remove a private folder or file, as far as possible: what stays is removed later."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def is_taken(error: OSError) -> bool:
    """Return whether a folder could not be renamed because its new name is that of a folder with files."""
    return error.errno in (errno.ENOTEMPTY, errno.EEXIST)


def touch(path: Path) -> int:
    """Give a file the file system's present time, and return it, ns.

    Raises:
        OSError: the file is missing or cannot be touched.
    """
    os.utime(path)
    return modified(path)


def modified(path: Path) -> int:
    """Return a file's modification time, ns. It is opened, since that refreshes the attributes on NFS.

    Raises:
        OSError: the file is missing or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _probe(private: Path) -> None:
    """Check what claims and publication rest on.

    Raises:
        BadInputError: exclusive creation, rename or times do not work as on a POSIX file system.
    """
    try:
        make_folder(private / "full")
        make_folder(private / "new")
        for name in ("full/file", "new/file", "old"):
            os.close(create_file(private / name))
        fault = _fault_of_creation(private) or _fault_of_rename(private) or _fault_of_times(private)
    finally:
        shutil.rmtree(private, ignore_errors=True)
    if fault:
        raise BadInputError(
            f"{private.parent} cannot hold a batch: {fault}",
            hint="Give a folder on a local disk or on NFS version 3 or 4: --out DIR (docs/archives.md)",
        )


def _fault_of_creation(private: Path) -> str:
    try:
        os.close(create_file(private / "old", replace=False))
    except FileExistsError:
        return ""
    return "its file system creates a file exclusively though it exists"


def _fault_of_rename(private: Path) -> str:
    try:
        (private / "new").rename(private / "full")
    except OSError as error:
        if not is_taken(error):
            return f"a folder cannot be renamed: {error.strerror}"
    else:
        return "its file system renames a folder onto one that holds files"
    (private / "new").rename(private / "moved")
    if (private / "new").exists() or not (private / "moved" / "file").is_file():
        return "its file system does not rename a folder in one step"
    return ""


def _fault_of_times(private: Path) -> str:
    old = private / "old"
    os.utime(old, (1_000_000_000, 1_000_000_000))
    began_s, began_ns = time.monotonic(), touch(old)
    time.sleep(_PROBE_S)
    os.close(create_file(private / "later"))
    later_ns, elapsed_s = modified(private / "later"), time.monotonic() - began_s
    drift_s = (later_ns - began_ns) / 1e9 - elapsed_s
    if abs(drift_s) > _TIME_STEP_S:
        return (
            f"its times cannot be trusted: a file created {elapsed_s:.1f} s after another was touched is "
            f"{(later_ns - began_ns) / 1e9:.1f} s younger"
        )
    return ""
