"""Read distinct frames, spread over images, folders and videos, to measure ranges on and to check with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vmkla.calibration.likeness import DistinctViews
from vmkla.data.folder import list_pairs
from vmkla.data.naming import listing, name_sets
from vmkla.data.pairs import pair_folders
from vmkla.data.rules import ReadRules
from vmkla.data.sources import DataSource, Pair
from vmkla.errors import BadInputError, UsageError
from vmkla.limits import check_unreadable
from vmkla.names import Names, given_names
from vmkla.segment.preprocess import PreprocessSpec, view
from vmkla.video.media.frames import Problem
from vmkla.video.media.images import read_image
from vmkla.video.media.naming import name_source
from vmkla.video.media.options import ReadOptions
from vmkla.video.media.sources import ImageSource, Source, open_source

MIN_FRAMES = 32
"""Fewest distinct frames to measure on; with fewer, the ranges are those of a few scenes."""
MIN_CHECK = 8
"""Fewest distinct frames to check with, which are never those that the ranges were measured on."""


@dataclass(frozen=True, eq=False)
class FrameSet:
    """Frames to calibrate with, and others to check the result with.

    Attributes:
        frames: (n, height, width, 3) uint8 RGB, preprocessed, distinct.
        names: names of these frames.
        sha256: hex digest of these frames, in order.
        check_frames: (m, height, width, 3) uint8 RGB, other frames than ``frames``; m is 0 when there is
            other data to check with.
        check_pairs: image and mask of each check frame; empty when there are no masks.
        seen: number of frames that were read.
        duplicates: number of frames that show the view of an earlier one.
        problems: files that could not be read.
        shown: names of the data for messages.
    """

    frames: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    sha256: str
    check_frames: npt.NDArray[np.uint8]
    check_pairs: tuple[Pair, ...]
    seen: int
    duplicates: int
    problems: tuple[Problem, ...]
    shown: Names

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the metadata."""
        return {
            "frames": len(self.frames),
            "sha256": self.sha256,
            "seen": self.seen,
            "duplicates": self.duplicates,
            "unreadable": [str(problem) for problem in self.problems],
            "checked_on": len(self.check_frames),
            "held_out": len(self.check_frames) > 0,
        }


class CheckSet(NamedTuple):
    """Frames to check a quantized network with.

    Attributes:
        frames: (m, height, width, 3) uint8 RGB, preprocessed.
        pairs: image and mask of each frame; empty when there are no masks.
        shown: names of the data for messages.
    """

    frames: npt.NDArray[np.uint8]
    pairs: tuple[Pair, ...]
    shown: Names


