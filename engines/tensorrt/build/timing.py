"""The timing cache: kernels that TensorRT has timed before need not be timed again."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

from vmkla.engines.tensorrt.api import TensorRTApi
from vmkla.engines.tensorrt.messages import Messages
from vmkla.errors import BadInputError
from vmkla.files import written_whole

BEGINNING = 4
"""First bytes by which one cache of a library's knows another, whatever GPU it is of."""


class TimingCache:
    """A file of timings for one build.

    The library itself knows whether the timings are of this GPU and this version; if not, the build starts
    with none and the file is written anew. A file of another kind is left alone.

    Args:
        api: the library.
        path: the file; None for no cache at all.
        messages: collects what the library reports.
    Attributes:
        hit: the file was there and the library took it.
        remarks: what a user should know.
    Raises:
        BadInputError: the file is there and cannot be read.
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
                with contextlib.suppress(FileNotFoundError):  # the build makes one
                    self._stored = path.read_bytes()
            except OSError as error:
                raise BadInputError(f"{path} cannot be read: {error.strerror}") from error

    def attach(self, config: Any) -> None:
        """Hand the timings to a builder's configuration.

        Raises:
            BadInputError: the file holds something else, which the build would overwrite.
        """
        if self._path is None:
            return
        if self._api.is_rtx:
            self.remarks += (f"TensorRT-RTX times nothing when it builds, so {self._path} holds no timings",)
        with _deprecations_unsaid():
            if self._stored:
                self.hit = self._set(config, self._stored)
                if not (self.hit and not self._api.is_rtx) and not self._begins_like_a_cache(config):
                    raise BadInputError(
                        f"{self._path} is there and holds no timings of {self._api.runtime}, so it is not "
                        "overwritten",
                        hint="Name another file with --timing-cache, or remove this one.",
                    )
                if not self.hit:
                    self.remarks += (f"the timings in {self._path} are not for this machine: not used",)
            if not self.hit:
                self._set(config, b"")

    def save(self, config: Any) -> tuple[str, ...]:
        """Write what is known after the build.

        Returns:
            A remark where the file cannot be written; the engine is as good without it.
        """
        if self._path is None:
            return ()
        with _deprecations_unsaid():
            cache = config.get_timing_cache()
            if cache is None:
                return ()
            serialized = cache.serialize()
        try:
            with written_whole(self._path, private=False) as file:
                file.write(memoryview(serialized))
        except BadInputError as error:
            return (f"the timings were not kept: {error.message}",)
        return ()

    def _begins_like_a_cache(self, config: Any) -> bool:
        """Whether the file starts as an empty cache of the library's does."""
        cache = config.create_timing_cache(b"")
        if cache is None:
            return False
        return bytes(memoryview(cache.serialize())[:BEGINNING]) == self._stored[:BEGINNING]

    def _set(self, config: Any, data: bytes) -> bool:
        """Whether the library took it; some versions refuse by their log alone."""
        before = self._messages.complaints
        cache = config.create_timing_cache(data)
        taken = cache is not None and bool(config.set_timing_cache(cache, False))
        return taken and self._messages.complaints == before


class _deprecations_unsaid(warnings.catch_warnings):  # noqa: N801
    """TensorRT-RTX keeps the calls, which do nothing there, and warns of each."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", DeprecationWarning)
