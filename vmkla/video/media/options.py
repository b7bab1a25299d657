"""Options of reading a file."""

from __future__ import annotations

from dataclasses import dataclass

from vmkla.limits import MAX_MEGAPIXELS, check_max_megapixels
from vmkla.video.media.interlace import Deinterlace, check_deinterlace


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading videos and images.

    Attributes:
        track: number of the video track, from 1; None reads the largest.
        deinterlace: ``"auto"`` detects whether a video is interlaced; ``"yes"`` and ``"no"`` decide it.
        max_megapixels: size of the largest image or frame that is decoded, megapixels.
    Raises:
        UsageError: a value is out of range.
    """

    track: int | None = None
    deinterlace: Deinterlace = "auto"
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        check_deinterlace(self.deinterlace)
        check_max_megapixels(self.max_megapixels)
