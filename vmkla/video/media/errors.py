"""Translate errors of PyAV and FFmpeg to errors of vmkla."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av.error
import av.logging

from vmkla import files
from vmkla.errors import BadInputError, VmklaError
from vmkla.safe_text import escape

MEDIA_ERRORS: tuple[type[Exception], ...] = (av.error.FFmpegError, OSError, EOFError)
"""Errors that PyAV raises for a file or a codec, as opposed to a wrong call."""
_REFUSED: tuple[type[Exception], ...] = (*MEDIA_ERRORS, ValueError)
_UNKNOWN = re.compile(r"Video: none(?: \(([^/)\n]{1,16}) / (0x[0-9A-Fa-f]{1,8})\))?")


def reason(error: BaseException) -> str:
    """Return FFmpeg's reason for an error as printable text, without the name of the file."""
    if isinstance(error, av.error.ExitError):
        return "it does not answer"
    text = getattr(error, "strerror", None)
    if not text and not isinstance(error, MEDIA_ERRORS):
        text = str(error)  # not for FFmpeg's own errors, whose text quotes an address with its password
    return escape(str(text or type(error).__name__))


@contextlib.contextmanager
def reading_errors(what: str) -> Iterator[None]:
    """Translate errors of the demuxer, the decoder or a conversion.

    Args:
        what: beginning of the message: the file, its codec and what was being done.
    Raises:
        BadInputError: FFmpeg or PyAV failed on the file.
    """
    try:
        yield
    except VmklaError:
        raise
    except _REFUSED as error:
        raise BadInputError(f"{what}: {reason(error)}") from error


@contextlib.contextmanager
def output_errors(path: Path, what: str = "") -> Iterator[None]:
    """Translate errors of writing a file.

    Args:
        path: the file that is written.
        what: content that is encoded, for errors that are not the disk's.
    Raises:
        BadInputError: the disk is full, the file cannot be written, or FFmpeg cannot encode the content.
    """
    try:
        with files.output_errors(path):
            yield
    except MEDIA_ERRORS as error:
        raise BadInputError(f"cannot write {path}: {what or 'FFmpeg'}: {reason(error)}") from error


def unknown_codec(open_again: Callable[[], Any]) -> str:
    """Return how FFmpeg's log names an unknown codec: its tag, or that the file names none.

    Args:
        open_again: opens the file and closes it.
    """
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as lines, contextlib.suppress(*MEDIA_ERRORS):
            open_again()
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    for _, _, text in lines:
        found = _UNKNOWN.search(text)
        if found and found[1]:
            return f"tag {escape(found[1])!r}, {found[2]}"
    return "the file names none"
