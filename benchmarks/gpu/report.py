"""Write `benchmarks/gpu/results.md` from the tar of `make gpu-proof`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Table
from benchmarks.gpu.floors import ESTIMATES
from benchmarks.gpu.machine import MACHINE, describe, no_gpu_text
from benchmarks.gpu.records import parse_rows, read_tar

TITLES = {
    "versions": "the machine",
    "harness": "CUDA kernels against float64",
    "plugin": "TensorRT plugin through its host",
    "sanitizer": "races and memory accesses of the CUDA kernels",
    "triton": "scan and spline bases in torch against float64",
    "times": "times of the CUDA kernels",
    "ncu": "hardware counters",
    "scan": "times of the scan in torch",
    "training": "training steps",
    "engines": "engines, and ONNX Runtime on CUDA",
    "train": "`nano` trained",
}
MEASURED = ("done", "wrong")
HEAD = """# On a GPU

Written by `python benchmarks/gpu/proof.py report TAR` from what `make gpu-proof` brings back
([docs/desktop.md](../../docs/desktop.md#4-is-the-gpu-code-right-on-this-gpu)). The estimates were counted
from the source and the compiled code, for an H100 at 3 TB/s, before anything had run on a GPU. Without one,
[docs/plugin-builds.md](../../docs/plugin-builds.md) shows what compiles, [tensorrt-rtx.md](tensorrt-rtx.md)
what is built, and the tests run the kernels' source in an emulation."""


@dataclass(frozen=True)
class Results:
    """The contents of a tar.

    Attributes:
        where: the last cell of a row that was measured.
        counts: figures of it count as measured: it comes from a GPU.
        steps: status and reason of each step, those that are missing included.
        rows: of each step.
        machine: facts of the machine; empty where they are missing.
    """

    where: str
    counts: bool
    steps: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    machine: Mapping[str, Any]

    def why_not(self, name: str) -> str:
        """Return why a step measured nothing."""
        step = self.steps[name]
        if not self.counts and step["status"] in MEASURED:
            return self.where
        reason = "the step did not report it" if step["status"] in MEASURED else step["reason"]
        return f"not measured: {one_line(reason)}"


def one_line(text: object) -> str:
    """Remove the characters that would end a cell of a table."""
    return " ".join(str(text).replace("|", "/").split())


def read_results(tar: Path | None) -> Results:
    """Read a tar as far as it is intact; None stands for no run."""
    files, damage = ({}, "nobody has run it on a GPU yet") if tar is None else read_tar(tar)
    proof, machine = (json.loads(files.get(name) or "{}") for name in ("proof.json", MACHINE))
    steps, rows = {}, {}
    for name in TITLES:
        chosen = name in proof.get("steps", TITLES)
        reason = damage or f"the tar does not hold this step{'' if chosen else ', which was not asked for'}"
        missing = json.dumps({"status": "missing", "reason": reason, "seconds": 0})
        steps[name] = json.loads(files.get(f"{name}.json") or missing)
        rows[name] = parse_rows(files.get(f"{name}.jsonl", ""))
    gpu, dry = machine.get("gpu"), proof.get("device") == "cpu"
    reason = "dry run without a GPU" if dry else damage or no_gpu_text(machine)
    counts = bool(gpu) and not dry
    return Results(f"on {gpu}" if counts else f"not measured: {reason}", counts, steps, rows, machine)


def step_table(results: Results) -> Table:
    """Make the table of all steps."""
    table = Table("Steps", ("step", "result", "seconds", "measured"))
    for name, step in results.steps.items():
        measured = results.where if step["status"] in MEASURED else results.why_not(name)
        table.add(TITLES[name], step["status"], f"{step['seconds']:.0f}", measured)
    return table


def estimate_table(results: Results) -> Table:
    """Make the table of estimated figures with the measured ones."""
    table = Table("Estimates", ("what", "estimated by counting", "found", "measured"))
    figures = {
        row["figure"]: row["value"] for rows in results.rows.values() for row in rows if "figure" in row
    }
    for key, what, text, step in ESTIMATES:
        if results.counts and key in figures:
            table.add(what, text, float(figures[key]), results.where)
        else:
            table.add(what, text, "", results.why_not(step))
    return table


def row_tables(results: Results) -> list[Table]:
    """Make tables of the rows of all steps by title; a cell that a row lacks is empty."""
    rows = [row for name in TITLES for row in results.rows[name]]
    tables = []
    for title in dict.fromkeys(row["table"] for row in rows if "table" in row):
        cells = [row["cells"] for row in rows if row.get("table") == title]
        columns = list(dict.fromkeys(name for row in cells for name in row))
        tables.append(Table(title, (*columns, "measured")))
        for row in cells:
            tables[-1].add(*(one_line(row.get(name, "")) for name in columns), results.where)
    absent = Table("Not measured", ("what", "measured"))
    absent.rows = [
        (row["absent"], f"not measured: {one_line(row['reason'])}") for row in rows if "absent" in row
    ]
    return [*tables, *([absent] if absent.rows else [])]


def write_report(tar: Path | None, output: Path) -> Path:
    """Write the report and return its path."""
    results = read_results(tar)
    wrong = [
        f"- {one_line(row['wrong'])}" for rows in results.rows.values() for row in rows if "wrong" in row
    ]
    machine = [f"- {line}" for line in describe(results.machine)] if results.machine else []
    tables = [
        table.markdown() for table in (step_table(results), estimate_table(results), *row_tables(results))
    ]
    parts = [
        HEAD.strip(),
        "\n".join(machine),
        "\n".join(["**WRONG:**", "", *wrong]) if wrong else "",
        *tables,
    ]
    output.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return output
