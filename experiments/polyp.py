"""Train one row of the polyp table, or print the table of the rows.

    python experiments/polyp.py train nano --data polyp=DIR --out runs/polyp/nano --imgsz 192 --precision bf16
    python experiments/polyp.py train unet --data polyp=DIR --out runs/polyp/unet --imgsz 192 --precision bf16
    python experiments/polyp.py table runs/polyp/nano runs/polyp/unet

The same command again resumes after a cut. A name is a preset of vmkla's, or `unet` (a U-Net of
segmentation-models-pytorch from scratch; `unet:resnet34` names its encoder).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind the installed vmkla

from experiments.rows import RECIPES, Row, read_rows, results_table, run_row
from vmkla.data import open_dataset
from vmkla.errors import VmklaError
from vmkla.training import TrainConfig
from vmkla.training.determinism import repeat_matrix_products


def add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """Add the training flags that all experiments share; None leaves the recipe's value."""
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="long")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--imgsz", type=int, default=256, help="side of the network's input, px")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--drop-path", type=float, default=0.0, help="stochastic depth of vmkla's presets")
    parser.add_argument("--precision", default="fp32", help="fp32 or bf16; fp16 on a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    add_speed_flags(parser)
    parser.add_argument("--max-minutes", type=float, help="stop cleanly after this; call again to resume")


def add_speed_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `vmkla train` that change speed; see ``speed_of``."""
    parser.add_argument(
        "--deterministic",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="equal runs give equal results; on a GPU --no-deterministic is faster",
    )
    parser.add_argument("--workers", type=int, help="processes that augment; default: as `vmkla train`")


def speed_of(args: argparse.Namespace) -> dict[str, Any]:
    """Convert the flags of ``add_speed_flags`` to fields of ``TrainConfig``, and prepare cuBLAS for them."""
    if args.deterministic and args.device.startswith("cuda"):
        repeat_matrix_products(os.environ)
    return {"deterministic": args.deterministic, "workers": args.workers}


def config_of(args: argparse.Namespace, **fields: Any) -> TrainConfig:
    """Build the training configuration from the flags of ``add_recipe_flags``."""
    given = {"epochs": args.epochs, "batch_size": args.batch, "lr": args.lr}
    values = {
        **RECIPES[args.recipe],
        **speed_of(args),
        **{name: value for name, value in given.items() if value is not None},
        **fields,
    }
    return TrainConfig(
        image_size_hw=(args.imgsz, args.imgsz),
        precision=args.precision,
        device=args.device,
        threads=args.threads,
        seed=args.seed,
        max_minutes=args.max_minutes,
        **values,
    )


def say(line: str) -> None:
    """Print progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Train and evaluate a row, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train and judge one row")
    one.add_argument("name", help="nano, tiny, small, large, unet or unet:ENCODER")
    one.add_argument("--data", required=True, help="a folder or NAME=DIR, as `vmkla train --data` takes it")
    one.add_argument("--out", type=Path, required=True)
    add_recipe_flags(one)
    many = commands.add_parser("table", help="print rows as a Markdown table")
    many.add_argument("rows", type=Path, nargs="+", help="folders of rows, or their row.json")
    many.add_argument("--title", default="Polyp segmentation")
    args = parser.parse_args(arguments)
    try:
        if args.command == "table":
            print(results_table(args.title, read_rows(args.rows)).markdown())
            return 0
        dataset = open_dataset(args.data, root=None, seed=args.seed)
        config = config_of(args, out_dir=args.out, data=dataset.train, val=dataset.val)
        document = run_row(Row(args.name, args.out, config, dataset.test, args.drop_path), say)
        if document is not None:
            print(results_table(args.name, [document]).markdown())
        return 0
    except VmklaError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
