"""vmkla.video.media.address: what an address means, and that no password of it is ever shown."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmkla.errors import UsageError
from vmkla.safe_text import redact
from vmkla.video.media.address import is_address, is_live_address, parse_address


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


FORMS = (
    "rtsp://user:{}@10.0.0.5/live",
    "rtsp://{}@10.0.0.5/live",
    "rtsps://{}:{}@[fe80::1]:554/live?a=1#transport=udp",
    "RTSP://user:{}@camera",
    "rtsp://user:{}@",
    "rtsp://user:{}@:554/live",
    "rtsp://user:{}",
    "rtsp:/user:{}@10.0.0.5/live",
    "rtsp:user:{}@10.0.0.5/live",
    " rtsp://user:{}@10.0.0.5/live",
    "http://user:{}@10.0.0.5/live",
    "rtsp://10.0.0.5/live?token={}",
    "rtsp://10.0.0.5/live?{}#transport=pigeon",
    "rtsp://10.0.0.5/user=me&password={}/1",
)


@given(st.sampled_from(FORMS), st.text(max_size=3), st.characters(), st.text(max_size=3))
@example("rtsp://user:{}@10.0.0.5/live", "pa", "#", "ss")
@example("rtsp://user:{}@10.0.0.5/live", "1", "/", "ss")
@example("rtsp://user:{}@10.0.0.5/live", "", "?", "")
@example("rtsp://user:{}@10.0.0.5/live", "", "@", "")
@example("rtsp://user:{}@10.0.0.5/live", "", "[", "")
@example("rtsp://user:{}@10.0.0.5/live", "", " ", "")
@example("rtsp://user:{}@10.0.0.5/live", "", "%", "")
@example("rtsp://user:{}@10.0.0.5/live", "", "\n", "")
def test_no_part_of_any_password_is_shown(form: str, before: str, between: str, after: str) -> None:
    address = form.replace("{}", f"{before}Zq9vKx{between}Wj7bTy{after}")
    try:
        parsed = parse_address(address)
    except UsageError as error:
        seen = str(error)
    else:
        if parsed.kind == "file":
            return  # a path: a lone / or a NUL made no address of it
        quoted = parsed.redact(f"[Errno 5] Input/output error: {parsed.target!r}; {parsed.target}")
        seen = f"{parsed} {parsed!r} {parsed.shown} {quoted}"
    assert "Zq9vKx" not in seen and "Wj7bTy" not in seen


@given(st.text(min_size=1, max_size=12))
def test_every_password_can_be_written(password: str) -> None:
    address = parse_address(f"rtsp://user:{quote(password, safe='')}@10.0.0.5:8554/live")
    assert address.shown == "rtsp://10.0.0.5:8554/live"
    assert address.target.endswith("@10.0.0.5:8554/live")


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://user:pa#ss@host/",
        "rtsp://user:pa/ss@host/",
        "rtsp://user:12/ss@host/",
        "rtsp://user:pa?ss@host/",
        "rtsp://user:pa ss@host/",
        "rtsp://user:pa%ss@host/",
        "rtsp://user:pass@/live",
        "rtsp://user:pass@host:port/live",
        "rtsp://user:pass@host:99999/live",
        "rtsp://user:pass@[fe80::1/live",
    ],
)
def test_what_cannot_be_read_says_how_to_escape_it(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert (
        caught.value.hint is not None and "# as %23" in caught.value.hint and "@ as %40" in caught.value.hint
    )
    assert "ss" not in caught.value.message.replace("address", "").replace("password", "")


def test_a_message_of_ffmpeg_or_opencv_loses_the_secrets() -> None:
    address = parse_address("rtsp://user:p%40s3cret@10.0.0.5/live?token=t0ken9")
    message = "401 Unauthorized: user:p%40s3cret (p@s3cret) rtsp://user:p@s3cret@10.0.0.5/live?token=t0ken9"
    assert "s3cret" not in address.redact(message) and "t0ken9" not in address.redact(message)
    pipeline = parse_address(
        'gst:rtspsrc location="rtsp://me:pa ss/w0rd@h/" protection-data = k3y9x ! appsink'
    )
    assert pipeline.shown == "gst:rtspsrc ! appsink"
    quoted = pipeline.redact(f"pipeline error: {pipeline.target}; rtsp://me:pa ss/w0rd@h/ and k3y9x")
    assert not [word for word in ("w0rd", "pa ss", "k3y9x") if word in quoted]


def test_a_file_of_that_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tcp:x").mkdir()
    (tmp_path / "tcp:x" / "a.mp4").write_bytes(b"")
    assert not is_address("tcp:x/a.mp4") and is_address("tcp:x/b.mp4")
    assert parse_address("tcp:x/a.mp4").kind == "file"
    assert not is_address("C" * 5000)
