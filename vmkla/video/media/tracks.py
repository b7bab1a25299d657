"""List the video tracks of a file, and choose the one to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmkla.errors import BadInputError, UsageError

MAX_SIDE_PX = 16384
"""Limit of x264, px, and so of every frame that is read, since a larger one could not be written."""
_DEFAULT, _ATTACHED_PICTURE = 0x1, 0x400  # FFmpeg's AV_DISPOSITION_*: the cover of a file is not a video


@dataclass(frozen=True)
class Track:
    """A video track.

    Attributes:
        number: position among the file's video tracks, from 1.
        codec: FFmpeg's name of the codec; None when FFmpeg does not know it.
        size_wh: width and height, px; None when the file does not state them.
        default: whether the file marks it as the track to play.
        stream: PyAV's stream.
    """

    number: int
    codec: str | None
    size_wh: tuple[int, int] | None
    default: bool
    stream: Any = field(repr=False, compare=False)

    @property
    def area_px(self) -> int:
        """Number of pixels of a frame; 0 when unknown."""
        return self.size_wh[0] * self.size_wh[1] if self.size_wh else 0

    def __str__(self) -> str:
        size = f"{self.size_wh[0]}x{self.size_wh[1]}" if self.size_wh else "size unknown"
        return f"track {self.number} ({size}, {self.codec or 'unknown codec'})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for the report."""
        return {
            "track": self.number,
            "codec": self.codec,
            "size_wh": list(self.size_wh) if self.size_wh else None,
            "default": self.default,
        }


def list_tracks(container: Any) -> tuple[Track, ...]:
    """Return the video tracks of an open container, in its order, without attached cover images."""
    streams = [
        stream for stream in container.streams.video if not stream.disposition.value & _ATTACHED_PICTURE
    ]
    return tuple(_track(number, stream) for number, stream in enumerate(streams, start=1))


def choose_track(
    tracks: Sequence[Track],
    name: str,
    wanted: int | None = None,
    *,
    container_format: str = "",
    unknown: Callable[[], str] = lambda: "its tag was not looked for",
) -> Track:
    """Choose the track to read: the wanted or the largest one; of equal ones the default or the first.

    Args:
        tracks: tracks of the file.
        name: name of the file, for messages.
        wanted: number of the track, from 1; None reads the largest.
        container_format: FFmpeg's name of the container, for messages.
        unknown: returns a description of a codec that FFmpeg does not know.
    Raises:
        BadInputError: there is no track; FFmpeg does not know the codec of the track to read or of one that
            may be the largest; or the frames are wider or taller than ``MAX_SIDE_PX``.
        UsageError: the wanted track does not exist.
    """
    if not tracks:
        raise BadInputError(
            f"{name} ({container_format}) has no video stream, or one without a single frame",
            hint="Give a video, an image, a folder of images or a glob of images.",
        )
    if wanted is not None and not 1 <= wanted <= len(tracks):
        raise UsageError(
            f"{name} has no video track {wanted}, its tracks are: {'; '.join(map(str, tracks))}",
            hint="Give the number of one of them: --track N",
        )
    best = max(tracks, key=lambda track: (track.area_px, track.default, -track.number))
    chosen = tracks[wanted - 1] if wanted is not None else best
    doubtful = [track for track in tracks if track.codec is None]
    if chosen.codec is None or (doubtful and wanted is None):
        readable = [track for track in tracks if track.codec is not None]
        hint = f"To read another track: vmkla infer --track {readable[0].number}" if readable else None
        raise BadInputError(
            f"{name} ({container_format}): FFmpeg does not know the codec of "
            f"{doubtful[0]}: {unknown()}. Its tracks are: {'; '.join(map(str, tracks))}",
            hint=hint or "Convert it with the program that wrote it, to H.264 for instance.",
        )
    if chosen.size_wh is not None:
        check_size(name, chosen.size_wh)
    return chosen


def check_size(name: str, size_wh: tuple[int, int]) -> None:
    """Reject frames that are too large.

    Raises:
        BadInputError: the frame is wider or taller than ``MAX_SIDE_PX``.
    """
    if max(size_wh) > MAX_SIDE_PX:
        raise BadInputError(
            f"{name}: frames of {size_wh[0]}x{size_wh[1]} (width x height), at most "
            f"{MAX_SIDE_PX} pixels a side can be read and written",
            hint="Scale the video down first.",
        )


def _track(number: int, stream: Any) -> Track:
    context = stream.codec_context
    default = bool(stream.disposition.value & _DEFAULT)
    if context is None:  # without a decoder the stream has no attributes
        return Track(number, None, None, default, stream)
    size_wh = (int(context.width), int(context.height))
    return Track(number, str(context.name), size_wh if all(size_wh) else None, default, stream)
