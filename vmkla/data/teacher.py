"""A teacher's soft masks beside the true ones, or for images that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vmkla.data.arrays import LabelledArrays, joined
from vmkla.data.folder import iter_pairs
from vmkla.data.packed import open_file, packed_pairs
from vmkla.data.sources import PACKED, DataSource, Sample, raise_problems
from vmkla.data.windows import WINDOW
from vmkla.errors import BadInputError
from vmkla.segment.preprocess import PreprocessSpec

_MAKE_ANOTHER = "Make the pack from the images that are trained on, at this size and field of view."
_UNLIKE = 6.0
"""Mean difference (of 255) of an image from its copy in the pack, a JPEG: that of another image is larger."""


def read_teacher(path: Path, *, class_names: Sequence[str], spec: PreprocessSpec) -> dict[str, Sample]:
    """Read a file that ``pack_teacher`` wrote.

    Args:
        path: the file.
        class_names: of the network that learns.
        spec: size and field of view of the images that it learns from.
    Returns:
        Images by name; their masks are probabilities, 0 to 255.
    Raises:
        BadInputError: it is damaged, or for other classes, another size or another field of view.
        ArtefactMismatchError: another version of vmkla wrote it.
    """
    file = open_file(path)
    if file.class_names != tuple(class_names):
        raise BadInputError(
            f"{path} holds soft masks of {', '.join(file.class_names)}, and the network learns "
            f"{', '.join(class_names)}",
            hint="Train without --teacher: a teacher knows one class.",
        )
    for part in file.parts.values():
        if part.spec != spec:
            raise BadInputError(
                f"{path} holds soft masks prepared by {part.spec}, and the images are prepared by {spec}",
                hint=_MAKE_ANOTHER,
            )
    problems: list[str] = []
    pairs = list(packed_pairs(DataSource(path, kind=PACKED), problems, soft=True))
    raise_problems(problems)
    samples = {sample.name: sample for sample in iter_pairs(pairs)}
    for sample in samples.values():
        if sample.mask.shape != (spec.height, spec.width):
            raise BadInputError(
                f"{path}: the soft mask of {sample.name} is {sample.mask.shape}, "
                f"expected {(spec.height, spec.width)}",
                hint=_MAKE_ANOTHER,
            )
    return samples


def with_teacher(arrays: LabelledArrays, teacher: dict[str, Sample], *, weight: float) -> LabelledArrays:
    """Mix a teacher's masks into true ones, and add the images of which only the teacher knows.

    Polyp-free windows keep their masks, which are empty for certain.

    Args:
        arrays: training images with true masks, of one class.
        teacher: from ``read_teacher``.
        weight: of the teacher's mask beside the true one, 0 to 1; with 1 the true masks are not used.
    Returns:
        The images with soft masks; those that have no true mask come last, with the teacher's.
    Raises:
        BadInputError: the teacher lacks an image, or has another image of that name.
    """
    learned = as_soft(arrays)
    masks = learned.masks.copy()
    missing, others = [], []
    for row, name in enumerate(arrays.names):
        if name.endswith(WINDOW):
            continue
        sample = teacher.get(name)
        if sample is None:
            missing.append(name)
        elif np.abs(sample.image_rgb.astype(np.int16) - arrays.images_rgb[row]).mean() > _UNLIKE:
            others.append(name)
        else:
            mixed = weight * sample.mask + (1 - weight) * masks[row].astype(np.float32)
            masks[row] = np.rint(mixed)
    for names, what in ((missing, "lacks"), (others, "holds other pictures of")):
        if names:
            some = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            raise BadInputError(
                f"the teacher's pack {what} {len(names)} of the training images: {some}", hint=_MAKE_ANOTHER
            )
    learned = replace(learned, masks=masks)
    unlabelled = [sample for name, sample in teacher.items() if name not in set(arrays.names)]
    if not unlabelled:
        return learned
    added = LabelledArrays(
        tuple(sample.name for sample in unlabelled),
        np.stack([sample.image_rgb for sample in unlabelled]),
        np.stack([sample.mask for sample in unlabelled]),
        soft=True,
    )
    return joined([learned, added])


def as_soft(arrays: LabelledArrays) -> LabelledArrays:
    """True masks of one class as probabilities, 0 and 255."""
    return arrays if arrays.soft else replace(arrays, masks=arrays.masks * np.uint8(255), soft=True)
