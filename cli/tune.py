"""``vmkla tune``: fit a model's operating point to a site's scopes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.cli.console import print_json, print_line, print_tables, progress_bar, say
from vmkla.cli.options import (
    Device,
    Json,
    MaskOrientation,
    MaskValues,
    MaxMegapixels,
    Plugin,
    Runtime,
    RuntimeOption,
    Threads,
    read_rules,
)
from vmkla.errors import DegradedError, UsageError
from vmkla.limits import MAX_MEGAPIXELS

if TYPE_CHECKING:
    from vmkla.data.layouts import DataSet
    from vmkla.runner import RunnerSpec


def tune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A shipped model's name, an .onnx file, a .plan or a .safetensors file."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="LABELLED",
            help="Labelled images with lesions: a folder, DIR:FILE, a packed file, or a recipe: NAME=DIR.",
        ),
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CLIP]...", help="Further recordings of --quiet.", show_default=False),
    ] = None,
    quiet: Annotated[
        list[str] | None,
        typer.Option(
            "--quiet",
            metavar="CLIP...",
            help="Recordings without a lesion: videos, or folders or patterns of images.",
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", metavar="N", help="Frames a second of images in --quiet.")
    ] = None,
    alarms_per_minute: Annotated[
        float | None,
        typer.Option(
            "--alarms-per-minute", metavar="N", help="Find the most lesions with at most N alarms a minute."
        ),
    ] = None,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            "--sensitivity", metavar="S", help="Raise the fewest alarms while a share S of lesions is found."
        ),
    ] = None,
    holdout: Annotated[
        bool,
        typer.Option(
            "--holdout", help="Fit to one half of sequences and recordings, and report on the other half."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; default: MODEL-tuned."),
    ] = None,
    mask_values: MaskValues = None,
    mask_orientation: MaskOrientation = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    runtime: RuntimeOption = Runtime.auto,
    device: Device = None,
    plugin: Plugin = None,
    threads: Threads = None,
    json: Json = False,
    silent: Annotated[
        bool, typer.Option("--no-progress", "-q", help="No progress and no notes on stderr.")
    ] = False,
) -> None:
    """Fit the operating point to a site's scopes. Writes the model again with another point, and its cost."""
    from vmkla import weights
    from vmkla.data import list_pairs, open_dataset
    from vmkla.data.folder import iter_pairs
    from vmkla.engines import load_runner
    from vmkla.engines.operating_point import check_output, write_tuned
    from vmkla.tuning.collect import open_recordings
    from vmkla.tuning.fit import TuneRequest
    from vmkla.tuning.run import LabelledData, cost_table
    from vmkla.tuning.run import tune as fit_point
    from vmkla.video.media.options import ReadOptions

    # What can be refused is refused before the network sees a frame.
    request = TuneRequest(alarms_per_minute, sensitivity)
    if more and not quiet:
        raise UsageError(f"{more[0]} is one argument too many", hint="Recordings follow --quiet.")
    reading = read_rules(max_megapixels, mask_values, mask_orientation)
    path = weights.resolve(model, ".safetensors" if runtime is Runtime.torch else ".onnx")
    target = output or tuned_name(path)
    check_output(path, target)
    recordings = open_recordings(
        [*(quiet or ()), *(more or ())], fps, ReadOptions(max_megapixels=max_megapixels)
    )
    data_set: DataSet = open_dataset(data, split_validation=False, reading=reading)
    pairs = list_pairs([source for sources in data_set.parts().values() for source in sources])
    labelled = LabelledData(
        lambda: iter_pairs(pairs), len(pairs), [path for pair in pairs for path in (pair.image, pair.mask)]
    )
    with load_runner(path, runtime.value, device, threads=threads, plugin=plugin) as runner:
        _check_classes(runner.spec, data_set, data)
        with progress_bar("measuring", "frames", quiet=silent) as bar:

            def show(part: str, done: int, total: int | None) -> None:
                if bar is not None:
                    bar(done, total, part)

            result = fit_point(runner, labelled, recordings, request, show, holdout=holdout)
        earlier = runner.spec.metadata.tuning
    record = result.record()
    write_tuned(path, target, result.new, (*earlier, record), sha256=result.model_sha256)
    for warning in result.warnings:
        say(f"note: {warning}", quiet=silent)
    if json:
        print_json(
            {"path": target, "warnings": list(result.warnings), "missing": list(result.missing), **record}
        )
    else:
        print_tables([cost_table(result)])
        print_line(f"written: {target}")
    if result.missing:
        raise DegradedError(
            "; ".join(result.missing), hint="What could be read was used, and the file is written."
        )


def tuned_name(model: Path) -> Path:
    """Return the default name of a model's tuned file; that of a shipped model is in the working folder.

    Raises:
        UsageError: there is a file of that name.
    """
    from vmkla import weights

    name = f"{model.stem}-tuned{model.suffix}"
    shipped = model in weights.shipped(model.suffix).values()
    path = Path(name) if shipped else model.with_name(name)
    if path.exists():
        raise UsageError(f"there is already a file {path}", hint="Give the tuned file a name: --output FILE")
    return path


def _check_classes(spec: RunnerSpec, data_set: DataSet, data: str) -> None:
    if spec.num_classes != data_set.num_classes:
        raise UsageError(
            f"{spec.path} has {spec.num_classes} output channels, and {data} needs {data_set.num_classes} "
            f"({', '.join(data_set.class_names)})",
            hint="Give images that are labelled with the model's classes.",
        )
