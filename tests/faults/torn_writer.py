"""Kill a process in the middle of publishing, again and again, and count what readers see.

Run as a program of its own: it forks, which is quick only where little is loaded. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

import numpy as np
import numpy.typing as npt

from vmkla.video.live.frame import LiveFrame
from vmkla.video.live.shared_memory.ring import FrameRing
from vmkla.video.live.shared_memory.slots import OverwrittenError, SharedSlots, Slot, TornError

_HW = (300, 400)


def _careless(slots: SharedSlots, number: int) -> Slot:
    """Read a slot as a reader without checks would."""
    content = slots._content(number)[: _HW[0] * _HW[1] * 3].copy()
    return Slot(number, b"", content)


def hammer(kills: int, seed: int) -> dict[str, int]:
    """Kill the writer again and again, and count what a reader sees.

    Returns:
        ``whole`` and ``mixed`` frames that the reader gave, ``half`` slots that it refused, and ``careless``,
        how many of those a reader without checks would have given as mixed frames.
    """
    ring = FrameRing(slots=3, slot_bytes=_HW[0] * _HW[1] * 3)
    reader = ring.subscribe()
    slots = reader._slots
    frames = [np.full((*_HW, 3), value, np.uint8) for value in range(17)]
    for sequence in range(1, 4):
        ring.publish(LiveFrame(sequence, time.monotonic(), frames[sequence]))
    delays = random.Random(seed)
    counts = {"kills": 0, "whole": 0, "mixed": 0, "half": 0, "careless": 0}
    for _ in range(kills):
        writer = os.fork()
        if writer == 0:
            _publish_for_ever(ring, slots.newest, frames)
        until = time.monotonic() + delays.uniform(0.0005, 0.002)
        while time.monotonic() < until:
            frame = reader.latest()
            if frame is not None:
                counts["mixed" if _is_mixed(frame.rgb) else "whole"] += 1
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        counts["kills"] += 1
        for number in range(slots.newest + 1, max(0, slots.newest - 3), -1):
            try:
                content = slots.read(number).content
                counts["mixed" if _is_mixed(content) else "whole"] += 1
            except (TornError, OverwrittenError):
                if number == slots.newest + 1:
                    counts["half"] += 1
                    counts["careless"] += _is_mixed(_careless(slots, number).content)
    return counts


def _publish_for_ever(ring: FrameRing, sequence: int, frames: list[npt.NDArray[np.uint8]]) -> None:
    while True:
        sequence += 1
        ring.publish(LiveFrame(sequence, time.monotonic(), frames[sequence % len(frames)]))


def _is_mixed(content: npt.NDArray[np.uint8]) -> bool:
    return bool(content.min() != content.max())


if __name__ == "__main__":
    print(json.dumps(hammer(int(sys.argv[1]), seed=7)))
