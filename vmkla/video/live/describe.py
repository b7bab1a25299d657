"""Settings of a live run for its report, and names that the monitor page must not show."""

from __future__ import annotations

import re
from typing import Any

from vmkla.video.live.network.options import TemporalOptions, WorkerOptions
from vmkla.video.live.options import LiveOptions
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.media.address import LiveAddress

_NAME_LETTERS = 4


def plain_settings(options: LiveOptions, about: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run as plain values, without the monitor's token.

    Args:
        options: options of the run.
        about: what the worker reported of itself; its threshold is the model's own where none was given.
    """
    worker, recording = options.worker, options.recording or RecordOptions()
    roi = worker.roi
    return {
        "threshold": about.get("threshold", worker.threshold),
        "overlay": options.overlay,
        "alpha": options.alpha,
        "roi": roi if roi is None or isinstance(roi, str) else list(roi),
        "max_staleness_ms": options.max_staleness_ms,
        "temporal": _temporal(worker),
        "record": options.recording is not None,
        "segment_s": recording.segment_s,
        "hide": [list(rect) for rect in recording.hide],
        "monitor": options.monitor is not None,
        "loop": options.loop,
        "duration_s": options.duration_s,
        "drop_budget": options.drop_budget,
        "deinterlace": worker.deinterlace,
    }


def _temporal(worker: WorkerOptions) -> dict[str, Any] | None:
    """Return the options that make findings calmer; None when there are none."""
    if worker.temporal is None and worker.min_fraction is None:
        return None
    temporal = worker.temporal or TemporalOptions()
    return {
        "hysteresis_low": temporal.hysteresis_low,
        "min_lesion_fraction": worker.min_fraction or 0.0,
        "min_lesion_age_ms": temporal.min_lesion_age_ms,
    }


def names_in(address: LiveAddress) -> tuple[str, ...]:
    """Return words of an address that the monitor page must not show."""
    if address.kind == "sample":
        return ()
    words = re.split(r"[^\w-]+", f"{address.shown} {address.target}")
    return (address.shown, address.target, *(word for word in words if len(word) >= _NAME_LETTERS))
