"""Faults of the surroundings of live mode, and long runs without a fault: one function each."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests import FIND_TESTS
from tests.faults.figures import SETTLE_S, Figures, reasons, sum_up
from tests.faults.harness import LiveRun, Setup, comm, live_run, resident_bytes

HERE = Path(__file__).resolve().parent
_TIMEOUT_S = 5.0
_STEP_S = 1000
_PATHS = ("/", "/status.json", "/picture.jpg")
_REQUEST = "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


def hammered(
    folder: Path, setup: Setup, *, clients: int = 50, seconds: float = 5.0, paths: tuple[str, ...] = _PATHS
) -> Figures:
    """Let many clients request the monitor's page, state and frames as fast as they are answered."""
    figures = Figures(f"monitor hammered by {clients} clients")
    port = free_port()
    monitored = replace(setup, options={**setup.options, "monitor": ["127.0.0.1", port]})
    with live_run(folder, monitored) as run:
        run.wait_ai("on")
        _wait_port(port)
        run.watch(SETTLE_S)
        hurt_s = time.monotonic()
        with _hammer(port, clients, paths) as answers:
            run.watch(seconds)
        spell = [line for line in run.lines if hurt_s <= line["shown_s"] <= hurt_s + seconds]
        figures.more["answers"] = sum(answers)
        figures.more["clients without an answer"] = answers.count(0)
        figures.more["AI ON, % of pictures"] = 100 * np.mean([line["ai"] == "on" for line in spell])
        delays_ms = [
            (line["shown_s"] - line["captured_s"]) * 1e3
            for line in spell
            if line["captured_s"] and not line["again"]
        ]
        figures.more["video delay p99, ms"] = float(np.percentile(delays_ms, 99))
        return sum_up(figures, run, hurt_s)


def clock_stepped(folder: Path, setup: Setup, *, steps_s: tuple[int, ...] = (7200, -86400, 0)) -> Figures:
    """Step the wall clock of one run forth and back."""
    figures = Figures(f"wall clock stepped to {', '.join(f'{step:+d} s' for step in steps_s)}")
    folder.mkdir(parents=True, exist_ok=True)
    shim, clock = build_clock(folder), folder / "clock"
    stepped = {"LD_PRELOAD": str(shim), "LIVE_CLOCK_FILE": str(clock)}
    with live_run(folder, replace(setup, environment={**setup.environment, **stepped})) as run:
        run.wait_ai("on")
        run.watch(SETTLE_S)
        hurt_s = time.monotonic()
        for step_s in steps_s:
            clock.write_text(str(step_s), encoding="ascii")
            run.watch(SETTLE_S)
        run.wait_ai("on", after_s=time.monotonic())
        after = [line for line in run.lines if line["shown_s"] > hurt_s]
        figures.more["AI ON, % of pictures"] = 100 * float(np.mean([line["ai"] == "on" for line in after]))
        figures.more["reasons said meanwhile"] = reasons(run, hurt_s, time.monotonic())
        ahead_s = np.array([line["wall_s"] - line["shown_s"] for line in run.lines])
        figures.more["steps that the run's clock made"] = int(np.sum(np.abs(np.diff(ahead_s)) > _STEP_S))
        return sum_up(figures, run, hurt_s)


def build_clock(folder: Path) -> Path:
    """Compile ``clock.c``, which steps the wall clock of one process.

    Raises:
        subprocess.CalledProcessError: there is no C compiler, or it refuses.
    """
    shim = folder / "clock.so"
    source = HERE / "clock.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
    return shim


def soaked(folder: Path, setup: Setup, *, seconds: float = 60.0, every_s: float = 1.0) -> Figures:
    """Run for a long time without a fault and record the memory of every process."""
    figures = Figures(f"soak of {seconds:g} s")
    with live_run(folder, setup) as run:
        run.wait_ai("on")
        run.watch(SETTLE_S)
        begun_s = time.monotonic()
        samples: dict[str, list[tuple[float, int]]] = {}
        while (at_s := time.monotonic() - begun_s) < seconds:
            for name, size in _memory(run).items():
                samples.setdefault(name, []).append((at_s, size))
            run.watch(every_s)
        for name, series in samples.items():
            figures.more[f"{name}, MiB"] = _growth(series)
        after = [line for line in run.lines if line["shown_s"] > begun_s]
        figures.more["AI ON, % of pictures"] = 100 * float(np.mean([line["ai"] == "on" for line in after]))
        sum_up(figures, run, begun_s)
        figures.more["video delay, ms"] = run.measured["video_delay_ms"]
        figures.more["marker delay, ms"] = run.measured["marker_delay_ms"]
        return figures


def _memory(run: LiveRun) -> dict[str, int]:
    """Measure the memory of the display process and of its children by name, in bytes."""
    found = {"display": resident_bytes(run.display_pid)}
    for pid in run.children():
        name = comm(pid)
        found[name] = found.get(name, 0) + resident_bytes(pid)
    return {name: size for name, size in found.items() if size}


def _growth(series: list[tuple[float, int]]) -> dict[str, float]:
    """Sum up a series: first, last and largest in MiB, and the slope of its second half in MiB a minute."""
    times_s, sizes = np.array(series).T
    mib = sizes / 2**20
    half = times_s >= times_s[-1] / 2
    slope = float(np.polyfit(times_s[half] / 60, mib[half], 1)[0]) if half.sum() > 2 else 0.0
    return {
        "first": float(mib[0]),
        "last": float(mib[-1]),
        "largest": float(mib.max()),
        "growth a minute, second half": slope,
    }


@contextmanager
def _hammer(port: int, clients: int, paths: tuple[str, ...]) -> Iterator[list[int]]:
    """Run clients in a process of their own until the block ends; the list then holds each one's answers."""
    answers: list[int] = []
    code = (
        f"{FIND_TESTS}from tests.faults.around import hammer_main; "
        "hammer_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(port), str(clients), *paths],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield answers
    finally:
        output, _ = process.communicate(b"", timeout=60)
        answers += [int(word) for word in output.split()]


def hammer_main(port: int, clients: int, paths: list[str]) -> None:
    """Send requests until standard input closes; then print each client's number of answers."""
    stop = threading.Event()
    answers = [0] * clients
    threads = [
        threading.Thread(target=_ask, args=(port, paths, number, answers, stop), daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join(2 * _TIMEOUT_S)
    print(*answers)


def _ask(port: int, paths: list[str], number: int, answers: list[int], stop: threading.Event) -> None:
    count = number
    while not stop.is_set():
        path = paths[count % len(paths)]
        count += 1
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as link:
                link.sendall(_REQUEST.format(path=path, host=f"127.0.0.1:{port}").encode("ascii"))
                ends_s = time.monotonic() + _TIMEOUT_S  # a stream of pictures never ends by itself
                first = link.recv(65536)
                while link.recv(65536) and not stop.is_set() and time.monotonic() < ends_s:
                    pass
        except OSError:
            continue  # refused or too slow: it is not counted, and asked again
        answers[number] += first.startswith(b"HTTP/1.1")


def free_port() -> int:
    """Find a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_port(port: int, limit_s: float = 30.0) -> None:
    """Wait until a port accepts connections.

    Raises:
        TimeoutError: nobody does.
    """
    ends_s = time.monotonic() + limit_s
    while time.monotonic() < ends_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nobody answers on port {port} within {limit_s:g} s")