@dataclass(frozen=True, eq=False)
class _ReadFrame:
    """A frame, and its place in the data."""

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
    reading: ReadRules = ReadRules(),  # noqa: B008 (frozen)
    say: Callable[[str], None] = lambda _: None,
) -> FrameSet:
    """Read frames that are spread over the data, and hold out up to a third to check with.

    Args:
        data: videos, images, folders or patterns; folders with ``images/`` and ``masks/``, also ``DIR:LIST``.
        spec: preprocessing of the network.
        count: largest number of frames to calibrate with.
        check_count: largest number of frames to hold out; 0 when there is other data to check with.
        allow_few: accept fewer than ``MIN_FRAMES`` and ``MIN_CHECK``.
        anonymous: name every image by the first digits of its file's sha256.
        reading: how files of images and masks are read.
        say: called with remarks on the data.
    Raises:
        BadInputError: too few distinct frames, too many that cannot be read, or nothing to read at all.
    """
    reader = _read(data, spec, count + check_count, reading, say, anonymous=anonymous)
    distinct = reader.in_order
    _refuse_few(distinct, reader, data, check=check_count > 0, allow_few=allow_few)
    spare = max(1, len(distinct) // 3)
    if len(distinct) >= MIN_FRAMES + MIN_CHECK:
        spare = min(spare, len(distinct) - MIN_FRAMES)
    checked = set(_spread(len(distinct), min(check_count, spare)))
    kept = [item for index, item in enumerate(distinct) if index not in checked]
    kept = [kept[index] for index in _spread(len(kept), min(count, len(kept)))]
    check = [distinct[index] for index in sorted(checked)]
    frames = _stacked(kept, spec)
    return FrameSet(
        frames=frames,
        names=tuple(item.name for item in kept),
        sha256=hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest(),
        check_frames=_stacked(check, spec),
        check_pairs=_pairs(check),
        seen=reader.seen,
        duplicates=reader.duplicates,
        problems=tuple(reader.problems),
        shown=reader.shown,
    )


def _refuse_few(
    distinct: Sequence[_ReadFrame], reader: _Reader, data: Sequence[str], *, check: bool, allow_few: bool
) -> None:
    """Reject data with too few distinct frames to measure ranges on and to check them.

    Raises:
        BadInputError: there are too few.
    """
    needed = MIN_FRAMES + (MIN_CHECK if check else 0)
    if allow_few:
        needed = 2 if check else 1
    if len(distinct) >= needed:
        return
    of_check = f" ({MIN_FRAMES} for the ranges and {MIN_CHECK} others to check with)" if check else ""
    raise BadInputError(
        f"{' '.join(data)} has {len(distinct)} distinct frames ({reader.seen} were read, {reader.duplicates} "
        f"of them like another one), expected at least {needed}{'' if allow_few else of_check}",
        hint="Give more data"
        + (", or other data to check with: --check WHAT" if check else "")
        + ("" if allow_few else ". To accept the risk: --allow-few"),
    )


def read_check(
    data: Sequence[str],
    spec: PreprocessSpec,
    *,
    count: int,
    calibrated: FrameSet,
    anonymous: bool = False,
    reading: ReadRules = ReadRules(),  # noqa: B008 (frozen)
    say: Callable[[str], None] = lambda _: None,
) -> CheckSet:
    """Read frames to check with from other data, without views that the ranges were measured on.

    Args:
        data, spec, anonymous, reading, say: see ``read_frames``.
        count: largest number of frames.
        calibrated: the frames that the ranges were measured on.
    Raises:
        BadInputError: there are none, or too many cannot be read.
    """
    reader = _read(data, spec, count, reading, say, calibrated, anonymous=anonymous)
    distinct = reader.in_order
    distinct = [distinct[index] for index in _spread(len(distinct), min(count, len(distinct)))]
    return CheckSet(_stacked(distinct, spec), _pairs(distinct), reader.shown)


def _read(
    data: Sequence[str],
    spec: PreprocessSpec,
    count: int,
    reading: ReadRules,
    say: Callable[[str], None],
    calibrated: FrameSet | None = None,
    *,
    anonymous: bool,
) -> _Reader:
    reader = _Reader(spec, reading, () if calibrated is None else calibrated.frames, anonymous=anonymous)
    for number, text in enumerate(data):
        reader.read(number, text, -(-count // len(data)))
    for line in [f"note: {note}" for note in reader.notes] + [
        f"skipped {problem}" for problem in reader.problems
    ]:
        say(line)
    if not reader.distinct and reader.seen:
        raise BadInputError(
            f"every frame of {' '.join(data)} is like one that the ranges were measured on",
            hint="Give other data to check with, or leave --check out: some of --data is then held out.",
        )
    if not reader.distinct:
        raise BadInputError(f"{' '.join(data)} holds no frame to calibrate with")
    return reader


def _stacked(distinct: Sequence[_ReadFrame], spec: PreprocessSpec) -> npt.NDArray[np.uint8]:
    """Stack frames, (n, height, width, 3); n may be 0."""
    if not distinct:
        return np.empty((0, spec.height, spec.width, 3), np.uint8)
    return np.stack([item.frame for item in distinct])


def _pairs(distinct: Sequence[_ReadFrame]) -> tuple[Pair, ...]:
    """Return the image and mask of each frame, or nothing when one has no mask."""
    pairs = tuple(item.pair for item in distinct if item.pair is not None)
    return pairs if len(pairs) == len(distinct) else ()


class _Reader:
    """Read distinct frames of several sources."""

    def __init__(
        self,
        spec: PreprocessSpec,
        reading: ReadRules,
        known: Iterable[npt.NDArray[np.uint8]] = (),
        *,
        anonymous: bool,
    ) -> None:
        self._spec, self._reading = spec, reading
        self._anonymous = anonymous
        self.shown = Names({})
        self._views = DistinctViews()
        for frame in known:
            self._views.add(frame)
        self.distinct: list[_ReadFrame] = []
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.seen = 0
        self.duplicates = 0

    @property
    def in_order(self) -> list[_ReadFrame]:
        """The frames in the order of the data."""
        return sorted(self.distinct, key=lambda item: item.place)

    def read(self, number: int, text: str, wanted: int) -> None:
        """Read frames of one source until enough are distinct."""
        labelled = dataclasses.replace(DataSource.parse(text), reading=self._reading)
        if pair_folders(labelled.folder) is not None:
            with listing(text, anonymous=self._anonymous):
                pairs = list_pairs([labelled])
            of_set = name_sets({"": pairs}, text, anonymous=self._anonymous)
            self.shown = self.shown.also(of_set.names)
            images = [(pair.name, pair) for pair in of_set.sets[""]]
            self._read_images(number, images, wanted, text)
            return
        if self._reading.of_masks:
            raise UsageError(f"masks are declared, and {text} has none", hint="Leave the flag out.")
        with given_names([text], "the data").in_errors(self._anonymous):
            named = name_source(
                open_source(text, ReadOptions(max_megapixels=self._reading.max_megapixels)),
                anonymous=self._anonymous,
            )
        source: Source = named.source
        self.shown = self.shown.also(named.names)
        if isinstance(source, ImageSource):
            self.problems += source.left_out
            _check_share(source.left_out, source.named, text)
            items = [(item.name, item.path) for item in source.items]
            self._read_images(number, items, wanted, text)
            return
        step = max(1, (source.total or 1) // wanted)
        for frame in source.frames():
            if frame.index % step == 0 and not frame.damaged:
                self._take(_ReadFrame((number, frame.index), frame.name, self._prepared(frame.rgb), None))
        self.problems += [
            Problem(f"{named.label}: {problem.where}", self.shown.hide(problem.what))
            for problem in source.problems
        ]
        self.notes += [f"{named.label}: {self.shown.hide(note)}" for note in source.notes()]

    def _read_images(self, number: int, items: Sequence[tuple[str, Any]], wanted: int, text: str) -> None:
        taken, unreadable, tried = 0, [], 0
        for index in _spread_first(len(items), wanted):
            if taken == wanted:
                break
            name, what = items[index]
            pair = what if isinstance(what, Pair) else None
            tried += 1
            try:
                path = pair.image if pair else what
                image = read_image(path, max_megapixels=self._reading.max_megapixels)
            except BadInputError as error:
                unreadable.append(Problem(name, self.shown.hide(error.message)))
                continue
            taken += self._take(_ReadFrame((number, index), name, self._prepared(image), pair))
        self.problems += unreadable
        _check_share(unreadable, tried, text)

    def _prepared(self, image_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return view(image_rgb, self._spec).pixels_rgb

    def _take(self, item: _ReadFrame) -> bool:
        """Keep a frame unless it shows a known view."""
        self.seen += 1
        if not self._views.add(item.frame):
            self.duplicates += 1
            return False
        self.distinct.append(item)
        return True


def _check_share(unreadable: Sequence[Problem], of: int, text: str) -> None:
    check_unreadable(
        [str(problem) for problem in unreadable],
        of,
        f"images of {text}",
        hint="Fetch them again, or take them out of the folder.",
    )


def _spread(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` of ``count`` indices, evenly spread, in order."""
    return [index * count // wanted for index in range(wanted)] if wanted else []


def _spread_first(count: int, wanted: int) -> Iterator[int]:
    """Yield all indices: first some that are evenly spread, then the others, in case some are not usable."""
    first = _spread(count, min(count, wanted))
    yield from first
    yield from (index for index in range(count) if index not in set(first))
