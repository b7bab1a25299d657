"""What commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vmkla.safe_text import escape, printable, printable_json

if TYPE_CHECKING:
    from vmkla.evaluation.tables import Table

_WIDTH = 118
"""Columns of the tables where stdout is no terminal."""


class ProgressCallback(Protocol):
    """Called with the work done so far, the whole of it (None when unknown), and a short note."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


def say(message: str, *, quiet: bool = False) -> None:
    """A line for a person, on stderr."""
    if not quiet:
        print(printable(message), file=sys.stderr)


def print_line(text: str = "") -> None:
    """A line of results, on stdout."""
    print(printable(text))


def print_json(document: Any) -> None:
    """The one JSON document of ``--json``, on stdout. NaN and infinity become null."""
    print(printable_json(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)))


def print_tables(tables: Iterable[Table]) -> None:
    """Tables for people, on stdout."""
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


@contextmanager
def progress_bar(title: str, unit: str, *, quiet: bool) -> Iterator[ProgressCallback | None]:
    """A progress bar on stderr, or None where nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, rate="")

        def update(done: int, total: int | None, note: str = "") -> None:
            speed = bar.tasks[task].speed
            rate = "" if speed is None else f"{speed:.1f} {unit}/s"
            bar.update(task, completed=done, total=total, rate=f"{rate} {escape(note)}".strip())

        yield update
