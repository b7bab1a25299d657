"""Repeat the paper's ablations (Tables 7 to 10) at a small scale: encoder depths and six decoder blocks.

    python experiments/ablation.py --data polyp=DIR             # every run, then experiments/ablation.md
    python experiments/ablation.py --data polyp=DIR --only mkcsa ss2d --seeds 0
    python experiments/ablation.py --table                      # the table from the runs that are done

All runs take the same steps on the same images. The same command again resumes after a cut: a run that
is done is not repeated. About an hour on one CPU core.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind the installed vmkla

from benchmarks.common import Table
from experiments.polyp import add_speed_flags, say, speed_of
from experiments.ranking import RULE, late_share, ranks
from experiments.rows import (
    RESULT,
    check_one_plan,
    check_tests,
    done_runs,
    finished_run,
    judge,
    machine,
    write_json,
)
from vmkla.config import DECODER_BLOCKS, ModelConfig
from vmkla.data import AugmentConfig, DataSet, open_dataset
from vmkla.errors import VmklaError
from vmkla.models.checkpoints import load_weights
from vmkla.models.complexity import measure
from vmkla.training import TrainConfig, train

HERE = Path(__file__).resolve().parent
FLAT = 0.05
"""A loss curve has flattened when the last fifth of the epochs brought at most this share of its fall."""

BASE = ModelConfig(
    "ablation", dim=16, encoder_depths=(2, 2, 2, 2), decoder_depths=(1, 1, 1, 1), head_dim=16, kan_hidden=32
)
"""Half the width of `nano`, so that three seeds of every variant fit into an hour on one core."""
ENCODERS = {"2-2-2-2": (2, 2, 2, 2), "2-2-9-2": (2, 2, 9, 2), "2-2-27-2": (2, 2, 27, 2)}
VARIANTS: Mapping[str, ModelConfig] = {
    **{f"encoder {name}": replace(BASE, encoder_depths=depths) for name, depths in ENCODERS.items()},
    **{f"decoder {name}": replace(BASE, decoder_block=name) for name in DECODER_BLOCKS},
}
TABLES = {
    "Encoder depths, decoder block mkcsa (the paper's Tables 7 and 8)": [
        f"encoder {name}" for name in ENCODERS
    ],
    "Decoder blocks, encoder 2-2-2-2 (the paper's Tables 9 and 10)": [
        f"decoder {name}" for name in DECODER_BLOCKS
    ],
}


@dataclass(frozen=True)
class Plan:
    """The settings that all runs share.

    Attributes:
        folder: where the runs lie.
        data: as `vmkla train --data` takes it.
        side: of the network's input, px.
        epochs, batch_size, lr: of every run; equal steps for all.
        device, threads: where they run.
        speed: how, see ``polyp.speed_of``.
    """

    folder: Path
    data: str
    side: int = 64
    epochs: int = 15
    batch_size: int = 16
    lr: float = 2e-3
    device: str = "cpu"
    threads: int | None = 1
    speed: Mapping[str, Any] = field(default_factory=dict)

    def run_folder(self, variant: str, seed: int) -> Path:
        """Return the folder of one run."""
        return self.folder / f"{same_network(variant).replace(' ', '-')}-seed{seed}"

    def config(self, variant: str, seed: int, dataset: DataSet) -> TrainConfig:
        """Build the training configuration of one run, which resumes where an earlier call was cut off."""
        folder = self.run_folder(variant, seed)
        return TrainConfig(
            out_dir=folder,
            data=dataset.train,
            val=dataset.val,
            model=VARIANTS[variant],
            image_size_hw=(self.side, self.side),
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            min_lr=1e-5,
            t_max_epochs=0,
            warmup_epochs=1.0,
            ema_decay=0.99,
            weight_decay=0.02,
            # Flips alone: with stronger augmentation the loss would still be falling when the time is up.
            augment=replace(AugmentConfig.off(), flip=0.5),
            seed=seed,
            device=self.device,
            threads=self.threads,
            **self.speed,
            resume=(folder / "state.pt").is_file(),
            curves=False,
        )


def same_network(variant: str) -> str:
    """Return the first variant with the same network, which is trained once and stands in both tables."""
    return next(name for name, config in VARIANTS.items() if config == VARIANTS[variant])


def run(plan: Plan, variant: str, seed: int, dataset: DataSet) -> dict[str, Any]:
    """Train and evaluate one run, or read its result when it is done already.

    The last weights are judged, not the best on some set: nothing is chosen, so nothing is flattered.

    Raises:
        VmklaError: the result that lies there is of another plan.
        StoppedError: a signal came; the state was saved.
    """
    folder = plan.run_folder(variant, seed)
    shared = {"side": plan.side, "epochs": plan.epochs, "batch_size": plan.batch_size, "lr": plan.lr}
    if done := finished_run(folder, shared):
        return done
    config = plan.config(variant, seed, dataset)
    result = train(config)
    if result.last_weights is None:
        raise VmklaError(f"{variant}, seed {seed}: no epoch was finished")
    with (config.out_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        losses = [float(line["train_loss"]) for line in csv.DictReader(file)]
    model = load_weights(result.last_weights).model
    document = {
        "variant": same_network(variant),
        "model": VARIANTS[variant].to_dict(),
        "seed": seed,
        "plan": shared,
        "seconds": sum(report.seconds for report in result.history),
        "train_losses": losses,
        "late_share": late_share(losses),
        "machine": machine(plan.device),
        "tests": judge(model, {"test": [s for sources in dataset.test.values() for s in sources]}, config),
    }
    write_json(folder / RESULT, document)
    return document


def tables(documents: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Make both tables from the finished runs."""
    by_network: dict[str, list[Mapping[str, Any]]] = {}
    for document in sorted(documents, key=lambda document: document["seed"]):
        by_network.setdefault(document["variant"], []).append(document)
    made = []
    for title, variants in TABLES.items():
        runs = {name: by_network[same_network(name)] for name in variants if same_network(name) in by_network}
        table = Table(
            title,
            ("variant", "M parameters", "M FLOPs", "seeds", "mean Dice [worst, best seed]",
             "global mIoU", "global DSC", "rank", "late share"),
        )  # fmt: skip
        rank = ranks({name: [_dice(document) for document in done] for name, done in runs.items()})
        for name, done in runs.items():
            dices = [_dice(document) for document in done]
            side = done[0]["plan"]["side"]
            cost = measure(VARIANTS[name], side, side)  # now, so that all rows are counted in one way
            totals = [document["tests"]["test"]["resolutions"]["model"]["global"] for document in done]
            table.add(
                name.split(" ", 1)[1],
                f"{cost.parameters / 1e6:.2f}",
                f"{cost.flops / 1e6:.0f}",
                len(done),
                f"{statistics.mean(dices):.4f} [{min(dices):.4f}, {max(dices):.4f}]",
                f"{statistics.mean(total['miou'] for total in totals):.4f}",
                f"{statistics.mean(total['dsc'] for total in totals):.4f}",
                rank[name],
                f"{max(document['late_share'] for document in done):.1%}",
            )
        made.append(table)
    return made


