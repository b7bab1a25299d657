"""Cameras through OpenCV: V4L2 devices (USB cameras, HDMI and SDI grabbers) and GStreamer pipelines."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from vmkla.errors import MissingDependencyError
from vmkla.video.live.sources.cameras import CameraContext, CameraError, Shot
from vmkla.video.media.address import LiveAddress

_DEFAULT_SIZE_WH = (1920, 1080)
_DEFAULT_FPS = 30.0


class OpenCvCamera:
    """A camera read by ``cv2.VideoCapture``.

    A V4L2 device is asked for a size, rate and format; the driver chooses the nearest that it has, which the
    report states. OpenCV waits at most ten seconds for a device that gives nothing; then it is opened again.

    Args:
        address: address of kind ``v4l2`` or ``gst``.
        context: what the source needs from its owner.
        backend: OpenCV's number of the reader; None uses the one for the address.
    """

    def __init__(self, address: LiveAddress, context: CameraContext, *, backend: int | None = None) -> None:
        self._address = address
        self._context = context
        self._backend = backend
        self._device: cv2.VideoCapture | None = None
        self._facts: dict[str, Any] = {}

    def prepare(self) -> None:
        """Check that OpenCV can read such a source; a device may be plugged in later."""
        if self._address.kind == "gst" and not has_gstreamer():
            raise MissingDependencyError(
                f"the source {self._address} needs OpenCV built with GStreamer, and this OpenCV "
                f"({cv2.__version__}) is not",
                hint="The package opencv-python has none; use a build of your own or of your system (on a "
                "Jetson: the one of JetPack), or give rtsp:// or v4l2:// instead.",
            )

    def shots(self) -> Iterator[Shot]:
        """Yield frames as they come; see ``Camera.shots``."""
        device = self._device = self._open()
        while not self._context.stop.is_set():
            if not device.grab():
                raise CameraError(f"{self._address} gives no more frames", cause="the device gives no frame")
            captured_s = time.monotonic()
            given, bgr = device.retrieve()
            if not given or bgr is None or bgr.size == 0:
                self._context.drop("undecodable", "a frame of the device cannot be decoded")
                continue
            code = cv2.COLOR_GRAY2RGB if bgr.ndim == 2 or bgr.shape[2] == 1 else cv2.COLOR_BGR2RGB
            yield Shot(captured_s, np.asarray(cv2.cvtColor(bgr, code), np.uint8))

    def close(self) -> None:
        """Close the device."""
        device, self._device = self._device, None
        if device is not None:
            device.release()

    def describe(self) -> dict[str, Any]:
        """Describe what the driver gives: codec, size and rate."""
        return dict(self._facts)

    def _open(self) -> cv2.VideoCapture:
        if self._address.kind == "v4l2" and not os.path.exists(self._address.target):
            raise CameraError(f"there is no device {self._address}", cause="the device is not there")
        if self._address.kind == "gst":  # OpenCV's log on stderr would quote the pipeline with its passwords
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        device = cv2.VideoCapture()
        self._device = device
        if not device.open(self._address.target, self._backend_number(), self._wishes()):
            raise CameraError(
                f"OpenCV cannot open {self._address}: it is not a camera, is in use, or may not be read by "
                "this user",
                cause="the device cannot be opened",
            )
        self._facts = {
            "codec": _four_letters(device.get(cv2.CAP_PROP_FOURCC)),
            "size_wh": [
                round(device.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            ],
            "frame_rate": round(device.get(cv2.CAP_PROP_FPS), 3),
            "reader": device.getBackendName(),
        }
        return device

    def _backend_number(self) -> int:
        if self._backend is not None:
            return self._backend
        return cv2.CAP_V4L2 if self._address.kind == "v4l2" else cv2.CAP_GSTREAMER

    def _wishes(self) -> list[int]:
        """Return pairs of property and value, the format first, since sizes and rates depend on it."""
        if self._address.kind != "v4l2" or self._backend is not None:
            return []
        width, height = self._address.size_wh or _DEFAULT_SIZE_WH
        wishes = []
        letters = self._address.options.get("format")
        if letters:
            wishes += [cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*letters.upper())]
        rate = round(self._address.number("fps", _DEFAULT_FPS))
        return [
            *wishes,
            *(cv2.CAP_PROP_FRAME_WIDTH, width),
            *(cv2.CAP_PROP_FRAME_HEIGHT, height),
            *(cv2.CAP_PROP_FPS, rate),
            *(cv2.CAP_PROP_BUFFERSIZE, 2),  # fewer frames wait in the driver
        ]


def has_gstreamer() -> bool:
    """Check whether this OpenCV can open GStreamer pipelines."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def _four_letters(value: float) -> str:
    number = int(value)
    return "".join(chr(number >> shift & 0xFF) for shift in (0, 8, 16, 24)).strip("\0 ")
