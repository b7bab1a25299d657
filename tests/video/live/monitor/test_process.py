"""The monitor's process: it ends with its parent, comes back when killed, and tells nobody's secrets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import FIND_TESTS
from tests.video.live.monitor.displays import TOKEN, Client, Display, served, wait_for
from vmkla.errors import BadInputError, UsageError
from vmkla.video.live.monitor.access import MonitorOptions
from vmkla.video.live.monitor.process import Monitor

# A display process of its own, which says where its page is and then waits to be killed.
PARENT = """
import sys
from tests.video.live.monitor.displays import Client, Display, served

if __name__ == "__main__":
    display = Display()
    with display, served(display, {token!r}) as monitor:
        print(monitor.url, monitor.pid, flush=True)
        sys.stdin.read()
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def refused(url: str) -> bool:
    """Whether nothing listens there; a process that is ending may still reset a connection."""
    try:
        Client(url).ask()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    raise AssertionError("the page still answers")


def start_parent(folder: Path) -> tuple[subprocess.Popen[str], str, int]:
    """The process, the page's address, and the id of the page's process."""
    script = folder / "parent.py"
    script.write_text(FIND_TESTS + PARENT.format(token=TOKEN))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, str(script)], text=True, **pipes)  # type: ignore[call-overload]
    line = process.stdout.readline().split()
    if len(line) != 2:
        process.kill()
        raise AssertionError(process.communicate()[1])
    return process, line[0], int(line[1])


def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    process, url, pid = start_parent(tmp_path)
    assert alive(pid)
    process.kill()
    output, errors = process.communicate(timeout=30)
    wait_for("the end of the page's process", lambda: not alive(pid))
    wait_for("the end of the page", lambda: refused(url))
    assert output == errors == ""


def test_a_stopped_page_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    process, _, pid = start_parent(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.communicate(timeout=30)
    wait_for("the end of the page's process", lambda: not alive(pid))


def test_secrets_are_in_no_log_and_in_no_list_of_processes(tmp_path: Path) -> None:
    process, url, pid = start_parent(tmp_path)
    client = Client(url)
    for path in (f"/?token={TOKEN}", "/?token=wrong", "/none", "/picture.jpg"):
        client.ask(path, Authorization=f"Bearer {TOKEN}")
        client.ask(path, "POST", Host="evil.example")
    with socket.create_connection(client.address, timeout=30) as connection:
        connection.sendall(f"{TOKEN} is no request\r\n\r\n".encode())
        assert TOKEN.encode() not in connection.recv(65536)
    for name in ("cmdline", "environ", "comm"):
        assert TOKEN not in Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")
    assert Path(f"/proc/{pid}/comm").read_text().strip() == "vmkla-monitor"
    output, errors = process.communicate("", timeout=30)
    assert process.returncode == 0 and output == "" and errors == ""


def test_it_yields_to_the_display(display: Display) -> None:
    with served(display) as monitor:
        assert monitor.pid is not None
        niceness = {os.getpriority(os.PRIO_PROCESS, int(task.name))
                    for task in Path(f"/proc/{monitor.pid}/task").iterdir()}  # fmt: skip
    assert niceness == {max(10, os.getpriority(os.PRIO_PROCESS, 0))}


def test_a_killed_page_comes_back_at_its_address_and_is_logged(display: Display) -> None:
    with served(display) as monitor:
        first, url = monitor.pid, monitor.url
        assert first is not None
        shown = display.sequence
        os.kill(first, signal.SIGKILL)
        wait_for("another process", lambda: monitor.pid not in (None, first))
        Client(url).wait_until_served()
        assert monitor.restarts == 1
        event = display.events.recent(1)[0]
        assert event.kind == "monitor ended" and event.detail == "killed by signal 9"
        assert display.sequence > shown, "the display went on"


def test_it_closes_whatever_the_page_does(display: Display) -> None:
    with served(display) as monitor:
        pid, url = monitor.pid, monitor.url
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        before = len(display.events.recent(200))
        begun_s = time.monotonic()
        monitor.close()
        assert time.monotonic() - begun_s < 10
        assert not alive(pid)
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            Client(url).ask()
        assert len(display.events.recent(200)) == before, "an end that was asked for is no event"


def test_a_monitor_never_started_gives_its_address_back(display: Display) -> None:
    monitor = Monitor(MonitorOptions("127.0.0.1", 0), display.ring.subscribe(), display.board, display.events)
    port = Client(monitor.url).address[1]
    with pytest.raises(BadInputError, match=f"127.0.0.1:{port}.*in use"):
        Monitor(MonitorOptions("127.0.0.1", port), display.ring.subscribe(), display.board, display.events)
    monitor.close()
    Monitor(
        MonitorOptions("127.0.0.1", port), display.ring.subscribe(), display.board, display.events
    ).close()


def test_an_open_page_is_refused_before_anything_starts(display: Display) -> None:
    with pytest.raises(UsageError, match="needs a token"):
        Monitor(MonitorOptions("0.0.0.0", 0), display.ring.subscribe(), display.board, display.events)
