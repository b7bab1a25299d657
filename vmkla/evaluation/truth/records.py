"""One structure for annotated recordings of every layout."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, UsageError
from vmkla.limits import MAX_MEGAPIXELS
from vmkla.procedures.boxes import Box, to_rect
from vmkla.segment.preprocess import Rect
from vmkla.video.media.frames import Source
from vmkla.video.media.options import ReadOptions
from vmkla.video.media.sources import ImageSource, open_source
from vmkla.video.media.suffixes import VIDEO_SUFFIXES

_FPS_MAX = 1000.0
_NAMED = 3
"""Number of names that a message lists."""

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Mark:
    """A lesion in one frame.

    Attributes:
        lesion: its identity; two clips of one procedure show one lesion where it is the same.
        box: bounding box of its pixels, px of the frame.
        pixels: (box.h, box.w) bool, its pixels; all of them where the truth is a box.
    """

    lesion: str
    box: Rect
    pixels: npt.NDArray[np.bool_]


class FrameTruth(Protocol):
    """What is annotated in one frame."""

    def marks(self, frame_hw: Size) -> tuple[Mark, ...]:
        """Return the visible lesions.

        Args:
            frame_hw: height and width of the frame, px.
        Raises:
            BadInputError: the annotation does not fit the frame, or cannot be read.
        """


class Shape(Protocol):
    """The outline of a lesion in one frame."""

    @property
    def lesion(self) -> str:
        """Identity of the lesion."""

    def mark(self, name: str, frame_hw: Size) -> Mark:
        """Return the lesion's pixels; ``name`` is the frame's, for messages."""


@dataclass(frozen=True)
class BoxShape:
    """A box around a lesion: x and y of its upper left corner, width and height, px."""

    lesion: str
    box: Box

    def mark(self, name: str, frame_hw: Size) -> Mark:
        """Return the pixels of the box; what lies outside the frame is cut off.

        Raises:
            BadInputError: it lies outside the frame.
        """
        rect = to_rect(self.box)
        left, top = max(0, rect.x), max(0, rect.y)
        width, height = min(frame_hw[1], rect.x + rect.w) - left, min(frame_hw[0], rect.y + rect.h) - top
        if width <= 0 or height <= 0:
            raise BadInputError(
                f"{name}: the box {_shown(self.box)} of lesion {self.lesion} lies outside the frame of "
                f"{frame_hw[1]}x{frame_hw[0]}"
            )
        return Mark(self.lesion, Rect(left, top, width, height), np.ones((height, width), np.bool_))


@dataclass(frozen=True)
class ShapeTruth:
    """The lesions of one frame as shapes.

    Attributes:
        name: name of the frame, for messages.
        shapes: one for each visible lesion.
        frame_hw: size that the annotation states; None where it states none.
    Raises:
        BadInputError: a lesion has two shapes.
    """

    name: str
    shapes: tuple[Shape, ...]
    frame_hw: Size | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for shape in self.shapes:
            if shape.lesion in seen:
                raise BadInputError(
                    f"{self.name}: lesion {shape.lesion} is annotated twice, and it can be in one place only",
                    hint="Give two lesions two identities, or join the parts of one into one annotation.",
                )
            seen.add(shape.lesion)

    def marks(self, frame_hw: Size) -> tuple[Mark, ...]:
        """Return the visible lesions; see ``FrameTruth``."""
        if self.frame_hw not in (None, frame_hw):
            raise BadInputError(
                f"{self.name}: the annotation is of a frame of {self.frame_hw}, and the frame is {frame_hw} "
                "(height, width); they must be equal"
            )
        return tuple(shape.mark(self.name, frame_hw) for shape in self.shapes)


@dataclass(frozen=True, eq=False)
class AnnotatedRecording:
    """A recording with its truth.

    Attributes:
        name: its name, unique in its data set.
        procedure: name of the procedure that it is part of; intervals draw whole procedures.
        source: its frames.
        truth: what is annotated, by the frame's index; a frame that is missing here shows no lesion.
        times_s: time of each frame, rising, seconds; None for a video, whose frames have times.
        frame_s: usual duration of a frame, seconds; None for a video.
        complete: a frame that is missing in ``truth`` is an error.
    """

    name: str
    procedure: str
    source: Source
    truth: Mapping[int, FrameTruth] = field(default_factory=dict)
    times_s: tuple[float, ...] | None = None
    frame_s: float | None = None
    complete: bool = False


@dataclass(frozen=True)
class TruthRules:
    """How annotated recordings are read.

    Attributes:
        fps: frames a second where the layout states none; None where it must.
        max_megapixels: larger frames and masks are not decoded.
    Raises:
        UsageError: ``fps`` is out of range.
    """

    fps: float | None = None
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= _FPS_MAX:
            raise UsageError(
                f"--fps is {self.fps:g}, expected frames a second above 0 and at most {_FPS_MAX:g}"
            )

    def rate(self, name: str, stated: float | None = None) -> float:
        """Return the frames a second of a recording.

        Args:
            name: the recording, for messages.
            stated: what its data set states; None where it states nothing.
        Raises:
            UsageError: it is stated twice, or not at all.
            BadInputError: what is stated is out of range.
        """
        if stated is None:
            if self.fps is None:
                raise UsageError(
                    f"{name} states no frames a second, and times follow from them", hint="Add: --fps N"
                )
            return self.fps
        if self.fps is not None:
            raise UsageError(f"{name} states {stated:g} frames a second itself", hint="Leave --fps out.")
        if not 0 < stated <= _FPS_MAX:
            raise BadInputError(
                f"{name} states {stated:g} frames a second, expected above 0 and at most {_FPS_MAX:g}"
            )
        return stated

    def images(self, folder: Path) -> ImageSource:
        """Open the frames of a recording that is a folder of images.

        Raises:
            BadInputError: there is no image, or a file is not regular.
        """
        source = open_source(folder, ReadOptions(max_megapixels=self.max_megapixels))
        assert isinstance(source, ImageSource)  # it is a folder
        if source.left_out:
            raise BadInputError(f"{folder}: {source.left_out[0]}")
        return source

    def video(self, folder: Path) -> Source:
        """Open the only video of a folder.

        Raises:
            BadInputError: there is none, or there are several.
            UsageError: frames a second are given, and a video has times.
        """
        videos = videos_in(folder)
        if len(videos) != 1:
            raise BadInputError(
                f"{folder} has no folder of frames and {len(videos)} videos, expected the frames or one video"
            )
        if self.fps is not None:
            raise UsageError(f"{videos[0]} is a video, and its frames have times", hint="Leave --fps out.")
        return open_source(videos[0], ReadOptions(max_megapixels=self.max_megapixels))


def videos_in(folder: Path) -> list[Path]:
    """Return the videos of a folder, by the suffixes of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)


