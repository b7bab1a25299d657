"""Everything that is wrong with a data set, found before training starts and told at once."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmkla.background import mapped
from vmkla.data.duplicates import look_alikes, picture_hash
from vmkla.data.folder import find_pairs, read_sample
from vmkla.data.layouts import UNNAMED, DataSet
from vmkla.data.pairs import examine
from vmkla.data.sources import Pair
from vmkla.errors import BadInputError

if TYPE_CHECKING:
    from vmkla.data.masks import StoredMask

_THREADS = 2
"""Decoding threads."""
KINDS = {
    "layout": "folders, lists and partners",
    "unreadable": "files that cannot be read",
    "size": "image and mask of different size",
    "mask": "masks that are not binary",
    "orientation": "masks that lie on turned images in an unknown way",
    "duplicate": "near-duplicates on both sides of a split",
    "sequence": "sequences on both sides of a split",
}
"""What is looked for, and how the table calls it."""
_JPEG_SPREAD, _JPEG_SHARE = 32, 0.01
"""Distance from 0 and 255 within which a JPEG mask's pixels lie, all but this share of them, at its edges."""


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
    on_progress: Callable[[int, int | None], None] | None = None,
) -> CheckReport:
    """Read every image and mask of a data set.

    Args:
        data_set: what to look at.
        problems: what opening it has found already.
        on_progress: called with images done and in all.
    """
    found = [Problem("layout", message) for message in problems]
    pairs: dict[str, list[Pair]] = {}
    for part, sources in data_set.parts().items():
        pairs[part], messages = find_pairs(sources)
        found += [Problem("layout", message) for message in messages]
    total, done = sum(map(len, pairs.values())), itertools.count(1)
    looks: dict[str, list[_Look]] = {}
    look_at = functools.partial(_look_at, hashed=not data_set.volumes)
    for part, listed in pairs.items():
        looks[part] = []
        for look in mapped(look_at, listed, threads=_THREADS, ahead=4 * _THREADS):
            looks[part].append(look)
            found += look.problems
            if on_progress is not None:
                on_progress(next(done), total)
    for first, second in itertools.combinations(pairs, 2):
        if first.split("/")[0] != UNNAMED:  # tests are not compared with each other
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
    if pair.image == pair.mask:
        try:
            sample = read_sample(pair)
        except BadInputError as error:
            return _Look(pair, (Problem("unreadable", error.message),), None, False)
        alike = picture_hash(sample.image_rgb) if hashed else None
        return _Look(pair, (), alike, not sample.mask.any())
    seen = examine(pair)
    problems = [Problem(kind, message) for kind, message in seen.problems]
    if seen.stored is not None and pair.reading.mask_values is None:
        listed = any(problem.kind == "mask" for problem in problems)
        if not listed and (message := mask_problem(seen.stored)):
            problems.append(Problem("mask", message))
    empty = seen.mask is not None and not seen.mask.any()
    alike = None if seen.image_rgb is None else picture_hash(seen.image_rgb)
    return _Look(pair, tuple(problems), alike, empty)


def mask_problem(mask: StoredMask) -> str:
    """Why a mask is not binary, though its levels are 0 and 255; empty when it is.

    A JPEG cannot hold 0 and 255 exactly, so it may differ a little.
    """
    values, unit = mask.values, mask.unit
    between, allowed = (values > 0) & (values < 255 * unit), 0
    if mask.lossy:
        between = (values >= _JPEG_SPREAD) & (values < 256 - _JPEG_SPREAD)
        allowed = int(_JPEG_SHARE * mask.header.height * mask.header.width)
    found = values[between]
    pixels = np.count_nonzero(between if values.ndim == 2 else between.any(axis=2))
    if pixels <= allowed:
        return ""
    total = mask.header.height * mask.header.width
    return (
        f"{mask.path}: {pixels} of {total} pixels are neither 0 nor {255 * unit} (values from {found.min()} "
        f"to {found.max()}); training cuts in the middle"
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
