"""Reading packed sets: one file with encoded images at the network's size. No OpenCV here.

A packed file is a ZIP archive without compression of its own: ``manifest.json`` and the encoded images and
masks. The manifest holds the sets, names, sequences, class names, sha256 of every member and how the images
were prepared, so that nothing else is needed to train on it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.bounded import DAMAGED, Archive, MalformedError, parse_names
from vmkla.data.sources import DataSource, Pair, Sample, chosen_stems
from vmkla.errors import ArtefactMismatchError, BadInputError, VmklaError
from vmkla.imports import require
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.plain_values import from_plain
from vmkla.segment.preprocess import PreprocessSpec
from vmkla.video.media.headers import image_header

FORMAT = 1
"""Version of the manifest's layout, raised when a reader of the old one would go wrong."""
MANIFEST = "manifest.json"


IMAGE_MAX_BYTES = 256 << 20
"""Of an encoded image or mask."""
_MANIFEST_MAX_BYTES = 64 << 20
_OPENING = threading.Lock()
_AGAIN = "Copy the file again, or pack the set again: vmkla data pack"


@dataclass(frozen=True)
class PackedImage:
    """An image of a packed set.

    Attributes:
        name: of the image.
        group: images of one group stay together.
        image, mask: members of the archive.
        image_sha256, mask_sha256: hex digests of their bytes.
    """

    name: str
    group: str
    image: str
    mask: str
    image_sha256: str
    mask_sha256: str


@dataclass(frozen=True)
class PackedPart:
    """A part of a packed set.

    Attributes:
        preprocess: how its images were prepared, see ``PreprocessSpec``; None for images as they were.
        images: in their order.
    """

    preprocess: dict[str, Any] | None
    images: tuple[PackedImage, ...]

    @property
    def spec(self) -> PreprocessSpec | None:
        """How its images were prepared."""
        return None if self.preprocess is None else PreprocessSpec.from_dict(self.preprocess)


@dataclass(frozen=True)
class PackedFile:
    """An open packed file.

    Attributes:
        path: of the file.
        parts: by name.
        class_names: one per class, the background first.
        volumes: the images are slices of volumes.
        soft: the masks are a teacher's, see ``vmkla.data.teacher``.
        archive: the members.
    """

    path: Path
    parts: dict[str, PackedPart]
    class_names: tuple[str, ...]
    volumes: bool
    soft: bool
    archive: Archive

    def member(self, name: str, sha256: str) -> bytes:
        """The bytes of a member.

        Raises:
            BadInputError: they are not those that were packed.
        """
        try:
            data = self.archive.read(name, IMAGE_MAX_BYTES)
        except MalformedError as error:
            raise BadInputError(f"{self.path}: {name} cannot be read: {error}", hint=_AGAIN) from error
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise BadInputError(
                f"{self.path}: {name} is damaged: its sha256 is {found[:12]}..., expected {sha256[:12]}...",
                hint=_AGAIN,
            )
        return data


def open_file(path: Path) -> PackedFile:
    """Open a packed file and read its manifest.

    Raises:
        BadInputError: it cannot be read, is cut off or damaged, or lacks members.
        ArtefactMismatchError: it is none of vmkla's, or of another version.
    """
    try:
        archive = Archive(path)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error
    except MalformedError as error:
        raise BadInputError(f"{path} is damaged or cut off: {error}", hint=_AGAIN) from error
    try:
        return _described(path, archive)
    except BaseException:
        archive.close()
        raise


