"""vmkla.video.media_errors: whatever PyAV raises for a file or a disk is a message with status 3."""

from __future__ import annotations

import errno
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import av.video.format
import numpy as np
import pytest

from vmkla.errors import BadInputError, UsageError
from vmkla.video.frames import VideoTraits
from vmkla.video.media_errors import output_errors, reading_errors, reason, unknown_codec
from vmkla.video.rgb import RgbConverter
from vmkla.video.sinks import VideoSink

FFMPEG_ERRORS = [
    kind
    for kind in vars(av.error).values()
    if isinstance(kind, type) and issubclass(kind, av.error.FFmpegError)
]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", FFMPEG_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_ffmpeg_has_a_message(kind: type[Any], tmp_path: Path) -> None:
    error = kind(1, "what went wrong", "name")
    with (
        pytest.raises(BadInputError, match=r"a\.mp4: h264 video") as caught,
        reading_errors("a.mp4: h264 video"),
    ):
        raise error
    assert caught.value.exit_status == 3 and caught.value.__cause__ is error
    with pytest.raises(BadInputError, match=r"cannot write .*out\.mp4"), output_errors(tmp_path / "out.mp4"):
        raise error


def test_an_error_of_vmkla_stays_what_it_is() -> None:
    with pytest.raises(UsageError), reading_errors("a.mp4"):
        raise UsageError("a flag")


def test_a_mistake_in_the_program_is_none_of_the_file() -> None:
    with pytest.raises(AttributeError), reading_errors("a.mp4"):
        raise AttributeError("a mistake")
    with pytest.raises(ZeroDivisionError), output_errors(Path("a.mp4")):
        raise ZeroDivisionError


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EFBIG, errno.EIO])
def test_what_the_disk_refuses_is_named(number: int, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=os.strerror(number)) as caught, output_errors(tmp_path / "a.mp4"):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint


def test_what_the_encoder_refuses_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = VideoSink(tmp_path / "a.mp4", VideoTraits(Fraction(1, 25), Fraction(25)), (32, 48))
    sink.write(np.zeros((32, 48, 3), np.uint8), 0)

    def refuse(frame: Any) -> list[Any]:
        raise av.error.PatchWelcomeError(1, "Not yet implemented in FFmpeg, patches welcome")

    monkeypatch.setattr(sink._encoder, "packets", refuse)
    with pytest.raises(BadInputError, match=r"a\.mp4: H\.264 of 48x32 in MP4: Not yet implemented"):
        sink.write(np.zeros((32, 48, 3), np.uint8), 1)
    sink.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted({"rgb4", "yaf32le"} & set(av.video.format.names)))
def test_a_pixel_format_without_a_way_to_rgb_is_told(name: str) -> None:
    """At the second one FFmpeg's own check ends the process."""
    frame = av.VideoFrame(16, 16, name)
    with pytest.raises(BadInputError, match=r"a\.mp4: pixels: \w"), reading_errors("a.mp4: pixels"):
        RgbConverter()(frame)


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    assert reason(OSError(5, "bad \x1b[2J thing")) == "bad \\x1b[2J thing"


def test_an_address_in_an_error_without_a_reason_is_not_quoted() -> None:
    assert reason(OSError("rtsp://user:secret@host")) == "OSError"
    assert reason(ValueError("a bad value")) == "a bad value"


def test_logging_is_left_as_it_was() -> None:
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    assert unknown_codec(lambda: None) == "the file names none"
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


def test_videos_are_opened_at_one_door() -> None:
    """Files in ``streams``, live streams in ``streaming``; a TIFF is not a video. What writes says so."""
    doors = []
    for folder in ("vmkla", "engines", "cli", "calibration", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            reads: list[str] = [call for call in re.findall(r"av\.open\(([^\n]*)", text) if '"w"' not in call]
            if reads or "VideoCapture(" in text.replace("``cv2.VideoCapture``", ""):
                doors.append(path.relative_to(ROOT).as_posix())
    assert sorted(doors) == [
        "vmkla/video/images.py",
        "vmkla/video/live/sources/opencv_camera.py",
        "vmkla/video/live/sources/streaming.py",
        "vmkla/video/streams.py",
    ]
