"""The timing cache: keep TensorRT's kernel timings for later builds."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.messages import Messages
from vmkla.errors import BadInputError
from vmkla.files import write_whole

BEGINNING = 4
"""Number of leading bytes that all timing caches of a library share, whatever their GPU."""


class TimingCache:
    """A file of timings for one build.

    The library itself checks that the timings are for this GPU and this version; if not, the build starts
    without timings and replaces the file. A file of another kind is never replaced.

    Args:
        api: the library.
        path: path of the file; None uses no cache.
        messages: collects the library's messages.
    Attributes:
        hit: whether the library accepted timings from the file.
        remarks: what the user should know, one sentence each.
    Raises:
        BadInputError: the file exists and cannot be read.
    """

    def __init__(self, api: TensorRTApi, path: Path | None, messages: Messages) -> None:
        self._api = api
        self._path = path
        self._messages = messages
        self._stored = b""
        self.hit = False
        self.remarks: tuple[str, ...] = ()
        if path is not None:
            try:
                with contextlib.suppress(FileNotFoundError):  # the build writes it
                    self._stored = path.read_bytes()
            except OSError as error:
                raise BadInputError(f"{path} cannot be read: {error.strerror}") from error

    def attach(self, config: Any) -> None:
        """Attach the timings to a builder's configuration.

        Raises:
            BadInputError: the file is not a timing cache, and the build would overwrite it.
        """
        if self._path is None:
            return
        if self._api.is_rtx:
            self.remarks += (f"TensorRT-RTX times nothing when it builds, so {self._path} holds no timings",)
        with _ignored_deprecations():
            if self._stored:
                self.hit = self._set(config, self._stored)
                if not (self.hit and not self._api.is_rtx) and not self._begins_like_a_cache(config):
                    raise BadInputError(
                        f"{self._path} exists and holds no timings of {self._api.runtime}, so it is not "
                        "overwritten",
                        hint="Name another file with --timing-cache, or remove this one.",
                    )
                if not self.hit:
                    self.remarks += (f"the timings in {self._path} are not for this machine: not used",)
            if not self.hit:
                self._set(config, b"")

    def save(self, config: Any) -> tuple[str, ...]:
        """Write the timings after the build.

        Returns:
            A remark where the file cannot be written, which does not affect the engine.
        """
        if self._path is None:
            return ()
        with _ignored_deprecations():
            cache = config.get_timing_cache()
            if cache is None:
                return ()
            serialized = cache.serialize()
        try:
            write_whole(self._path, memoryview(serialized), private=False)
        except BadInputError as error:
            return (f"the timings were not kept: {error.message}",)
        return ()

    def _begins_like_a_cache(self, config: Any) -> bool:
        """Whether the file starts like an empty cache of the library."""
        cache = config.create_timing_cache(b"")
        if cache is None:
            return False
        return bytes(memoryview(cache.serialize())[:BEGINNING]) == self._stored[:BEGINNING]

    def _set(self, config: Any, data: bytes) -> bool:
        """Set the timings; return whether the library accepted them. Some versions only log a rejection."""
        before = self._messages.complaints
        cache = config.create_timing_cache(data)
        taken = cache is not None and bool(config.set_timing_cache(cache, False))
        return taken and self._messages.complaints == before


@contextlib.contextmanager
def _ignored_deprecations() -> Iterator[None]:
    """Ignore deprecation warnings for a block: TensorRT-RTX warns at each call, which does nothing there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
