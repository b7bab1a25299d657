"""The real runner, made to fail on command; at module level, where a spawned process finds it."""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.engines import load_runner
from vmkla.runner import Runner, RunnerSpec

_EXTRA_MEMORY_BYTES = 64 << 20


class Saboteur:
    """The real network until a file says otherwise.

    Args:
        runner: the real one.
        order: the file. While it is there its text says what goes wrong with every picture: ``nan``,
            ``shape``, ``above one``, ``slow S`` (seconds more for each), ``hang``, ``raise``,
            ``device lost``, ``memory`` (allocates until the system refuses), ``exit`` or ``segv``.
    """

    def __init__(self, runner: Runner, order: Path) -> None:
        self._runner = runner
        self._order = order

    @property
    def name(self) -> str:
        """The real one's."""
        return self._runner.name

    @property
    def spec(self) -> RunnerSpec:
        """The real one's."""
        return self._runner.spec

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the network's output, spoilt as ordered."""
        try:
            order = self._order.read_text(encoding="utf-8").split()
        except OSError:
            order = []
        probability = self._runner.infer(frames_rgb)
        return probability if not order else _spoil(probability, order)

    def close(self) -> None:
        """Close the real one."""
        self._runner.close()


def _spoil(probability: npt.NDArray[np.float32], order: list[str]) -> npt.NDArray[np.float32]:
    match order:
        case ["nan"]:
            probability = probability.copy()
            probability[..., probability.shape[-1] // 2, 0] = np.nan
        case ["shape"]:
            probability = probability[..., :-1]
        case ["above", "one"]:
            probability = probability + np.float32(1)
        case ["slow", seconds]:
            time.sleep(float(seconds))
        case ["hang"]:
            time.sleep(3600)
        case ["raise"]:
            raise RuntimeError("the network fails on command")
        case ["device", "lost"]:
            raise RuntimeError("CUDA failure 719: unspecified launch failure")
        case ["memory"]:
            _exhaust_memory()
        case ["exit"]:
            os._exit(3)
        case ["segv"]:
            ctypes.string_at(0)
        case _:
            raise ValueError(f"unknown order {order}")
    return probability


def _exhaust_memory() -> None:
    """Limit the memory to a little more than is in use, then allocate beyond it."""
    in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + _EXTRA_MEMORY_BYTES, limit[1]))
    try:
        np.ones(4 * _EXTRA_MEMORY_BYTES, np.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


def _load(model: str, threads: int | None, order: Path | None) -> Runner:
    runner = load_runner(model, threads=threads)
    return runner if order is None else Saboteur(runner, order)


def loader(model: str, *, threads: int | None, order: Path | None = None) -> Callable[[], Any]:
    """Return the function with which live mode loads the network in the worker process.

    Args:
        model: a shipped model's name, or a file.
        threads: CPU threads of the runtime; None takes all cores but one, as the command line does.
        order: see ``Saboteur``; None leaves the network alone.
    """
    if threads is None:
        threads = max(1, len(os.sched_getaffinity(0)) - 1)
    return functools.partial(_load, model, threads, order)
