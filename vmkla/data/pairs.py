"""Image files beside mask files, ``images/<stem>.*`` and ``masks/<stem>.*``, as the field's sets come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.data.sequences import sequence_of
from vmkla.data.sources import DataSource, Pair, Sample, chosen_stems
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
    if message := size_problem(pair, image, mask) or dark_problem(pair.mask, mask):
        raise BadInputError(message)
    return Sample(pair.name, image, (mask > 127).astype(np.uint8), pair.group)


def size_problem(pair: Pair, image_rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> str:
    """Why an image and its mask do not belong together; empty when they have one size."""
    if image_rgb.shape[:2] == mask.shape:
        return ""
    return (
        f"{pair.name}: the image is {image_rgb.shape[0]}x{image_rgb.shape[1]} (height x width) and its mask "
        f"{mask.shape[0]}x{mask.shape[1]}; they must be equal"
    )


def dark_problem(path: Path, mask: npt.NDArray[np.uint8]) -> str:
    """Why a mask would lose its foreground where training cuts; empty when it would not."""
    top = int(mask.max(initial=0))
    return f"{path}: the largest value is {top}; a mask holds 0 and 255" if 0 < top < 128 else ""


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """The grey values of a mask file, (H, W) uint8.

    Raises:
        BadInputError: it cannot be read or decoded, or what it holds lies in bits or in a channel that an
            8-bit grey picture does not have.
    """
    import cv2

    from vmkla.video.images import decode_image, read_bytes

    data = read_bytes(path)
    grey = np.asarray(cv2.cvtColor(decode_image(data, name=str(path)), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if grey.min() == grey.max():  # rare, and the only case in which a mask can have got lost
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if stored is not None and (message := _lost(stored)):
            raise BadInputError(f"{path}: {message}; a mask holds 0 and 255 in 8-bit grey")
    return grey


def _lost(stored: npt.NDArray[Any]) -> str:
    """Why a mask that decodes to one grey value is not of one value; empty when it is.

    Args:
        stored: (H, W) or (H, W, channels), as the file has it.
    """
    if stored.shape[2:] == (4,) and stored[..., 3].min() != stored[..., 3].max():
        return "the mask lies in the alpha channel, which is not read"
    if stored.dtype != np.uint8 and stored.min() != stored.max():
        return f"the largest value is {stored.max()} in a file of {8 * stored.dtype.itemsize} bits a value"
    return ""


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
