"""sources.opencv_camera. No device is here, so a video that OpenCV opens stands in for one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from vmkla.errors import MissingDependencyError
from vmkla.video.live.sources.cameras import CameraContext, CameraError, CaptureLimits
from vmkla.video.live.sources.opencv_camera import OpenCvCamera, has_gstreamer
from vmkla.video.media.address import LiveAddress, parse_address

WriteClip = Callable[..., Path]


def context() -> CameraContext:
    return CameraContext(CaptureLimits(), threading.Event(), lambda cause, detail: None, lambda: None)


def stand_in(path: Path) -> OpenCvCamera:
    return OpenCvCamera(LiveAddress("gst", str(path), "gst:stand-in"), context(), backend=cv2.CAP_FFMPEG)


def test_frames_in_rgb_until_the_device_ends(
    write_clip: WriteClip, make_frames: Callable[..., list[np.ndarray]], read_back: Callable[..., tuple]
) -> None:
    path = write_clip("a.mp4", make_frames(6, 48, 64))
    camera, frames = stand_in(path), []
    with pytest.raises(CameraError, match="no more frames") as caught:
        for shot in camera.shots():
            frames.append(shot)
    assert caught.value.cause == "the device gives no frame"
    assert len(frames) == 6
    for shot, expected in zip(frames, read_back(path)[0], strict=True):
        assert np.abs(shot.rgb.astype(int) - expected).mean() < 4  # red is red
    times = [shot.captured_s for shot in frames]
    assert times == sorted(times)
    assert camera.describe()["size_wh"] == [64, 48]
    camera.close()


def test_it_can_be_opened_again(write_clip: WriteClip, make_frames: Callable[..., list[np.ndarray]]) -> None:
    camera = stand_in(write_clip("a.mp4", make_frames(3, 48, 64)))
    for _ in range(2):
        assert next(iter(camera.shots())).rgb.shape == (48, 64, 3)
        camera.close()


def test_a_device_that_is_not_there() -> None:
    camera = OpenCvCamera(parse_address("v4l2:///dev/video987"), context())
    camera.prepare()  # it may be plugged in later
    with pytest.raises(CameraError) as caught:
        next(iter(camera.shots()))
    assert caught.value.cause == "the device is not there"


def test_a_file_that_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "video0").write_bytes(b"no device")
    camera = OpenCvCamera(parse_address(f"v4l2://{tmp_path}/video0?format=mjpg"), context())
    with pytest.raises(CameraError) as caught:
        next(iter(camera.shots()))
    assert caught.value.cause == "the device cannot be opened"
    camera.close()


def test_what_a_device_is_asked_for() -> None:
    camera = OpenCvCamera(parse_address("v4l2:///dev/video0?size=1280x720&fps=60&format=mjpg"), context())
    wishes = camera._wishes()
    assert dict(zip(wishes[::2], wishes[1::2], strict=True)) == {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"MJPG"),
        cv2.CAP_PROP_FRAME_WIDTH: 1280,
        cv2.CAP_PROP_FRAME_HEIGHT: 720,
        cv2.CAP_PROP_FPS: 60,
        cv2.CAP_PROP_BUFFERSIZE: 2,
    }
    assert wishes[0] == cv2.CAP_PROP_FOURCC  # sizes and rates depend on it


def test_gstreamer_as_opencv_was_built() -> None:
    built = any("GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines())
    assert has_gstreamer() is built
    camera = OpenCvCamera(parse_address("gst:videotestsrc num-buffers=3 ! videoconvert ! appsink"), context())
    if built:
        camera.prepare()
        assert next(iter(camera.shots())).rgb.ndim == 3
    else:
        with pytest.raises(MissingDependencyError, match="GStreamer") as caught:
            camera.prepare()
        assert caught.value.hint is not None


def test_opencv_logs_nothing_about_a_pipeline(capfd: pytest.CaptureFixture[str]) -> None:
    """Its warnings quote what it was given; this reader warns about every name."""
    before = cv2.utils.logging.getLogLevel()
    try:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
        cv2.VideoCapture().open("a pipeline", cv2.CAP_IMAGES, [])
        assert "WARN" in capfd.readouterr().err
        address = LiveAddress("gst", "rtspsrc user-pw=s3cret", "gst:rtspsrc")
        with pytest.raises(CameraError):
            next(iter(OpenCvCamera(address, context(), backend=cv2.CAP_IMAGES).shots()))
        assert not capfd.readouterr().err
    finally:
        cv2.utils.logging.setLogLevel(before)
