"""Frames, and the interface of the sources that yield them."""

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
    """Properties of a clip that its copy keeps.

    Attributes:
        time_base: seconds per tick of every frame's ``pts``.
        frame_rate: mean frames per second, a hint for players; the time stamps place the frames.
        sample_aspect_ratio: width over height of one pixel of the upright frame; None when unknown.
        matrix: conversion of YUV to RGB.
    """

    time_base: Fraction
    frame_rate: Fraction
    sample_aspect_ratio: Fraction | None = None
    matrix: ColourMatrix = "bt601"


@dataclass(frozen=True, eq=False)
class Frame:
    """One upright frame of a video, or one image.

    Attributes:
        index: position in the source, from 0.
        rgb: (H, W, 3) uint8.
        name: path of an image relative to the source; index of a video's frame as six digits.
        pts: presentation time, ticks of ``time_base``; None for images.
        pts_s: presentation time, seconds; None for images.
        time_base: seconds per tick; None for images.
        traits: properties of the clip; None for images.
        damaged: whether the decoder had to conceal missing data.
        sha256: hex digest of an image's file; None for a video's frame.
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
    """A part of the source that could not be read.

    Attributes:
        where: name of the image, or place in the video.
        what: the problem.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Source(Protocol):
    """A source of frames in order, which can be read more than once."""

    @property
    def kind(self) -> Literal["video", "images"]:
        """Whether the source is a video, or one or many images."""

    @property
    def path(self) -> Path:
        """The file, or the folder that names are relative to."""

    @property
    def total(self) -> int | None:
        """Number of expected frames, for a progress bar; decoding may find another."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Problems of the last pass; complete when that pass is over."""

    def notes(self) -> list[str]:
        """Return notes on the frames of the last pass that the user should know though nothing failed."""

    def frames(self) -> Generator[Frame, None, None]:
        """Yield the frames from the first to the last.

        Raises:
            BadInputError: no frame can be read.
        """
