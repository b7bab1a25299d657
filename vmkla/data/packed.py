"""Reading packed sets: one file with encoded images at the network's size. No OpenCV here.

A packed file is a ZIP archive without compression of its own: ``manifest.json`` and the encoded images and
masks. The manifest holds the sets, names, sequences, class names, sha256 of every member and how the images
were prepared, so that nothing else is needed to train on it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.data.sources import DataSource, Pair, Sample, chosen_stems
from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.imports import require
from vmkla.preprocess import PreprocessSpec

FORMAT = 1
"""Version of the manifest's layout, raised when a reader of the old one would go wrong."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PackedFile:
    """An open packed file.

    Attributes:
        path: of the file.
        manifest: what it says of itself.
        archive: the members.
        lock: held while a member is read; the archive has one file position.
    """

    path: Path
    manifest: dict[str, Any]
    archive: zipfile.ZipFile
    lock: threading.Lock

    def member(self, name: str, sha256: str) -> bytes:
        """The bytes of a member.

        Raises:
            BadInputError: they are not those that were packed.
        """
        try:
            with self.lock:
                data = self.archive.read(name)
        except (KeyError, OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise BadInputError(f"{self.path}: {name} cannot be read: {error}", hint=_AGAIN) from error
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise BadInputError(
                f"{self.path}: {name} is damaged: its sha256 is {found[:12]}..., expected {sha256[:12]}...",
                hint=_AGAIN,
            )
        return data


_AGAIN = "Copy the file again, or pack the set again: vmkla data pack"


def open_file(path: Path) -> PackedFile:
    """Open a packed file and read its manifest.

    Raises:
        BadInputError: it cannot be read, is cut off or damaged, or lacks members.
        ArtefactMismatchError: it is none of vmkla's, or of another version.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise BadInputError(f"{path} is damaged or cut off: {error}", hint=_AGAIN) from error
    try:
        manifest = json.loads(archive.read(MANIFEST))
        if manifest["format"] != FORMAT:
            raise ArtefactMismatchError(
                f"{path} has layout {manifest['format']!r}, and this version of vmkla reads {FORMAT}",
                hint=_AGAIN,
            )
        entries = [entry for part in manifest["parts"].values() for entry in part["images"]]
        absent = {name for entry in entries for name in (entry["image"], entry["mask"])} - set(
            archive.namelist()
        )
    except ArtefactMismatchError:
        archive.close()
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OSError, zipfile.BadZipFile) as error:
        archive.close()
        raise BadInputError(f"{path} has no manifest that can be read: {error}", hint=_AGAIN) from error
    if absent:
        archive.close()
        raise BadInputError(f"{path} lacks {len(absent)} of its images: {min(absent)}, ...", hint=_AGAIN)
    return PackedFile(path, manifest, archive, threading.Lock())


def packed_pairs(source: DataSource, problems: list[str]) -> Iterator[Pair]:
    """The images of a part of a packed file, or of all its parts."""
    try:
        file = open_file(source.folder)
    except (BadInputError, ArtefactMismatchError) as error:
        problems.append(error.message)
        return
    parts = file.manifest["parts"]
    if source.part and source.part not in parts:
        problems.append(f"{source.folder} holds {', '.join(parts)}, and no {source.part}")
        return
    for part in [source.part] if source.part else parts:
        prepared = parts[part]["preprocess"]
        spec = None if prepared is None else PreprocessSpec.from_dict(prepared)
        entries = {entry["name"]: entry for entry in parts[part]["images"]}
        for name in chosen_stems(source, list(entries), problems):
            if name not in entries:
                problems.append(f"{source.split or source} lists {name!r}, and {source.folder} lacks it")
                continue
            entry = entries[name]
            read = functools.partial(_read_entry, file=file, entry=entry, spec=spec)
            yield Pair(name, source.folder, source.folder, name, entry["group"], entry["image"], read=read)


def _read_entry(
    pair: Pair, *, file: PackedFile, entry: dict[str, Any], spec: PreprocessSpec | None
) -> Sample:
    image = decode(file.member(entry["image"], entry["image_sha256"]), "RGB", name=pair.name)
    mask = decode(file.member(entry["mask"], entry["mask_sha256"]), "L", name=pair.name)
    return Sample(pair.name, image, mask, pair.group, spec)


def decode(data: bytes, mode: str, *, name: str) -> npt.NDArray[np.uint8]:
    """Decode an image with Pillow.

    Args:
        data: an encoded image.
        mode: ``"RGB"`` for (H, W, 3), ``"L"`` for (H, W).
        name: for messages.
    Raises:
        BadInputError: the bytes are no image.
    """
    pillow = require("PIL.Image", extra="train", purpose="reading a packed set")
    try:
        with pillow.open(io.BytesIO(data)) as image:
            return np.array(image.convert(mode), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInputError(f"{name} cannot be decoded: {error}", hint=_AGAIN) from error
