"""``vmkla eval``: measure a model on labelled images."""

from __future__ import annotations

import functools
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.cli.console import print_json, print_line, print_tables, progress_bar, say
from vmkla.cli.eval_procedures import evaluate_procedures
from vmkla.cli.options import (
    Anonymous,
    Device,
    Json,
    MaskOrientation,
    MaskValues,
    MaxMegapixels,
    MinFraction,
    Peak,
    Plugin,
    Quiet,
    Root,
    Runtime,
    RuntimeOption,
    SplitSeed,
    Threads,
    Threshold,
    read_rules,
    run_folder,
)
from vmkla.errors import BadInputError, UsageError
from vmkla.limits import MAX_MEGAPIXELS

if TYPE_CHECKING:
    from vmkla.data.layouts import DataSet
    from vmkla.data.sources import DataSource


class Split(str, Enum):
    """Part of a data set."""

    test = "test"
    val = "val"
    train = "train"
    all = "all"


def evaluate(
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="A folder in any known layout, DIR:FILE, a packed file, or a recipe: NAME=DIR."
        ),
    ] = None,
    procedures: Annotated[
        Path | None,
        typer.Option(
            "--procedures",
            metavar="DIR",
            help="Recordings with the lesions of each frame: REAL-Colon, SUN-SEG, COCO, MOT, or masks.",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option("--fps", metavar="N", help="Frames a second of --procedures, where not stated."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="DIR",
            help="With --procedures: measure what a batch with --save-masks found in them, and run no model.",
        ),
    ] = None,
    identities: Annotated[
        bool,
        typer.Option("--identities/--no-identities", help="Measure HOTA and IDF1 of --procedures."),
    ] = True,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|FILE", help="A shipped model, .onnx or .safetensors.")
    ] = "nano",
    root: Root = None,
    split: Annotated[
        Split | None, typer.Option("--split", help="Default: test; val or all where there is none.")
    ] = None,
    split_seed: SplitSeed = 0,
    mask_values: MaskValues = None,
    mask_orientation: MaskOrientation = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    runtime: RuntimeOption = Runtime.auto,
    device: Device = None,
    plugin: Plugin = None,
    threshold: Threshold = None,
    peak: Peak = None,
    min_fraction: MinFraction = None,
    roi: Annotated[
        str | None,
        typer.Option("--roi", metavar="auto|none|X,Y,W,H", help="Field of view; default: the model's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/eval/MODEL, numbered.")
    ] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Replace the outputs of an earlier evaluation.")
    ] = False,
    html: Annotated[bool, typer.Option("--html/--no-html", help="Write report.html.")] = True,
    anonymous: Anonymous = False,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on labelled images, or on recordings. Writes figures and a line per image or lesion."""
    if data is None and procedures is None:
        raise UsageError(
            "there is nothing to measure the model on",
            hint="Add: --data DIR for labelled images, or --procedures DIR for recordings",
        )
    if procedures is not None:
        refuse_beside(
            "--procedures",
            {
                "--data": data,
                "--root": root,
                "--split": split,
                "--split-seed": split_seed,
                "--mask-values": mask_values,
                "--mask-orientation": mask_orientation,
                "--no-html": not html,
                "--anonymous": anonymous,
            },
        )
    else:
        refuse_beside("--data", {"--fps": fps, "--no-identities": not identities, "--results": results})
    if results is not None:
        refuse_beside(
            "--results",
            {
                "--model": model != "nano",
                "--runtime": runtime is not Runtime.auto,
                "--device": device,
                "--plugin": plugin,
                "--threads": threads,
                "--threshold": threshold is not None,
                "--peak": peak is not None,
                "--min-fraction": min_fraction is not None,
                "--roi": roi,
            },
        )
    from vmkla.engines import load_runner
    from vmkla.segment.operating_point import PointOverrides
    from vmkla.segment.preprocess import parse_roi

    wanted_roi = None if roi is None else parse_roi(roi)
    point = PointOverrides(threshold, peak, min_fraction)
    if procedures is not None:
        from vmkla.evaluation.procedure_run import JudgedNetwork
        from vmkla.evaluation.truth.layouts import open_annotated
        from vmkla.evaluation.truth.records import TruthRules

        annotated = open_annotated(procedures, TruthRules(fps, max_megapixels))
        evaluate_all = functools.partial(
            evaluate_procedures,
            annotated=annotated,
            folder=procedures,
            identities=identities,
            out=out,
            exist_ok=exist_ok,
            json=json,
            quiet=quiet,
        )
        if results is not None:
            from vmkla.archive.findings import StoredFindings

            evaluate_all(StoredFindings(results, annotated.recordings), results.resolve().name)
            return
        with load_runner(model, runtime.value, device, threads=threads, plugin=plugin) as runner:
            evaluate_all(JudgedNetwork(runner, point, wanted_roi), Path(runner.spec.path).stem)
        return
    assert data is not None
    from vmkla.data import list_pairs, open_dataset
    from vmkla.data.folder import iter_pairs
    from vmkla.data.naming import listing, name_sets
    from vmkla.evaluation.run import EvalOptions, run_evaluation
    from vmkla.evaluation.tables import tables

    # A split that the data lack is made from a seed only when one of its parts is asked for.
    made = split in (Split.val, Split.train)
    reading = read_rules(max_megapixels, mask_values, mask_orientation)
    with listing(data, anonymous=anonymous):
        data_set = open_dataset(data, root=root, seed=split_seed, split_validation=made, reading=reading)
        part, sets = choose_part(data_set, split, data)
        pairs = {label if len(sets) > 1 else "": list_pairs(sources) for label, sources in sets.items()}
    named = name_sets(pairs, data, anonymous=anonymous)
    total = sum(map(len, pairs.values()))
    with load_runner(model, runtime.value, device, threads=threads, plugin=plugin) as runner:
        if runner.spec.num_classes != data_set.num_classes:
            raise UsageError(
                f"{model} has {runner.spec.num_classes} output channels, and {named.label} needs "
                f"{data_set.num_classes} ({', '.join(data_set.class_names)})"
            )
        name = Path(runner.spec.path).stem
        volumes = data_set.volumes and part == Split.test.value
        say(f"{named.label if anonymous else data}: {total} image{'s' * (total != 1)} ({part})", quiet=quiet)
        with (
            named.names.in_errors(anonymous),
            run_folder(out, Path("runs/eval") / name, again=exist_ok) as out_dir,
            progress_bar("judging", "images", quiet=quiet) as bar,
        ):
            options = EvalOptions(
                out_dir=out_dir,
                data=named.label,
                split=part,
                declared=reading.of_masks,
                volumes=volumes,
                point=point,
                roi=wanted_roi,
                html=html,
                exist_ok=exist_ok,
            )
            document = run_evaluation(
                runner,
                {label: iter_pairs(of_set) for label, of_set in named.sets.items()},
                options,
                None if bar is None else lambda done: bar(done, total),
            )
    for warning in document["warnings"]:
        say(f"note: {warning}", quiet=quiet)
    if json:
        print_json({"out_dir": str(out_dir), **document})
        return
    print_tables(tables(document))
    for label, file in document["outputs"].items():
        print_line(f"{label + ':':10} {out_dir / file}")


def refuse_beside(option: str, others: dict[str, object]) -> None:
    """Reject options that have no meaning beside another one.

    Args:
        option: the option that is given.
        others: values of the others by name; a value that counts as false is not given.
    Raises:
        UsageError: one of them is given.
    """
    if given := [name for name, value in others.items() if value]:
        raise UsageError(f"{given[0]} has no meaning beside {option}", hint=f"Leave {given[0]} out.")


def choose_part(
    data_set: DataSet, split: Split | None, data: str
) -> tuple[str, dict[str, tuple[DataSource, ...]]]:
    """Return the name of the part that is evaluated, and its sets.

    Raises:
        BadInputError: the data have no such part.
    """
    parts: dict[str, tuple[DataSource, ...]] = data_set.parts()
    if split is None:
        split = Split.test if data_set.test else Split.val if data_set.val else Split.all
    if split is Split.all:
        return split.value, parts
    chosen = dict(data_set.test) if split is Split.test else {split.value: parts.get(split.value, ())}
    if any(chosen.values()):
        return split.value, chosen
    raise BadInputError(
        f"{data} has no {split.value} set, it has: {', '.join(parts)}",
        hint="Leave --split out, or use --split all.",
    )
