"""Opened sources of live frames: what they all are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError
from vmkla.video.live.sources.health import HealthLimits
from vmkla.video.media.streams import exact


@dataclass(frozen=True)
class CaptureLimits:
    """Times and sizes at which a source is given up, tried again, or left.

    Attributes:
        health: when its signal is not good.
        open_s: a network source that has not answered for so long is tried again.
        read_s: one that has sent nothing for so long is closed and opened again.
        retry_s, retry_max_s: wait before the next try, doubling from the first to the second.
        behind_s: a frame of a network source that comes so much later than the quickest one is not shown.
        close_s: ``Capture.close`` waits so long for a source that does not answer, and then leaves it.
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
    """A frame as an opened source gives it; see ``LiveFrame``."""

    captured_s: float
    rgb: npt.NDArray[np.uint8]
    damaged: bool = False


@dataclass(frozen=True)
class CameraContext:
    """What an opened source needs of its owner.

    Attributes:
        limits: see ``CaptureLimits``.
        stop: set when the source shall end; waits are made on it.
        drop: told the cause and some detail of each frame or packet that is not given.
        let_show: waits a little, until the display is done with the frame that was given last. Who makes
            frames on this machine's own cores makes the next one after that, not at its expense.
    """

    limits: CaptureLimits
    stop: threading.Event
    drop: Callable[[str, str], None]
    let_show: Callable[[], None]


class CameraError(BadInputError):
    """A source cannot be opened, or has ended.

    Args:
        message: for the log; no password.
        cause: the same without any name, for the screen.
    """

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class Camera(Protocol):
    """A source that can be opened again after a failure. All but ``prepare`` runs in the capture thread."""

    def prepare(self) -> None:
        """Find out what will never work, and make ready what takes time.

        Raises:
            VmklaError: it will never work.
        """

    def shots(self) -> Iterator[Shot]:
        """Open it and read until it ends, which a camera does only by a fault.

        Raises:
            VmklaError: it cannot be opened or read. Its message holds no password.
        """

    def close(self) -> None:
        """Let go of what ``shots`` opened."""

    def describe(self) -> dict[str, Any]:
        """What was opened last: codec, size and the like."""


def stream_facts(stream: Any) -> dict[str, Any]:
    """What a report says about a stream of PyAV's: codec, pixel format, size and rate."""
    context = stream.codec_context
    rate = exact(stream.average_rate) or exact(stream.guessed_rate)
    return {
        "codec": context.name,
        "pixel_format": context.pix_fmt,
        "size_wh": [context.width, context.height],
        "frame_rate": round(float(rate), 3) if rate else None,
    }
