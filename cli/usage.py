"""Hints for usage errors: the flag or command that the user most likely meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmkla.errors import UsageError
from vmkla.video.media.suffixes import VIDEO_SUFFIXES

_OTHER_TOOLS = {
    "--conf": "--threshold",
    "--conf-thres": "--threshold",
    "--confidence": "--threshold",
    "--weights": "--model",
    "--checkpoint": "--model",
    "--input": "--source",
    "-i": "--source",
    "--images": "--source",
    "--output": "--out",
    "-o": "--out",
    "--outdir": "--out",
    "--project": "--out",
    "--img": "--imgsz",
    "--img-size": "--imgsz",
    "--input-size": "--imgsz",
    "--batch": "--batch-size",
    "--half": "--precision fp16",
    "--fp16": "--precision fp16",
    "--show": "--live --display",
    "--view-img": "--live --display",
    "--vid-stride": "--stride",
    "--save-txt": "--save-masks",
    "--resume": "--continue",
}
"""Flags of neighbouring tools -> the flag of that meaning here."""
_MODELS = (".onnx", ".plan", ".safetensors", ".pt", ".pth")


def usage_hint(error: Any, arguments: Sequence[str]) -> str:
    """Return what to run instead after a usage error of the parser; empty when there is no guess.

    Args:
        error: click's error.
        arguments: the command line without the program's name.
    """
    command = getattr(getattr(error, "ctx", None), "command", None)
    if command is None:
        return ""
    flags = {flag for parameter in command.params for flag in parameter.opts}
    option = getattr(error, "option_name", None)
    if option is not None:
        wanted = _OTHER_TOOLS.get(option, "")
        return f"{option} is {wanted} here." if wanted.split(" ")[0] in flags else ""
    extra = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", error.format_message())
    if extra is None:
        return ""
    if {"--source", "--video"} <= flags:
        return _one_source(extra[1], arguments)
    suffix = Path(extra[1]).suffix.lower()
    flag = "--model" if suffix in _MODELS and "--model" in flags else "--data"
    return f"Run: vmkla {command.name} {flag} {shlex.quote(extra[1])}" if flag in flags else ""


def _one_source(extra: str, arguments: Sequence[str]) -> str:
    if any(argument.split("=")[0] in ("--source", "--video") for argument in arguments):
        return EACH_SOURCE
    return f"Run: vmkla infer {'--video' if is_video(extra) else '--source'} {shlex.quote(extra)}"


EACH_SOURCE = 'One run takes one source: for clip in *.mp4; do vmkla infer --video "$clip"; done'


def is_video(name: str) -> bool:
    """Return whether a name or pattern has the suffix of a video."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def check_source(spec: str, *, live: bool, as_video: bool = False) -> None:
    """Reject sources of other tools' forms, and name the form here.

    Args:
        spec: the source.
        live: it is to be shown live.
        as_video: it was given with ``--video``.
    Raises:
        UsageError: a camera's number, a pattern of videos, or a folder that was given as a video.
    """
    if as_video and Path(spec).is_dir():
        raise UsageError(
            f"--video takes a video file, and {spec} is a folder",
            hint=f"For a folder of images: vmkla infer --source {shlex.quote(spec)}",
        )
    if Path(spec).exists():
        return
    if spec.isdecimal():
        raise UsageError(
            f"there is no file {spec}; a camera is not given by its number",
            hint=f"Run: vmkla infer --source v4l2:///dev/video{spec} --live --display",
        )
    if not live and re.search(r"[*?\[]", spec) and is_video(spec):
        raise UsageError(f"{spec} is a pattern of videos, expected one video", hint=EACH_SOURCE)
