"""Read untrusted JSON, TOML and ZIP files within limits. It imports the standard library only.

Every fault of the content is a ``MalformedError``; the caller states what it means.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmkla.files import NotRegularError, open_regular, read_whole
from vmkla.imports import require

DEPTH_MAX = 32
"""Largest depth of nested lists and objects; vmkla's own files have at most eight levels."""
INTEGER_MAX = (1 << 63) - 1
"""Largest magnitude of an integer: what numpy, SQLite and other languages can hold."""
ENTRIES_MAX = 400_000
"""Largest number of members of an archive: a packed set has two for each image."""

_DIRECTORY_MAX_BYTES = 32 << 20
_BLOCK_BYTES = 1 << 20

DAMAGED = (
    OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError,
    MemoryError, struct.error, zipfile.BadZipFile, zlib.error,
    SyntaxError, tokenize.TokenError,
)  # fmt: skip
"""What readers of ZIP archives, NumPy files (whose headers are Python) and HDF5 raise for a damaged file.
RecursionError and NotImplementedError are kinds of RuntimeError."""


class MalformedError(ValueError):
    """Content is damaged, too large, nested too deep, or of another kind than expected."""


def read_file(path: Path, size_max_bytes: int) -> bytes:
    """Read a regular file of at most a given size.

    Raises:
        OSError: it cannot be read.
        MalformedError: it is larger, or not a regular file.
    """
    with _open(path) as file:
        if os.fstat(file.fileno()).st_size > size_max_bytes:
            raise MalformedError(f"it is larger than {size_max_bytes:,} bytes")
        return read_whole(file)


def parse_json(text: str | bytes, size_max_bytes: int) -> Any:
    """Parse a JSON document.

    Args:
        text: the document; bytes are UTF-8.
        size_max_bytes: largest length of a document of this kind.
    Raises:
        MalformedError: it is not JSON, is too large or nested too deep, holds a number that is not finite or
            does not fit in 64 bits, or has the same name twice in one object.
    """
    if len(text) > size_max_bytes:
        raise MalformedError(f"it is larger than {size_max_bytes:,} bytes")
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        values = json.loads(decoded, object_pairs_hook=_object)
    except RecursionError as error:
        raise MalformedError(f"it is nested deeper than {DEPTH_MAX} levels") from error
    except MalformedError:
        raise
    except ValueError as error:  # JSON's and Unicode's errors, and integers of more than 4300 digits
        raise MalformedError(f"it is not JSON: {error}") from error
    check_plain(values)
    return values


def parse_toml(text: bytes, size_max_bytes: int) -> dict[str, Any]:
    """Parse a TOML document, with the limits and errors of ``parse_json``."""
    tomllib = require("tomllib", extra=None, purpose="reading TOML (Python 3.11)")
    if len(text) > size_max_bytes:
        raise MalformedError(f"it is larger than {size_max_bytes:,} bytes")
    try:
        values: dict[str, Any] = tomllib.loads(text.decode("utf-8"))
    except RecursionError as error:
        raise MalformedError(f"it is nested deeper than {DEPTH_MAX} levels") from error
    except ValueError as error:
        raise MalformedError(f"it is not TOML: {error}") from error
    check_plain(values)
    return values


def parse_names(text: str | bytes, size_max_bytes: int) -> dict[str, Any]:
    """Parse a JSON document that is an object, with the limits and errors of ``parse_json``."""
    values = parse_json(text, size_max_bytes)
    if not isinstance(values, dict):
        raise MalformedError(f"it holds a {type(values).__name__}, expected names and values")
    return values


def check_plain(values: Any) -> None:
    """Reject plain values that are nested too deep or hold a number that is not finite or exceeds 64 bits.

    Raises:
        MalformedError: the values are rejected.
    """
    level, depth = [values], 0
    while level:
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict | list):
                if depth == DEPTH_MAX:
                    raise MalformedError(f"it is nested deeper than {DEPTH_MAX} levels")
                inner.extend(value.values() if isinstance(value, dict) else value)
            elif isinstance(value, float) and not math.isfinite(value):
                raise MalformedError(f"it holds the number {value}, expected a finite one")
            elif isinstance(value, int) and not -INTEGER_MAX <= value <= INTEGER_MAX:
                raise MalformedError("it holds an integer of more than 64 bits")
        level, depth = inner, depth + 1


class Archive:
    """A ZIP archive whose members are read within limits; several threads may use it.

    Args:
        path: the archive.
    Raises:
        OSError: it cannot be read.
        MalformedError: it is not a ZIP archive, is damaged, or has too many members or some that overlap,
            are encrypted, are compressed in an unusual way, or have unsafe or equal names.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = _LimitedFile(_open(path))
        try:
            with _malformed():
                self._zip = zipfile.ZipFile(self._file)
                self._file.size_max_bytes = None
                size = self._file.seek(0, io.SEEK_END)
                self._members = _checked(self._zip.infolist(), size)
        except BaseException:
            self._file.close()
            raise

    @property
    def names(self) -> frozenset[str]:
        """Names of the members."""
        return frozenset(self._members)

    def read(self, name: str, size_max_bytes: int) -> bytes:
        """Read a member's bytes and check their CRC-32.

        Raises:
            MalformedError: there is no such member, or it is damaged or larger.
        """
        member = self._members.get(name)
        if member is None:
            raise MalformedError(f"it has no {name}")
        if member.file_size > size_max_bytes:
            raise MalformedError(f"its {name} is larger than {size_max_bytes:,} bytes")
        return b"".join(self._blocks(member))

    def check(self) -> None:
        """Compare every member with its CRC-32.

        Raises:
            MalformedError: a member is damaged.
        """
        for member in self._members.values():
            for _ in self._blocks(member):
                pass

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it was never opened
            self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _blocks(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        """Yield a member in blocks: one read would decompress all of it, whatever its declared size."""
        with self._lock, _malformed(), self._zip.open(member) as file:
            while block := file.read(_BLOCK_BYTES):
                yield block


class _LimitedFile(io.BufferedReader):
    """A file that limits how much is read at once while an archive's directory is found."""

    size_max_bytes: int | None = _DIRECTORY_MAX_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        limit = self.size_max_bytes
        if limit is None:
            return super().read(size)
        wanted = limit + 1 if size is None or size < 0 else size
        data = super().read(min(wanted, limit + 1))
        if len(data) > limit:
            raise MalformedError(f"its directory is larger than {limit:,} bytes")
        return data


def _checked(members: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    if len(members) > ENTRIES_MAX:
        raise MalformedError(f"it has {len(members):,} members, expected at most {ENTRIES_MAX:,}")
    if sum(member.compress_size for member in members) > size:
        raise MalformedError("its members overlap")
    for member in members:
        name = member.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise MalformedError(f"it has a member {name!r}, which leaves its folder")
        if member.flag_bits & 1:
            raise MalformedError(f"its {name} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise MalformedError(f"its {name} is compressed in an unusual way ({member.compress_type})")
    found = {member.filename: member for member in members}
    if len(found) < len(members):
        raise MalformedError("two of its members have one name")
    return found


@contextlib.contextmanager
def _malformed() -> Iterator[None]:
    try:
        yield
    except MalformedError:
        raise
    except DAMAGED as error:
        raise MalformedError(f"it is damaged or cut off: {error}") from error


def _open(path: Path) -> io.FileIO:
    try:
        return open_regular(path)
    except NotRegularError as error:
        raise MalformedError("it is not a regular file") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise MalformedError("it has a name twice")
    return made
