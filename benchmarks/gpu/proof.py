"""Prove the GPU half on this machine's GPU in ten minutes, and bring one tar back.

    python benchmarks/gpu/proof.py run [--device cpu] [--out DIR]     # `make gpu-proof`
    python benchmarks/gpu/proof.py report [TAR] [--output FILE]       # benchmarks/gpu/results.md from the tar

`run` needs a Python with torch, Triton and numpy: no network, CUDA compiler or installation. What is compiled
comes from `make gpu-proof-pack`. Each step is a process with a time limit; one that hangs or crashes ends
alone. The tar is written anew after every step and during long ones. `--device cpu` is a dry run: every step
as far as it goes without a GPU.

Exit status: 0 all right; 1 a step failed or ran out of time; 4 no GPU, or nothing ran; 5 a result is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.gpu.machine import MACHINE, no_gpu_text, obstacles, read_carried
from benchmarks.gpu.process import call, end
from benchmarks.gpu.records import Context, Recorder, SkippedError, read_rows, write_tar
from benchmarks.gpu.report import TITLES, write_report

ROOT = Path(__file__).resolve().parents[2]
FAILED, ABSENT, WRONG = 1, 4, 5
"""Exit statuses, of this program and of a step's process."""
RESERVE_S, LEAST_S = 5.0, 10.0
"""Kept for the last tar; a step with less time than this is not begun."""
WARM_PROCESSES, WARM_WAIT_S = 14, 40.0
TAR = "gpu-proof.tar.gz"


@dataclass(frozen=True)
class Step:
    """One step of the proof, run in a process of its own.

    Attributes:
        name: as in the tar; ``TITLES`` has it in words.
        function: ``module:function`` of this folder, called with a ``Context`` and a ``Recorder``.
        limit_s: after this it is killed; infinite for what is left.
        need: see ``machine.obstacles``; empty for none.
    """

    name: str
    function: str
    limit_s: float
    need: str = ""


STEPS = (
    Step("versions", "machine:versions_step", 40),
    Step("harness", "native:harness", 50, "native"),
    Step("plugin", "native:plugin", 30, "native"),
    Step("sanitizer", "native:sanitizer", 90, "native"),
    Step("triton", "scan:check", 60, "triton"),
    Step("times", "native:times", 40, "native"),
    Step("ncu", "native:ncu", 45, "native"),
    Step("scan", "scan:times", 50, "triton"),
    Step("training", "training:steps", 100, "triton"),
    Step("engines", "engines:engines", 30),
    Step("train", "training:train_nano", float("inf"), "triton"),
)


