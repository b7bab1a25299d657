"""Timing and tables for the benchmarks."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SIZE = 256
"""Height and width of the network's input, px."""


@dataclass
class Table:
    """A titled table with the notes that its reader needs."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row; floats are printed with three significant digits or one decimal."""
        self.rows.append(cells)

    def markdown(self) -> str:
        """Format the table as Markdown."""
        lines = [f"## {self.title}", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + " --- |" * len(self.columns)]
        lines += ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in self.rows]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return str(cell)


def median_ms(run: Callable[[], object], *, repeats: int, warmup: int = 2) -> float:
    """Measure the median wall time of ``run``, in ms."""
    for _ in range(warmup):
        run()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def apart(function: Callable[..., T], *args: object) -> T:
    """Call ``function(*args)`` in a process of its own, without the idle threads of other libraries."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def section(path: Path, title: str) -> str:
    """Return a section of a Markdown file with its ``## title``; an empty text when it is missing."""
    _, heading, after = path.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    text, _, _ = after.partition("\n## ")
    return f"{heading}{text}".strip()


def replace_section(path: Path, title: str, text: str) -> None:
    """Replace the section with the same ``## title``, or append it where there is none."""
    before, heading, after = path.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    _, next_heading, rest = after.partition("\n## ")
    kept = f"{next_heading}{rest}" if heading and next_heading else ""
    path.write_text(f"{before.rstrip()}\n\n{text.strip()}\n{kept}", encoding="utf-8")


@contextmanager
def exported(preset: str, *, size: int = SIZE, custom_nodes: bool = True) -> Iterator[Path]:
    """Export a preset with random weights and fixed batch 1; speed does not depend on the weights."""
    import torch

    from vmkla.config import get_preset
    from vmkla.export import export_onnx
    from vmkla.models import build_model
    from vmkla.segment.preprocess import PreprocessSpec

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{preset}.onnx"
        export_onnx(
            build_model(get_preset(preset)).eval(),
            spec=PreprocessSpec(size, size),
            output=path,
            batch=1,
            class_names=("polyp",),
            threshold=0.5,
            training={},
            random_weights=True,
            frames=None,
            skip_gates=True,
        )
        yield path
