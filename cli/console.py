"""Printing of the commands: results on stdout, everything else on stderr."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vmkla.safe_text import escape, printable, printable_json

if TYPE_CHECKING:
    from vmkla.evaluation.tables import Table

_WIDTH = 118
"""Width of the tables, in columns, where stdout is not a terminal."""
_LINE_EVERY_S = 30.0


class ProgressCallback(Protocol):
    """Called with the work done so far, the whole of it (None when unknown), and a short note."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


class _Sink(io.RawIOBase):
    """A stream over a descriptor that never fails: after its first error, further output is dropped.

    Attributes:
        error: the first error; None when there was none.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """See ``io.RawIOBase``."""
        while self.error is None:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another program set this terminal non-blocking
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLOUT)
                waiting.poll()
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def writable(self) -> bool:
        """See ``io.RawIOBase``."""
        return True

    def fileno(self) -> int:
        """See ``io.RawIOBase``."""
        return self._descriptor

    def isatty(self) -> bool:
        """See ``io.RawIOBase``."""
        return os.isatty(self._descriptor)


class SafeStreams:
    """Standard streams whose failure does not end a run: replaces ``sys.stdout`` and ``sys.stderr``.

    A stream that is closed writes to nowhere. A character that the stream's encoding does not have is
    escaped. After an error (the reader of a pipe has gone, the disk is full) the rest is dropped, and the
    command continues to its end.
    """

    def __init__(self) -> None:
        for descriptor in range(3):
            _hold_descriptor(descriptor)
        self._stdout = _Sink(_descriptor(sys.stdout, 1))
        sys.stdout = _text(self._stdout, sys.stdout, lines=self._stdout.isatty())
        sys.stderr = _text(_Sink(_descriptor(sys.stderr, 2)), sys.stderr, lines=True)

    def status(self, status: int) -> int:
        """Flush the output and return the exit status of a command whose own is ``status``.

        A command that did its work ends with 141 (128 + SIGPIPE) when the reader of its results left before
        the last of them, and with 3 when they could not be written for another reason.
        """
        sys.stdout.flush()
        error = self._stdout.error
        if error is None:
            return status
        if error.errno == errno.EPIPE:
            return status or 128 + signal.SIGPIPE
        say(f"vmkla: cannot write the results to the standard output: {error.strerror}")
        return status or 3


def _hold_descriptor(descriptor: int) -> None:
    """Open /dev/null for a closed standard descriptor, or the next file would get its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, descriptor)
        if nowhere != descriptor:
            os.close(nowhere)


def _descriptor(stream: Any, number: int) -> int:
    """Return the descriptor to write to: /dev/null where Python made no stream, so where it was closed."""
    return number if stream is not None else os.open(os.devnull, os.O_WRONLY)


def _text(sink: _Sink, stream: Any, *, lines: bool) -> io.TextIOWrapper:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(sink), encoding=encoding, errors="backslashreplace", line_buffering=lines
    )


def say(message: str, *, quiet: bool = False) -> None:
    """Print a line on stderr."""
    if not quiet:
        print(printable(message), file=sys.stderr)


def print_line(text: str = "") -> None:
    """Print a line of results on stdout."""
    print(printable(text))


def print_json(document: Any) -> None:
    """Print the one JSON document of ``--json`` on stdout. NaN and infinity become null.

    Characters that stdout cannot have, and names that are not valid Unicode, are escaped as JSON does it.
    """
    plain = _plain(document)
    text = printable_json(json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False))
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(plain, indent=2, allow_nan=False)
    print(text)


def print_tables(tables: Iterable[Table]) -> None:
    """Print tables on stdout."""
    from rich import box
    from rich import table as rich_table
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDTH
    for content in tables:
        table = rich_table.Table(
            title=escape(content.title), title_justify="left",
            caption=escape(content.note) or None, caption_justify="left",
            box=box.SIMPLE_HEAD, show_lines=False,
        )  # fmt: skip
        for number, column in enumerate(content.columns):
            table.add_column(escape(column), justify="left" if number == 0 else "right")
        for row in content.rows:
            table.add_row(*("\n".join(map(escape, cell.split("\n"))) for cell in row))
        console.print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass
class _Pace:
    """Progress of the work and the time that the rest takes.

    Attributes:
        one_part: whether the total is an estimate that changes; else another total begins another part.
    """

    one_part: bool = False
    done: int = 0
    total: int | None = None
    note: str = ""
    first: int = 0
    began_s: float = field(default_factory=time.monotonic)

    def update(self, done: int, total: int | None, note: str) -> bool:
        """Record the progress; return whether another part began."""
        other = (total != self.total and not self.one_part) or done < self.done
        if other:
            self.first, self.began_s = done, time.monotonic()
        self.done, self.total, self.note = done, total, note
        return other

    def line(self, title: str, unit: str) -> str:
        """Format the progress in one line."""
        spent_s = time.monotonic() - self.began_s
        parts = [f"{title}: {self.done}{'' if self.total is None else f' of {self.total}'} {unit}", self.note]
        if self.total is not None and self.done > self.first:
            left_s = spent_s * (self.total - self.done) / (self.done - self.first)
            parts.append(f"about {_duration(left_s)} left")
        else:
            parts.append(f"{_duration(spent_s)} so far")
        return ", ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def progress_bar(
    title: str, unit: str, *, quiet: bool, every_s: float = _LINE_EVERY_S, one_part: bool = False
) -> Iterator[ProgressCallback | None]:
    """Show progress on stderr: a bar on a terminal, else a line every half minute; None when ``quiet``.

    Both show how long the rest takes, of work that comes in parts that of the part.

    Args:
        title, unit: what is shown.
        quiet: show nothing.
        every_s: time between two lines, seconds.
        one_part: the work is one part, whose total is an estimate that changes.
    """
    if quiet:
        yield None
    elif not sys.stderr.isatty():
        with _progress_lines(title, unit, every_s, one_part) as update:
            yield update
    else:
        with _terminal_bar(title, unit, one_part) as update:
            yield update


@contextmanager
def _progress_lines(title: str, unit: str, every_s: float, one_part: bool) -> Iterator[ProgressCallback]:
    pace, ended = _Pace(one_part), threading.Event()

    def tell() -> None:  # from a thread of its own: one step may take longer than the time between lines
        while not ended.wait(every_s):
            say(pace.line(title, unit))

    def update(done: int, total: int | None, note: str = "") -> None:
        pace.update(done, total, note)

    thread = threading.Thread(target=tell, name="vmkla-progress", daemon=True)
    thread.start()
    try:
        yield update
    finally:
        ended.set()
        thread.join()


@contextmanager
def _terminal_bar(title: str, unit: str, one_part: bool) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    pace = _Pace(one_part)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, rate="")

        def update(done: int, total: int | None, note: str = "") -> None:
            if pace.update(done, total, note):
                bar.reset(task, total=total)
            speed = bar.tasks[task].speed
            rate = "" if speed is None else f"{speed:.1f} {unit}/s"
            bar.update(task, completed=done, total=total, rate=f"{rate} {escape(note)}".strip())

        yield update
