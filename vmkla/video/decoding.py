"""Videos in: every frame of a file, upright, in RGB, with its own timestamp."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av

from vmkla.errors import BadInputError
from vmkla.video.extent import Extent, read_extent
from vmkla.video.frames import Frame, Problem, VideoTraits
from vmkla.video.rgb import RgbConverter
from vmkla.video.streams import decoded_frames, exact, open_file, video_stream
from vmkla.video.timestamps import Timeline

_PROBLEMS_KEPT = 20


class VideoSource:
    """A video file.

    Frames come from decoding and from nowhere else: a damaged stretch is passed over, and every frame that
    decodes is yielded, in order of presentation. Rotation metadata is applied to the pixels. A file without
    colour tags is read as players read it: BT.709 from 720 lines on, BT.601 below.

    Attributes:
        codec: FFmpeg's name of it.
        has_audio: there is a sound track (which is not read).
        repaired_timestamps: timestamps that were missing or did not rise, and were mended, in the last pass.

    Args:
        path: the file.
    Raises:
        BadInputError: it is missing, or no video.
    """

    kind: Literal["video"] = "video"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._extent = _extent(path)
        self._problems: list[Problem] = []
        self._lost = 0
        self.repaired_timestamps = 0
        with open_file(self.path, self._extent) as container:
            stream = video_stream(container, str(self.path))
            self.codec: str = stream.codec_context.name
            self.has_audio = bool(container.streams.audio)
            self.total: int | None = stream.frames or _count_from_duration(container, stream)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the last pass could not decode, at most twenty entries; see ``lost_packets``."""
        return tuple(self._problems)

    @property
    def lost_packets(self) -> int:
        """Packets that the last pass could not decode."""
        return self._lost

    @property
    def cut_off(self) -> bool:
        """The file is shorter than its headers say."""
        return self._extent.cut_off

    def frames(self) -> Generator[Frame, None, None]:
        """Decode from the first frame to the last.

        Yields:
            Frames with rising timestamps; mended ones are counted in ``repaired_timestamps``.
        Raises:
            BadInputError: not one frame decodes, or the picture changes size on the way.
        """
        self._problems, self._lost, self.repaired_timestamps = [], 0, 0
        with open_file(self.path, self._extent) as container:
            stream = video_stream(container, str(self.path))
            # Frame threads would report an error frames later than where it is, or lose whole frames to it.
            stream.thread_type = "SLICE"
            stream.codec_context.thread_count = 2
            rate = exact(stream.average_rate) or exact(stream.guessed_rate) or Fraction(25)
            time_base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
            timeline = Timeline(time_base, max(1, round(1 / (rate * time_base))))
            traits = VideoTraits(time_base, rate, exact(stream.sample_aspect_ratio))
            index, size_hw = 0, None
            to_rgb = RgbConverter()
            for decoded in decoded_frames(container, stream, self._lose):
                rgb, swapped, matrix = to_rgb(decoded)
                if size_hw is None:
                    size_hw = rgb.shape[:2]
                    ratio = traits.sample_aspect_ratio
                    upright_ratio = 1 / ratio if ratio and swapped else ratio
                    traits = dataclasses.replace(traits, sample_aspect_ratio=upright_ratio, matrix=matrix)
                elif rgb.shape[:2] != size_hw:
                    raise BadInputError(
                        f"{self.path}: frame {index} is {rgb.shape[1]}x{rgb.shape[0]} (width x height), "
                        f"the frames before it are {size_hw[1]}x{size_hw[0]}",
                        hint="Split the video where its size changes, and give the parts one by one.",
                    )
                pts = timeline.place(decoded.pts)
                yield Frame(
                    index=index,
                    rgb=rgb,
                    name=f"{index:06d}",
                    pts=pts,
                    pts_s=float(pts * traits.time_base),
                    time_base=traits.time_base,
                    traits=traits,
                    damaged=bool(decoded.is_corrupt),
                )
                index += 1
        if index == 0:
            raise BadInputError(
                f"{self.path} has a video stream ({self.codec}) but not one frame that can be decoded"
            )
        self._conclude(index, timeline)

    def _lose(self, where: str, what: str) -> None:
        self._lost += 1
        if len(self._problems) < _PROBLEMS_KEPT:
            self._problems.append(Problem(where, what))

    def _conclude(self, count: int, timeline: Timeline) -> None:
        if self.cut_off:
            self._problems.append(
                Problem(
                    "the end",
                    f"the file is cut off: it has {self._extent.size_bytes} of "
                    f"{self._extent.promised_bytes} bytes; {count} frames were read",
                )
            )
        self.repaired_timestamps = timeline.repaired


def _extent(path: Path) -> Extent:
    try:
        return read_extent(path)
    except FileNotFoundError as error:
        raise BadInputError(f"there is no file {path}") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error


def _count_from_duration(container: Any, stream: Any) -> int | None:
    duration_s, time_base = None, exact(stream.time_base)
    if stream.duration and time_base:
        duration_s = stream.duration * time_base
    elif container.duration:
        duration_s = Fraction(container.duration, av.time_base)
    rate = exact(stream.average_rate) or exact(stream.guessed_rate)
    return max(1, round(duration_s * rate)) if duration_s and rate else None
