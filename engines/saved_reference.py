"""A reference's frames and answers in one file, so that a machine without its runtime can be verified."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.engines.clinical import Reference
from vmkla.engines.verify_frame import Probability, VerifyFrame
from vmkla.errors import BadInputError, VmklaError
from vmkla.files import written_whole
from vmkla.metadata import ArtefactMetadata
from vmkla.preprocess import PreprocessSpec
from vmkla.runner import RunnerSpec

FORMAT = 1
"""Version of this layout, raised when a reader of the old one would go wrong."""
_INDEX = "reference.json"
_PNG_COMPRESSION = 1
_SPEC_FIELDS = (
    "height", "width", "batch", "num_classes", "path", "sha256", "runtime", "device", "kernels",
)  # fmt: skip


class SavingReference:
    """A reference whose frames and answers are written to a file as they go by.

    The file has its name only when the last frame has gone by.

    Args:
        reference: what answers.
        path: the file.
    """

    def __init__(self, reference: Reference, path: Path) -> None:
        self._reference = reference
        self._path = path
        self.identity = reference.identity
        self.spec = reference.spec

    def answers(self) -> Generator[tuple[VerifyFrame, Probability], None, None]:
        """Those of the reference.

        Raises:
            BadInputError: the file cannot be written, or there is no frame.
        """
        entries: list[dict[str, Any]] = []
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

    def _index(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        spec = {name: getattr(self.spec, name) for name in _SPEC_FIELDS}
        return {
            "vmkla.reference": FORMAT,
            "identity": self.identity,
            "spec": {**spec, "notes": list(self.spec.notes)},
            "metadata": self.spec.metadata.to_props(),
            "frames": entries,
        }


class SavedReference:
    """What ``SavingReference`` wrote; it gives the same frames and answers, without the runtime.

    Args:
        path: the file.
    Raises:
        BadInputError: it is missing, cut off, or not such a file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opened(path) as archive:
            index = json.loads(archive.read(_INDEX))
            if index["vmkla.reference"] != FORMAT:
                raise BadInputError(
                    f"{path} has layout {index['vmkla.reference']}, this version reads {FORMAT}",
                    hint="Save it again with this version: vmkla verify A --data DIR --save FILE",
                )
            values = index["spec"]
            self.identity: dict[str, Any] = index["identity"]
            self.spec = RunnerSpec(
                **{name: values[name] for name in _SPEC_FIELDS},
                notes=tuple(values["notes"]),
                metadata=ArtefactMetadata.from_props(index["metadata"], path=str(path)),
            )
            self._entries: list[dict[str, Any]] = index["frames"]

    @property
    def total(self) -> int:
        """How many frames there are."""
        return len(self._entries)

    @property
    def labelled(self) -> bool:
        """The frames have truths."""
        return bool(self._entries and self._entries[0]["mask"])

    def answers(self) -> Generator[tuple[VerifyFrame, Probability], None, None]:
        """The frames and answers that were saved.

        Raises:
            BadInputError: the file is damaged.
        """
        for number, entry in enumerate(self._entries):
            with _opened(self._path) as archive:
                found = _read(archive, number, entry)
                expected = (self.spec.num_classes, self.spec.height, self.spec.width)
                if found[1].shape != expected or found[1].dtype != np.float32:
                    raise ValueError(f"answer {number} is {found[1].dtype} {found[1].shape}, not {expected}")
            yield found


def save_answers(reference: Reference, path: Path) -> int:
    """Write a reference's file and compare nothing.

    Returns:
        Number of frames.
    Raises:
        BadInputError: the file cannot be written, or there is no frame.
    """
    return sum(1 for _ in SavingReference(reference, path).answers())


def _write(
    archive: zipfile.ZipFile, number: int, frame: VerifyFrame, probability: Probability
) -> dict[str, Any]:
    """One frame; returns its line of the index."""
    stored = f"{number:06d}"
    archive.writestr(f"image/{stored}.png", _png(frame.image_rgb[..., ::-1]), zipfile.ZIP_STORED)
    if frame.mask is not None:
        archive.writestr(f"mask/{stored}.png", _png(frame.mask), zipfile.ZIP_STORED)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(probability, np.float32), allow_pickle=False)
    archive.writestr(f"probability/{stored}.npy", buffer.getvalue())
    prepared = None if frame.prepared is None else frame.prepared.to_dict()
    return {"name": frame.name, "mask": frame.mask is not None, "prepared": prepared}


def _read(archive: zipfile.ZipFile, number: int, entry: dict[str, Any]) -> tuple[VerifyFrame, Probability]:
    stored = f"{number:06d}"
    image_rgb = np.ascontiguousarray(_pixels(archive, f"image/{stored}.png", cv2.IMREAD_COLOR)[..., ::-1])
    mask = _pixels(archive, f"mask/{stored}.png", cv2.IMREAD_GRAYSCALE) if entry["mask"] else None
    prepared = None if entry["prepared"] is None else PreprocessSpec.from_dict(entry["prepared"])
    data = archive.read(f"probability/{stored}.npy")
    probability: Probability = np.load(io.BytesIO(data), allow_pickle=False)
    return VerifyFrame(entry["name"], image_rgb, mask, prepared), probability


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(
        ".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION]
    )
    if not done:
        raise VmklaError(f"OpenCV cannot write a picture of {pixels.shape} as PNG")
    return data.tobytes()


def _pixels(archive: zipfile.ZipFile, name: str, mode: int) -> npt.NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), mode)
    if pixels is None:
        raise ValueError(f"{name} is no picture")
    return np.asarray(pixels, np.uint8)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever is wrong with it becomes a ``BadInputError``."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise BadInputError(f"there is no file {path}") from error
    except BadInputError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{path} is not a whole file of saved answers: {error}",
            hint="Save it again: vmkla verify A --data DIR --save FILE",
        ) from error
