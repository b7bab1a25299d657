"""The identity of a piece: the content of its source, the model, and the settings."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vmkla.archive.work import Entry
from vmkla.bounded import MalformedError, parse_json
from vmkla.errors import BadInputError
from vmkla.files import create_file, open_regular, output_errors, why_not_regular
from vmkla.plain_values import from_plain
from vmkla.runner import Runner, describe_runtime
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.plan import run_settings
from vmkla.video.media.options import ReadOptions
from vmkla.video.media.parts import Part
from vmkla.video.media.sinks import to_json
from vmkla.video.media.sources import ImageSource, Source, open_source

_BLOCK_BYTES = 4 << 20
_LINE_MAX_BYTES = 1 << 17
KEY_DIGITS = 24
"""Hex digits of a piece's key: for a million pieces, two share one with a probability of 1e-17."""


def batch_settings(runner: Runner, options: SegmentOptions) -> dict[str, Any]:
    """Return everything that decides the results of a batch, as plain values.

    Raises:
        UsageError: the operating point does not suit the model.
    """
    device = describe_runtime(runner)["device"].partition(":")[0]
    return {
        **run_settings(runner, options),
        "export": list(options.export),
        "export_frames": options.export_frames,
        "track": options.track,
        "deinterlace": options.deinterlace,
        "max_megapixels": options.max_megapixels,
        "runtime": f"{runner.name} on {device}",
    }


def piece_key(digest: str, settings: dict[str, Any]) -> str:
    """Return the key of a piece.

    Args:
        digest: hex digest of the source's content, see ``source_digest``.
        settings: see ``batch_settings``.
    """
    return hashlib.sha256(to_json([digest, dict(sorted(settings.items()))])).hexdigest()[:KEY_DIGITS]


def open_entry(entry: Entry, reading: ReadOptions) -> Source:
    """Open the source of an entry.

    Raises:
        UsageError, BadInputError: see ``open_source``.
    """
    if entry.kind == "images":
        reading = ReadOptions(None, reading.deinterlace, reading.max_megapixels)
    return open_source(entry.path, reading, deeper=entry.deeper)


def source_stamp(entry: Entry) -> str:
    """Return a hash of path, size, modification time and inode of a source's files.

    Raises:
        OSError, BadInputError: a file cannot be found, or is not a regular one.
    """
    if entry.path.is_dir():
        files = [item.path for item in _images(entry).items]
    else:
        if reason := why_not_regular(entry.path):
            raise BadInputError(f"{entry.path} cannot be read: {reason}")
        files = [entry.path]
    stamp = hashlib.sha256()
    for path in files:
        found = path.stat()
        stamp.update(os.fsencode(os.path.abspath(path)))
        stamp.update(f"\0{found.st_size} {found.st_mtime_ns} {found.st_ino}\n".encode())
    return stamp.hexdigest()


def source_digest(entry: Entry, on_bytes: Callable[[int], None]) -> str:
    """Compute the sha256 of a source as a hex digest.

    That of a video is its file's. That of images is of their names and digests: results carry the names.

    Args:
        entry: the source.
        on_bytes: called with the number of bytes read so far.
    Raises:
        OSError, BadInputError: a file cannot be read.
    """
    if not entry.path.is_dir():
        return _hash_file(entry.path, on_bytes, 0)[0]
    named, done = [], 0
    for item in _images(entry).items:
        sha256, done = _hash_file(item.path, on_bytes, done)
        named.append((item.name, sha256))
    return digest_images(named)


def digest_images(named: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a source of images.

    Args:
        named: name of each image relative to the source, and the hex digest of its file, in order.
    """
    digest = hashlib.sha256()
    for name, sha256 in named:
        digest.update(f"{sha256} ".encode() + os.fsencode(name) + b"\n")
    return digest.hexdigest()


def _images(entry: Entry) -> ImageSource:
    source = open_source(entry.path, deeper=entry.deeper)
    assert isinstance(source, ImageSource)
    return source


def _hash_file(path: Path, on_bytes: Callable[[int], None], done: int) -> tuple[str, int]:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            on_bytes(done)
    return digest.hexdigest(), done


@dataclass(frozen=True)
class Hashed:
    """What is known of a source that was hashed.

    Attributes:
        digest: hex digest of its content, see ``source_digest``.
        parts: the parts that it can be cut into, see ``find_parts``.
        part_s: shortest part that was asked for, seconds; 0 for none.
    """

    digest: str
    parts: tuple[Part, ...] = ()
    part_s: float = 0.0


class KnownDigests:
    """Digests and parts of sources that were hashed before, by stamp; names are not stored.

    Args:
        folder: folder with one file of each process that added some.
        owner: name of this process.
        part_s: only what was hashed with this shortest part counts, seconds; None takes all.
    """

    def __init__(self, folder: Path, owner: str, part_s: float | None = None) -> None:
        self._path, self._part_s = folder / f"{owner}.jsonl", part_s
        self._known: dict[str, Hashed] = {}
        for file in sorted(folder.glob("*.jsonl")):
            with contextlib.suppress(OSError):
                for line in file.read_bytes().splitlines():
                    self._read(line)

    def get(self, stamp: str) -> Hashed | None:
        """Return what is known of a source; None when it was not hashed."""
        return self._known.get(stamp)

    def add(self, stamp: str, hashed: Hashed) -> None:
        """Keep what is known of a source.

        Raises:
            BadInputError: the disk is full or cannot be written to.
        """
        self._known[stamp] = hashed
        with output_errors(self._path):
            new = not self._path.exists()
            descriptor = create_file(self._path) if new else os.open(self._path, os.O_WRONLY | os.O_APPEND)
            with open(descriptor, "ab", buffering=0) as file:
                file.write(to_json([stamp, asdict(hashed)]) + b"\n")

    def _read(self, line: bytes) -> None:
        with contextlib.suppress(
            MalformedError, ValueError, TypeError, KeyError
        ):  # a line that a full disk cut off
            stamp, values = parse_json(line, _LINE_MAX_BYTES)
            hashed: Hashed = from_plain(Hashed, values, "a source")
            if len(hashed.digest) == 64 and self._part_s in (None, hashed.part_s):
                self._known[str(stamp)] = hashed
