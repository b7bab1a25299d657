"""Open a video file, choose a track, and decode its frames despite damage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from vmkla.cpus import codec_threads
from vmkla.errors import BadInputError
from vmkla.video.media.errors import MEDIA_ERRORS, reading_errors, reason, unknown_codec
from vmkla.video.media.extent import Extent, read_extent
from vmkla.video.media.rgb import check_pixel_format
from vmkla.video.media.timestamps import Timeline, written_base
from vmkla.video.media.tracks import Track, check_size, choose_track, list_tracks

# Up to PyAV 18, metadata that is not UTF-8 is an error by default; 19 has no option for it.
LENIENT_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,evc,mjpeg,mjpeg_2000,"
    "mpjpeg,jpeg_pipe,jpegls_pipe,j2k_pipe,png_pipe,bmp_pipe,gif,apng,mxf,gxf,lxf,asf,asf_o,wtv,flv,live_flv,"
    "ogg,nut,dv,yuv4mpegpipe,h261,h263,vc1,vc1test,dirac,dnxhd,apv,cavsvideo,avs2,avs3,rm,dhav,kux,nsv,nuv,pva,"
    "ty,cine,r3d"
)
"""Containers and streams that hold their own frames. Other formats of FFmpeg include playlists (``hls``,
``concat``, ``dash``, ``imf``), session descriptions and scripts, which open other files or the network."""
_FASTEST = 1000  # frames per second
_RATIOS_KEPT = 64  # a decoder holds back 16 frames of H.264 and HEVC at most
_PLAYLIST_SIGNS = (b"#extm3u", b"ffconcat", b"[playlist]", b"[reference]", b"<asx", b"<mpd", b"v=0")


class OpenVideo:
    """An open video file, of which one track is read.

    Attributes:
        path: the file.
        extent: size of the file, and the size that its headers state.
        tracks: all video tracks of the file.
        track: the track to read.
        stream: PyAV's stream of the track.
        codec: FFmpeg's name of the codec.
        has_audio: whether there is a sound track, which is not read.
        rate: mean frames per second, a hint.
        source_base: seconds per tick of the frames' own ``pts``.
        time_base: seconds per tick of ``timeline``.
        total: number of expected frames; None when unknown.

    Args:
        path: the file.
        track: number of the video track, from 1; None reads the largest.
    Raises:
        BadInputError: the file is missing, not a video, a playlist, in a codec that FFmpeg does not know, or
            wider or taller than 16384.
        UsageError: the track does not exist.
    """

    def __init__(self, path: Path, *, track: int | None = None) -> None:
        self.path = path
        self.extent = _extent(path)
        self.container: Any = _open_file(path, self.extent)
        try:
            self.tracks: tuple[Track, ...] = list_tracks(self.container)
            self.track = choose_track(
                self.tracks,
                str(path),
                track,
                container_format=self.container.format.name,
                unknown=lambda: unknown_codec(lambda: _open_file(path, self.extent).close()),
            )
            stream = self.stream = self.track.stream
            self.codec = self.track.codec or ""
            self.has_audio = bool(self.container.streams.audio)
            # Frame threads would report an error frames too late, or lose whole frames to it.
            stream.thread_type = "SLICE"
            stream.codec_context.thread_count = codec_threads(2)
            self.rate = _rate(stream) or Fraction(25)
            self.source_base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
            self.time_base = written_base(self.source_base)
            self.total: int | None = stream.frames or self._count_from_duration()
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> OpenVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self.container.close()

    @property
    def frame_ticks(self) -> int:
        """Ticks of ``time_base`` between frames at the mean rate, at least 1."""
        return max(1, round(1 / (self.rate * self.time_base)))

    def timeline(self) -> Timeline:
        """Return the time stamps of one pass."""
        return Timeline(self.time_base, self.frame_ticks)

    def described(self, doing: str) -> str:
        """Return the beginning of a message about this track."""
        return f"{self.path}: {self.codec} video: {doing}"

    def seek(self, pts: int) -> None:
        """Go to the last keyframe at or before a time, ticks of the track.

        Raises:
            BadInputError: the file has none.
        """
        with reading_errors(self.described("a place in it cannot be found")):
            self.container.seek(pts, stream=self.stream)

    def frames(self, lose: Callable[[str, str], None]) -> Iterator[Any]:
        """Yield the frames of ``frames_and_ratios``, without the ratios."""
        for frame, _ in self.frames_and_ratios(lose):
            yield frame

    def frames_and_ratios(self, lose: Callable[[str, str], None]) -> Iterator[tuple[Any, Fraction | None]]:
        """Decode packet by packet, skipping packets that cannot be decoded.

        Args:
            lose: called with place and cause of each lost packet.
        Yields:
            PyAV's frames, in order of presentation, and the width over the height of their pixels as stored;
            None when unknown.
        Raises:
            BadInputError: a frame is wider or taller than 16384 or of a pixel format that cannot be
                converted, or the decoder cannot be opened.
        """
        with reading_errors(self.described("cannot be decoded")):
            for frame, ratio in decoded_frames(self.container, self.stream, lose):
                check_size(str(self.path), (frame.width, frame.height))
                check_pixel_format(frame)
                yield frame, ratio

    def _count_from_duration(self) -> int | None:
        stream, duration_s = self.stream, None
        if stream.duration:
            duration_s = stream.duration * self.source_base
        elif self.container.duration:
            duration_s = Fraction(self.container.duration, av.time_base)
        rate = _rate(stream)
        return max(1, round(duration_s * rate)) if duration_s and rate else None


def limit_pixels(stream: Any, name: str, max_megapixels: float) -> None:
    """Reject frames that are too large before the decoder allocates memory for one.

    A later frame beyond the limit counts as a packet that cannot be decoded.

    Args:
        stream: PyAV's stream, before its first packet is decoded.
        name: name of the file for messages.
        max_megapixels: size of the largest frame, megapixels.
    Raises:
        BadInputError: the stream's frames are larger.
    """
    context = stream.codec_context
    megapixels = context.width * context.height / 1e6
    if megapixels > max_megapixels:
        raise BadInputError(
            f"{name} has frames of {context.width}x{context.height} (width x height, {megapixels:.4g} "
            f"megapixels), expected at most {max_megapixels:g} megapixels",
            hint="Scale it down, or allow more memory and time with: --max-megapixels "
            f"{math.ceil(megapixels)}",
        )
    context.options = {**context.options, "max_pixels": str(int(max_megapixels * 1e6))}


def decoded_frames(
    container: Any, stream: Any, lose: Callable[[str, str], None]
) -> Iterator[tuple[Any, Fraction | None]]:
    """Decode packet by packet, skipping packets that cannot be decoded.

    PyAV's frames lack the shape of their pixels; the decoder has that of the last packet. It is kept for the
    frame of that packet, which may come some packets later.

    Args:
        container, stream: PyAV's container and stream.
        lose: called with place and cause of each lost packet.
    Yields:
        As ``OpenVideo.frames_and_ratios``.
    """
    packets = container.demux(stream)
    ratios: dict[int, Fraction | None] = {}  # by the packets' time stamps
    latest: Fraction | None = None
    number = 0
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except MEDIA_ERRORS as error:
            lose(f"after packet {number}", f"reading stops: {reason(error)}")
            for frame in _flush(stream, lose):
                yield frame, ratios.pop(frame.pts, latest)
            return
        number += 1
        try:
            frames = packet.decode()
        except MEDIA_ERRORS as error:
            lose(f"packet {number}", f"cannot be decoded: {reason(error)}")
            continue
        latest = exact(stream.codec_context.sample_aspect_ratio)
        if packet.pts is not None:
            ratios[packet.pts] = latest
            if len(ratios) > _RATIOS_KEPT:  # of packets without a frame of that time
                del ratios[next(iter(ratios))]
        for frame in frames:
            yield frame, ratios.pop(frame.pts, latest)


def exact(ratio: Any) -> Fraction | None:
    """Convert a ratio of PyAV, which is not a Fraction from version 19; None where the file has none."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio is not None and ratio.numerator else None