def _described(path: Path, archive: Archive) -> PackedFile:
    try:
        manifest = parse_names(archive.read(MANIFEST, _MANIFEST_MAX_BYTES), _MANIFEST_MAX_BYTES)
        if manifest["format"] != FORMAT:
            raise ArtefactMismatchError(
                f"{path} has layout {manifest['format']!r:.100}, and this version of vmkla reads {FORMAT}",
                hint=_AGAIN,
            )
        parts: dict[str, PackedPart] = from_plain(dict[str, PackedPart], manifest["parts"], "parts")
        for part in parts.values():
            _ = part.spec  # whatever is wrong with it is found out now
        names = from_plain(tuple[str, ...], manifest["class_names"], "class_names")
        volumes = from_plain(bool, manifest["volumes"], "volumes")
        soft = from_plain(bool, manifest.get("soft", False), "soft")
    except ArtefactMismatchError:
        raise
    except (KeyError, TypeError, ValueError, VmklaError) as error:
        raise BadInputError(f"{path} has no manifest that can be read: {error}", hint=_AGAIN) from error
    wanted = {name for part in parts.values() for entry in part.images for name in (entry.image, entry.mask)}
    if absent := wanted - archive.names:
        raise BadInputError(f"{path} lacks {len(absent)} of its images: {min(absent)}, ...", hint=_AGAIN)
    return PackedFile(path, parts, names, volumes, soft, archive)


def packed_pairs(source: DataSource, problems: list[str], *, soft: bool = False) -> Iterator[Pair]:
    """The images of a part of a packed file, or of all its parts; ``soft`` wants a teacher's masks."""
    try:
        file = open_file(source.folder)
    except (BadInputError, ArtefactMismatchError) as error:
        problems.append(error.message)
        return
    if file.soft != soft:
        holds = "a teacher's soft masks and no labels" if file.soft else "labels and no teacher's soft masks"
        problems.append(
            f"{source.folder} holds {holds}: it belongs to {'--teacher' if file.soft else '--data'}"
        )
        return
    if source.part and source.part not in file.parts:
        problems.append(f"{source.folder} holds {', '.join(file.parts)}, and no {source.part}")
        return
    for part in [source.part] if source.part else file.parts:
        spec = file.parts[part].spec
        entries = {entry.name: entry for entry in file.parts[part].images}
        for name in chosen_stems(source, list(entries), problems):
            if name not in entries:
                problems.append(f"{source.split or source} lists {name!r}, and {source.folder} lacks it")
                continue
            entry = entries[name]
            read = functools.partial(_read_entry, file=file, entry=entry, spec=spec)
            yield Pair(
                name,
                source.folder,
                source.folder,
                name,
                entry.group,
                entry.image,
                reading=source.reading,
                read=read,
            )


def _read_entry(pair: Pair, *, file: PackedFile, entry: PackedImage, spec: PreprocessSpec | None) -> Sample:
    limit = pair.reading.max_megapixels
    image = decode(file.member(entry.image, entry.image_sha256), "RGB", name=pair.name, max_megapixels=limit)
    mask = decode(file.member(entry.mask, entry.mask_sha256), "L", name=pair.name, max_megapixels=limit)
    return Sample(pair.name, image, mask, pair.group, spec)


def decode(
    data: bytes, mode: str, *, name: str, max_megapixels: float = MAX_MEGAPIXELS
) -> npt.NDArray[np.uint8]:
    """Decode an image with Pillow, as it is stored.

    Args:
        data: an encoded image.
        mode: ``"RGB"`` for (H, W, 3), ``"L"`` for (H, W).
        name: for messages.
        max_megapixels: larger images are not decoded.
    Raises:
        BadInputError: the bytes are not an image, or one that is too large.
    """
    pillow = require("PIL.Image", extra="train", purpose="reading a packed set")
    image_header(data, name=name, max_megapixels=max_megapixels)
    try:
        with _opened(pillow, data) as image:
            return np.array(image.convert(mode), dtype=np.uint8)
    except DAMAGED as error:
        raise BadInputError(f"{name} cannot be decoded: {error}", hint=_AGAIN) from error


def _opened(pillow: Any, data: bytes) -> Any:
    """An open image. Pillow's limit of the size, for the whole process, gives way to that of the caller."""
    with _OPENING:
        limit, pillow.MAX_IMAGE_PIXELS = pillow.MAX_IMAGE_PIXELS, None
        try:
            return pillow.open(io.BytesIO(data))
        finally:
            pillow.MAX_IMAGE_PIXELS = limit
