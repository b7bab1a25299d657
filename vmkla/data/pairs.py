"""Image files beside mask files, ``images/<stem>.*`` and ``masks/<stem>.*``, as the field's sets come."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from vmkla.data.sequences import sequence_of
from vmkla.data.sources import DataSource, Pair, Sample, chosen_stems
from vmkla.errors import BadInputError
from vmkla.files import why_not_regular

if TYPE_CHECKING:
    from vmkla.data.masks import StoredMask
    from vmkla.video.media.headers import Header

T = TypeVar("T")

FOLDER_NAMES = (("images", "masks"), ("image", "mask"), ("Original", "Ground Truth"))
"""What the two folders are called: here, in copies of PraNet's sets, and in CVC-ClinicDB as published."""
MASK_ENDINGS = ("_segmentation", "_lesion", "_mask")
"""What ISIC, PH2 and others append to the image's stem."""


def pair_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks inside a folder; None when it has none."""
    for names in FOLDER_NAMES:
        if all((folder / name).is_dir() for name in names):
            return folder / names[0], folder / names[1]
    return None


def file_pairs(source: DataSource, problems: list[str]) -> Iterator[Pair]:
    """The images of a source that have a mask; whatever is wrong becomes a sentence."""
    folders = pair_folders(source.folder)
    if folders is None:
        wanted = (source.folder / name for name in FOLDER_NAMES[0])
        problems.extend(f"{folder} is not a folder" for folder in wanted if not folder.is_dir())
        return
    from vmkla.video.media.images import IMAGE_SUFFIXES

    images, no_images = _by_stem(folders[0], problems)
    mask_files, no_masks = _by_stem(folders[1], problems)
    no_masks = {_image_stem(stem, images) for stem in no_masks}
    masks: dict[str, Path] = {}
    for stem, path in mask_files.items():
        first = masks.setdefault(_image_stem(stem, images), path)
        if first != path:
            problems.append(f"{first} and {path.name} are masks of one image")
    stems = chosen_stems(source, sorted(images), problems)
    if source.split is None and source.stems is None:
        if not images and not no_images:
            problems.append(f"{folders[0]} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        problems.extend(
            f"{masks[stem]} has no image of that stem"
            for stem in sorted(set(masks) - set(images) - no_images)
        )
    for stem in stems:
        if stem in no_images or (stem in no_masks and stem not in masks):
            continue  # named already
        if stem not in images:
            where = source.split or source
            problems.append(f"{where} lists {stem!r}, and {folders[0]} has no image of that stem")
        elif stem not in masks:
            problems.append(f"{images[stem]} has no mask of that stem in {folders[1]}")
        else:
            yield Pair(
                f"{source.folder.name}/{stem}",
                images[stem],
                masks[stem],
                stem,
                sequence_of(stem, source.rule),
                reading=source.reading,
                read=read_files,
            )


@dataclass(frozen=True, eq=False)
class Examined:
    """What the two files of a pair gave.

    Attributes:
        image_rgb: (H, W, 3) uint8, upright; None when it cannot be read.
        mask: (H, W) uint8 of 0 and 1, as the image is shown; None when it cannot be read or placed.
        stored: the mask as its file stores it; None when it cannot be read.
        problems: kind (see ``vmkla.data.check.KINDS``) and message of whatever is wrong.
    """

    image_rgb: npt.NDArray[np.uint8] | None
    mask: npt.NDArray[np.uint8] | None
    stored: StoredMask | None
    problems: tuple[tuple[str, str], ...]


def read_files(pair: Pair) -> Sample:
    """Decode an image and its mask.

    Raises:
        BadInputError: a file cannot be read, the sizes differ, the mask holds other levels than 0 and 255 and
            nothing is declared, or nothing tells how the mask lies on its image.
    """
    seen = examine(pair)
    if seen.problems or seen.image_rgb is None or seen.mask is None:
        raise BadInputError(seen.problems[0][1])
    return Sample(pair.name, seen.image_rgb, seen.mask, pair.group)


def examine(pair: Pair) -> Examined:
    """Decode an image and its mask, and find all that is wrong with them."""
    from vmkla.data.masks import placed, read_mask
    from vmkla.video.media.headers import image_header
    from vmkla.video.media.images import decode_image, read_bytes

    problems: list[tuple[str, str]] = []

    def attempt(kind: str, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except BadInputError as error:
            problems.append((kind, error.message))
            return None

    limit, name = pair.reading.max_megapixels, str(pair.image)
    data = attempt("unreadable", lambda: read_bytes(pair.image, max_megapixels=limit))
    header, image, labels, mask = None, None, None, None
    if data is not None:
        read = functools.partial(image_header, data, name=name, max_megapixels=limit)
        header = attempt("unreadable", read)
        decode = functools.partial(decode_image, data, name=name, max_megapixels=limit)
        image = None if header is None else attempt("unreadable", decode)
    stored = attempt("unreadable", lambda: read_mask(pair.mask, pair.reading))
    if stored is not None:
        labels = attempt("mask", functools.partial(stored.labels, pair.reading.mask_values))
    if header is not None and stored is not None and labels is not None:
        mask = placed(labels, stored.header, header, pair.reading.mask_orientation)
        if mask is None:
            problems.append(("orientation", _orientation_problem(pair, header, stored.header)))
        elif mask.shape != header.upright_hw:
            problems.append(("size", _size_problem(pair, header.upright_hw, mask)))
    return Examined(image, mask, stored, tuple(problems))


def _orientation_problem(pair: Pair, image: Header, mask: Header) -> str:
    own = f", its mask {mask.orientation}" if mask.orientation != 1 else ""
    return (
        f"{pair.name}: the image has the EXIF orientation {image.orientation}{own}, and nothing tells "
        "whether the mask lies as the pixels are stored or as the image is shown. Look at one, and declare "
        "it: --mask-orientation stored (or: upright)"
    )


def _size_problem(pair: Pair, image_hw: tuple[int, int], mask: npt.NDArray[np.uint8]) -> str:
    return (
        f"{pair.name}: the image is {image_hw[0]}x{image_hw[1]} (height x width) and its mask "
        f"{mask.shape[0]}x{mask.shape[1]}; they must be equal"
    )


def _image_stem(stem: str, images: dict[str, Path]) -> str:
    """The image's stem that belongs to a mask's."""
    if stem not in images:
        for ending in MASK_ENDINGS:
            if stem.endswith(ending) and stem.removesuffix(ending) in images:
                return stem.removesuffix(ending)
    return stem


def _by_stem(folder: Path, problems: list[str]) -> tuple[dict[str, Path], set[str]]:
    """Images of a folder by stem, and the stems of what has the name of one and is not a regular file."""
    from vmkla.video.media.images import IMAGE_SUFFIXES

    found: dict[str, Path] = {}
    irregular: set[str] = set()
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        problems.append(f"{folder} cannot be read: {error.strerror or error}")
        return found, irregular
    for path in paths:
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if reason := why_not_regular(path):
            problems.append(f"{path} is not read: {reason}")
            irregular.add(path.stem)
            continue
        if path.stem in found:
            problems.append(f"{found[path.stem]} and {path.name} have the same stem")
        found[path.stem] = path
    return found, irregular - found.keys()
