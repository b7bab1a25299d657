"""Write times of a procedure, and link them to the video."""

from __future__ import annotations

import math
from html import escape

from vmkla.procedures.files import OVERLAY_VIDEO


def clock(time_s: float) -> str:
    """Write a time as minutes and seconds, with hours from one on: ``2:05.3``, ``1:02:05.3``."""
    tenths = round(abs(time_s) * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{'-' * (time_s < 0 and tenths > 0)}{head}:{rest / 10:04.1f}"


def link(time_s: float, text: str, *, video: bool, title: str = "") -> str:
    """Link HTML to a time of the video by a media fragment.

    The time is rounded up: a thousandth of a second before a frame, a browser shows the one before.

    Args:
        time_s: the time, seconds.
        text: HTML.
        video: whether there is a video; otherwise the text is returned as it is.
        title: plain text that is shown when the mouse rests on it.
    """
    if not video:
        return text
    shown = f' title="{escape(title)}"' if title else ""
    thousandths = math.ceil(round(1000 * max(0.0, time_s), 3))
    return f'<a href="{OVERLAY_VIDEO}#t={thousandths / 1000:.3f}"{shown}>{text}</a>'