def _rate(stream: Any) -> Fraction | None:
    """Return the mean frames per second; None when implausible (short transport streams state 90000)."""
    rates = (exact(stream.average_rate), exact(stream.guessed_rate))
    return next((rate for rate in rates if rate is not None and 0 < rate <= _FASTEST), None)


def _flush(stream: Any, lose: Callable[[str, str], None]) -> Iterator[Any]:
    """Yield the frames that the decoder still holds."""
    try:
        frames = stream.codec_context.decode(None)
    except MEDIA_ERRORS as error:
        lose("the last packets", f"cannot be decoded: {reason(error)}")
        return
    yield from frames


def _extent(path: Path) -> Extent:
    try:
        return read_extent(path)
    except FileNotFoundError as error:
        raise BadInputError(f"there is no file {path}") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}") from error


def _open_file(path: Path, extent: Extent) -> Any:
    """Open a file with PyAV for reading.

    Raises:
        BadInputError: FFmpeg cannot read it, or its format is not in ``FORMATS``.
    """
    # The prefix keeps a name with a colon from being taken for a protocol; the lists keep whatever the
    # content turns out to be from reaching for other files and the network.
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        return av.open(f"file:{path}", options=options, **LENIENT_METADATA)
    except (av.error.FFmpegError, ValueError) as error:
        if not extent.has_index:
            raise BadInputError(
                f"{path} is an MP4 without its index (the moov box), which is written last: the "
                "recording was cut off before it was finished, and no frame can be read",
                hint="Fetch the file again, or finish it with a repair tool for MP4 files.",
            ) from error
        if is_playlist(path):
            raise BadInputError(
                f"{path} is a playlist: it holds no video, it names other files or addresses, and these "
                "are not opened",
                hint="Give each video by itself, or join them into one file first.",
            ) from error
        # FFmpeg answers "Invalid argument" to a format that is not on the list.
        why = "its format is not one of videos" if isinstance(error, ValueError) else reason(error)
        raise BadInputError(
            f"{path} ({extent.size_bytes} bytes) is not a video that FFmpeg can read: {why}",
            hint="Give a video, an image, a folder of images or a glob of images.",
        ) from error


def is_playlist(path: Path) -> bool:
    """Check whether a file begins like a playlist, whatever its name."""
    try:
        with open(path, "rb") as file:
            head = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError:
        return False
    return head.startswith(_PLAYLIST_SIGNS) or b"<mpd" in head
