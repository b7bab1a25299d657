"""vmkla.cli.main: every error becomes a message and its exit status, once and in one place."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmkla import __version__
from vmkla.errors import BadInputError, GateError, StoppedError

COMMANDS = ("infer", "export", "train", "inspect", "doctor", "bench", "sample")
VMKLA = str(Path(sys.executable).with_name("vmkla"))


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.fixture
def failing_doctor(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make ``vmkla doctor`` fail in the function that it calls."""

    def fail_with(error: BaseException) -> None:
        monkeypatch.setattr("vmkla.engines.doctor.diagnose", raising(error))

    return fail_with


def test_help_lists_every_command(vmkla: Any) -> None:
    done = vmkla("--help")
    assert done.status == 0 and all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert "not a medical device" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(vmkla: Any, command: str) -> None:
    done = vmkla(command, "--help")
    assert done.status == 0 and done.stdout.startswith(f"Usage: vmkla {command} ") and "--json" in done.stdout


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_no_summary_is_cut_off(vmkla: Any, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    for arguments, sentence in (
        (
            (),
            "Compare two artefacts or runtimes on the same frames, and fail when the second loses too much.",
        ),
        (("data",), "Pack a set into one file that a training machine reads fast, without OpenCV."),
    ):
        shown = vmkla(*arguments, "--help").stdout
        assert "..." not in shown.partition("Commands:")[2] and sentence in " ".join(shown.split())
        assert max(map(len, shown.splitlines())) <= 80


def test_version(vmkla: Any) -> None:
    done = vmkla("--version")
    assert (done.status, done.stdout, done.stderr) == (0, f"vmkla {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Usage: vmkla"),
        (("segment",), "segment"),
        (("infer", "--no-such-flag"), "--no-such-flag"),
        (("infer", "--stride", "many"), "--stride"),
        (("inspect",), "MODEL"),
        (("bench", "--iterations", "0"), "--iterations"),
    ],
)
def test_wrong_usage_is_status_2(vmkla: Any, arguments: tuple[str, ...], message: str) -> None:
    done = vmkla(*arguments)
    assert done.status == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInputError("a.mp4 does not exist", hint="Check the path."), 3),
        (GateError("worst Dice 0.2, needed 0.99", hint="Look."), 5),
        (StoppedError(signal.SIGTERM, "stopped"), 143),
    ],
)
def test_our_errors_give_message_hint_and_status(
    vmkla: Any, failing_doctor: Any, error: Any, status: int
) -> None:
    failing_doctor(error)
    done = vmkla("doctor")
    expected = [f"vmkla: {error.message}"] + ([f"  {error.hint}"] if error.hint else [])
    assert (done.status, done.stdout, done.stderr.splitlines()) == (status, "", expected)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(vmkla: Any, failing_doctor: Any, position: int) -> None:
    failing_doctor(BadInputError("seen this"))
    arguments = ["doctor", "--json"]
    arguments.insert(position, "--debug")
    done = vmkla(*arguments)
    assert done.status == 3 and "Traceback" in done.stderr and "vmkla: seen this" in done.stderr


def test_debug_after_two_dashes_is_an_argument(vmkla: Any) -> None:
    done = vmkla("inspect", "--", "--debug")
    assert done.status == 3 and "--debug" in done.stderr and "Traceback" not in done.stderr


def test_an_unexpected_error_is_one_line_and_status_1(vmkla: Any, failing_doctor: Any) -> None:
    failing_doctor(ZeroDivisionError("division by zero\nand more"))
    done = vmkla("doctor")
    assert done.status == 1
    assert done.stderr.splitlines() == [
        "vmkla: unexpected ZeroDivisionError: division by zero",
        "  Run it again with --debug to see where.",
    ]


def test_ctrl_c_is_130(vmkla: Any, failing_doctor: Any) -> None:
    failing_doctor(KeyboardInterrupt())
    done = vmkla("doctor")
    assert done.status == 130 and "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_traceback() -> None:
    """``vmkla ... | head -0``: the reader goes away before anything is printed."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [VMKLA, "infer", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writing)
    assert done.returncode == 141 and done.stderr == ""


def test_sigterm_outside_of_a_run_is_143() -> None:
    code = """
import time, vmkla.cli.main as module
module.main = lambda _: print("up", flush=True) or time.sleep(60)
module.run()
"""
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait(timeout=30) == 143


@pytest.mark.slow
def test_help_answers_soon() -> None:
    """Within 300 ms, or 20 starts of a bare interpreter where that is more: processor time, the best of five.

    It took 11 to 14 starts on a CPU with AVX2 alone, where OpenCV or ONNX Runtime takes 13 or more besides.
    """

    def seconds(command: list[str]) -> float:
        spent = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(spent)

    assert seconds([VMKLA, "--help"]) < max(0.3, 20 * seconds([sys.executable, "-c", "pass"]))