@dataclass
class Proof:
    """One run of all steps.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        carry: of `make gpu-proof-pack`.
        out: folder that gets the tar.
        work: folder for everything else; emptied first.
        deadline_s: of the monotonic clock.
        limits_s: of steps by name, in place of their own.
        documents: what became of each step, by name.
        warm: processes that compile in the background.
        said: the last reason that was printed.
    """

    device: str
    carry: Path
    out: Path
    work: Path
    deadline_s: float
    limits_s: Mapping[str, float]
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    warm: list[Popen[bytes]] = field(default_factory=list)
    said: str = ""

    @property
    def results(self) -> Path:
        """The folder whose files go into the tar."""
        return self.work / "results"

    @property
    def machine(self) -> dict[str, Any]:
        """The facts that the first step found; empty when it failed."""
        path = self.results / MACHINE
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found

    def run(self, steps: Sequence[Step]) -> int:
        """Run the steps in order; return the exit status."""
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in (self.results, self.out):
            folder.mkdir(parents=True, exist_ok=True)
        for step in steps:
            self.note(step.name, "not begun", "the whole run ended before this step")
        try:
            for step in steps:
                if reason := self.obstacle(step):
                    self.note(step.name, "skipped", reason)
                else:
                    self.take(step)
                if step.name == "versions":
                    self.start_warm()
        finally:
            for process in self.warm:
                end(process, group=True)
            self.save()
        return self.status()

    def note(self, name: str, status: str, reason: str, seconds: float = 0.0) -> None:
        """Record the outcome of a step and write the tar."""
        self.documents[name] = {"status": status, "reason": reason, "seconds": seconds}
        if status not in ("not begun", "cut off"):
            said = "as before" if reason and reason == self.said else reason
            self.said = reason
            say(f"{name}: {status}, {seconds:.1f} s{said and ': '}{said}")
        self.save()

    def save(self) -> None:
        """Write the tar of everything found so far."""
        for name, document in self.documents.items():
            (self.results / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        facts = {"device": self.device, "steps": list(self.documents), "carried": read_carried(self.carry)}
        (self.results / "proof.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        write_tar(self.results, self.out / TAR)

    def obstacle(self, step: Step) -> str:
        """Return why a step cannot run here; an empty text when it can."""
        if self.left_s() < LEAST_S:
            return "the time for the whole run was up"
        if self.no_gpu():
            return no_gpu_text(self.machine)
        return obstacles(self.machine, read_carried(self.carry), dry=self.device == "cpu").get(step.need, "")

    def no_gpu(self) -> bool:
        """Return whether a GPU is wanted and was not found."""
        return self.device == "cuda" and bool(self.machine) and self.machine["gpu"] is None

    def left_s(self) -> float:
        """Return the seconds that are left for the steps."""
        return self.deadline_s - RESERVE_S - time.monotonic()

    def take(self, step: Step) -> None:
        """Run one step in a process group of its own and record its outcome."""
        if step.name == "triton":
            self.wait_for_warm()
        limit_s = min(self.limits_s.get(step.name, step.limit_s), self.left_s())
        say(f"{step.name}: {TITLES[step.name]}, at most {limit_s:.0f} s")
        self.note(step.name, "cut off", f"the whole run ended during this step of at most {limit_s:.0f} s")
        command = self.command("step", step.name, "--seconds", str(limit_s))
        log = self.results / f"{step.name}.log"
        done = call(command, limit_s, output=log, env=self.environment(), tick=self.save)
        status = {0: "done", ABSENT: "skipped", None: "out of time"}.get(done.status, "failed")
        if done.status is not None and done.status < 0:
            status = "crashed"
        reason = {"done": "", "skipped": done.stderr.strip().rpartition("\n")[2]}.get(status, done.reason)
        if any("wrong" in row for row in read_rows(self.results / f"{step.name}.jsonl")):
            status = "wrong"
        self.note(step.name, status, reason, round(done.seconds, 1))

    def command(self, kind: str, *arguments: str) -> list[str]:
        """Build the command that runs this program for a step or a share of the warm-up."""
        flags = ("--device", self.device, "--carry", str(self.carry), "--work", str(self.work))
        return [sys.executable, str(Path(__file__).resolve()), kind, *arguments, *flags]

    def environment(self) -> dict[str, str]:
        """Build the environment of a step: the carried package is found first, then the checkout.

        Triton compiles into the work folder; a dry run interprets.
        """
        site = self.carry / "site"
        carried = [str(site), str(ROOT)] if site.is_dir() else []
        paths = [*carried, *filter(None, [os.environ.get("PYTHONPATH")])]
        more = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        if self.device == "cpu":
            return {**os.environ, **more, "TRITON_INTERPRET": "1"}
        more["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # deterministic training asks for it
        return {**os.environ, **more, "TRITON_CACHE_DIR": str(self.work / "triton")}

    def start_warm(self) -> None:
        """Start to compile Triton's kernels in the background, on CPUs that the next steps leave idle."""
        if self.device == "cpu" or self.obstacle(next(step for step in STEPS if step.name == "triton")):
            return  # the interpreter compiles nothing
        count = max(1, min(WARM_PROCESSES, (os.cpu_count() or 1) - 2))
        for number in range(count):
            with (self.results / f"warm-{number}.log").open("wb") as log:
                command, more = self.command("warm", f"{number}/{count}"), {"env": self.environment()}
                self.warm.append(Popen(command, stdout=log, stderr=log, start_new_session=True, **more))

    def wait_for_warm(self) -> None:
        """Wait for the background compilation; the step itself compiles what is still missing."""
        until_s = time.monotonic() + min(WARM_WAIT_S, self.left_s())
        for process in self.warm:
            with contextlib.suppress(TimeoutExpired):
                process.wait(max(0.0, until_s - time.monotonic()))

    def status(self) -> int:
        """Return the exit status of the whole run."""
        seen = {document["status"] for name, document in self.documents.items() if name != "versions"}
        if "wrong" in seen:
            return WRONG
        if seen - {"done", "skipped"} or self.documents["versions"]["status"] != "done":
            return FAILED
        return 0 if "done" in seen and not self.no_gpu() else ABSENT


def take_step(args: argparse.Namespace) -> int:
    """Run one step, or one share of the warm-up, in this process."""
    context = Context(args.device, args.carry, args.work / args.name, args.work / "results", args.seconds)
    context.work.mkdir(parents=True, exist_ok=True)
    try:
        if args.command == "warm":
            number, count = map(int, args.share.split("/"))
            from benchmarks.gpu.scan import warm

            warm(context, number, count)
        else:
            module, name = next(step.function for step in STEPS if step.name == args.name).split(":")
            out = Recorder(context.results / f"{args.name}.jsonl")
            getattr(importlib.import_module(f"benchmarks.gpu.{module}"), name)(context, out)
    except SkippedError as error:
        print(error, file=sys.stderr)
        return ABSENT
    except Exception as error:  # the last line is what the tar says
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    return 0


def take_run(args: argparse.Namespace) -> int:
    """Run all steps, or those that were named."""
    names, limits = [step.name for step in STEPS], dict(args.limits)
    if unknown := sorted({*(args.only or []), *limits} - set(names)):
        print(f"there is no step {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    steps = [step for step in STEPS if not args.only or step.name in (*args.only, "versions")]
    signal.signal(signal.SIGTERM, _stop)  # the tar is written on the way out
    proof = Proof(args.device, args.carry, args.out, args.work, time.monotonic() + args.seconds, limits)
    status = proof.run(steps)
    if proof.no_gpu():
        say(no_gpu_text(proof.machine))
    for name in proof.documents:
        for row in read_rows(proof.results / f"{name}.jsonl"):
            if "wrong" in row:
                say(f"WRONG, {name}: {row['wrong']}")
    print(args.out / TAR)
    return status


def _stop(signum: int, _: object) -> NoReturn:
    raise SystemExit(128 + signum)


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def limit(text: str) -> tuple[str, float]:
    """Parse ``NAME=SECONDS``."""
    name, _, seconds = text.partition("=")
    return name, float(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the steps")
    run.add_argument("--out", type=Path, default=Path("runs/gpu-proof"), help="folder for the tar")
    run.add_argument("--only", nargs="+", metavar="STEP", help="steps to run; default: all")
    run.add_argument("--limits", nargs="+", type=limit, default=[], metavar="STEP=SECONDS")
    step = commands.add_parser("step", help="one step; `run` calls it")
    step.add_argument("name")
    warm = commands.add_parser("warm", help="compile a share of Triton's kernels; `run` calls it")
    warm.add_argument("share", metavar="NUMBER/COUNT")
    warm.set_defaults(name="warm")
    for one in (run, step, warm):
        one.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
        one.add_argument("--carry", type=Path, default=ROOT / "build" / "gpu-proof")
        one.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu-proof-work")
        one.add_argument("--seconds", type=float, default=570.0, help="time limit of the whole")
    report = commands.add_parser("report", help="write benchmarks/gpu/results.md")
    report.add_argument("tar", type=Path, nargs="?", help="of `run`; none: nothing was measured")
    report.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "gpu" / "results.md")
    args = parser.parse_args(arguments)
    if args.command == "report":
        print(write_report(args.tar, args.output))
        return 0
    return take_run(args) if args.command == "run" else take_step(args)


if __name__ == "__main__":
    sys.exit(main())
