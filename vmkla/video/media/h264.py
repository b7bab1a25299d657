"""Encode H.264 that plays everywhere: 4:2:0, limited range, even sizes, each frame at its own time."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vmkla.errors import MissingDependencyError
from vmkla.video.media.frames import VideoTraits
from vmkla.video.media.tracks import check_size

_KEYFRAME_EVERY_S = 2


class H264Encoder:
    """Encodes frames of one size into one stream of a container.

    An odd width or height is rounded up by repeating the last column or row, since 4:2:0 has no odd sizes.

    Args:
        traits: time base and pixel shape of the clip.
        frame_hw: height and width of every frame, px.
        preset, crf, tune: settings of x264.
        threads: number of threads of x264.
    Raises:
        MissingDependencyError: this FFmpeg has no libx264.
        BadInputError: a side is larger than x264 encodes.
    """

    def __init__(
        self,
        traits: VideoTraits,
        frame_hw: tuple[int, int],
        *,
        preset: str,
        crf: str,
        tune: str | None = None,
        threads: int = 1,
    ) -> None:
        if "libx264" not in av.codecs_available:
            raise MissingDependencyError(
                "the installed PyAV has no libx264, which writes H.264",
                hint="Run: pip install --force-reinstall --only-binary=av av",
            )
        check_size("H.264", (frame_hw[1], frame_hw[0]))
        self.frame_hw = frame_hw
        self.size_hw = (frame_hw[0] + frame_hw[0] % 2, frame_hw[1] + frame_hw[1] % 2)
        self._traits = traits
        self._options = {"preset": preset, "crf": crf, **({"tune": tune} if tune else {})}
        self._threads = threads
        self._frame_ticks = max(1, round(1 / (traits.frame_rate * traits.time_base)))
        self._to_yuv = VideoReformatter()
        self._colorspace = Colorspace.ITU709 if traits.matrix == "bt709" else Colorspace.ITU601
        self._stream: Any = None

    def add_to(self, container: Any) -> None:
        """Add the stream to a container that is open for writing."""
        traits = self._traits
        stream = container.add_stream(
            "libx264", rate=traits.frame_rate.limit_denominator(65535), options=self._options
        )
        stream.height, stream.width = self.size_hw
        stream.pix_fmt = "yuv420p"
        stream.time_base = traits.time_base
        context = stream.codec_context
        context.time_base = traits.time_base
        context.gop_size = min(300, max(12, round(_KEYFRAME_EVERY_S * traits.frame_rate)))
        context.thread_count = self._threads
        context.color_range = 1  # limited; the numbers are FFmpeg's AVColorRange and AVColorSpace
        context.colorspace = 1 if traits.matrix == "bt709" else 6
        if traits.matrix == "bt709":
            context.color_primaries = context.color_trc = 1
        if traits.sample_aspect_ratio:
            context.sample_aspect_ratio = traits.sample_aspect_ratio
        self._stream = stream

    def convert(self, frame_rgb: npt.NDArray[np.uint8], pts: int) -> Any:
        """Convert a frame to FFmpeg's, 4:2:0 in limited range.

        Args:
            frame_rgb: (H, W, 3) uint8 of ``frame_hw``.
            pts: presentation time, ticks of the time base.
        """
        bottom, right = self.size_hw[0] - frame_rgb.shape[0], self.size_hw[1] - frame_rgb.shape[1]
        if bottom or right:
            frame_rgb = np.asarray(
                cv2.copyMakeBorder(frame_rgb, 0, bottom, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8
            )
        frame = self._to_yuv.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_rgb), format="rgb24"),
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_colorspace=self._colorspace,
            dst_color_range=ColorRange.MPEG,
        )
        frame.pts = pts
        frame.time_base = self._traits.time_base
        return frame

    def packets(self, frame: Any) -> list[Any]:
        """Encode a frame; with None, flush the encoder."""
        packets = self._stream.encode(frame)
        for packet in packets:
            # The duration of the last frame ends the clip; without it a player skips that frame.
            packet.duration = packet.duration or self._frame_ticks
        return list(packets)
