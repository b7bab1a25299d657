"""Everything that is wrong with a data set, found before training starts and told at once."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmkla.data.duplicates import look_alikes, picture_hash
from vmkla.data.folder import find_pairs, read_sample
from vmkla.data.layouts import UNNAMED, DataSet
from vmkla.data.pairs import dark_problem, read_files, read_mask, size_problem
from vmkla.data.sources import Pair
from vmkla.errors import BadInputError

KINDS = {
    "layout": "folders, lists and partners",
    "unreadable": "files that cannot be read",
    "size": "image and mask of different size",
    "mask": "masks that are not binary",
    "duplicate": "near-duplicates on both sides of a split",
    "sequence": "sequences on both sides of a split",
}
"""What is looked for, and how the table calls it."""
_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_JPEG_SPREAD, _JPEG_SHARE = 32, 0.01
"""A JPEG's mask may stray so far from 0 and 255, and in this share of the pixels, its edges, further."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: one of ``KINDS``.
        message: what was seen and what was expected.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        images: number of images of each set.
        without_foreground: of each set, the number of images whose mask is empty; that is allowed.
        problems: all, in the order of ``KINDS``.
    """

    images: dict[str, int]
    without_foreground: dict[str, int]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Look:
    """What one image gave."""

    pair: Pair
    problems: tuple[Problem, ...]
    hash: npt.NDArray[np.bool_] | None
    empty: bool


def check(
    data_set: DataSet,
    *,
    problems: Sequence[str] = (),
    threads: int = 2,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> CheckReport:
    """Read every image and mask of a data set.

    Args:
        data_set: what to look at.
        problems: what opening it has found already.
        threads: decoding threads.
        on_progress: called with images done and in all.
    """
    found = [Problem("layout", message) for message in problems]
    pairs: dict[str, list[Pair]] = {}
    for part, sources in data_set.parts().items():
        pairs[part], messages = find_pairs(sources)
        found += [Problem("layout", message) for message in messages]
    total, done = sum(map(len, pairs.values())), itertools.count(1)
    looks: dict[str, list[_Look]] = {}
    with ThreadPoolExecutor(threads) as pool:
        for part, listed in pairs.items():
            looks[part] = []
            for look in pool.map(functools.partial(_look_at, hashed=not data_set.volumes), listed):
                looks[part].append(look)
                found += look.problems
                if on_progress is not None:
                    on_progress(next(done), total)
    for first, second in itertools.combinations(pairs, 2):
        if first.split("/")[0] != UNNAMED:  # tests are not held against each other
            found += _duplicates(first, looks[first], second, looks[second])
            found += _sequences(first, pairs[first], second, pairs[second])
    order = list(KINDS)
    unique = dict.fromkeys(sorted(found, key=lambda problem: order.index(problem.kind)))
    return CheckReport(
        images={part: len(listed) for part, listed in pairs.items()},
        without_foreground={part: sum(look.empty for look in seen) for part, seen in looks.items()},
        problems=tuple(unique),
    )


def _look_at(pair: Pair, *, hashed: bool) -> _Look:
    # The slices of any two abdomens look alike: there, patients are told by their names alone.
    if pair.read is not read_files:
        try:
            sample = read_sample(pair)
        except BadInputError as error:
            return _Look(pair, (Problem("unreadable", error.message),), None, False)
        alike = picture_hash(sample.image_rgb) if hashed else None
        return _Look(pair, (), alike, not sample.mask.any())
    from vmkla.video.images import read_image

    problems: list[Problem] = []
    image = _attempt(read_image, pair.image, problems)
    mask = _attempt(read_mask, pair.mask, problems)
    if image is not None and mask is not None and (message := size_problem(pair, image, mask)):
        problems.append(Problem("size", message))
    if mask is not None and (message := mask_problem(pair.mask, mask)):
        problems.append(Problem("mask", message))
    empty = mask is not None and not (mask > 127).any()
    return _Look(pair, tuple(problems), None if image is None else picture_hash(image), empty)


def _attempt(
    read: Callable[[Path], npt.NDArray[np.uint8]], path: Path, problems: list[Problem]
) -> npt.NDArray[np.uint8] | None:
    try:
        return read(path)
    except BadInputError as error:
        problems.append(Problem("unreadable", error.message))
        return None


def mask_problem(path: Path, mask: npt.NDArray[np.uint8]) -> str:
    """Why a mask is not binary; empty when it is.

    Args:
        path: of the file; a JPEG cannot hold 0 and 255 exactly, so it may stray a little.
        mask: (H, W) uint8, its grey values.
    """
    if message := dark_problem(path, mask):
        return message
    counts = np.bincount(mask.ravel(), minlength=256)
    between, allowed = counts[1:255], 0
    if path.suffix.lower() in _JPEG_SUFFIXES:
        between, allowed = counts[_JPEG_SPREAD : 256 - _JPEG_SPREAD], int(_JPEG_SHARE * mask.size)
    if between.sum() <= allowed:
        return ""
    values = np.flatnonzero(between) + (256 - len(between)) // 2
    return (
        f"{path}: {between.sum()} of {mask.size} pixels are neither 0 nor 255 "
        f"(values from {values[0]} to {values[-1]}); training cuts at 127"
    )


def _duplicates(
    first: str, first_looks: Sequence[_Look], second: str, second_looks: Sequence[_Look]
) -> Iterator[Problem]:
    sides = [[look for look in looks if look.hash is not None] for looks in (first_looks, second_looks)]
    hashes = [[look.hash for look in looks if look.hash is not None] for looks in sides]
    for one, other, bits in look_alikes(*hashes):
        yield Problem(
            "duplicate",
            f"{sides[1][other].pair.name} in {second} looks like {sides[0][one].pair.name} in {first} "
            f"({bits} of 256 bits differ)",
        )


def _sequences(
    first: str, first_pairs: Sequence[Pair], second: str, second_pairs: Sequence[Pair]
) -> list[Problem]:
    counts = [Counter(pair.group for pair in pairs if pair.group) for pairs in (first_pairs, second_pairs)]
    return [
        Problem(
            "sequence",
            f"sequence {group} has {counts[0][group]} images in {first} and {counts[1][group]} in {second}",
        )
        for group in sorted(set(counts[0]) & set(counts[1]))
    ]
