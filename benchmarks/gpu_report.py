"""What `make gpu-check` found: the outcome of each part, the goals, and the file that they make."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from common import Table

from vmkla.errors import MissingDependencyError, VmklaError

PACKAGES = ("torch", "triton", "mamba-ssm", "onnxruntime", "tensorrt", "tensorrt-rtx-cu13", "cuda-bindings")


@dataclass(frozen=True)
class Goal:
    """A figure that was aimed at.

    Attributes:
        what: in words.
        wanted: the limit, in words.
        measured: the figure.
        met: it holds.
    """

    what: str
    wanted: str
    measured: float
    met: bool


@dataclass
class Outcome:
    """What a part came to.

    Attributes:
        tables: its results.
        wrong: results that are not what they must be; one line each.
        notes: what has to be known beside them, refusals included.
        goals: figures that were aimed at.
    """

    tables: list[Table] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A piece of the check that stands alone."""

    name: str
    title: str
    run: Callable[[], Outcome]


@dataclass(frozen=True)
class Result:
    """A part that was tried.

    Attributes:
        part: which one.
        outcome: None when it did not get to one.
        absent: what the machine lacks for it, when that is why.
        failure: how it broke, when that is why.
        seconds: that it took.
    """

    part: Part
    outcome: Outcome | None
    absent: str | None
    failure: str | None
    seconds: float

    @property
    def verdict(self) -> str:
        """What fits into a cell of a table."""
        if self.absent is not None:
            return f"not run: {one_line(self.absent)}"
        if self.outcome is None:
            return f"BROKE: {one_line(self.failure or '')}"
        return "WRONG" if self.outcome.wrong else "right"


def one_line(text: str) -> str:
    """A message without what would end a cell of a table."""
    return " ".join(text.replace("|", "/").split())


def run_part(part: Part) -> Result:
    """Run a part; whatever happens in it stays in its result."""
    begun = time.monotonic()
    outcome, absent, failure = None, None, None
    try:
        outcome = part.run()
    except MissingDependencyError as error:
        absent = str(error)
    except VmklaError as error:
        failure = str(error)
    except Exception as error:  # one part that breaks must not take the others with it
        traceback.print_exc()
        failure = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
    return Result(part, outcome, absent, failure, time.monotonic() - begun)


def exit_status(results: Sequence[Result]) -> int:
    """0 all right; 1 a part broke; 4 nothing could run; 5 a result is wrong."""
    if any(result.outcome is not None and result.outcome.wrong for result in results):
        return 5
    if any(result.failure is not None for result in results):
        return 1
    return 4 if all(result.outcome is None for result in results) else 0


def document(gpu: str, machine: Sequence[str], results: Sequence[Result]) -> str:
    """The file's text."""
    lines = [
        f"# {gpu}",
        "",
        "Written by `python benchmarks/gpu_check.py`; medians of one run.",
        "",
        *machine,
        "",
    ]
    summary = Table("What was checked", ("part", "result", "seconds"))
    for result in results:
        summary.add(result.part.title, result.verdict, f"{result.seconds:.0f}")
    lines += [summary.markdown(), ""]
    wrong = [line for result in results if result.outcome for line in result.outcome.wrong]
    if wrong:
        lines += ["WRONG:", "", *(f"- {line}" for line in wrong), ""]
    goals = [goal for result in results if result.outcome for goal in result.outcome.goals]
    if goals:
        table = Table("Goals", ("what", "wanted", "measured", "met"))
        for goal in goals:
            table.add(goal.what, goal.wanted, goal.measured, "yes" if goal.met else "NO")
        lines += [table.markdown(), ""]
    for result in results:
        if result.outcome is None:
            continue
        for table in result.outcome.tables:
            lines += [table.markdown(), ""]
        if result.outcome.notes:
            lines += [f"Of {result.part.title}:", "", *(f"- {note}" for note in result.outcome.notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def machine() -> list[str]:
    """What was measured on."""
    properties = torch.cuda.get_device_properties(0)
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return [
        f"- {datetime.date.today().isoformat()}, {properties.name}, compute capability "
        f"{properties.major}.{properties.minor}, {properties.multi_processor_count} multiprocessors, "
        f"{properties.total_memory / 2**30:.0f} GiB",
        f"- {platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"CUDA {torch.version.cuda}, {', '.join(versions)}",
    ]


def slug(name: str) -> str:
    """A file name of a GPU's name: ``NVIDIA A100-SXM4-40GB`` -> ``a100-sxm4-40gb``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("nvidia", "")).strip("-")


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
