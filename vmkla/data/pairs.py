"""Image files beside mask files, ``images/<stem>.*`` and ``masks/<stem>.*``, as the field's sets come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmkla.data.folder import DataSource, Pair, Sample, chosen_stems
from vmkla.data.sequences import sequence_of
from vmkla.errors import BadInputError

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
    from vmkla.video.images import IMAGE_SUFFIXES

    images = _by_stem(folders[0], problems)
    masks: dict[str, Path] = {}
    for stem, path in _by_stem(folders[1], problems).items():
        first = masks.setdefault(_image_stem(stem, images), path)
        if first != path:
            problems.append(f"{first} and {path.name} are masks of one image")
    stems = chosen_stems(source, sorted(images), problems)
    if source.split is None and source.stems is None:
        if not images:
            problems.append(f"{folders[0]} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        problems.extend(
            f"{masks[stem]} has no image of that stem" for stem in sorted(set(masks) - set(images))
        )
    for stem in stems:
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
                read=read_files,
            )


def read_files(pair: Pair) -> Sample:
    """Decode an image and its mask.

    Raises:
        BadInputError: a file cannot be read, the sizes differ, or the mask is not 0 and 255.
    """
    from vmkla.video.images import read_image

    image = read_image(pair.image)
    mask = read_mask(pair.mask)
    if image.shape[:2] != mask.shape:
        raise BadInputError(
            f"{pair.name}: the image is {image.shape[0]}x{image.shape[1]} (height x width) and its mask "
            f"{mask.shape[0]}x{mask.shape[1]}; they must be equal"
        )
    top = int(mask.max(initial=0))
    if 0 < top < 128:
        raise BadInputError(f"{pair.mask}: the largest value is {top}; a mask holds 0 and 255")
    return Sample(pair.name, image, (mask > 127).astype(np.uint8), pair.group)


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """The grey values of a mask file, (H, W) uint8.

    Raises:
        BadInputError: it cannot be read or decoded.
    """
    import cv2

    from vmkla.video.images import read_image

    return np.asarray(cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _image_stem(stem: str, images: dict[str, Path]) -> str:
    """The image's stem that belongs to a mask's."""
    if stem not in images:
        for ending in MASK_ENDINGS:
            if stem.endswith(ending) and stem.removesuffix(ending) in images:
                return stem.removesuffix(ending)
    return stem


def _by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    from vmkla.video.images import IMAGE_SUFFIXES

    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            problems.append(f"{found[path.stem]} and {path.name} have the same stem")
        found[path.stem] = path
    return found
