"""The check that all tests of live mode's faults share."""

from __future__ import annotations

from tests.faults.figures import Figures


def frame_held(figures: Figures) -> None:
    """Assert that the video went on, with whole frames in order, and ended properly by a signal.

    A busy machine may keep a frame from the screen; a frame path that waits for something loses many.
    """
    assert figures.wrong_pixels == 0 and figures.strangers == 0 and figures.disordered == 0
    assert figures.received > 30 and figures.shown >= 0.9 * figures.received
    assert figures.skipped <= 0.1 * figures.received
    assert figures.exit_status == 143
