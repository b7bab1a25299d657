"""Make and lock the folders of runs, so that one run at a time writes into a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from vmkla.errors import UsageError
from vmkla.files import make_folder, output_errors, partial_pattern, unfinished_path

logger = logging.getLogger(__name__)

LOCK = ".vmkla.lock"
RESERVE = ".reserve.partial"
"""File that reserves disk space for closing the files of a run."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a file system without locks (some network disks) or without space for the lock's file."""
_READ_S = 0.2


def latest_folder(folder: Path) -> Path:
    """Return the last existing one of ``<name>``, ``<name>-2``, ``<name>-3``, ..., or ``<name>``."""
    number, found = 2, folder
    while (candidate := folder.with_name(f"{folder.name}-{number}")).exists():
        number, found = number + 1, candidate
    return found


def new_folder(folder: Path, *, private: bool = True) -> Path:
    """Make the first of ``<name>``, ``<name>-2``, ``<name>-3``, ... that does not exist.

    Runs that start at the same time get different folders.

    Args:
        folder: the wanted name.
        private: see ``make_folder``.
    Raises:
        BadInputError: it cannot be made.
    """
    number, candidate = 1, folder
    with output_errors(folder):
        while not _make(candidate, private):
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


@contextlib.contextmanager
def locked_folder(path: Path, outputs: Collection[str] = (), *, private: bool = True) -> Iterator[None]:
    """Make a folder if it is missing, and keep all other runs out of it during the block.

    The lock is the kernel's (``flock`` on the file ``LOCK``), so a killed process leaves no lock behind. A
    file system without locks causes a warning. A folder that was made here is removed if the block leaves it
    empty.

    Args:
        path: the folder.
        outputs: files (patterns) and folders that the run writes there; temporary files that a killed run
            left of them are removed, if the folder could be locked.
        private: see ``make_folder``.
    Raises:
        UsageError: another run is active there.
        BadInputError: the folder cannot be made or written to.
    """
    with output_errors(path):
        made = not path.is_dir() and _make(path, private)
        if not made and not path.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    try:
        with output_errors(path):
            lock = _acquire(path)
        try:
            if lock is not None:  # without one, another run may be writing them
                with output_errors(path):
                    _remove_left_overs(path, outputs)
            yield
        finally:
            if lock is not None:
                with contextlib.suppress(OSError):  # the folder itself may have been removed
                    (path / LOCK).unlink()
                os.close(lock)
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds outputs
                path.rmdir()


def check_free(path: Path, names: Collection[str], *, exist_ok: bool) -> None:
    """Reject a folder that holds outputs of an earlier run; the caller holds the folder's lock.

    Raises:
        UsageError: one of the names exists, and ``exist_ok`` is not set.
    """
    taken = [name for name in names if (path / name).exists()]
    if taken and not exist_ok:
        raise UsageError(
            f"{path} holds outputs already: {', '.join(taken)}",
            hint="Give another folder (--out DIR), or add --exist-ok to replace them.",
        )


def is_empty(path: Path) -> bool:
    """Whether a folder is missing, or holds only the lock of a run."""
    return not path.is_dir() or all(entry.name == LOCK for entry in path.iterdir())


def _make(path: Path, private: bool) -> bool:
    """Make a folder and its missing parents; False when the name is taken."""
    if os.path.lexists(path):
        return False
    make_folder(path.parent, private=private)
    try:
        path.mkdir(0o700 if private else 0o777)
    except FileExistsError:  # another process was faster
        return False
    if private:
        path.chmod(0o700)  # the umask may have removed one of the owner's bits
    return True


def _acquire(path: Path) -> int | None:
    """Lock a folder; return the lock's descriptor, or None where there are no locks.

    Raises:
        UsageError: another run holds it.
        OSError: the lock's file cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            lock = os.open(path / LOCK, flags, 0o600)
        except OSError as error:
            _warn_without_lock(path, error)
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_named(lock, path / LOCK):  # its last holder removed it just now
                os.close(lock)
                continue
            with contextlib.suppress(OSError):  # a full disk: the lock holds without its holder's name
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
            return lock
        except BlockingIOError as error:
            holder = _holder(lock)
            os.close(lock)
            raise UsageError(
                f"{path} is in use by another run, {holder}",
                hint="Wait for its end, or give another folder: --out DIR",
            ) from error
        except OSError as error:
            os.close(lock)
            _warn_without_lock(path, error)
            with contextlib.suppress(OSError):  # the file does not lock anything here
                (path / LOCK).unlink()
            return None


def _warn_without_lock(path: Path, error: OSError) -> None:
    if error.errno not in _NO_LOCKS:
        raise error
    logger.warning("%s cannot be locked (%s): do not start a second run there", path, error.strerror)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(lock: int) -> str:
    """Name the process that holds the lock; it may still be writing its number."""
    until_s = time.monotonic() + _READ_S
    while not (words := os.pread(lock, 512, 0).decode(errors="replace").split()):
        if time.monotonic() > until_s:
            return "a process that did not leave its number"
        time.sleep(_READ_S / 20)
    where = "" if words[1:] == [socket.gethostname()] else f" on {' '.join(words[1:])}"
    return f"process {words[0]}{where}"


def _remove_left_overs(path: Path, outputs: Collection[str]) -> None:
    found = [path / RESERVE]
    for name in outputs:
        if (path / name).is_dir():
            found += (path / name).rglob(partial_pattern())
        found += [unfinished_path(path / name), *path.glob(partial_pattern(name))]
    for file in found:
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)
