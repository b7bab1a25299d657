"""Save a reference's frames and results in one file, to verify a machine that lacks its runtime."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import struct
import zipfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.bounded import Archive, MalformedError, parse_names
from vmkla.engines.verify.clinical import Reference, identify
from vmkla.engines.verify.frame import Probability, VerifyFrame
from vmkla.errors import ArtefactMismatchError, BadInputError, VmklaError
from vmkla.files import written_whole
from vmkla.limits import MAX_MEGAPIXELS, check_max_megapixels
from vmkla.metadata import ArtefactMetadata
from vmkla.plain_values import from_plain
from vmkla.runner import RunnerSpec
from vmkla.segment.preprocess import PreprocessSpec

FORMAT = 1
"""Version of this layout, raised when older readers would misread it."""
_INDEX = "reference.json"
_PNG_COMPRESSION = 1
_INDEX_MAX_BYTES, _MEMBER_MAX_BYTES = 64 << 20, 1 << 30
_PNG_SIZE = struct.Struct(">12x4sII")  # behind the signature: length, type, width, height


@dataclass(frozen=True)
class _Spec:
    """The part of a ``RunnerSpec`` that a file keeps."""

    height: int
    width: int
    batch: int | None
    num_classes: int
    path: str
    sha256: str
    runtime: str
    device: str
    kernels: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """The part of a frame that a file keeps beside its pixels."""

    name: str
    mask: bool
    prepared: dict[str, Any] | None


@dataclass(frozen=True)
class _Answered:
    """Name and spec of the runner whose results were saved."""

    name: str
    spec: RunnerSpec


class SavingReference:
    """A reference that writes its frames and results to a file as they are used.

    The file gets its name after the last frame.

    Args:
        reference: the reference whose results are saved.
        path: path of the file.
    """

    def __init__(self, reference: Reference, path: Path) -> None:
        self._reference = reference
        self._path = path
        self.identity = reference.identity
        self.spec = reference.spec

    def answers(self) -> Generator[tuple[VerifyFrame, Probability], None, None]:
        """Yield the reference's frames and results, and write each.

        Raises:
            BadInputError: the file cannot be written, or there is no frame.
        """
        entries: list[_Entry] = []
        with written_whole(self._path) as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for frame, probability in self._reference.answers():
                    entries.append(_write(archive, len(entries), frame, probability))
                    yield frame, probability
                if not entries:
                    raise BadInputError(
                        "there is no frame to save", hint="Give some with --data or --source."
                    )
                archive.writestr(_INDEX, json.dumps(self._index(entries), ensure_ascii=False))

    def _index(self, entries: list[_Entry]) -> dict[str, Any]:
        spec = _Spec(**{field.name: getattr(self.spec, field.name) for field in dataclasses.fields(_Spec)})
        return {
            "vmkla.reference": FORMAT,
            "identity": self.identity,
            "spec": dataclasses.asdict(spec),
            "metadata": self.spec.metadata.to_props(),
            "frames": [dataclasses.asdict(entry) for entry in entries],
        }


class SavedReference:
    """A reference that was saved by ``SavingReference``, with the same frames and results.

    Args:
        path: path of the file.
        max_megapixels: larger images are not decoded.
    Raises:
        BadInputError: the file is missing, cut off, or of another kind.
        ArtefactMismatchError: its model's metadata are damaged.
        UsageError: the limit is out of range.
    """

    def __init__(self, path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> None:
        check_max_megapixels(max_megapixels)
        self._path = path
        self._max_megapixels = max_megapixels
        with _opened(path) as archive:
            index = parse_names(archive.read(_INDEX, _INDEX_MAX_BYTES), _INDEX_MAX_BYTES)
            if index["vmkla.reference"] != FORMAT:
                raise BadInputError(
                    f"{path} has layout {index['vmkla.reference']!r:.100}, this version reads {FORMAT}",
                    hint="Save it again with this version: vmkla verify A --data DIR --save FILE",
                )
            props = from_plain(dict[str, str], index["metadata"], "metadata")
            metadata = ArtefactMetadata.from_props(props, path=str(path))
            self.spec = RunnerSpec(
                **vars(from_plain(_Spec, index["spec"], "spec")),
                metadata=metadata,
            )
            size = (self.spec.height, self.spec.width, self.spec.num_classes)
            described = (metadata.preprocess.height, metadata.preprocess.width, len(metadata.class_names))
            if size != described:
                raise MalformedError(f"it holds results of {size}, its metadata describe {described}")
            name = from_plain(str, index["identity"]["runtime"]["runner"], "runner")
            answered: Any = _Answered(name, self.spec)
            self.identity: dict[str, Any] = identify(answered)
            self._entries: tuple[_Entry, ...] = from_plain(tuple[_Entry, ...], index["frames"], "frames")

    @property
    def total(self) -> int:
        """Number of frames."""
        return len(self._entries)

    @property
    def labelled(self) -> bool:
        """Whether the frames have truths."""
        return bool(self._entries and self._entries[0].mask)

    def answers(self) -> Generator[tuple[VerifyFrame, Probability], None, None]:
        """Yield the saved frames and results.

        Raises:
            BadInputError: the file is damaged, or an image is larger than the limit.
        """
        for number, entry in enumerate(self._entries):
            with _opened(self._path) as archive:
                expected = (self.spec.num_classes, self.spec.height, self.spec.width)
                found = _read(archive, number, entry, expected, self._max_megapixels)
            yield found


def save_answers(reference: Reference, path: Path) -> int:
    """Save a reference's frames and results without a comparison.

    Returns:
        Number of frames.
    Raises:
        BadInputError: the file cannot be written, or there is no frame.
    """
    return sum(1 for _ in SavingReference(reference, path).answers())


def _write(archive: zipfile.ZipFile, number: int, frame: VerifyFrame, probability: Probability) -> _Entry:
    """Write one frame and return its entry of the index."""
    stored = f"{number:06d}"
    archive.writestr(f"image/{stored}.png", _png(frame.image_rgb[..., ::-1]), zipfile.ZIP_STORED)
    if frame.mask is not None:
        archive.writestr(f"mask/{stored}.png", _png(frame.mask), zipfile.ZIP_STORED)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(probability, np.float32), allow_pickle=False)
    archive.writestr(f"probability/{stored}.npy", buffer.getvalue())
    prepared = None if frame.prepared is None else frame.prepared.to_dict()
    return _Entry(frame.name, frame.mask is not None, prepared)


def _read(
    archive: Archive, number: int, entry: _Entry, shape: tuple[int, ...], max_megapixels: float
) -> tuple[VerifyFrame, Probability]:
    stored = f"{number:06d}"

    def pixels(folder: str, mode: int) -> npt.NDArray[np.uint8]:
        return _pixels(archive, f"{folder}/{stored}.png", mode, max_megapixels)

    image_rgb = np.ascontiguousarray(pixels("image", cv2.IMREAD_COLOR)[..., ::-1])
    mask = pixels("mask", cv2.IMREAD_GRAYSCALE) if entry.mask else None
    if mask is not None and mask.shape != image_rgb.shape[:2]:
        raise MalformedError(f"mask {number} is {mask.shape}, its image {image_rgb.shape[:2]}")
    prepared = None if entry.prepared is None else _prepared(entry.prepared)
    data = archive.read(f"probability/{stored}.npy", _MEMBER_MAX_BYTES)
    return VerifyFrame(entry.name, image_rgb, mask, prepared), _array(data, shape)


def _prepared(values: dict[str, Any]) -> PreprocessSpec:
    try:
        return PreprocessSpec.from_dict(values)
    except VmklaError as error:  # raised for a user's options, but here the file is wrong
        raise MalformedError(error.message) from error


def _array(data: bytes, shape: tuple[int, ...]) -> Probability:
    """Read what ``numpy.save`` wrote; check the shape before memory is allocated."""
    buffer = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(buffer)
        seen = np.lib.format.read_array_header_1_0(buffer)
    except Exception as error:  # the header is Python syntax, so any error is possible
        raise MalformedError(f"a result is not a NumPy array: {error}") from error
    if version != (1, 0):
        raise MalformedError(f"an array has NumPy's layout {version}, expected (1, 0)")
    if seen != (shape, False, np.dtype(np.float32)):
        raise MalformedError(f"a result is {seen[2]} {seen[0]}, expected float32 {shape}")
    values: Probability = np.frombuffer(data, np.float32, offset=buffer.tell()).reshape(shape).copy()
    return values


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(
        ".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION]
    )
    if not done:
        raise VmklaError(f"OpenCV cannot write an image of {pixels.shape} as PNG")
    return data.tobytes()


def _pixels(archive: Archive, name: str, mode: int, max_megapixels: float) -> npt.NDArray[np.uint8]:
    data = archive.read(name, _MEMBER_MAX_BYTES)
    kind, width, height = _PNG_SIZE.unpack_from(data) if len(data) >= _PNG_SIZE.size else (b"", 0, 0)
    if kind != b"IHDR" or not width * height:
        raise MalformedError(f"{name} is not a PNG")
    if width * height > max_megapixels * 1e6:
        raise BadInputError(
            f"{name} in the saved results is {width}x{height} (width x height), expected at most "
            f"{max_megapixels:g} megapixels",
            hint="Allow it: --max-megapixels N",
        )
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if pixels is None:
        raise MalformedError(f"{name} cannot be decoded")
    return np.asarray(pixels, np.uint8)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Archive]:
    """Open the archive for a block, in which every error of the file becomes a ``BadInputError``."""
    try:
        with Archive(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise BadInputError(f"there is no file {path}") from error
    except (BadInputError, ArtefactMismatchError):
        raise
    except (OSError, KeyError, TypeError, ValueError, cv2.error) as error:
        raise BadInputError(
            f"{path} is not a whole file of saved results: {error}",
            hint="Save it again: vmkla verify A --data DIR --save FILE",
        ) from error
