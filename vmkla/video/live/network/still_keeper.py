"""Keep stills of lesions from a thread of the worker, so that the network never waits for the disk."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.procedures.quality import SmallView
from vmkla.procedures.stills import Stills
from vmkla.segment.findings import Findings
from vmkla.video.hiding import Hidden
from vmkla.video.live.frame import LiveFrame
from vmkla.video.live.network.options import StillOptions
from vmkla.video.live.recording.disk_guard import DiskGuard

_WAITING = 2
"""Frames that may wait for the disk; while it is slower, frames pass without a still."""
_TICK_S = 1.0


@dataclass(frozen=True, eq=False)
class _Offer:
    """A frame with lesions; see ``Stills.offer``."""

    frame: LiveFrame
    view: SmallView
    findings: Findings
    numbers: tuple[int | None, ...]


class StillKeeper:
    """Keeps the best still of each lesion, and continues those that an earlier worker has kept.

    After a failure, as of the disk, it keeps no more.

    Args:
        options: rectangles to hide, and the folder of the run.
    """

    def __init__(self, options: StillOptions) -> None:
        assert options.folder is not None, "a run gives its folder"
        self._hide = options.hide
        self._stills, self._guard = Stills(options.folder, resumable=True), DiskGuard(options.folder)
        self._offers: queue.Queue[_Offer | None] = queue.Queue(_WAITING)
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="vmkla-stills", daemon=True)
        self._thread.start()

    def offer(
        self, frame: LiveFrame, view: SmallView, findings: Findings, numbers: tuple[int | None, ...]
    ) -> None:
        """Keep the lesions of a frame that it shows better than frames before, without waiting.

        Args:
            frame: the frame, which is not changed afterwards.
            view: the small copy of its field of view.
            findings: its findings.
            numbers: lesion of each region, in their order.
        """
        if findings.any and self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._offers.put_nowait(_Offer(frame, view, findings, numbers))

    def take_failure(self) -> str:
        """Return why no more stills are kept, once; empty while they are."""
        failure, self._failure = self._failure, ""
        return failure

    def close(self, timeout_s: float) -> None:
        """Write the stills that are in memory, within that time."""
        with contextlib.suppress(queue.Full):
            self._offers.put(None, timeout=timeout_s / 2)
        self._thread.join(timeout_s / 2)

    def _run(self) -> None:
        try:
            self._stills.resume()
            while True:
                try:
                    offer = self._offers.get(timeout=_TICK_S)
                except queue.Empty:
                    self._stills.write_due(time.monotonic())
                    continue
                if offer is None:
                    self._stills.flush()
                    return
                self._guard.check()
                frame_rgb = self._visible(offer.frame)
                self._stills.offer(
                    offer.frame.captured_s, frame_rgb, offer.view, offer.findings, offer.numbers
                )
        except Exception as error:  # the network continues without stills, and reports it
            self._failure = f"no more stills: {type(error).__name__}: {error}"

    def _visible(self, frame: LiveFrame) -> npt.NDArray[np.uint8]:
        """Return what stills may show of a frame."""
        first_hw = frame.first_hw or (frame.rgb.shape[0], frame.rgb.shape[1])
        return Hidden(self._hide, first_hw).of(frame.rgb)
