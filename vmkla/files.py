"""Write files whole or not at all, keep them private, read regular files only, and hash them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vmkla.errors import BadInputError

_NAME_BYTES = 100
"""Bytes of a file's name that its temporary name keeps; some file systems allow 143 bytes in all."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk, or a user's quota of it, that is full."""


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write ``path`` into a BadInputError.

    Raises:
        BadInputError: the disk is full, or the place cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if not error.errno or error.errno not in errno.errorcode:  # not of the disk, see ``media.errors``
            raise
        hint = "Give another folder: --out DIR"
        if error.errno in FULL:
            hint = f"Free some space there, or give another folder: --out DIR (disk of {path.parent})"
        elif error.errno == errno.EFBIG:
            hint = (
                "The disk's format or a limit of this account allows no larger file. Use another: --out DIR"
            )
        raise BadInputError(f"cannot write {path}: {os.strerror(error.errno)}", hint=hint) from error


_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600


def make_folder(path: Path, *, private: bool = True) -> None:
    """Make a folder and its missing parents; an existing folder keeps its mode.

    Args:
        path: the folder.
        private: accessible by the owner only, whatever the umask, for frames and names of patients. False
            leaves the mode to the umask, for models and weights.
    Raises:
        OSError: it cannot be made, or is not a folder.
    """
    missing = []
    for each in (path, *path.parents):
        if os.path.lexists(each):
            break
        missing.append(each)
    for each in reversed(missing) if private else ():
        try:
            each.mkdir(_PRIVATE_FOLDER)
        except FileExistsError:
            continue  # another process made it, with its own mode
        each.chmod(_PRIVATE_FOLDER)  # the umask may have removed one of the owner's bits
    path.mkdir(parents=True, exist_ok=True)


def create_file(path: Path, *, private: bool = True, replace: bool = True, append: bool = False) -> int:
    """Create a file and open it for reading and writing.

    Args:
        path: the file; a link in its place is not followed.
        private: readable by its owner only, whatever the umask; see ``make_folder``.
        replace: remove an existing file first, since its mode would stay.
        append: every write goes to the end of the file.
    Returns:
        The file descriptor.
    Raises:
        OSError: it cannot be made; FileExistsError when it exists and ``replace`` is not set.
    """
    if replace:
        path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    flags |= os.O_APPEND if append else 0
    descriptor = os.open(path, flags, _PRIVATE_FILE if private else 0o666)
    if private:
        try:
            os.fchmod(descriptor, _PRIVATE_FILE)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


@contextlib.contextmanager
def written_whole(path: Path, *, private: bool = True, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name only when the block ends without an error.

    Until then its bytes are in another file of the same folder, ``file.name``, and a file that already has
    the name stays. A missing folder is made.

    Args:
        path: the final name.
        private: file and folder are readable by their owner only; see ``make_folder``.
        durable: the bytes are on the disk before the file gets its name, so that it survives a power failure.
    Raises:
        BadInputError: the file cannot be written; nothing is left under either name.
    """
    partial = partial_path(path)
    try:
        with output_errors(path):
            make_folder(path.parent, private=private)
            _check_name(path)
            descriptor = create_file(partial, private=private)
            with open(partial, "wb", opener=lambda *_: descriptor) as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # there is nothing to remove, or the folder is not a folder
            partial.unlink()


def write_whole(path: Path, data: bytes | memoryview, *, private: bool = True, durable: bool = True) -> None:
    """Write all bytes of a file, which gets its name when they are written; see ``written_whole``."""
    with written_whole(path, private=private, durable=durable) as file:
        file.write(data)


def partial_path(path: Path) -> Path:
    """Return the temporary path of ``written_whole``, which is valid however long the name is."""
    name = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    return path.with_name(f".{name}.{os.getpid()}.part")


def partial_pattern(name: str = "*") -> str:
    """Return the glob pattern of the files that killed processes leave of ``written_whole``.

    Args:
        name: final name of the file, of at most 100 bytes; a pattern is allowed.
    """
    return f".{name}.[0-9]*.part"


def unfinished_path(path: Path) -> Path:
    """Return the temporary path of a sink's file, which grows frame by frame."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")


def _check_name(path: Path) -> None:
    """Find out before the work what would keep a file from getting its name after it.

    Raises:
        OSError: the name is too long or is that of a folder.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def file_sha256(path: Path) -> str:
    """Compute the sha256 of a file's bytes, as a hex digest.

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


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def why_not_regular(path: Path) -> str:
    """Return why a path is not a regular file or a link to one; empty when it is.

    Reading another kind may wait for ever (a named pipe) or never end (``/dev/zero``).
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = error.strerror or str(error)
        return f"a link that leads nowhere: {reason}" if path.is_symlink() else reason
    if stat.S_ISREG(mode):
        return ""
    kind = next((name for matches, name in _KINDS if matches(mode)), "not a file")
    return f"{'a link to ' if path.is_symlink() else ''}{kind}, expected a regular file"


def read_regular(path: Path, *, limit_bytes: int) -> bytes:
    """Read the whole of a regular file.

    Args:
        path: the file, or a link to one.
        limit_bytes: largest accepted size.
    Raises:
        BadInputError: it cannot be read, is not a regular file, or is larger.
    """
    if reason := why_not_regular(path):
        raise BadInputError(f"{path} cannot be read: {reason}")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = read_whole(file) if size <= limit_bytes else b""
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error
    if size > limit_bytes:
        raise BadInputError(f"{path} has {size} bytes, expected at most {limit_bytes}")
    return data


class NotRegularError(OSError):
    """The path is a named pipe, a socket or a device."""


def open_regular(path: Path) -> io.FileIO:
    """Open a regular file, or a link to one, for reading.

    Raises:
        NotRegularError: it is of another kind, even if it was replaced just now.
        OSError: it cannot be opened; a folder is an ``IsADirectoryError``.
    """
    _check_regular(path.stat().st_mode)
    # Not blocking, in case a named pipe took the file's place after the check.
    file = open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0)
    try:
        _check_regular(os.fstat(file.fileno()).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def read_whole(file: io.FileIO) -> bytes:
    """Read all bytes of a regular file.

    Raises:
        OSError: it cannot be read, or its length differs from its size: it changed, or has no fixed size.
    """
    size = os.fstat(file.fileno()).st_size
    parts, left = [], size + 1  # a read allocates memory for all that it may return
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    if left != 1:
        raise OSError(errno.EIO, "it changed meanwhile, or is not a file of a fixed size")
    return b"".join(parts)


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise NotRegularError(errno.EINVAL, "it is not a regular file")
