"""Engines on this machine's GPU: built by `vmkla build`, run, held against ONNX Runtime, and timed.

Every step is a process of its own: a library that aborts takes one step with it and no more. Where
TensorRT-RTX does not list the GPU, its refusal is reported, and what it does when it is asked all the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Table
from gpu_process import Done, call
from gpu_report import Outcome, say

from vmkla.engines.tensorrt.api import EngineRuntime, load_api
from vmkla.errors import VmklaError

HERE = Path(__file__).resolve().parent
# Isolated: in a checkout the folder vmkla/ would be taken for the installed package.
VMKLA = (sys.executable, "-I", "-c", "from vmkla.cli.main import run; run()")
CASE = (sys.executable, str(HERE / "gpu_engine_case.py"))
COLUMNS = (
    "model", "built for", "build s", "build GiB", "engine MB", "max error", "mean error", "mean Dice",
    "infer p50 ms", "p99 ms",
)  # fmt: skip


def models(given: Sequence[Path], work: Path) -> list[Path]:
    """The ONNX files to build from: those given, else ``nano`` in both precisions.

    Raises:
        VmklaError: the export did not work.
    """
    if given:
        return list(given)
    found = []
    for precision in ("fp32", "fp16"):
        path = work / f"nano.{precision}.onnx"
        if not path.is_file():
            done = call(
                [*VMKLA, "export", "--model", "nano", "--precision", precision, "--output", path, "--quiet"]
            )
            if done.status != 0:
                raise VmklaError(
                    f"vmkla export --model nano --precision {precision}: {done.reason}",
                    hint="Export elsewhere, and name the files: --models FILE ...",
                )
        found.append(path)
    return found


def engines_part(runtime: EngineRuntime, sm: int, given: Sequence[Path], work: Path) -> Outcome:
    """Engines of one runtime.

    Args:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        sm: compute capability of the GPU, for instance 90.
        given: ONNX files; none takes ``nano``.
        work: folder for what is made.
    Raises:
        MissingDependencyError: the runtime is not installed.
        VmklaError: there is no model to build from.
    """
    api = load_api(runtime)
    outcome = Outcome()
    outcome.notes.append(f"{runtime} {api.version_text}")
    table = Table(f"{runtime}: engines against ONNX Runtime on the same file, batch 1", COLUMNS)
    listed = not api.is_rtx or sm in api.targets
    for model in models(given, work):
        say(f"{runtime}: {model.name}")
        if listed:
            listed_case(runtime, model, work, table, outcome)
        else:
            unlisted_case(runtime, sm, api.targets, model, work, table, outcome)
    outcome.tables.append(table)
    return outcome


def build(runtime: str, model: Path, plan: Path, *flags: str) -> Done:
    """``vmkla build``."""
    command = [*VMKLA, "build", model, "--runtime", runtime, "--output", plan, "--quiet", "--json", *flags]
    return call(command)


def listed_case(runtime: str, model: Path, work: Path, table: Table, outcome: Outcome) -> None:
    """Build for this GPU, compare, time. A failed check is wrong; the engine is then measured unchecked."""
    plan = work / f"{model.stem}.{runtime}.plan"
    done = build(runtime, model, plan)
    if done.status == 5:
        outcome.wrong.append(f"{runtime}, {model.name}: vmkla build: {done.reason}")
        done = build(runtime, model, plan, "--skip-gates")
    if done.status != 0:
        outcome.wrong.append(f"{runtime}, {model.name}: vmkla build: {done.reason}")
        return
    report = json.loads(done.stdout)
    row = [model.name, "this GPU", report["seconds"], done.peak_bytes / 2**30, plan.stat().st_size / 1e6]
    case = call([*CASE, "compare", model, plan, runtime])
    if case.status != 0:
        outcome.wrong.append(f"{runtime}, {model.name}: comparison: {case.reason}")
        table.add(*row, *["-"] * (len(COLUMNS) - len(row)))
        return
    add_comparison(table, row, json.loads(case.stdout), f"{runtime}, {model.name}", outcome)


def unlisted_case(
    runtime: str, sm: int, targets: tuple[int, ...], model: Path, work: Path, table: Table, outcome: Outcome
) -> None:
    """What TensorRT-RTX does for a GPU that it does not list. Refusals are notes; a wrong result is wrong."""
    known = ",".join(map(str, targets))
    refusal = build(runtime, model, work / "refused.plan")
    outcome.notes.append(f"{model.name}, `vmkla build` here, on SM {sm}: {refusal.reason}")
    if refusal.status == 0:
        outcome.wrong.append(f"{runtime}, {model.name}: vmkla build took SM {sm}, which is not among {known}")
    plan = work / f"{model.stem}.listed.plan"
    done = build(runtime, model, plan, "--target-sm", known)
    if done.status == 0:
        row = [model.name, f"SM {known}", json.loads(done.stdout)["seconds"], done.peak_bytes / 2**30,
               plan.stat().st_size / 1e6]  # fmt: skip
        table.add(*row, *["-"] * (len(COLUMNS) - len(row)))
        case = call([*CASE, "compare", model, plan, runtime])
        outcome.notes.append(f"{model.name}, an engine for SM {known} on SM {sm}: {case.reason}")
    else:
        outcome.wrong.append(f"{runtime}, {model.name}: vmkla build --target-sm {known}: {done.reason}")
    for target in ("default", "CURRENT"):
        raw = call([*CASE, "raw", model, target])
        if raw.status != 0:
            outcome.notes.append(f"{model.name}, its builder asked directly, target {target}: {raw.reason}")
            continue
        found = json.loads(raw.stdout)
        row = [model.name, f"{target}, asked directly", found["build_s"], raw.peak_bytes / 2**30,
               found["engine_bytes"] / 1e6]  # fmt: skip
        add_comparison(table, row, found, f"{runtime}, {model.name}, target {target}", outcome)


def add_comparison(
    table: Table, row: list[object], found: dict[str, Any], where: str, outcome: Outcome
) -> None:
    """A row of figures, and what is wrong with them."""
    errors = [
        f"{found[name]:.1e}" if found[name] is not None else "NaN" for name in ("max_error", "mean_error")
    ]
    table.add(*row, *errors, f"{found['mean_dice']:.4f}", found["infer_p50_ms"], found["infer_p99_ms"])
    outcome.wrong += [f"{where}: {failure}" for failure in found["failures"]]
