"""The interface of live sources, and the limits at which they are given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.video.live.sources.health import HealthLimits
from vmkla.video.media.address import LiveAddress
from vmkla.video.media.streams import exact


@dataclass(frozen=True)
class CaptureLimits:
    """Times at which a source is closed, tried again, or abandoned.

    Attributes:
        health: limits of a good signal.
        open_s: time without an answer after which a network source is tried again.
        read_s: time without data after which a network source is closed and opened again.
        retry_s, retry_max_s: wait before the next try, doubling from the first to the second.
        behind_s: delay against the fastest frame beyond which a frame of a network source is not shown.
        close_s: time that ``Capture.close`` waits for a source that does not answer.
    """

    health: HealthLimits = field(default_factory=HealthLimits)
    open_s: float = 5.0
    read_s: float = 2.0
    retry_s: float = 0.2
    retry_max_s: float = 2.0
    behind_s: float = 0.5
    close_s: float = 1.0


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame as an opened source returns it; see ``LiveFrame`` for the attributes."""

    captured_s: float
    rgb: npt.NDArray[np.uint8]
    damaged: bool = False


@dataclass(frozen=True)
class CameraContext:
    """What a source needs from its owner.

    Attributes:
        limits: limits of the source.
        stop: event that ends the source; waits are made on it.
        drop: called with cause and detail of each frame or packet that is not returned.
        let_show: waits briefly until the display has shown the last frame. A source that makes frames on this
            machine's cores makes the next one after that, so that it does not delay the display.
    """

    limits: CaptureLimits
    stop: threading.Event
    drop: Callable[[str, str], None]
    let_show: Callable[[], None]


class CameraError(BadInputError):
    """A source cannot be opened, or has ended.

    Args:
        message: message for the log, without passwords.
        cause: the same without names, for the screen.
    """

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class Camera(Protocol):
    """A source that can be opened again after a failure. Only ``prepare`` runs outside the capture thread."""

    def prepare(self) -> None:
        """Detect permanent failures, and prepare what takes time.

        Raises:
            VmklaError: the source can never be read.
        """

    def shots(self) -> Iterator[Shot]:
        """Open the source and read until it ends, which a camera does only by a fault.

        Raises:
            VmklaError: the source cannot be opened or read. The message holds no password.
        """

    def close(self) -> None:
        """Close what ``shots`` opened."""

    def describe(self) -> dict[str, Any]:
        """Describe what was opened last: codec, size, rate."""


def make_camera(address: LiveAddress, context: CameraContext, *, loop: bool = False) -> Camera:
    """Create the camera for an address, without opening it.

    Args:
        address: address of the source.
        context: what the source needs from its owner.
        loop: start a file again when it ends.
    """
    if address.kind == "file":
        from vmkla.video.live.sources.playback import FileCamera

        return FileCamera(address, context, loop=loop)
    if address.kind == "sample":
        from vmkla.video.live.sources.playback import SampleCamera

        return SampleCamera(address, context)
    if address.kind in ("rtsp", "pipe"):
        from vmkla.video.live.sources.streaming import StreamCamera

        return StreamCamera(address, context)
    from vmkla.video.live.sources.opencv_camera import OpenCvCamera

    return OpenCvCamera(address, context)


def stream_facts(stream: Any) -> dict[str, Any]:
    """Describe a stream of PyAV for the report: codec, pixel format, size and rate."""
    context = stream.codec_context
    rate = exact(stream.average_rate) or exact(stream.guessed_rate)
    return {
        "codec": context.name,
        "pixel_format": context.pix_fmt,
        "size_wh": [context.width, context.height],
        "frame_rate": round(float(rate), 3) if rate else None,
    }
