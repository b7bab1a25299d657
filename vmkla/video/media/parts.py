"""Cut a video into parts at its keyframes, so that each can be decoded without the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from vmkla.video.media.errors import MEDIA_ERRORS
from vmkla.video.media.streams import OpenVideo


@dataclass(frozen=True)
class Part:
    """A part of a video.

    Attributes:
        first, end: index of its first frame, and of the one after its last. A file without damage has one
            frame in each packet; elsewhere they are estimates.
        pts: time stamp of its first frame, ticks of the track.
        seek: time stamp of the keyframe before, since a seek in a transport stream may lead to the one after
            it; None for the first part.
    """

    first: int
    end: int
    pts: int
    seek: int | None = None


def find_parts(path: Path, track: int | None, least_s: float) -> tuple[Part, ...]:
    """Cut a video at keyframes that are at least so far apart, by reading its packets.

    Args:
        path: the file.
        track: number of the video track, from 1; None reads the largest.
        least_s: shortest part but the last, seconds.
    Returns:
        The parts in order; none where there would be one only, or where packets have no rising time stamps.
    Raises:
        UsageError, BadInputError: see ``OpenVideo``.
    """
    begins: list[tuple[int, int, int | None]] = []  # index, time stamp and that of the keyframe before
    count = 0
    latest: int | None = None
    with OpenVideo(path, track=track) as video:
        duration = video.container.duration
        if duration and duration <= least_s * av.time_base:
            return ()  # most videos are not read
        least = least_s / video.source_base
        try:
            for packet in video.container.demux(video.stream):
                if not packet.size:
                    continue
                if packet.is_keyframe:
                    if packet.pts is None or (latest is not None and packet.pts <= latest):
                        return ()
                    if not begins or packet.pts - begins[-1][1] >= least:
                        begins.append((count, packet.pts, latest))
                    latest = packet.pts
                count += 1
        except MEDIA_ERRORS:
            return ()
    if len(begins) < 2:
        return ()
    ends = [*(first for first, _, _ in begins[1:]), count]
    return tuple(Part(first, end, pts, seek) for (first, pts, seek), end in zip(begins, ends, strict=True))
