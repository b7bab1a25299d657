"""What a source yields, and what every source offers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

ColourMatrix = Literal["bt601", "bt709"]


@dataclass(frozen=True)
class VideoTraits:
    """What a copy of a clip keeps beside its pixels.

    Attributes:
        time_base: seconds per tick of every frame's ``pts``.
        frame_rate: mean frames per second, a hint for players; timestamps alone place the frames.
        sample_aspect_ratio: width over height of one pixel of the upright picture, None when unknown.
        matrix: how YUV becomes RGB.
    """

    time_base: Fraction
    frame_rate: Fraction
    sample_aspect_ratio: Fraction | None = None
    matrix: ColourMatrix = "bt601"


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture, upright.

    Attributes:
        index: position in the source, from 0, none left out.
        rgb: (H, W, 3) uint8.
        name: of an image, its path relative to the source; of a video's frame, its index as six digits.
        pts: presentation time in ticks of ``time_base``; None for images.
        pts_s: the same in seconds.
        time_base: seconds per tick.
        traits: the clip's; None for images.
        damaged: the decoder had to conceal missing data.
        sha256: of an image's file; None for a video's frame.
    """

    index: int
    rgb: npt.NDArray[np.uint8]
    name: str
    pts: int | None = None
    pts_s: float | None = None
    time_base: Fraction | None = None
    traits: VideoTraits | None = None
    damaged: bool = False
    sha256: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something in the source that could not be read while the rest could.

    Attributes:
        where: the image's name, or the place in the video.
        what: what was seen.
    """

    where: str
    what: str


class Source(Protocol):
    """Pictures in order. It can be gone through more than once."""

    @property
    def kind(self) -> Literal["video", "images"]:
        """A video, or one or many images."""

    @property
    def path(self) -> Path:
        """The file, or the folder that names are relative to."""

    @property
    def total(self) -> int | None:
        """How many frames are expected, for a progress bar; decoding tells the truth."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the last pass could not read; whole once that pass is over."""

    def notes(self) -> list[str]:
        """What the user should know of the frames of the last pass though nothing failed."""

    def frames(self) -> Generator[Frame, None, None]:
        """Go through the pictures from the first.

        Raises:
            BadInputError: not one picture can be read.
        """
