"""What several tests of live mode share."""

from __future__ import annotations

from tests.faults.figures import Figures


def frame_held(figures: Figures) -> None:
    """What holds whatever happens: the frame goes on, whole, in order, and is ended by a signal properly.

    A busy machine may keep a frame from the screen; a frame path that waits for something loses many.
    """
    assert figures.wrong_pixels == 0 and figures.strangers == 0 and figures.disordered == 0
    assert figures.received > 30 and figures.shown >= 0.9 * figures.received
    assert figures.skipped <= 0.1 * figures.received
    assert figures.exit_status == 143