def stem_of(name: str) -> str:
    """Return a frame's name without its suffix, folders kept."""
    return str(PurePosixPath(name).with_suffix(""))


def numbers_of(stems: Sequence[str]) -> list[int] | None:
    """Return the numbers at the ends of names; None where a name has none."""
    found = [re.search(r"[0-9]{1,15}$", stem) for stem in stems]
    return None if None in found else [int(match[0]) for match in found if match]


def frame_numbers(where: str, stems: Sequence[str]) -> list[int]:
    """Return the numbers of frames by their names, and by their order where a name has no number.

    Args:
        where: the recording, for messages.
        stems: names without suffix, in order.
    Raises:
        BadInputError: numbers do not rise, or most are not one apart, so that the frames left out cannot be
            told from another rate.
    """
    numbers = numbers_of(stems)
    if numbers is None:
        return list(range(len(stems)))
    check_rising(where, numbers, stems)
    step = median(after - before for before, after in pairwise(numbers)) if len(numbers) > 1 else 1
    if step != 1:
        raise BadInputError(
            f"{where}: the frames are numbered {step:g} apart, expected 1: whether frames were left out is "
            "unknown",
            hint="Number the frames by one, and give the rate at which they were kept: --fps N",
        )
    return numbers


def check_consecutive(where: str, stems: Sequence[str]) -> None:
    """Reject frames of which some are missing by the numbers in their names, where the order counts.

    Raises:
        BadInputError: a number does not follow the one before.
    """
    numbers = numbers_of(stems) or []
    for at in range(1, len(numbers)):
        if numbers[at] != numbers[at - 1] + 1:
            raise BadInputError(
                f"{where}: frame {stems[at]} follows {stems[at - 1]}, and frames are counted from the first",
                hint="Give every frame from the first on, as it was annotated.",
            )


def check_rising(where: str, values: Sequence[float], names: Sequence[str]) -> None:
    """Reject frame numbers or times that do not rise from frame to frame.

    Raises:
        BadInputError: they do not.
    """
    for at in range(1, len(values)):
        if not values[at] > values[at - 1]:
            raise BadInputError(
                f"{where}: frame {names[at]} ({values[at]:g}) follows {names[at - 1]} ({values[at - 1]:g}): "
                "the times do not rise",
                hint="One recording has one clock: give each recording a folder of its own.",
            )


def checked_box(where: str, values: Iterable[float]) -> Box:
    """Return x, y, width and height as a box.

    Raises:
        BadInputError: there are not four finite numbers, or the box has no area.
    """
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        raise BadInputError(f"{where}: the box {_shown(numbers)} has no area, expected x, y, width, height")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def check_frames(where: str, annotated: Iterable[str], frames: Iterable[str], *, every: bool) -> None:
    """Compare the frames that are annotated with those that are there.

    Args:
        where: the recording, for messages.
        annotated, frames: names of both, without suffix.
        every: every frame must be annotated.
    Raises:
        BadInputError: an annotated frame is missing, or a frame is not annotated.
    """
    known, there = set(annotated), set(frames)
    if absent := sorted(known - there):
        raise BadInputError(
            f"{where}: {len(absent)} annotated frame{'s' * (len(absent) != 1)} of {len(known)} "
            f"{'are' if len(absent) != 1 else 'is'} not there: {_listed(absent)}; there are {len(there)} "
            "frames",
            hint="Give the frames that were annotated, all of them, under their own names.",
        )
    if every and (without := sorted(there - known)):
        raise BadInputError(
            f"{where}: {len(without)} frame{'s' * (len(without) != 1)} of {len(there)} "
            f"{'have' if len(without) != 1 else 'has'} no annotation: {_listed(without)}",
            hint="A frame without a lesion needs an empty annotation: unseen and empty are not the same.",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _shown(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
