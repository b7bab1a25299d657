"""vmkla.video.media.errors: whatever PyAV raises for a file or a disk is a message with status 3."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import av.video.format
import numpy as np
import pytest

from tests import ROOT
from vmkla.errors import BadInputError, UsageError
from vmkla.video.media.errors import output_errors, reading_errors, reason, unknown_codec
from vmkla.video.media.frames import VideoTraits
from vmkla.video.media.sinks import VideoSink

FFMPEG_ERRORS = [
    kind
    for kind in vars(av.error).values()
    if isinstance(kind, type) and issubclass(kind, av.error.FFmpegError)
]


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


USES = {
    "converter": "from vmkla.video.media.rgb import RgbConverter; use = lambda frame: RgbConverter()(frame)",
    "detector": "from vmkla.video.media.interlace import FieldDetector; use = FieldDetector().see",
    "deinterlacer": "from vmkla.video.media.interlace import Deinterlacer; "
    "use = lambda frame: list(Deinterlacer(None).frames([frame]))",
}
USE = """
import av
from vmkla.errors import BadInputError
from vmkla.video.media.errors import reading_errors
{use}
try:
    with reading_errors("a.mp4: pixels"):
        use(av.VideoFrame(16, 16, {name!r}))
except BadInputError as error:
    print(error.message)
"""
ABORTING = sorted({"yaf32be", "yaf32le"} & set(av.video.format.names))


@pytest.mark.parametrize(
    ("use", "name"),
    [("converter", "rgb4"), *((use, name) for use in USES for name in ABORTING)],
)
def test_a_pixel_format_without_a_way_to_rgb_is_told(use: str, name: str) -> None:
    """At grey with alpha in floats FFmpeg's own check ends the process."""
    script = USE.format(use=USES[use], name=name)
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ended by {done.returncode}: {done.stderr[-300:]}"
    assert re.match(r"a\.mp4: pixels: \w", done.stdout), done.stdout


def write_exr_video(path: Path, width: int = 64, height: int = 64) -> None:
    """A MOV of OpenEXR frames of grey and alpha in floats, which FFmpeg decodes to yaf32le."""

    def attribute(name: str, kind: str, data: bytes) -> bytes:
        return b"%s\0%s\0%s%s" % (name.encode(), kind.encode(), struct.pack("<i", len(data)), data)

    channels = b"".join(name + b"\0" + struct.pack("<iBxxxii", 2, 0, 1, 1) for name in (b"A", b"Y")) + b"\0"
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = struct.pack("<II", 20000630, 2) + b"".join(
        attribute(*each)
        for each in (
            ("channels", "chlist", channels),
            ("compression", "compression", b"\0"),
            ("dataWindow", "box2i", window),
            ("displayWindow", "box2i", window),
            ("lineOrder", "lineOrder", b"\0"),
            ("pixelAspectRatio", "float", struct.pack("<f", 1)),
            ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
            ("screenWindowWidth", "float", struct.pack("<f", 1)),
        )
    )
    header += b"\0"
    values = np.repeat(np.float32([1, 0.5]), width).tobytes()
    lines = [struct.pack("<ii", row, len(values)) + values for row in range(height)]
    first = len(header) + 8 * height
    places = b"".join(struct.pack("<Q", first + row * len(lines[0])) for row in range(height))
    image = header + places + b"".join(lines)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("exr", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "gbrapf32le"
        for index in range(4):
            packet = av.Packet(image)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
            packet.pts = packet.dts = index
            container.mux(packet)


@pytest.mark.parametrize("flags", [(), ("--deinterlace", "yes"), ("--deinterlace", "no")], ids="-".join)
def test_a_whole_file_of_such_frames_has_status_3(tmp_path: Path, flags: tuple[str, ...]) -> None:
    write_exr_video(tmp_path / "a.mov")
    vmkla = Path(sys.executable).with_name("vmkla")
    done = subprocess.run(
        [vmkla, "infer", "--video", "a.mov", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if not ABORTING:  # an older FFmpeg decodes it to another format
        assert done.returncode in (0, 3), done.stderr
        return
    assert done.returncode == 3, done.stderr
    assert re.search(r"a\.mov: exr video: .*yaf32le has no way to RGB", done.stderr)


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
        "vmkla/video/live/sources/opencv_camera.py",
        "vmkla/video/live/sources/streaming.py",
        "vmkla/video/media/images.py",
        "vmkla/video/media/streams.py",
    ]
