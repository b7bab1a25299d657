"""Train nano from random weights several times with one small budget: an ablation, and leave-one-centre-out.

    python experiments/equal_budget.py --data DIR:TRAIN.txt --val DIR:VAL.txt --teacher FILE.vmkpack
    python experiments/equal_budget.py --data DIR:TRAIN.txt --val DIR:VAL.txt --only C1 C2
    python experiments/equal_budget.py --table        # the tables from the runs that are done

All runs see about the same number of images. The same command again resumes after a cut: a run that is done
is not repeated. The images are PolypGen's, whose names tell the centre. Writes experiments/equal_budget.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind the installed vmkla

from benchmarks.common import Table
from experiments.operating_point import Counts, choose, count, halve, judge, judge_all, share_of
from experiments.polyp import say
from experiments.rows import RESULT, check_one_plan, done_runs, finished_run, machine, write_json
from experiments.teacher import left_out
from vmkla.data import AugmentConfig, DataSource, Sample, iter_samples
from vmkla.data.folder import list_pairs
from vmkla.engines.runners.load import load_runner
from vmkla.errors import BadInputError, UsageError, VmklaError
from vmkla.evaluation import evaluate
from vmkla.segment.operating_point import OperatingPoint
from vmkla.training import TrainConfig, train

HERE = Path(__file__).resolve().parent
STEPS = {"scratch": "from random weights", "windows": "+ quiet share", "teacher": "+ teacher"}
"""Runs of the ablation; each has what those before it have."""
CENTRES = {
    "C1": r"\d+OLCV|100H0050|100S0003",
    "C2": r"EndoCV2021_\d+$",
    "C3": r"C3_EndoCV2021_",
    "C4": r"\d+_endocv2021_(positive|negative)_",
    "C5": r"EndoCV2021_C5_",
    "C6": r"EndoCV2021_C6_",
}
"""Begin the names of a centre's images in PolypGen."""


@dataclass(frozen=True)
class Plan:
    """The settings that all runs share.

    Attributes:
        side: of the network's input, px.
        images: about how many a training shows, repeats included.
        batch_size, lr: of every run.
        quiet_share: of every run but ``scratch``.
        most_alarms: share of the choosing half's quiet pictures at the chosen operating point.
        seed: of weights, order, augmentation and halves.
        model: a preset's name.
    """

    side: int = 96
    images: int = 24000
    batch_size: int = 16
    lr: float = 1e-3
    quiet_share: float = 0.25
    most_alarms: float = 0.1
    seed: int = 0
    model: str = "nano"

    def epochs(self, images: int, lesions: int, quiet_share: float) -> int:
        """Return the epochs of a training; see ``vmkla.data.draws.Draws`` for the length of one.

        Args:
            images: of its training set.
            lesions: images with a lesion among them.
            quiet_share: of its batches.
        """
        drawn = self.batch_size - round(quiet_share * self.batch_size)
        steps = lesions // drawn if quiet_share else images // self.batch_size
        return max(1, round(self.images / max(1, steps * self.batch_size)))


@dataclass(frozen=True)
class Images:
    """The images by their use.

    Attributes:
        folder: of all images.
        train, val: stems; those that are left out of training are in neither.
        empty: stems of the images with an empty mask.
    """

    folder: Path
    train: tuple[str, ...]
    val: tuple[str, ...]
    empty: frozenset[str]

    @classmethod
    def read(cls, data: str, val: str) -> Images:
        """List the images, and read which masks are empty.

        Raises:
            BadInputError: images are missing or wrong, the two sets lie in two folders, or a name tells no
                centre.
        """
        sources = [DataSource.parse(text) for text in (data, val)]
        if sources[0].folder.resolve() != sources[1].folder.resolve():
            raise BadInputError(f"{data} and {val} are in two folders, expected one with two lists")
        without = left_out()
        train, valid = (
            tuple(pair.stem for pair in list_pairs([source]) if pair.stem not in without)
            for source in sources
        )
        for stem in (*train, *valid):
            centre_of(stem)
        everything = DataSource(sources[0].folder, stems=(*train, *valid))
        empty = frozenset(_stem(sample) for sample in iter_samples([everything]) if not sample.mask.any())
        return cls(sources[0].folder, train, valid, empty)

    def source(self, stems: Sequence[str]) -> DataSource:
        """Return some of the images as a source."""
        return DataSource(self.folder, stems=tuple(stems))


def _stem(sample: Sample) -> str:
    return sample.name.rsplit("/", 1)[1]


def centre_of(stem: str) -> str:
    """Return the centre of PolypGen that an image is from.

    Raises:
        BadInputError: the name tells none.
    """
    for centre, pattern in CENTRES.items():
        if re.match(pattern, stem):
            return centre
    raise BadInputError(f"{stem} tells no centre", hint="Give images of PolypGen with their names.")


