"""Measure the video when the network fails: one function per fault.

Each starts a live run of its own, hurts it, and gives figures: ``benchmarks/live/faults.py`` prints them,
and the tests hold them in a short form.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from tests.faults.figures import SETTLE_S, Figures, reasons, sum_up
from tests.faults.harness import LiveRun, Setup, live_run
from vmkla.weights import resolve

OF_LOAD = ("no result in time", "too slow", "catching up", "watchdog is late", "worker does not answer")
"""Reasons for AI OFF that a busy machine gives without a fault."""


def killed(folder: Path, setup: Setup, *, times: int = 3) -> Figures:
    """Kill the worker with SIGKILL as soon as it is ready, again and again."""
    figures = Figures(f"worker killed -9, {times} times")
    with live_run(folder, setup) as run:
        run.wait_ai("on")
        run.watch(SETTLE_S)
        first_s = time.monotonic()
        for _ in range(times):
            hurt_s = time.monotonic()
            os.kill(run.worker_pid(), signal.SIGKILL)
            _note(figures, run, hurt_s, hurt_s)
        return sum_up(figures, run, first_s)


def stopped(folder: Path, setup: Setup, *, seconds: float = 4.0) -> Figures:
    """Stop the worker with SIGSTOP and do not continue it."""
    figures = Figures(f"worker stopped for {seconds:g} s")
    with live_run(folder, setup) as run:
        run.wait_ai("on")
        run.watch(SETTLE_S)
        victim, hurt_s = run.worker_pid(), time.monotonic()
        os.kill(victim, signal.SIGSTOP)
        off = run.wait_ai("off", after_s=hurt_s)
        figures.to_off_ms.append((off["shown_s"] - hurt_s) * 1e3)
        time.sleep(max(0.0, hurt_s + seconds - time.monotonic()))
        try:
            os.kill(victim, signal.SIGCONT)
            figures.more["replaced before it continued"] = False
        except ProcessLookupError:
            figures.more["replaced before it continued"] = True
        on = run.wait_ai("on", after_s=off["shown_s"])
        figures.to_on_ms.append((on["shown_s"] - hurt_s) * 1e3)
        return sum_up(figures, run, hurt_s)


def _is_no_load(line: dict[str, Any]) -> bool:
    """Return whether the AI is off for a reason that load does not cause."""
    return line["ai"] == "off" and line["reason"] not in OF_LOAD


def spoilt(folder: Path, setup: Setup, order: str, *, seconds: float = 0.5) -> Figures:
    """Spoil the network for a while, in every worker that is started meanwhile; then let it work again.

    Recovery is counted from when it works again.
    """
    figures = Figures(f"network: {order}")
    with live_run(folder, setup) as run:
        run.wait_ai("on")
        run.watch(SETTLE_S)
        hurt_s = run.spoil(order)
        off = run.wait_ai("off", after_s=hurt_s)
        figures.to_off_ms.append((off["shown_s"] - hurt_s) * 1e3)
        seen = off if order == "hang" else run.wait_for("AI OFF for it", _is_no_load, after_s=off["shown_s"])
        run.watch(seconds)
        mended_s = run.mend()
        on_meanwhile = [line for line in run.lines if seen["shown_s"] < line["shown_s"] < mended_s]
        figures.more["AI ON while it failed"] = sum(line["ai"] == "on" for line in on_meanwhile)
        figures.more["reasons said meanwhile"] = reasons(run, hurt_s, mended_s)
        on = run.wait_ai("on", after_s=mended_s)
        figures.to_on_ms.append((on["shown_s"] - mended_s) * 1e3)
        return sum_up(figures, run, hurt_s)


def deleted(folder: Path, setup: Setup, *, seconds: float = 2.0) -> Figures:
    """Delete the model's file, kill the worker, and restore the file."""
    figures = Figures("model file deleted, then the worker killed")
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.onnx"
    shutil.copy(resolve(setup.model), model)
    with live_run(folder, Setup(**{**vars(setup), "model": str(model)})) as run:
        run.wait_ai("on")
        deleted_s = time.monotonic()
        model.unlink()
        run.watch(SETTLE_S)
        after = [line for line in run.lines if line["shown_s"] > deleted_s]
        on = sum(line["ai"] == "on" for line in after) / max(1, len(after))
        figures.more["AI ON after the deletion alone, % of pictures"] = 100 * on
        hurt_s = time.monotonic()
        os.kill(run.worker_pid(), signal.SIGKILL)
        off = run.wait_ai("off", after_s=hurt_s)
        figures.to_off_ms.append((off["shown_s"] - hurt_s) * 1e3)
        run.watch(seconds)
        figures.more["AI ON without the file"] = run.lines[-1]["ai"] == "on"
        figures.more["reasons said meanwhile"] = reasons(run, hurt_s, time.monotonic())
        shutil.copy(resolve(setup.model), model)
        mended_s = time.monotonic()
        back = run.wait_ai("on", after_s=mended_s)
        figures.to_on_ms.append((back["shown_s"] - mended_s) * 1e3)
        return sum_up(figures, run, hurt_s)


def slow(folder: Path, setup: Setup, *, seconds: float = 3.0, each_s: float = 1 / 3) -> Figures:
    """Slow the network down to ten times the time between two frames."""
    figures = Figures(f"network slower by {each_s * 1e3:.0f} ms a picture")
    with live_run(folder, setup) as run:
        run.wait_ai("on")
        run.watch(SETTLE_S)
        hurt_s = run.spoil(f"slow {each_s}")
        off = run.wait_ai("off", after_s=hurt_s)
        figures.to_off_ms.append((off["shown_s"] - hurt_s) * 1e3)
        run.watch(seconds)
        spell = [line for line in run.lines if line["shown_s"] > off["shown_s"]]
        figures.more["pictures with an old marker"] = sum(
            line["marker_age_ms"] is not None and line["marker_age_ms"] > 120 for line in spell
        )
        figures.more["AI ON while slow"] = sum(line["ai"] == "on" for line in spell)
        mended_s = run.mend()
        on = run.wait_ai("on", after_s=mended_s)
        figures.to_on_ms.append((on["shown_s"] - mended_s) * 1e3)
        return sum_up(figures, run, hurt_s)


def _note(figures: Figures, run: LiveRun, hurt_s: float, mended_s: float) -> None:
    off = run.wait_for("a picture without AI ON", lambda line: line["ai"] != "on", after_s=hurt_s)
    on = run.wait_ai("on", after_s=off["shown_s"])
    figures.to_off_ms.append((off["shown_s"] - hurt_s) * 1e3)
    figures.to_on_ms.append((on["shown_s"] - mended_s) * 1e3)
