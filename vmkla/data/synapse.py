"""Synapse as TransUNet prepared it: training slices in ``.npz`` files, test volumes in ``.npy.h5`` files."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.bounded import DAMAGED, Archive
from vmkla.data.sequences import sequence_of
from vmkla.data.sources import SLICES, DataSource, Pair, Sample, chosen_stems
from vmkla.errors import BadInputError
from vmkla.files import why_not_regular
from vmkla.imports import require

SLICE_SUFFIX, VOLUME_SUFFIX = ".npz", ".npy.h5"
_MEMBERS = ("image", "label")
_MEMBER_MAX_BYTES = 256 << 20
CLASSES = 9
"""The background and eight organs."""


def synapse_pairs(source: DataSource, problems: list[str]) -> Iterator[Pair]:
    """The slices of a folder of ``.npz`` files, or those of its volumes in order."""
    suffix = SLICE_SUFFIX if source.kind == SLICES else VOLUME_SUFFIX
    files = {}
    irregular = set()
    for path in sorted(source.folder.iterdir() if source.folder.is_dir() else ()):
        if not path.name.endswith(suffix) or path.name.startswith("."):
            continue
        if reason := why_not_regular(path):
            problems.append(f"{path} is not read: {reason}")
            irregular.add(path.name.removesuffix(suffix))
        else:
            files[path.name.removesuffix(suffix)] = path
    if not files and not irregular:
        problems.append(f"{source.folder} holds no file *{suffix}")
    for stem in chosen_stems(source, sorted(files), problems):
        if stem in irregular:
            continue  # named already
        if stem not in files:
            problems.append(f"{source.split or source} lists {stem!r}, and {source.folder} lacks it")
        elif source.kind == SLICES:
            path = files[stem]
            name = f"{source.folder.name}/{stem}"
            group = sequence_of(stem, source.rule)
            yield Pair(name, path, path, stem, group, reading=source.reading, read=_read_slice)
        else:
            yield from _slices_of(files[stem], stem, source, problems)


def _slices_of(path: Path, stem: str, source: DataSource, problems: list[str]) -> Iterator[Pair]:
    try:
        with _open_volume(path) as volume:
            count = len(volume["image"])
            _check_slice_size(str(path), volume["image"].shape[1:], source.reading.max_megapixels)
    except BadInputError as error:
        problems.append(error.message)
        return
    for index in range(count):
        name = f"{source.folder.name}/{stem}/{index:03d}"
        read = functools.partial(_read_volume_slice, index=index)
        yield Pair(name, path, path, stem, stem, str(index), reading=source.reading, read=read)


def _read_slice(pair: Pair) -> Sample:
    try:
        with Archive(pair.image) as archive:
            members = [archive.read(f"{name}.npy", _MEMBER_MAX_BYTES) for name in _MEMBERS]
        image, label = (_array(data, pair) for data in members)
        return slice_sample(pair, image, label)
    except DAMAGED as error:
        raise BadInputError(f"{pair.image} cannot be read as a slice (image, label): {error}") from error


def _array(data: bytes, pair: Pair) -> npt.NDArray[Any]:
    """An array of a size that its header states and its bytes have: NumPy takes the memory first."""
    file = io.BytesIO(data)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    shape, _, dtype = read_header(file)
    _check_slice_size(pair.name, shape, pair.reading.max_megapixels)
    if math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError(f"{len(data)} bytes are too few for {shape} of {dtype}")
    file.seek(0)
    array: npt.NDArray[Any] = np.load(file, allow_pickle=False)
    return array


def _check_slice_size(name: str, shape: tuple[int, ...], max_megapixels: float) -> None:
    """Refuse a slice that is too large, before it is read.

    Raises:
        BadInputError: it has more pixels.
    """
    pixels = math.prod(shape)
    if pixels > max_megapixels * 1e6:
        raise BadInputError(
            f"{name}: a slice of {shape} has {pixels / 1e6:.4g} megapixels, expected at most "
            f"{max_megapixels:g} megapixels (--max-megapixels)"
        )


def _read_volume_slice(pair: Pair, *, index: int) -> Sample:
    with _open_volume(pair.image) as volume:
        try:
            return slice_sample(pair, volume["image"][index], volume["label"][index])
        except DAMAGED as error:
            raise BadInputError(f"{pair.image}: slice {index} cannot be read: {error}") from error


def _open_volume(path: Path) -> Any:
    """An open HDF5 file that holds an image and a label of one shape (slices, H, W)."""
    h5py = require("h5py", extra="train", purpose="reading Synapse's volumes")
    try:
        volume = h5py.File(path, "r")
    except OSError as error:
        raise BadInputError(f"{path} cannot be read as an HDF5 file: {error}") from error
    try:
        shapes = {name: getattr(volume[name], "shape", ()) for name in ("image", "label") if name in volume}
    except DAMAGED as error:
        volume.close()
        raise BadInputError(f"{path} is damaged: {error}") from error
    if len(shapes) == 2 and len(shapes["image"]) == 3 and shapes["image"] == shapes["label"]:
        return volume
    volume.close()
    raise BadInputError(f"{path} holds {shapes}, expected image and label of one shape (slices, H, W)")


def slice_sample(pair: Pair, image: npt.NDArray[Any], label: npt.NDArray[Any]) -> Sample:
    """A slice as the network takes it: ``round(255 x)`` in three equal channels.

    Args:
        pair: what it is.
        image: (H, W) float, windowed to 0..1.
        label: (H, W), class indices 0 to 8.
    Raises:
        BadInputError: shapes differ, or values are outside their range.
    """
    if image.ndim != 2 or not image.size or image.shape != label.shape:
        raise BadInputError(
            f"{pair.name}: the image is {image.shape} and the label {label.shape}, expected one shape (H, W)"
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):  # also when they are not numbers
        raise BadInputError(f"{pair.name}: the values run from {low:g} to {high:g}, expected 0 to 1")
    classes = label.astype(np.uint8)
    if not np.array_equal(classes, label) or classes.max() >= CLASSES:
        raise BadInputError(
            f"{pair.name}: the label holds {_some(label)}, expected whole numbers from 0 to {CLASSES - 1}"
        )
    grey = np.rint(255.0 * image).astype(np.uint8)
    return Sample(pair.name, np.repeat(grey[..., None], 3, axis=2), classes, pair.group)


def _some(values: npt.NDArray[Any]) -> str:
    different = [f"{value:g}" for value in np.unique(values)]
    return ", ".join(different[:12]) + (", ..." if len(different) > 12 else "")