def run(
    name: str, images: Images, plan: Plan, out: Path, teacher: Path | None, threads: int
) -> dict[str, Any]:
    """Train and judge one run, or read its result when it is done already.

    The last weights are judged, not the best on some set: nothing is selected.

    Args:
        name: of ``STEPS``, or of a centre that is left out.
        images: all of them.
        plan: the shared settings.
        out: folder of all runs.
        teacher: pack for the run ``teacher``.
        threads: of torch.
    Raises:
        VmklaError: the result that lies there is of another plan.
        UsageError: the run needs a teacher's pack.
        StoppedError: a signal came; the state was saved.
    """
    folder = out / name
    shared = asdict(plan)
    if done := finished_run(folder, shared):
        return done
    if name == "teacher" and teacher is None:
        raise UsageError("the run with a teacher needs its pack", hint="Give --teacher FILE.vmkpack")
    train_stems = [stem for stem in images.train if centre_of(stem) != name]
    val_stems = [stem for stem in images.val if centre_of(stem) != name]
    quiet_share = 0.0 if name == "scratch" else plan.quiet_share
    lesions = sum(stem not in images.empty for stem in train_stems)
    config = TrainConfig(
        out_dir=folder,
        data=(images.source(train_stems),),
        val=(images.source(val_stems),),
        model=plan.model,
        image_size_hw=(plan.side, plan.side),
        quiet_share=quiet_share,
        teacher=teacher if name == "teacher" else None,
        epochs=plan.epochs(len(train_stems), lesions, quiet_share),
        batch_size=plan.batch_size,
        lr=plan.lr,
        min_lr=plan.lr / 100,
        t_max_epochs=0,
        warmup_epochs=1.0,
        ema_decay=0.99,
        weight_decay=0.02,
        augment=AugmentConfig.paper(),
        seed=plan.seed,
        threads=threads,
        resume=(folder / "state.pt").is_file(),
        curves=False,
        tensorboard=False,
    )
    result = train(config, on_message=say)
    if result.last_weights is None:
        raise VmklaError(f"{name}: no epoch was finished")
    if name in CENTRES:
        held_out = [stem for stem in (*images.train, *images.val) if centre_of(stem) == name]
        found = judge_centre(result.last_weights, images.source(held_out), threads)
    else:
        found = judge_ablation(result.last_weights, images.source(images.val), plan, threads)
    seconds = sum(report.seconds for report in result.history)
    document = {
        "run": name,
        "plan": shared,
        "training_images": len(train_stems),
        "epochs": config.epochs,
        "images_shown": round(sum(report.images_per_s * report.seconds for report in result.history)),
        "minutes": seconds / 60,
        "machine": machine("cpu"),
        **found,
    }
    write_json(folder / RESULT, document)
    return document


def judge_ablation(weights: Path, val: DataSource, plan: Plan, threads: int) -> dict[str, Any]:
    """Judge on the validation images: Dice on all, alarms and lesions on the half that chooses no point."""
    with load_runner(weights, threads=threads) as runner:
        figures = evaluate(runner, iter_samples([val]))
        low = OperatingPoint(runner.spec.operating_point.threshold)
        choosing, reporting = halve(judge_all(runner, iter_samples([val]), low), plan.seed)
    found: dict[str, Any] = {**_dice(figures), "counts": asdict(count(reporting, low)), "point": None}
    try:
        point = choose(choosing, low.threshold, plan.most_alarms)
    except BadInputError as error:
        say(str(error))
    else:
        found |= {"point": point.to_dict(), "point_counts": asdict(count(reporting, point))}
    return found


def judge_centre(weights: Path, held_out: DataSource, threads: int) -> dict[str, Any]:
    """Judge on the images of one centre: Dice, and alarms and lesions at the threshold only."""
    with load_runner(weights, threads=threads) as runner:
        figures = evaluate(runner, iter_samples([held_out]))
        low = OperatingPoint(runner.spec.operating_point.threshold)
        judged = [judge(runner, sample, low) for sample in iter_samples([held_out])]
    return {**_dice(figures), "counts": asdict(count(judged, low))}


def _dice(figures: Mapping[str, Any]) -> dict[str, Any]:
    of_images = figures["resolutions"]["native"]["per_image"]
    return {
        "images": figures["images"],
        "dice": of_images["dice"],
        "dice_ci95": of_images["dice_ci95"],
    }


