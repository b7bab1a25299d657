"""Pack, train, judge and leave everything in one folder: what a machine with a GPU is borrowed for.

    python benchmarks/gpu_train.py --data polyp=DIR                  # small and nano, 300 epochs each
    python benchmarks/gpu_train.py --data polyp=DIR --recipe paper --rows small --epochs 300
    python benchmarks/gpu_train.py --data polyp=DIR --rows unet:resnet34 small --max-minutes 50
    python benchmarks/gpu_train.py --join runs/gpu-train/result      # checkpoints from their pieces

The same command again goes on after a cut. In OUT/result lie table.md and, for every row, its figures, its
curve, and the checkpoint in pieces under 16 MB. `--max-minutes` is for the whole call: rows that are not
done share what is left, and are judged as far as they have come.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pieces import SUFFIX, join_file, split_file
from polyp import add_recipe_flags, config_of, say
from rows import ROW, RUN, Row, read_rows, results_table, run_row, write_json

from vmkla.data import DataSet, open_dataset
from vmkla.data.packing import PackOptions, pack
from vmkla.errors import BadInputError, StoppedError, UsageError, VmklaError
from vmkla.models.serving import check_device

OF_ROW: Mapping[str, Mapping[str, Any]] = {"small": {"lr": 5e-4, "drop_path": 0.2}}
"""What the recipe `long` changes for one network: ten times the parameters want more restraint."""


def packed(args: argparse.Namespace) -> DataSet:
    """The data, from the packed file that the first call writes.

    Raises:
        UsageError: the file that lies there is of other data.
    """
    path = args.out / f"data-{args.imgsz}.vmkpack"
    wanted = {"data": args.data, "seed": args.seed}
    origin = path.with_suffix(".json")
    if not path.is_file():
        write_json(origin, wanted)
        say(f"packing {args.data} into {path}")
        report = pack(
            open_dataset(args.data, root=None, seed=args.seed),
            path,
            PackOptions((args.imgsz, args.imgsz)),
            seed=args.seed,
        )
        say(f"{report.size_bytes / 1e6:.0f} MB: {report.images}")
    elif origin.is_file() and (made_of := json.loads(origin.read_text(encoding="utf-8"))) != wanted:
        raise UsageError(
            f"{path} was made of {made_of}, and {wanted} is wanted", hint="Choose another --out."
        )
    return open_dataset(str(path), root=None, seed=args.seed)


def row_of(name: str, args: argparse.Namespace, dataset: DataSet) -> Row:
    """The row of a network's name; flags win over what its name asks for."""
    own = dict(OF_ROW.get(name, {})) if args.recipe == "long" else {}
    own_drop_path = own.pop("drop_path", 0.0)
    drop_path = own_drop_path if args.drop_path is None else args.drop_path
    if args.lr is not None:
        own.pop("lr", None)
    folder = args.out / name.replace(":", "-")
    config = config_of(args, out_dir=folder, data=dataset.train, val=dataset.val, compile=args.compile)
    return Row(name, folder, replace(config, **own), dataset.test, drop_path)


def is_done(row: Row) -> bool:
    """An earlier call has trained the row to its last epoch."""
    path = row.folder / ROW
    if not path.is_file():
        return False
    document = json.loads(path.read_text(encoding="utf-8"))
    return bool(document["finished"]) and document["run"]["epochs_done"] >= row.config.epochs


def collect(row: Row, result: Path) -> None:
    """Copy what a row came to into the result's folder."""
    name = row.folder.name
    for source, suffix in ((row.folder / ROW, "json"), (row.folder / RUN / "metrics.csv", "csv")):
        shutil.copyfile(source, result / f"{name}.{suffix}")
    curves = row.folder / RUN / "curves.png"
    if curves.is_file():
        shutil.copyfile(curves, result / f"{name}.png")
    split_file(row.folder / RUN / "best.safetensors", result, f"{name}.safetensors")


def write_table(out: Path, rows: list[Row]) -> Path:
    """``table.md`` of the rows that have figures."""
    documents = read_rows([row.folder for row in rows if (row.folder / ROW).is_file()])
    machines = sorted(
        {str(document["machine"].get("gpu", document["machine"]["cpu"])) for document in documents}
    )
    notes = ["", f"Measured on: {', '.join(machines)}."]
    open_rows = [document["row"] for document in documents if not document["finished"]]
    if open_rows:
        notes.append(f"Stopped before the last epoch: {', '.join(open_rows)}.")
    path = out / "result" / "table.md"
    path.write_text(results_table("Polyp split", documents, notes).markdown() + "\n", encoding="utf-8")
    return path


def run_rows(args: argparse.Namespace) -> Path:
    """Every row as far as the time allows.

    Returns:
        The table.
    Raises:
        VmklaError: not one row has a finished epoch.
        StoppedError: a signal came; the state was saved.
    """
    begun_s = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    result = args.out / "result"
    result.mkdir(exist_ok=True)
    dataset = packed(args)
    rows = [row_of(name, args, dataset) for name in args.rows]
    table = None
    for number, row in enumerate(rows):
        if args.max_minutes is not None:
            left = args.max_minutes - (time.monotonic() - begun_s) / 60
            if left <= 0:
                break
            unfinished = sum(not is_done(other) for other in rows[number:])
            row = replace(row, config=replace(row.config, max_minutes=left / max(1, unfinished)))
        if run_row(row, say) is None:
            continue
        collect(row, result)
        table = write_table(args.out, rows)
    if table is None:
        raise VmklaError("the time was up before any row had an epoch", hint="Call it again, with more time.")
    return table


def main(arguments: list[str] | None = None) -> int:
    """Run or join."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="a folder or NAME=DIR, as `vmkla train --data` takes it")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-train"))
    parser.add_argument("--rows", nargs="+", default=["small", "nano"], help="presets, unet or unet:ENCODER")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--join", type=Path, metavar="DIR", help="put checkpoints together, and end")
    add_recipe_flags(parser)
    parser.set_defaults(precision="bf16", device="cuda:0", drop_path=None)
    args = parser.parse_args(arguments)
    if args.data is None and args.join is None:
        parser.error("--data is missing")
    try:
        if args.join is not None:
            listings = sorted(args.join.glob(f"*{SUFFIX}"))
            if not listings:
                raise BadInputError(f"{args.join} holds no list of pieces (*{SUFFIX})")
            for listing in listings:
                print(join_file(listing))
            return 0
        check_device(args.device)  # before an hour of packing and reading
        print(run_rows(args).read_text(encoding="utf-8"))
        return 0
    except StoppedError as error:
        print(f"{parser.prog}: {error}; the same command goes on", file=sys.stderr)
        return error.exit_status
    except VmklaError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
