"""What readers of video need of PyAV: a file opened, its video stream, and frames whatever the damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from vmkla.errors import BadInputError
from vmkla.video.extent import Extent

_ATTACHED_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC: the cover of a sound file is no video
# Up to PyAV 18, metadata that is not UTF-8 is an error unless told otherwise; 19 has no such switch.
LENIENT_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_file(path: Path, extent: Extent) -> Any:
    """Open a video file with PyAV.

    Args:
        path: the file.
        extent: of the same file, for the message.
    Returns:
        PyAV's input container.
    Raises:
        BadInputError: FFmpeg cannot read it.
    """
    try:
        # The prefix keeps a name with a colon from being taken for a protocol; the list keeps a playlist
        # from reaching for the network.
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, **LENIENT_METADATA)
    except av.error.FFmpegError as error:
        if not extent.has_index:
            raise BadInputError(
                f"{path} is an MP4 without its index (the moov box), which is written last: the "
                "recording was cut off before it was finished, and no frame can be read",
                hint="Fetch the file again, or finish it with a repair tool for MP4 files.",
            ) from error
        raise BadInputError(
            f"{path} ({extent.size_bytes} bytes) is not a video that FFmpeg can read: "
            f"{error.strerror or error}",
            hint="Give a video, an image, a folder of images or a glob of images.",
        ) from error


def video_stream(container: Any, name: str) -> Any:
    """The first stream that is a video and no cover picture.

    Args:
        container: PyAV's.
        name: what the message calls it.
    Raises:
        BadInputError: there is none.
    """
    for stream in container.streams.video:
        if not stream.disposition.value & _ATTACHED_PICTURE:
            return stream
    raise BadInputError(
        f"{name} ({container.format.name}) has no video stream, or one without a single frame",
        hint="Give a video, an image, a folder of images or a glob of images.",
    )


def decoded_frames(container: Any, stream: Any, lose: Callable[[str, str], None]) -> Iterator[Any]:
    """Decode packet by packet; one that cannot be decoded is passed over.

    Args:
        container, stream: PyAV's.
        lose: told the place and the cause of each loss.
    Yields:
        PyAV's frames, in order of presentation.
    """
    packets = container.demux(stream)
    number = 0
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            lose(f"after packet {number}", f"reading stops: {error.strerror or error}")
            yield from _flush(stream, lose)
            return
        number += 1
        try:
            yield from packet.decode()
        except (av.error.FFmpegError, OSError) as error:
            lose(f"packet {number}", f"cannot be decoded: {error.strerror or error}")


def exact(ratio: Any) -> Fraction | None:
    """A ratio of PyAV's, None where the file has none. From PyAV 19 on it is no longer a Fraction."""
    return Fraction(ratio.numerator, ratio.denominator) if ratio is not None and ratio.numerator else None


def _flush(stream: Any, lose: Callable[[str, str], None]) -> Iterator[Any]:
    """Frames that the decoder still holds."""
    try:
        yield from stream.codec_context.decode(None)
    except (av.error.FFmpegError, EOFError) as error:
        lose("the last packets", f"cannot be decoded: {error}")
