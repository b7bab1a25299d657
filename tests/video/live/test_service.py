"""What live mode reports to systemd, read from a real socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmkla.video.live.frame import AiState, LiveStatus
from vmkla.video.live.service import service_reports

VMKLA = str(Path(sys.executable).with_name("vmkla"))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(30)
        yield end


def heard(manager: socket.socket) -> list[dict[str, str]]:
    """All that has arrived, each message by its names."""
    manager.setblocking(False)
    found = []
    while True:
        try:
            message = manager.recv(4096).decode()
        except BlockingIOError:
            return found
        found.append(dict(line.split("=", 1) for line in message.splitlines()))


def test_reports_are_paced_and_end_with_a_stop(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with service_reports(str(tmp_path / "notify")) as turned:
        turned(None)
        now_s += 0.4
        turned(LiveStatus(AiState.ON))
        now_s += 0.2
        turned(LiveStatus(AiState.ON))
        now_s += 1
        turned(LiveStatus(AiState.OFF, "worker was killed"))
    alive = {"READY": "1", "WATCHDOG": "1"}
    assert heard(manager) == [
        {**alive, "STATUS": "no frame yet"},
        {**alive, "STATUS": "AI ON"},
        {**alive, "STATUS": "AI OFF: worker was killed"},
        {"STOPPING": "1"},
    ]


def test_an_abstract_socket_is_found() -> None:
    name = f"vmkla-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + name)
        with service_reports("@" + name) as turned:
            turned(None)
        assert [sorted(message) for message in heard(end)] == [["READY", "STATUS", "WATCHDOG"], ["STOPPING"]]


def test_a_service_manager_that_does_not_read_delays_nothing(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, began_s = iter(range(10_000)), time.monotonic()
    with service_reports(str(tmp_path / "notify")) as turned, monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: float(next(turns)))
        for _ in range(5_000):
            turned(None)
    assert time.monotonic() - began_s < 5
    assert 0 < len(heard(manager)) < 5_000


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify"])
def test_nobody_listens(address: str | None) -> None:
    with service_reports(address) as turned:
        turned(LiveStatus(AiState.ON))


def test_a_run_reports_while_its_loop_turns_and_not_while_it_stands_still(
    manager: socket.socket, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["infer", "--source", "sample://?size=64x64", "--live", "--threads", "1", "--out", out]
    command += ["--max-staleness-ms", "1000"]  # one slow core keeps that
    run = subprocess.Popen(
        [VMKLA, *map(str, command)],
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_s = time.monotonic() + 120
        while "STATUS=AI ON" not in manager.recv(4096).decode():
            assert time.monotonic() < until_s
        run.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        heard(manager)
        time.sleep(1.2)
        assert heard(manager) == []
        run.send_signal(signal.SIGCONT)
        manager.settimeout(30)
        assert "WATCHDOG=1" in manager.recv(4096).decode()
        run.terminate()
        assert run.wait(30) == 143
    finally:
        run.kill()
        run.wait()
    assert heard(manager)[-1] == {"STOPPING": "1"}
    assert json.loads((out / "report.json").read_text())["exit_status"] == 143