def report(documents: Sequence[Mapping[str, Any]]) -> str:
    """Write the text of ablation.md.

    Raises:
        VmklaError: the runs are of several plans, and so not of equal steps.
    """
    check_one_plan(documents)
    first = documents[0]
    plan, test = first["plan"], first["tests"]["test"]
    low, high = test["resolutions"]["native"]["per_image"]["dice_ci95"]
    rising = [d for d in documents if d["late_share"] > FLAT]
    flat = "All curves have flattened by this measure." if not rising else (
        f"{len(rising)} of {len(documents)} curves have not: "
        + ", ".join(f"{d['variant']} seed {d['seed']}" for d in rising) + "."
    )  # fmt: skip
    lines = [
        "# Ablation: encoder depths and decoder blocks",
        "",
        "Written by `python experiments/ablation.py`. The paper's Tables 7 to 10 at a reduced scale: what "
        "the variants are worth beside each other at equal steps and on a CPU's budget, not the "
        "paper's figures.",
        "",
        "- Variants: the encoder depths that the paper and its published settings name (2-2-2-2, 2-2-9-2, "
        "and 2-2-27-2 for Synapse), and the six decoder blocks of Tables 9 and 10; see docs/paper.md.",
        f"- Network: widths {', '.join(map(str, BASE.dims))}, decoder depths 1-1-1-1, from random weights.",
        f"- Polyp split at {plan['side']}x{plan['side']}; {plan['epochs']} epochs of batch "
        f"{plan['batch_size']} for every run, learning rate {plan['lr']} falling along one cosine, flips as "
        "the only augmentation.",
        f"- Judged: the averaged weights of the last epoch on the {test['images']} test images; nothing is "
        "selected. Mean Dice: per image, native resolution. Global: one confusion matrix at the network's.",
        f"- {RULE}",
        "- The seeds' spread leaves out that of the test images: for one run the 95 % interval over images "
        f"is about {high - low:.2f} wide.",
        "- Late share: the part of the training loss's whole fall that came in the last fifth of the epochs "
        f"(largest over the seeds); {FLAT:.0%} or less counts as flat. {flat}",
        f"- {first['machine']['cpu']}, torch {first['machine']['torch']}, one process.",
    ]
    for table in tables(documents):
        lines += ["", table.markdown()]
    return "\n".join(lines) + "\n"


