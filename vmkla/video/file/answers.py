"""Keep the network's answers by the pixels that it saw, so that the same pixels need not run again.

A file of answers begins with a line of JSON: the model and what its answers were kept for. Then each answer
has the digest of what the network saw, its length, a checksum, and the probability, compressed without loss.
What a killed process left incomplete at the end of a file is not used. See docs/adr/0015.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from vmkla.bounded import MalformedError, parse_names
from vmkla.files import create_file, open_regular, output_errors
from vmkla.runner import Runner, describe_runtime
from vmkla.segment.findings import Probability
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import View
from vmkla.video.media.sinks import to_json

_DIGEST_BYTES = 16
_HEAD = struct.Struct(f"<{_DIGEST_BYTES}sII")  # digest, length, checksum of the compressed bytes
_LINE_MAX_BYTES = 1 << 12
_OFFSET_BITS = 48
_KEPT = ".answers."
_SPARE_PX = 2
"""Pixels of the network beside those that a finding may depend on that are kept too."""


class AnswerKind:
    """What answers are of: those of one kind can be exchanged.

    Args:
        runner: the network.
        point: the operating point of the run.
        whole: keep every probability; else what no finding can depend on is stored as 0. Several classes are
            always kept whole.
    """

    def __init__(self, runner: Runner, point: OperatingPoint, *, whole: bool) -> None:
        spec = runner.spec
        self.shape = (spec.num_classes, spec.height, spec.width)
        self.least = None if whole or spec.num_classes > 1 else point.threshold / 2
        runtime = describe_runtime(runner)
        self.line = to_json(
            {
                "model_sha256": spec.sha256,
                "runtime": [runtime["runner"], runtime["version"], runtime["kernels"]],
                "device": str(runtime["device"]).partition(":")[0],
                "shape": list(self.shape),
                "least": self.least,
            }
        )

    def thin(self, probability: Probability, seen: View) -> Probability:
        """Return the probability without what no finding of the frame depends on.

        A pixel of a region lies between pixels of the network of which one reaches the threshold. So pixels
        stay that are near one of at least half of it, and the largest one, which every row states.

        Args:
            probability: (classes, h, w).
            seen: what the network saw.
        """
        if self.least is None:
            return probability
        plane = probability[0]
        scale = max(plane.shape[0] / seen.rect.h, plane.shape[1] / seen.rect.w)
        side = 2 * (_SPARE_PX + math.ceil(scale)) + 1
        near = cv2.dilate((plane >= np.float32(self.least)).view(np.uint8), np.ones((side, side), np.uint8))
        kept = np.where(near > 0, plane, np.float32(0))
        largest = np.unravel_index(int(plane.argmax()), plane.shape)
        kept[largest] = plane[largest]
        return np.asarray(kept[np.newaxis], np.float32)


class AnswerFile:
    """Writes answers to a file, each as soon as it is known.

    Args:
        path: the file; an existing one is replaced.
        kind: what the answers are of.
    Raises:
        BadInputError: it cannot be written.
    """

    def __init__(self, path: Path, kind: AnswerKind) -> None:
        self._path, self._kind = path, kind
        with output_errors(path):
            self._file = open(create_file(path), "wb", buffering=0)
        self._write(kind.line + b"\n")

    def add(self, seen: View, probability: Probability) -> None:
        """Keep the answer to what the network saw.

        Args:
            seen: what the network saw.
            probability: (classes, h, w) float32.
        Raises:
            BadInputError: the disk is full or cannot be written to.
        """
        thin = np.ascontiguousarray(self._kind.thin(probability, seen), np.float32)
        packed = zlib.compress(thin.tobytes(), 1)
        self._write(_HEAD.pack(_digest(seen), len(packed), zlib.crc32(packed)) + packed)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        with output_errors(self._path):
            while left:
                left = left[self._file.write(left) :]

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()


class StoredAnswers:
    """The answers of some files.

    Args:
        paths: files of ``AnswerFile``; those of another kind are left out, and so is what is damaged.
        kind: what answers are wanted.
    """

    def __init__(self, paths: Iterable[Path], kind: AnswerKind) -> None:
        self._kind = kind
        self._files: list[io.FileIO] = []
        # Number of the file << _OFFSET_BITS | offset of the answer: 14 MB for an hour at 30 frames a second.
        self._places: dict[bytes, int] = {}
        for path in paths:
            try:
                file = open_regular(path)
            except OSError:
                continue
            self._files.append(file)
            self._index(len(self._files) - 1, file)

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self._places)

    def get(self, seen: View) -> Probability | None:
        """Return the answer to what the network would see, (classes, h, w) float32; None without one."""
        place = self._places.get(_digest(seen))
        if place is None:
            return None
        file, offset = self._files[place >> _OFFSET_BITS], place & (1 << _OFFSET_BITS) - 1
        try:
            _, length, checksum = _HEAD.unpack(os.pread(file.fileno(), _HEAD.size, offset))
            packed = os.pread(file.fileno(), length, offset + _HEAD.size)
        except (OSError, struct.error):
            return None
        return _unpacked(packed, self._kind.shape) if zlib.crc32(packed) == checksum else None

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _index(self, number: int, file: io.FileIO) -> None:
        """Note where the answers of a file are."""
        with io.BufferedReader(open(os.dup(file.fileno()), "rb", buffering=0)) as reader:
            try:
                line = reader.readline(_LINE_MAX_BYTES)
                if parse_names(line, _LINE_MAX_BYTES) != parse_names(self._kind.line, _LINE_MAX_BYTES):
                    return
            except MalformedError:
                return
            size, offset = os.fstat(file.fileno()).st_size, len(line)
            while len(head := reader.read(_HEAD.size)) == _HEAD.size:
                digest, length, _ = _HEAD.unpack(head)
                end = offset + _HEAD.size + length
                if end > size:
                    return  # cut off
                self._places[digest] = number << _OFFSET_BITS | offset
                offset = reader.seek(end)


class Answers:
    """The answers of a run: those that are stored, and a file for those that are not.

    Args:
        kind: what the answers are of.
        stored: files of stored ones.
        keep_in: folder of a run that keeps new ones, and uses those that it has kept; None keeps none.
    Attributes:
        used: number of answers that were taken from the stored ones.
    Raises:
        BadInputError: the file cannot be written.
    """

    def __init__(self, kind: AnswerKind, stored: Iterable[Path], keep_in: Path | None) -> None:
        self.used = 0
        self._kept = [] if keep_in is None else kept_files(keep_in)
        self._stored = StoredAnswers([*stored, *self._kept], kind)
        self._file: AnswerFile | None = None
        if keep_in is not None:
            suffixes = [path.name[len(_KEPT) :] for path in self._kept]
            latest = max((int(suffix) for suffix in suffixes if suffix.isdecimal()), default=0)
            self._kept.append(keep_in / f"{_KEPT}{latest + 1}")
            self._file = AnswerFile(self._kept[-1], kind)

    def get(self, seen: View) -> Probability | None:
        """See ``StoredAnswers``."""
        found = self._stored.get(seen)
        self.used += found is not None
        return found

    def add(self, seen: View, probability: Probability) -> None:
        """See ``AnswerFile``."""
        if self._file is not None:
            self._file.add(seen, probability)

    def drop(self) -> None:
        """Remove the answers that the run kept, when it is complete."""
        remove_files(self._kept)

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stored.close()
        if self._file is not None:
            self._file.close()


def kept_files(folder: Path) -> list[Path]:
    """Return the files of answers that interrupted runs have left in their folder."""
    return sorted(folder.glob(f"{_KEPT}*"))


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files of answers, as far as possible: what stays is harmless."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _digest(seen: View) -> bytes:
    """Return the digest of what a network sees, and of the size that its answer is brought back to."""
    digest = hashlib.blake2b(np.ascontiguousarray(seen.pixels_rgb).data, digest_size=_DIGEST_BYTES)
    digest.update(b"%d %d" % (seen.rect.w, seen.rect.h))
    return digest.digest()


def _unpacked(packed: bytes, shape: tuple[int, int, int]) -> Probability | None:
    """Return a probability; None where it is damaged."""
    size = 4 * math.prod(shape)
    try:
        data = zlib.decompressobj().decompress(packed, size + 1)
    except zlib.error:
        return None
    return np.frombuffer(data, np.float32).reshape(shape) if len(data) == size else None
