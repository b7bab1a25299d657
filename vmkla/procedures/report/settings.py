"""Put a run's model, runtime, settings and input into words for its report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WORDS: dict[str, dict[str, str]] = {
    "model": {
        "name": "model",
        "path": "model file",
        "sha256": "model file, sha256",
        "weights_sha256": "weights, sha256",
        "class_names": "classes",
        "input_hw": "network input, height and width, px",
        "precision": "precision",
        "random_weights": "weights are random",
        "verified": "model passed its checks",
        "vmkla_version": "model exported by vmkla",
    },
    "runtime": {
        "runner": "runtime",
        "version": "runtime, version",
        "device": "device",
        "kernels": "implementation of the custom ops",
        "notes": "notes of the runtime",
    },
    "settings": {
        "vmkla_version": "run by vmkla",
        "model_sha256": "model of the run, sha256",
        "threshold": "threshold: probability from which a pixel counts",
        "peak": "peak: probability that a finding reaches",
        "min_fraction": "smallest area of a finding, share of the field of view",
        "overlay": "markers are drawn as",
        "alpha": "opacity of markers",
        "label": "text beside markers",
        "pause_on_poor": "markers pause on poor pictures",
        "hide": "blacked-out rectangles, x, y, width, height, px",
        "save_masks": "masks are written",
        "save_probability": "the network's own output is written",
        "export": "annotation formats",
        "export_frames": "segmented frames are written",
        "stride": "every Nth frame is segmented, N",
        "roi": "field of view as asked for",
        "image_format": "format of images",
        "anonymous": "names are replaced by digits of sha256",
        "track": "video track",
        "deinterlace": "interlaced video as asked for",
        "max_staleness_ms": "longest time that a marker stays, ms",
        "temporal": "filter over time",
        "record": "frames are recorded",
        "stills": "stills of lesions are kept",
        "segment_s": "length of a recorded file, s",
        "monitor": "a monitor page is served",
        "loop": "a file starts again at its end",
        "duration_s": "length of the run as asked for, s",
        "drop_budget": "share of frames that may be dropped",
        "picture_first": "the display goes before other programs",
    },
    "input": {
        "kind": "kind of input",
        "name": "name of the input",
        "sha256": "input, sha256",
        "images": "images",
        "codec": "codec",
        "track": "video track that was read",
        "tracks": "video tracks of the file",
        "fields": "interlacing",
        "frame_hw": "frame, height and width, px",
        "field_of_view": "field of view, x, y, width, height, px",
        "sizes": "frame sizes of the video",
        "address": "address of the source",
        "loop": "the source starts again at its end",
        "pixel_format": "pixel format",
        "size_wh": "frame, width and height, px",
        "frame_rate": "frames a second",
        "seed": "seed of the rendered clip",
        "cut_off": "file that breaks off",
    },
}
"""Part of ``report.json`` -> its keys -> their words, in the order of the page."""
_NONE = {"alpha": "that of the style", "field_of_view": "the whole frame"}
"""Key -> what its null means."""


def settings_rows(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what ``report.json`` has of the model, the runtime, the settings and the input, in words.

    A key without words keeps its own name, after that of its part.

    Args:
        document: content of ``report.json``; may be damaged, or of another version.
    Yields:
        Name and value, plain text.
    """
    for part, words in WORDS.items():
        values = document.get(part)
        if not isinstance(values, dict) or not values:
            yield part, "not known"
            continue
        for key in (*(key for key in words if key in values), *(key for key in values if key not in words)):
            value = values[key]
            text = _NONE[key] if value is None and key in _NONE else in_words(value)
            yield words.get(key, f"{part}: {key}"), text
    version = document.get("vmkla_version")
    yield "report by vmkla", "not known" if version is None else in_words(version)


def in_words(value: Any) -> str:
    """Write a value of JSON for people."""
    if value is None or (isinstance(value, list | dict) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{str(key).replace('_', ' ')}: {in_words(each)}" for key, each in value.items())
    if isinstance(value, list):
        nested = any(isinstance(each, list | dict) for each in value)
        return ("; " if nested else ", ").join(in_words(each) for each in value)
    return str(value)