def _dice(document: Mapping[str, Any]) -> float:
    return float(document["tests"]["test"]["resolutions"]["native"]["per_image"]["dice"])


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a folder or NAME=DIR, as `vmkla train --data` takes it")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--output", type=Path, default=HERE / "ablation.md")
    names = [name.split(" ", 1)[1] for name in VARIANTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some of the variants")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--imgsz", type=int, default=Plan.side)
    parser.add_argument("--epochs", type=int, default=Plan.epochs)
    parser.add_argument("--batch", type=int, default=Plan.batch_size)
    parser.add_argument("--lr", type=float, default=Plan.lr)
    parser.add_argument("--device", default=Plan.device)
    parser.add_argument("--threads", type=int, default=Plan.threads)
    add_speed_flags(parser)
    parser.add_argument("--table", action="store_true", help="run nothing, only write the table")
    args = parser.parse_args(arguments)
    if args.data is None and not args.table:
        parser.error("--data is missing")
    try:
        if not args.table:
            _run_all(args)
        args.output.write_text(report(done_runs(args.out)), encoding="utf-8")
        print(args.output)
        return 0
    except VmklaError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_status


def _run_all(args: argparse.Namespace) -> None:
    plan = Plan(
        args.out,
        args.data,
        args.imgsz,
        args.epochs,
        args.batch,
        args.lr,
        args.device,
        args.threads,
        speed_of(args),
    )
    dataset = open_dataset(args.data, root=None, seed=0)
    check_tests(dataset.test)
    wanted = [name for name in VARIANTS if name.split(" ", 1)[1] in args.only]
    variants = list(dict.fromkeys(same_network(name) for name in wanted))
    # Seed by seed, so that a run that is cut off has whole columns rather than some variants only.
    for seed in args.seeds:
        for variant in variants:
            document = run(plan, variant, seed, dataset)
            say(
                f"{variant}, seed {seed}: mean Dice {_dice(document):.4f}, training loss "
                f"{document['train_losses'][-1]:.4f}, the last fifth brought {document['late_share']:.1%} of "
                f"its fall, {document['seconds']:.0f} s"
            )


if __name__ == "__main__":
    sys.exit(main())
