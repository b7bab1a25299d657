"""Inject every fault that live mode must survive, and write the tables of benchmarks/live/results.md.

    python benchmarks/live/faults.py                                  # everything, about two hours
    python benchmarks/live/faults.py --only worker source --short     # parts, with shorter waits
    python benchmarks/live/faults.py --only loop --video clip.mp4     # ten minutes of a clip of your own

Each part takes some minutes and is kept as soon as it is done (``--state``), so a run that was cut off
continues with ``--resume``, and parts measured at different times end in one file. The machine should do
nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.live.tables import BEGIN, END, section
from tests.faults import around, record, source, worker
from tests.faults.clips import write_clip
from tests.faults.figures import Figures
from tests.faults.harness import Setup
from vmkla.cpu_features import cpu_name

HERE = Path(__file__).resolve().parent
Case = Callable[[Path], Figures]


@dataclass(frozen=True)
class Plan:
    """The clips and the length of a measurement.

    Attributes:
        setup: 480x360 at 30 pictures a second.
        large: the same at 1920x1080.
        short: a tenth of the repetitions and times.
    """

    setup: Setup
    large: Setup
    short: bool

    def times(self, whole: int) -> int:
        """Return the number of repetitions, a tenth when the plan is short."""
        return max(2, whole // 10) if self.short else whole

    def seconds(self, whole: float) -> float:
        """Return a duration in seconds, a tenth when the plan is short."""
        return max(2.0, whole / 10) if self.short else whole


def worker_cases(plan: Plan) -> list[Case]:
    """Return the faults of the worker process."""
    setup = plan.setup
    orders = ("nan", "shape", "above one", "hang", "raise", "device lost", "memory", "exit", "segv")
    return [
        lambda folder: worker.killed(folder, setup, times=3),
        lambda folder: worker.stopped(folder, setup, seconds=plan.seconds(10)),
        *[(lambda folder, order=order: worker.spoilt(folder, setup, order)) for order in orders],
        lambda folder: worker.deleted(folder, setup),
        lambda folder: worker.slow(folder, setup, seconds=plan.seconds(10)),
    ]


def kill_cases(plan: Plan) -> list[Case]:
    """Return one case: the worker is killed a hundred times, which is mostly the wait for restarts."""
    return [lambda folder: worker.killed(folder, plan.setup, times=plan.times(100))]


def source_cases(plan: Plan) -> list[Case]:
    """Return the faults of the source, which is a named pipe."""
    setup = plan.setup
    return [
        lambda folder: source.stalled(folder, setup, seconds=5),
        lambda folder: source.died(folder, setup),
        lambda folder: source.resized(folder, setup),
        lambda folder: source.corrupted(folder, setup),
    ]


def record_cases(plan: Plan) -> list[Case]:
    """Return the faults of a recording: the run, the machine or the disk ends."""
    setup = plan.setup
    cases: list[Case] = [
        lambda folder: record.ended(folder, setup, seconds=plan.seconds(20)),
        lambda folder: record.cut_off(folder, setup, seconds=plan.seconds(20)),
    ]
    return [*cases, lambda folder: record.disk_full(folder, setup)] if record.can_mount() else cases


def around_cases(plan: Plan) -> list[Case]:
    """Return the faults of the monitor's clients and of the clock."""
    setup = plan.setup
    return [
        lambda folder: around.hammered(folder, setup, seconds=plan.seconds(30)),
        lambda folder: around.clock_stepped(folder, setup),
    ]


def delay_cases(plan: Plan) -> list[Case]:
    """Return the cases without a fault that measure delays at both sizes."""
    seconds = plan.seconds(120)
    return [
        lambda folder: _named(around.soaked(folder, plan.setup, seconds=seconds), "480x360, nothing happens"),
        lambda folder: _named(
            around.soaked(folder, plan.large, seconds=seconds), "1920x1080, nothing happens"
        ),
    ]


def loop_cases(plan: Plan) -> list[Case]:
    """Return one case: a clip is looped for ten minutes."""
    return [
        lambda folder: _named(
            around.soaked(folder, plan.setup, seconds=plan.seconds(600), every_s=5),
            "ten minutes of a clip, looped",
        )
    ]


def soak_cases(plan: Plan) -> list[Case]:
    """Return one case: half an hour with recording and the monitor on."""
    options = {**plan.setup.options, "recording": {}, "monitor": ["127.0.0.1", around.free_port()]}
    setup = replace(plan.setup, options=options)
    return [
        lambda folder: _named(
            around.soaked(folder, setup, seconds=plan.seconds(1800), every_s=10),
            "half an hour, recording, with the monitor",
        )
    ]


PARTS: dict[str, Callable[[Plan], list[Case]]] = {
    "delay": delay_cases,
    "worker": worker_cases,
    "kills": kill_cases,
    "source": source_cases,
    "record": record_cases,
    "around": around_cases,
    "loop": loop_cases,
    "soak": soak_cases,
}


def main() -> int:
    """Run the parts, keep their figures, and write the section of the file."""
    args = _parse()
    state = json.loads(args.state.read_text(encoding="utf-8")) if args.state.exists() else {}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="vmkla-live-") as scratch:
        plan = _plan(Path(scratch), args)
        for part in args.only:
            if args.resume and part in state:
                continue
            figures = []
            for number, case in enumerate(PARTS[part](plan)):
                folder = Path(scratch) / f"{part}-{number}"
                try:
                    figures.append(case(folder).to_dict())
                    print(json.dumps(figures[-1]), file=sys.stderr, flush=True)
                except (TimeoutError, OSError, KeyError, ValueError) as error:
                    failed += 1
                    figures.append({"case": f"{part} {number}", "failed": str(error)[:500]})
                    print(f"{part} {number} FAILED: {error}", file=sys.stderr, flush=True)
                shutil.rmtree(folder, ignore_errors=True)
            state[part] = {"when": _circumstances(args), "figures": figures}
            args.state.parent.mkdir(parents=True, exist_ok=True)
            args.state.write_text(json.dumps(state, indent=1), encoding="utf-8")
            _merge(args.output, section({name: state[name] for name in PARTS if name in state}))
    print(args.output)
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--short", action="store_true", help="a tenth of the repetitions and times")
    parser.add_argument("--resume", action="store_true", help="leave out parts that --state has")
    parser.add_argument("--video", type=Path, help="play this in place of the rendered clip of 480x360")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--state", type=Path, default=HERE.parents[1] / "runs/bench/live.json")
    parser.add_argument("--output", type=Path, default=HERE / "results.md")
    return parser.parse_args()


def _plan(folder: Path, args: argparse.Namespace) -> Plan:
    clip = args.video
    if clip is None:
        clip = write_clip(folder / "clip.mp4", 360, 480)
    setup = Setup(str(clip), args.model, args.threads, {"loop": True}, known=True)
    large = write_clip(folder / "large.mp4", 1080, 1920, seconds=3)
    return Plan(setup, replace(setup, source=str(large)), args.short)


def _named(figures: Figures, case: str) -> Figures:
    figures.case = case
    return figures


def _circumstances(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "model": args.model,
        "threads": args.threads,
        "short": args.short,
        "source": "a clip of one's own" if args.video else "the rendered clip",
    }


def _merge(path: Path, text: str) -> None:
    """Replace this script's section of a file that others write to as well."""
    before = path.read_text(encoding="utf-8") if path.exists() else f"# Live mode\n\n{BEGIN}\n{END}\n"
    if BEGIN not in before:
        before = before.rstrip() + f"\n\n{BEGIN}\n{END}\n"
    head, rest = before.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
