"""Writing packed sets: images once prepared and encoded, so that a training machine only decodes them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla import __version__
from vmkla.data.arrays import CROP_MARGIN, prepared_pair
from vmkla.data.folder import list_pairs, read_ahead
from vmkla.data.layouts import POLYP, UNNAMED, DataSet
from vmkla.data.packed import FORMAT, IMAGE_MAX_BYTES, MANIFEST, decode
from vmkla.data.sources import PACK_SUFFIX, DataSource, Pair, Sample, raise_problems
from vmkla.errors import BadInputError, UsageError
from vmkla.files import file_sha256, written_whole
from vmkla.imports import require
from vmkla.segment.preprocess import PreprocessSpec

_JPEG_START = b"\xff\xd8\xff"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member: equal images give equal files."""


@dataclass(frozen=True)
class PackOptions:
    """How images are stored.

    Attributes:
        size_hw: the network's input, px.
        roi: field of view cut out first, ``"none"`` or ``"auto"``.
        margin: training images are kept this much larger, for the warp of the augmentation.
        quality: of the JPEG files, 1 to 100; None stores PNG, without loss and several times as large.
    """

    size_hw: tuple[int, int] = (256, 256)
    roi: str = "none"
    margin: float = CROP_MARGIN
    quality: int | None = 95

    def __post_init__(self) -> None:
        if self.roi not in ("none", "auto"):
            raise UsageError(f"the field of view is {self.roi!r}, expected none or auto")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"the quality is {self.quality}, expected 1 to 100")
        if not 1 <= self.margin <= 4:
            raise UsageError(f"the margin is {self.margin}, expected 1 to 4")

    def spec(self, part: str) -> PreprocessSpec | None:
        """Size of the images of a part; None where they keep their own."""
        if part.split("/")[0] == UNNAMED:
            return None
        margin = self.margin if part == "train" else 1.0
        height, width = self.size_hw
        return PreprocessSpec(round(height * margin), round(width * margin), self.roi)


@dataclass(frozen=True)
class PackReport:
    """What was written.

    Attributes:
        path: of the file.
        size_bytes: of the file.
        sha256: of the file.
        images: of each part, their number.
    """

    path: Path
    size_bytes: int
    sha256: str
    images: dict[str, int]


def pack(
    data_set: DataSet,
    path: Path,
    options: PackOptions,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> PackReport:
    """Write a set into one file.

    Training images are stored at the network's size with a margin, validation images at the network's size,
    test images at their own, without loss, since they are judged there. The file gets its name when it is
    whole.

    Args:
        data_set: what to pack.
        path: the file; its name ends in ``.vmkpack``.
        options: how.
        seed: that the splits were made with, for the record.
        on_progress: called with images done and in all.
    Raises:
        BadInputError: images are wrong (all problems are named), or the file cannot be written.
        UsageError: the name has another ending.
    """
    _check_name(path)
    pairs = {part: list_pairs(sources) for part, sources in data_set.parts().items()}
    with written_whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, data_set, pairs, options, seed, on_progress)
    images = {part: len(listed) for part, listed in pairs.items()}
    return PackReport(path, path.stat().st_size, file_sha256(path), images)


def _write(
    archive: zipfile.ZipFile,
    data_set: DataSet,
    pairs: dict[str, list[Pair]],
    options: PackOptions,
    seed: int,
    on_progress: Callable[[int, int | None], None] | None,
) -> None:
    """All images, then the manifest.

    Raises:
        BadInputError: images are wrong; all are named.
    """
    writer = _Writer(archive, options, sum(map(len, pairs.values())), on_progress)
    parts = {part: writer.part(part, listed) for part, listed in pairs.items()}
    raise_problems(writer.problems)
    manifest = {
        "format": FORMAT,
        "vmkla": __version__,
        "class_names": list(data_set.class_names),
        "num_classes": data_set.num_classes,
        "volumes": data_set.volumes,
        "seed": seed,
        "declared": _declared(data_set),
        "sources": {part: _names(sources) for part, sources in data_set.parts().items()},
        "parts": parts,
    }
    writer.write(MANIFEST, json.dumps(manifest, indent=1).encode("ascii"))  # a name may be no valid Unicode