def ablation_table(documents: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make the table of the ablation."""
    table = Table(
        "Ablation",
        ("training", "operating point", "mean Dice of the raw mask", "alarms", "lesions found",
         "false regions an image", "epochs", "images shown", "minutes"),
    )  # fmt: skip
    for name, title in STEPS.items():
        if name not in documents:
            continue
        d = documents[name]
        of_training = (d["epochs"], d["images_shown"], f"{d['minutes']:.1f}")
        table.add(title, "threshold only", _dice_cell(d), *_cells(d["counts"]), *of_training)
        point = d["point"]
        if point is None:
            table.add("", "none is quiet enough", *[""] * 7)
        else:
            chosen = f"peak {point['peak']:g}, area {point['min_fraction']:g}"
            table.add("", chosen, "", *_cells(d["point_counts"]), "", "", "")
    return table


def centre_table(documents: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make the table of the centres that were left out."""
    table = Table(
        "Leave one centre out",
        ("trained without", "training images", "judged on it", "mean Dice of the raw mask", "lesions found",
         "alarms on its empty images", "epochs", "images shown", "minutes"),
    )  # fmt: skip
    for centre in CENTRES:
        if centre not in documents:
            continue
        d = documents[centre]
        counts = Counts(**d["counts"])
        table.add(
            centre,
            d["training_images"],
            d["images"],
            _dice_cell(d),
            share_of(counts.found, counts.lesions),
            share_of(counts.empty_alarms, counts.empty) if counts.empty else "no empty image",
            d["epochs"],
            d["images_shown"],
            f"{d['minutes']:.1f}",
        )
    return table


def _dice_cell(document: Mapping[str, Any]) -> str:
    low, high = document["dice_ci95"]
    return f"{document['dice']:.4f} [{low:.4f}, {high:.4f}]"


def _cells(counts: Mapping[str, int]) -> tuple[str, str, str]:
    c = Counts(**counts)
    return (
        share_of(c.alarms, c.quiet),
        share_of(c.found, c.lesions),
        f"{c.false_regions / c.images:.2f}",
    )


def report(documents: Sequence[Mapping[str, Any]]) -> str:
    """Write the text of equal_budget.md.

    Raises:
        VmklaError: the runs are of several plans.
    """
    check_one_plan(documents)
    plan = documents[0]["plan"]
    by_name = {document["run"]: document for document in documents}
    facts = documents[0]["machine"]
    lines = [
        "# What windows, a teacher and an operating point change, and centres that were not seen",
        "",
        "Written by `python experiments/equal_budget.py`. What the variants are worth beside each other at a "
        "small, equal budget, not what a full training reaches.",
        "",
        f"- Network: {plan['model']} from random weights at {plan['side']}x{plan['side']}; about "
        f"{plan['images']} images shown in batches of {plan['batch_size']}, learning rate {plan['lr']} "
        f"falling along one cosine, the paper's augmentation, seed {plan['seed']}.",
        "- Images: PolypGen's training split without those of `left_out.txt`. The last averaged weights are "
        "judged; nothing is selected.",
        f"- Quiet share: {plan['quiet_share']} of every batch, in all runs but the first.",
        "- Ablation: Dice on all validation images; alarms, lesions and false regions on half of their "
        "sequences. The other half chose the operating point, for alarms on at most "
        f"{plan['most_alarms']:.0%} of its quiet pictures; see `operating_point.py`.",
        "- Leave one centre out: judged on all images of that centre, of both splits, at the threshold only. "
        "Alarms mean little outside C4 and C2, which hold nearly all empty images.",
        "- In brackets: 95 % intervals, of Dice by bootstrap over images, of shares by Wilson's formula.",
        f"- {facts['cpu']}, torch {facts['torch']}.",
    ]
    for table in (ablation_table(by_name), centre_table(by_name)):
        if table.rows:
            lines += ["", table.markdown()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run what is missing, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="DIR:FILE, training images of PolypGen")
    parser.add_argument("--val", help="DIR:FILE, validation images of the same folder")
    parser.add_argument(
        "--teacher", type=Path, help="what `teacher.py pack` wrote for --imgsz of this training"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/equal-budget"))
    parser.add_argument("--output", type=Path, default=HERE / "equal_budget.md")
    names = [*STEPS, *CENTRES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some of the runs")
    parser.add_argument("--imgsz", type=int, default=Plan.side)
    parser.add_argument("--images", type=int, default=Plan.images, help="about how many a training shows")
    parser.add_argument("--batch", type=int, default=Plan.batch_size)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="run nothing, only write the tables")
    args = parser.parse_args(arguments)
    if not args.table and (args.data is None or args.val is None):
        parser.error("--data or --val is missing")
    try:
        if not args.table:
            plan = Plan(side=args.imgsz, images=args.images, batch_size=args.batch, seed=args.seed)
            images = Images.read(args.data, args.val)
            for name in args.only:
                document = run(name, images, plan, args.out, args.teacher, args.threads)
                say(f"{name}: mean Dice {document['dice']:.4f}, {document['minutes']:.1f} minutes")
        args.output.write_text(report(done_runs(args.out)), encoding="utf-8")
        print(args.output)
        return 0
    except VmklaError as error:
        print(error, file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
