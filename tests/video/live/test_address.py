"""vmkla.video.live.sources.address: what an address means, and that no password of it is ever shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmkla.errors import UsageError
from vmkla.video.live.sources.address import is_live_address, parse_address, redact


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("rtsp://10.0.0.5:8554/live", "rtsp", "rtsp://10.0.0.5:8554/live"),
        ("rtsps://camera/live#transport=udp", "rtsp", "rtsps://camera/live"),
        ("v4l2:///dev/video0?size=1280x720&fps=60&format=MJPG", "v4l2", "/dev/video0"),
        ("/dev/video3", "v4l2", "/dev/video3"),
        ("/dev/v4l/by-id/usb-grabber-index0", "v4l2", "/dev/v4l/by-id/usb-grabber-index0"),
        ("gst: videotestsrc ! appsink", "gst", "videotestsrc ! appsink"),
        ("clip.mp4", "file", "clip.mp4"),
    ],
)
def test_kinds_and_what_is_opened(text: str, kind: str, target: str) -> None:
    address = parse_address(text)
    assert (address.kind, address.target) == (kind, target)
    assert address.live is (kind != "file")
    assert is_live_address(text) is (kind != "file")


def test_options() -> None:
    address = parse_address("sample://?seed=3&size=96x64&fps=12.5")
    assert address.size_wh == (96, 64)
    assert address.number("fps", 30) == 12.5 and address.number("seconds", 2) == 2
    assert parse_address("v4l2:///dev/video0").size_wh is None


def test_a_named_pipe_stands_in_for_a_camera(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera")
    address = parse_address(str(tmp_path / "camera"))
    assert address.kind == "pipe" and address.live


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://user:s3cret@10.0.0.5/live",
        "rtsp://s3cret@10.0.0.5/live",
        "rtsp://10.0.0.5/live?token=s3cret",
        "rtsp://10.0.0.5/user=admin&password=s3cret&channel=1",
        "rtsp://user:p%40s3cret@[fe80::1]:554/live",
        "gst:rtspsrc location=rtsp://user:s3cret@10.0.0.5/live ! appsink",
        "gst:rtspsrc location=rtsp://10.0.0.5 user-id=s3cret user-pw=s3cret ! appsink",
        'gst:rtspsrc user-pw="s3cret word s3cret" ! appsink',
        "gst:srtsrc passphrase=s3cret ! appsink",
    ],
)
def test_no_password_is_shown(text: str) -> None:
    address = parse_address(text)
    assert "s3cret" in address.target  # the opener needs it
    for shown in (address.shown, str(address), repr(address), f"{address}"):
        assert "s3cret" not in shown
    assert "s3cret" not in redact(f"cannot open {parse_address(text).shown}")


def test_what_identifies_a_camera_stays() -> None:
    assert parse_address("rtsp://u:p@10.0.0.5:8554/ward/3").shown == "rtsp://10.0.0.5:8554/ward/3"
    assert parse_address("rtsp://u:p@[fe80::1]:554/live").shown == "rtsp://[fe80::1]:554/live"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zero\0byte",
        "gst:",
        "rtsp:///live",
        "rtsp://host:port/live",
        "rtsp://host/live#transport=pigeon",
        "rtsp://host/live#buffer=1",
        "http://host/clip.mp4",
        "v4l2://video0",
        "v4l2:///dev/video0?size=big",
        "v4l2:///dev/video0?speed=1",
        "v4l2:///dev/video0?format=motion",
        "sample://?fps=0",
        "sample://?seed=-1",
        "sample://?seconds=3600",
        "sample://clip",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


def test_an_error_names_no_password() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("rtsp://user:s3cret@host:port/live")
    assert "s3cret" not in str(caught.value)
