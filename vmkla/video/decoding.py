"""Videos in: every frame of a file, upright, in RGB, with its own timestamp."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vmkla.errors import BadInputError
from vmkla.video.extent import Extent, read_extent
from vmkla.video.frames import ColourMatrix, Frame, Problem, VideoTraits
from vmkla.video.timestamps import Timeline

_BT709, _UNSPECIFIED, _SMPTE240M, _BT2020 = 1, 2, 7, (9, 10)  # FFmpeg's AVColorSpace
_FULL_RANGE, _UNSPECIFIED_RANGE = 2, 0  # FFmpeg's AVColorRange
_ATTACHED_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC: the cover of a sound file is no video
_HD_HEIGHT_PX = 720
_PROBLEMS_KEPT = 20
# Up to PyAV 18, metadata that is not UTF-8 is an error unless told otherwise; 19 has no such switch.
_LENIENT_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


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
        with self._open() as container:
            stream = self._stream(container)
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
        with self._open() as container:
            stream = self._stream(container)
            # Frame threads would report an error frames later than where it is, or lose whole frames to it.
            stream.thread_type = "SLICE"
            stream.codec_context.thread_count = 2
            rate = _exact(stream.average_rate) or _exact(stream.guessed_rate) or Fraction(25)
            time_base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
            timeline = Timeline(time_base, max(1, round(1 / (rate * time_base))))
            traits = VideoTraits(time_base, rate, _exact(stream.sample_aspect_ratio))
            index, size_hw = 0, None
            to_rgb = _RgbConverter()
            for decoded in self._decode(container, stream):
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

    def _open(self) -> Any:
        try:
            # The prefix keeps a name with a colon from being taken for a protocol; the list keeps a playlist
            # from reaching for the network.
            return av.open(f"file:{self.path}", options={"protocol_whitelist": "file"}, **_LENIENT_METADATA)
        except av.error.FFmpegError as error:
            if not self._extent.has_index:
                raise BadInputError(
                    f"{self.path} is an MP4 without its index (the moov box), which is written last: the "
                    "recording was cut off before it was finished, and no frame can be read",
                    hint="Fetch the file again, or finish it with a repair tool for MP4 files.",
                ) from error
            raise BadInputError(
                f"{self.path} ({self._extent.size_bytes} bytes) is not a video that FFmpeg can read: "
                f"{error.strerror or error}",
                hint="Give a video, an image, a folder of images or a glob of images.",
            ) from error

    def _stream(self, container: Any) -> Any:
        for stream in container.streams.video:
            if not stream.disposition.value & _ATTACHED_PICTURE:
                return stream
        raise BadInputError(
            f"{self.path} ({container.format.name}) has no video stream, or one without a single frame",
            hint="Give a video, an image, a folder of images or a glob of images.",
        )

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = container.demux(stream)
        number = 0
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                self._lose(f"after packet {number}", f"reading stops: {error.strerror or error}")
                yield from self._flush(stream)
                return
            number += 1
            try:
                yield from packet.decode()
            except (av.error.FFmpegError, OSError) as error:
                self._lose(f"packet {number}", f"cannot be decoded: {error.strerror or error}")

    def _flush(self, stream: Any) -> Iterator[Any]:
        """Frames that the decoder still holds."""
        try:
            yield from stream.codec_context.decode(None)
        except (av.error.FFmpegError, EOFError) as error:
            self._lose("the last packets", f"cannot be decoded: {error}")

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


class _RgbConverter:
    """Decoded pictures to upright RGB arrays."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> tuple[npt.NDArray[np.uint8], bool, ColourMatrix]:
        """(H, W, 3) uint8, whether width and height changed places, and the matrix to write a copy with."""
        colorspace = self._colorspace(frame)
        full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
        # PyAV before 17 converts a frame with tags of its own to the wrong range: say it all in the call.
        frame.colorspace, frame.color_range = _UNSPECIFIED, _UNSPECIFIED_RANGE
        converted = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=colorspace,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        )
        rgb = np.asarray(converted.to_ndarray(), dtype=np.uint8)
        matrix = frame.side_data.get("DISPLAYMATRIX") if frame.side_data else None
        shown, swapped = (rgb, False) if matrix is None else upright(rgb, bytes(matrix))
        return shown, swapped, "bt601" if colorspace == Colorspace.ITU601 else "bt709"

    @staticmethod
    def _colorspace(frame: Any) -> Colorspace:
        tag = int(frame.colorspace)
        if tag == _UNSPECIFIED:
            return Colorspace.ITU709 if frame.height >= _HD_HEIGHT_PX else Colorspace.ITU601
        if tag in _BT2020:
            return Colorspace.BT2020
        if tag == _SMPTE240M:
            return Colorspace.SMPTE240M
        return Colorspace.ITU709 if tag == _BT709 else Colorspace.ITU601


def upright(rgb: npt.NDArray[np.uint8], display_matrix: bytes) -> tuple[npt.NDArray[np.uint8], bool]:
    """Turn and mirror a picture as its display matrix says, to the nearest quarter turn.

    Args:
        rgb: (H, W, 3) uint8, as stored.
        display_matrix: nine int32 in native order, FFmpeg's and MP4's: a pixel (x, y) of the stored picture
            is shown at (a x + c y, b x + d y), where a, b, c, d are elements 0, 1, 3, 4.
    Returns:
        The picture as shown, contiguous, and whether width and height changed places.
    """
    a, b, _, c, d = struct.unpack("=9i", display_matrix[:36])[:5]
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    shown = rgb.transpose(1, 0, 2) if swapped else rgb
    x_sign, y_sign = (c, b) if swapped else (a, d)
    if x_sign < 0:
        shown = shown[:, ::-1]
    if y_sign < 0:
        shown = shown[::-1]
    return np.ascontiguousarray(shown), swapped


def _extent(path: Path) -> Extent:
    try:
        return read_extent(path)
    except FileNotFoundError as error:
        raise BadInputError(f"there is no file {path}") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error


def _count_from_duration(container: Any, stream: Any) -> int | None:
    duration_s, time_base = None, _exact(stream.time_base)
    if stream.duration and time_base:
        duration_s = stream.duration * time_base
    elif container.duration:
        duration_s = Fraction(container.duration, av.time_base)
    rate = _exact(stream.average_rate) or _exact(stream.guessed_rate)
    return max(1, round(duration_s * rate)) if duration_s and rate else None


def _exact(ratio: Any) -> Fraction | None:
    """A ratio of PyAV's, None where the file has none. From PyAV 19 on it is no longer a Fraction."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio is not None and ratio.numerator else None
