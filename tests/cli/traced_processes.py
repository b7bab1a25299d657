"""Trace with strace what a process and its children do to the network and the file system."""

from __future__ import annotations

import ast
import fnmatch
import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

CALLS = (
    "%network,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mknod"
)
KEPT = ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
"""All that a traced process inherits: CI and a dozen variables like it keep onnxruntime's telemetry off."""

_CALL = re.compile(r"^\d+ +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"^\d+ +<\.\.\. \w+ resumed>(?P<rest>.*)$")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_DIRECTORY = re.compile(r"^(?:AT_FDCWD|\d+)<(?P<path>[^>]*)>")
_ADDRESS = re.compile(r'inet_addr\("(?P<v4>[^"]+)"\)|inet_pton\(AF_INET6, "(?P<v6>[^"]+)"')
_SPEAKS = ("connect", "sendto", "sendmsg", "sendmmsg", "bind")


@dataclass(frozen=True)
class Traced:
    """The system calls of a finished process.

    Attributes:
        status: exit status.
        output: stdout and stderr together.
        home: the folder that stood for the user's, empty at the start.
        spoken: calls that named an address of the network beyond this machine, or a local service's socket.
        made: files and folders that were made or opened for writing, devices left out.
    """

    status: int
    output: str
    home: Path
    spoken: tuple[str, ...]
    made: frozenset[Path]

    def outside(self, allowed: Sequence[Path | str]) -> list[Path]:
        """List the files and folders that were made outside the allowed places."""
        return sorted(
            path
            for path in self.made
            if not any(
                fnmatch.fnmatch(str(path), name) if isinstance(name, str) else path.is_relative_to(name)
                for name in allowed
            )
        )


def refuse_to_trace_nothing() -> None:
    """Skip the test where the sandbox does not let a process be traced; in CI strace must be there."""
    strace = shutil.which("strace")
    if strace is None:
        if os.environ.get("CI"):
            pytest.fail("strace is not installed: .ci/run installs it")
        pytest.skip("strace is not installed")
    tried = subprocess.run(
        [strace, "--seccomp-bpf", "-f", "-qq", "-e", "trace=open", "-o", "/dev/null", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"processes cannot be traced here: {tried.stderr.strip()}")


def trace(
    arguments: Sequence[object], folder: Path, *, python: bool = False, timeout_s: float = 300
) -> Traced:
    """Run ``vmkla`` under strace, with the user's folders inside ``folder`` and hardly any environment.

    Args:
        arguments: of ``vmkla``, or with ``python`` of the interpreter.
        folder: working folder; its ``home`` and ``temporary`` are made anew for the process.
        python: run the interpreter itself.
        timeout_s: seconds until the test gives up.
    """
    home, temporary, log = folder / "home", folder / "temporary", folder / "strace.log"
    for made in (home, temporary):
        made.mkdir(exist_ok=True)
    program = [sys.executable] if python else [sys.executable, "-m", "vmkla_entry"]
    entry = folder / "entry"
    entry.mkdir(exist_ok=True)
    (entry / "vmkla_entry.py").write_text(
        "from vmkla.cli.main import run\nif __name__ == '__main__':\n    run()\n", encoding="utf-8"
    )
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(entry)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
    tracer = [
        "strace",
        "--seccomp-bpf",
        "-f",
        "-qq",
        "-y",
        "-s",
        "4096",
        "-e",
        f"trace={CALLS}",
        "-o",
        str(log),
    ]
    done = subprocess.run(
        [*tracer, *program, *map(str, arguments)], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False, timeout=timeout_s,
    )  # fmt: skip
    spoken, made = [], set()
    for line in whole_calls(log.read_text(encoding="utf-8", errors="replace").splitlines()):
        match = _CALL.match(line)
        if match is None:
            continue
        name, text = match["name"], match["arguments"]
        if name in _SPEAKS and _beyond_this_machine(text):
            spoken.append(line)
        elif (path := _made(name, text, match["result"], folder)) is not None:
            made.add(path)
    return Traced(done.returncode, done.stdout, home, tuple(spoken), frozenset(made))


def whole_calls(lines: Iterable[str]) -> Iterator[str]:
    """Join the lines of strace's log so that each call is on one line, even when threads interleave."""
    begun: dict[str, str] = {}
    for line in lines:
        pid = line.partition(" ")[0]
        resumed = _RESUMED.match(line)
        if line.endswith(_UNFINISHED):
            begun[pid] = line.removesuffix(_UNFINISHED)
        elif resumed is not None and pid in begun:
            yield begun.pop(pid) + resumed["rest"]
        else:
            yield line
    yield from (f"{line}) = ?" for line in begun.values())  # ended in the middle of it


def _beyond_this_machine(arguments: str) -> bool:
    if "htons(53)" in arguments:
        return True  # a question to DNS, also where a resolver of this machine takes it
    for match in _ADDRESS.finditer(arguments):
        if not ipaddress.ip_address(match["v4"] or match["v6"]).is_loopback:
            return True
    # A service of this machine may carry a question on. nscd is asked for the user's name, as by getpwuid.
    return 'sun_path="' in arguments and "/nscd/socket" not in arguments


def _made(name: str, arguments: str, result: str, folder: Path) -> Path | None:
    """Return the file or folder that a successful call made or opened for writing."""
    if result.startswith("-") or result == "?":
        return None
    if name.startswith("open") and not re.search(r"O_CREAT|O_WRONLY|O_RDWR|O_TMPFILE", arguments):
        return None
    if name not in ("open", "openat", "creat") and not name.startswith(("mk", "rename", "link", "symlink")):
        return None
    strings = _STRING.findall(arguments)
    if not strings:
        return None
    last = ast.literal_eval("b" + strings[-1]).decode(errors="replace")
    parent = folder
    if name.endswith(("at", "at2")) and (directory := _DIRECTORY.search(arguments)):
        parent = Path(directory["path"])
    path = Path(os.path.normpath(parent / last))
    return None if path.is_relative_to("/dev") or path.is_relative_to("/proc") else path