class _Writer:
    """Encodes images into an open archive."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        options: PackOptions,
        total: int,
        on_progress: Callable[[int, int | None], None] | None,
    ) -> None:
        self.archive, self.options, self.total = archive, options, total
        self.on_progress = on_progress
        self.done = 0
        self.problems: list[str] = []

    def part(self, part: str, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Store the images of one part and say what they are."""
        spec = self.options.spec(part)
        entries = []
        for number, (pair, sample) in enumerate(zip(pairs, read_ahead(pairs, 2), strict=True)):
            self.done += 1
            if isinstance(sample, BadInputError):
                self.problems.append(sample.message)
            elif not self.problems:
                entries.append(self.entry(f"{part}/{number:06d}", sample, spec, pair))
            if self.on_progress is not None:
                self.on_progress(self.done, self.total)
        doubled = len(entries) - len({entry["name"] for entry in entries})
        if doubled:
            self.problems.append(f"{doubled} images of {part} have the name of another; rename a folder")
        return {"preprocess": None if spec is None else spec.to_dict(), "images": entries}

    def entry(
        self, stem: str, sample: Sample, spec: PreprocessSpec | None, pair: Pair | None = None
    ) -> dict[str, Any]:
        """Store one image and its mask and say what they are.

        Args:
            stem: of the two members.
            sample: the image.
            spec: size to store it at; None for its own, without loss.
            pair: the image's files, of which the image's may be stored as it is.
        """
        if spec is None:
            image, mask = sample.image_rgb, sample.mask
            data = (pair and _original(pair, image)) or _encoded(image, None)
        else:
            image, mask = prepared_pair(sample, spec)
            data = _encoded(image, self.options.quality)
        suffix = ".jpg" if data.startswith(_JPEG_START) else ".png"
        mask_data = _encoded(mask, None)
        names = f"{stem}{suffix}", f"{stem}-mask.png"
        return {
            "name": sample.name,
            "group": sample.group,
            "image": names[0],
            "mask": names[1],
            "image_sha256": self.write(names[0], data),
            "mask_sha256": self.write(names[1], mask_data),
        }

    def write(self, name: str, data: bytes) -> str:
        """Add a member; returns its sha256.

        Raises:
            BadInputError: it is larger than what is read back.
        """
        if name != MANIFEST and len(data) > IMAGE_MAX_BYTES:
            raise BadInputError(
                f"{name} takes {len(data):,} bytes encoded, expected at most {IMAGE_MAX_BYTES:,}",
                hint="Scale the image down, or leave it out of the set.",
            )
        self.archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
        return hashlib.sha256(data).hexdigest()


def pack_teacher(
    samples: Iterable[Sample], path: Path, spec: PreprocessSpec, *, made_by: Mapping[str, Any]
) -> int:
    """Write a teacher's soft masks of one class and the images that they are of into one file.

    Args:
        samples: images prepared by ``spec``; their masks are probabilities from ``soft_mask``.
        path: the file; its name ends in ``.vmkpack``.
        spec: size and field of view; those that the training will keep its images at, see ``cache_spec``.
        made_by: what the teacher is; anything that JSON can hold.
    Returns:
        The number of images.
    Raises:
        BadInputError: an image has another size, or the file cannot be written.
        UsageError: the name has another ending.
    """
    _check_name(path)
    with written_whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        writer = _Writer(archive, PackOptions(), 0, None)
        entries = [writer.entry(f"teacher/{n:06d}", sample, spec) for n, sample in enumerate(samples)]
        manifest = {
            "format": FORMAT,
            "vmkla": __version__,
            "soft": True,
            "class_names": list(POLYP),
            "volumes": False,
            "made_by": dict(made_by),
            "parts": {"teacher": {"preprocess": spec.to_dict(), "images": entries}},
        }
        writer.write(MANIFEST, json.dumps(manifest, indent=1).encode("ascii"))
    return len(entries)


def soft_mask(probability: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Round a probability from 0 to 1 to 255 steps.

    Args:
        probability: (h, w).
    Raises:
        BadInputError: a value is not a number, or outside 0 to 1.
    """
    wrong = int((~((probability >= 0) & (probability <= 1))).sum())
    if wrong:
        raise BadInputError(
            f"{wrong} of {probability.size} values of a teacher's mask are not a number from 0 to 1",
            hint="Train the teacher with a lower learning rate, or in fp32.",
        )
    levels: npt.NDArray[np.uint8] = np.rint(255 * probability).astype(np.uint8)
    return levels


def _check_name(path: Path) -> None:
    if path.suffix != PACK_SUFFIX:
        raise UsageError(f"{path.name} does not end in {PACK_SUFFIX}", hint=f"Try {path.stem}{PACK_SUFFIX}")


def _original(pair: Pair, image: npt.NDArray[np.uint8]) -> bytes | None:
    """The image's own file, when it is a JPEG that decodes to the very pixels; None otherwise."""
    if pair.image == pair.mask:
        return None
    from vmkla.video.media.images import read_bytes

    limit = pair.reading.max_megapixels
    data = read_bytes(pair.image, max_megapixels=limit)
    if not data.startswith(_JPEG_START):
        return None
    stored = decode(data, "RGB", name=pair.name, max_megapixels=limit)
    return data if np.array_equal(stored, image) else None


def _encoded(image: npt.NDArray[np.uint8], quality: int | None) -> bytes:
    """A PNG, or a JPEG without colour subsampling; one channel where all three are equal."""
    pillow = require("PIL.Image", extra="train", purpose="vmkla data pack")
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    buffer = io.BytesIO()
    picture = pillow.fromarray(np.ascontiguousarray(image))
    if quality is None:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def _declared(data_set: DataSet) -> dict[str, str]:
    """What was declared of the masks; every source of a set has the same."""
    return next((sources[0].reading.of_masks for sources in data_set.parts().values()), {})


def _names(sources: Sequence[DataSource]) -> list[str]:
    """The sources without the folders of this machine."""
    return [":".join(Path(part).name for part in str(source).split(":")) for source in sources]
