"""Frames to measure ranges on: from images, folders and videos, spread, distinct, counted and hashed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from vmkla.data.folder import list_pairs
from vmkla.data.naming import listing, name_sets
from vmkla.data.pairs import pair_folders
from vmkla.data.sources import DataSource, Pair
from vmkla.errors import BadInputError
from vmkla.names import Names, given_names
from vmkla.preprocess import PreprocessSpec, field_of_view, prepare
from vmkla.video.frames import Problem
from vmkla.video.images import read_image
from vmkla.video.naming import name_source
from vmkla.video.sources import ImageSource, Source, open_source

MIN_FRAMES = 32
"""Distinct ones; with fewer the ranges are those of a few scenes."""
HELD_OUT_FROM = 3 * MIN_FRAMES // 2
"""Distinct frames: a third may be held out, and enough are left."""
MAX_UNREADABLE = 0.05
"""Share of the images; beyond it the set is not what its owner thinks."""
ALIKE = 1.0
"""Mean difference of two frames at 32x32, in levels of 0 to 255, below which they are one frame: a still
picture stored as a video differs by about 0.1, neighbours of a moving camera by 3 and more."""
_SIDE = 32


@dataclass(frozen=True, eq=False)
class FrameSet:
    """Frames to calibrate with, and others to check the result with.

    Attributes:
        frames: (n, height, width, 3) uint8 RGB, preprocessed, distinct.
        names: of these frames.
        sha256: of these frames, in order.
        check_frames: (m, height, width, 3), as ``frames``.
        check_pairs: images and masks of the check frames; empty when there are no masks.
        held_out: the check frames are not among ``frames``.
        seen: frames that were read.
        duplicates: frames that were like an earlier one.
        problems: what could not be read.
        shown: names of the data for messages.
    """

    frames: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    sha256: str
    check_frames: npt.NDArray[np.uint8]
    check_pairs: tuple[Pair, ...]
    held_out: bool
    seen: int
    duplicates: int
    problems: tuple[Problem, ...]
    shown: Names

    def to_dict(self) -> dict[str, Any]:
        """What metadata keep of it."""
        return {
            "frames": len(self.frames),
            "sha256": self.sha256,
            "seen": self.seen,
            "duplicates": self.duplicates,
            "unreadable": [f"{problem.where}: {problem.what}" for problem in self.problems],
            "checked_on": len(self.check_frames),
            "held_out": self.held_out,
        }


@dataclass(frozen=True, eq=False)
class _Shot:
    place: tuple[int, int]
    name: str
    frame: npt.NDArray[np.uint8]
    pair: Pair | None


def read_frames(
    data: Sequence[str],
    spec: PreprocessSpec,
    *,
    count: int,
    check_count: int,
    allow_few: bool = False,
    anonymous: bool = False,
) -> FrameSet:
    """Read frames that are spread over the data.

    Where there are enough, up to a third is held out to check with; otherwise the same frames serve both
    ends.

    Args:
        data: videos, images, folders or patterns; folders with ``images/`` and ``masks/``, also ``DIR:LIST``.
        spec: of the network.
        count: frames to calibrate with, at most.
        check_count: frames to check with, at most.
        allow_few: take fewer than ``MIN_FRAMES``.
        anonymous: call every image by the first digits of its file's sha256.
    Raises:
        BadInputError: too few distinct frames, too many that cannot be read, or nothing to read at all.
    """
    reader = _read(data, spec, count + check_count, anonymous=anonymous)
    shots = reader.sorted_shots
    if len(shots) < MIN_FRAMES and not allow_few:
        raise BadInputError(
            f"{' '.join(data)} has {len(shots)} distinct frames ({reader.seen} were read, "
            f"{reader.duplicates} of them like another one), expected at least {MIN_FRAMES}",
            hint="Give more data, or accept the risk with: --allow-few",
        )
    held_out = check_count > 0 and len(shots) >= HELD_OUT_FROM
    checked = _spread(len(shots), min(check_count, len(shots) // 3)) if held_out else range(len(shots))
    check = [shots[index] for index in checked]
    kept = [shot for index, shot in enumerate(shots) if not (held_out and index in set(checked))]
    kept = [kept[index] for index in _spread(len(kept), min(count, len(kept)))]
    frames = np.stack([shot.frame for shot in kept])
    return FrameSet(
        frames=frames,
        names=tuple(shot.name for shot in kept),
        sha256=hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest(),
        check_frames=np.stack([shot.frame for shot in check]),
        check_pairs=_pairs(check),
        held_out=held_out,
        seen=reader.seen,
        duplicates=reader.duplicates,
        problems=tuple(reader.problems),
        shown=reader.shown,
    )


def read_check(
    data: Sequence[str], spec: PreprocessSpec, *, count: int, anonymous: bool = False
) -> tuple[npt.NDArray[np.uint8], tuple[Pair, ...], Names]:
    """Frames to check with, from data of their own.

    Args:
        data, spec: as of ``read_frames``.
        count: frames at most.
        anonymous: as of ``read_frames``.
    Returns:
        As ``FrameSet.check_frames``, ``FrameSet.check_pairs`` and ``FrameSet.shown``.
    Raises:
        BadInputError: there is none, or too many cannot be read.
    """
    reader = _read(data, spec, count, anonymous=anonymous)
    shots = reader.sorted_shots
    shots = [shots[index] for index in _spread(len(shots), min(count, len(shots)))]
    return np.stack([shot.frame for shot in shots]), _pairs(shots), reader.shown


def _read(data: Sequence[str], spec: PreprocessSpec, count: int, *, anonymous: bool) -> _Reader:
    reader = _Reader(spec, anonymous=anonymous)
    for number, text in enumerate(data):
        reader.read(number, text, -(-count // len(data)))
    if not reader.shots:
        raise BadInputError(f"{' '.join(data)} holds no frame to calibrate with")
    return reader


def _pairs(shots: Sequence[_Shot]) -> tuple[Pair, ...]:
    """Image and mask of each, or nothing when one has no mask."""
    pairs = tuple(shot.pair for shot in shots if shot.pair is not None)
    return pairs if len(pairs) == len(shots) else ()


class _Reader:
    """Distinct frames of several sources."""

    def __init__(self, spec: PreprocessSpec, *, anonymous: bool) -> None:
        self._spec = spec
        self._anonymous = anonymous
        self.shown = Names({})
        self._small: list[npt.NDArray[np.float32]] = []
        self.shots: list[_Shot] = []
        self.problems: list[Problem] = []
        self.seen = 0
        self.duplicates = 0

    @property
    def sorted_shots(self) -> list[_Shot]:
        """In the order of the data."""
        return sorted(self.shots, key=lambda shot: shot.place)

    def read(self, number: int, text: str, wanted: int) -> None:
        """Take frames of one source until enough are distinct."""
        labelled = DataSource.parse(text)
        if pair_folders(labelled.folder) is not None:
            with listing(text, anonymous=self._anonymous):
                pairs = list_pairs([labelled])
            of_set = name_sets({"": pairs}, text, anonymous=self._anonymous)
            self.shown = self.shown.also(of_set.names)
            images = [(pair.name, pair) for pair in of_set.sets[""]]
            self._read_images(number, images, wanted, text)
            return
        with given_names([text], "the data").in_errors() if self._anonymous else contextlib.nullcontext():
            named = name_source(open_source(text), anonymous=self._anonymous)
        source: Source = named.source
        self.shown = self.shown.also(named.names)
        if isinstance(source, ImageSource):
            items = [(item.name, item.path) for item in source.items]
            self._read_images(number, items, wanted, text)
            return
        step = max(1, (source.total or 1) // wanted)
        for frame in source.frames():
            if frame.index % step == 0 and not frame.damaged:
                self._take(_Shot((number, frame.index), frame.name, self._prepared(frame.rgb), None))
        self.problems += [
            Problem(f"{named.label}: {problem.where}", self.shown.hide(problem.what))
            for problem in source.problems
        ]

    def _read_images(self, number: int, items: Sequence[tuple[str, Any]], wanted: int, text: str) -> None:
        taken, unreadable, tried = 0, [], 0
        for index in _spread_first(len(items), wanted):
            if taken == wanted:
                break
            name, what = items[index]
            pair = what if isinstance(what, Pair) else None
            tried += 1
            try:
                image = read_image(pair.image if pair else what)
            except BadInputError as error:
                unreadable.append(Problem(name, self.shown.hide(error.message)))
                continue
            taken += self._take(_Shot((number, index), name, self._prepared(image), pair))
        self.problems += unreadable
        if len(unreadable) > MAX_UNREADABLE * tried:
            listed = "\n".join(f"  {problem.where}: {problem.what}" for problem in unreadable[:20])
            raise BadInputError(
                f"{len(unreadable)} of {tried} images of {text} cannot be read, allowed are "
                f"{MAX_UNREADABLE:.0%}:\n{listed}",
                hint="Fetch them again, or take them out of the folder.",
            )

    def _prepared(self, image_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return prepare(image_rgb, self._spec, field_of_view(image_rgb, self._spec.roi))

    def _take(self, shot: _Shot) -> bool:
        """Keep a frame unless it is like one that is kept."""
        import cv2

        self.seen += 1
        small = cast(
            "npt.NDArray[np.float32]",
            cv2.resize(shot.frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32),
        )
        if any(float(np.abs(small - other).mean()) < ALIKE for other in self._small):
            self.duplicates += 1
            return False
        self._small.append(small)
        self.shots.append(shot)
        return True


def _spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of ``count`` indices, evenly spread, in order."""
    return [index * count // wanted for index in range(wanted)] if wanted else []


def _spread_first(count: int, wanted: int) -> Iterator[int]:
    """All indices: first some that are evenly spread, then those in between, for when some are of no use."""
    first = _spread(count, min(count, wanted))
    yield from first
    yield from (index for index in range(count) if index not in set(first))
