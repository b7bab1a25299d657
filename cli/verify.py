"""``vmkla verify``: check whether one artefact may replace another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmkla.cli.console import print_json, print_line, print_tables, progress_bar, say
from vmkla.cli.eval import Split, choose_part
from vmkla.cli.options import (
    Anonymous,
    GatesFile,
    Json,
    Kernels,
    MaskOrientation,
    MaskValues,
    MaxMegapixels,
    Plugin,
    Quiet,
    Root,
    Runtime,
    Threads,
    is_gpu,
    read_rules,
    run_folder,
)
from vmkla.errors import GateError, UsageError
from vmkla.limits import MAX_MEGAPIXELS

if TYPE_CHECKING:
    from vmkla.data.rules import ReadRules
    from vmkla.engines.verify.inputs import VerifyInputs
    from vmkla.runner import Runner


def verify(
    first: Annotated[
        str, typer.Argument(metavar="A", help="The reference; with --load the candidate, and no second.")
    ],
    second: Annotated[str | None, typer.Argument(metavar="[B]", help="The candidate.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR", help="Labelled images, as for eval.")
    ] = None,
    root: Root = None,
    split: Annotated[Split | None, typer.Option("--split", help="Part of the data, as for eval.")] = None,
    mask_values: MaskValues = None,
    mask_orientation: MaskOrientation = None,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    source: Annotated[
        str | None, typer.Option("--source", metavar="WHAT", help="Without masks: a video, folder or glob.")
    ] = None,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Take only every Nth frame.")] = 1,
    runtime_a: Annotated[Runtime, typer.Option("--runtime-a", help="What runs A.")] = Runtime.auto,
    runtime_b: Annotated[Runtime, typer.Option("--runtime-b", help="What runs B.")] = Runtime.auto,
    kernels_a: Annotated[Kernels | None, typer.Option("--kernels-a", help="A's custom nodes.")] = None,
    kernels_b: Annotated[Kernels | None, typer.Option("--kernels-b", help="B's custom nodes.")] = None,
    device_a: Annotated[str | None, typer.Option("--device-a", help="cpu or cuda:0.")] = None,
    device_b: Annotated[str | None, typer.Option("--device-b", help="cpu or cuda:0.")] = None,
    plugin: Plugin = None,
    gates: GatesFile = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="Save the frames and A's outputs; B may be left out."),
    ] = None,
    load: Annotated[
        Path | None, typer.Option("--load", metavar="FILE", help="A file of --save, in place of A.")
    ] = None,
    locate: Annotated[
        bool | None,
        typer.Option(
            "--locate/--no-locate", help="Find the node where two ONNX files diverge; default: on failure."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/verify/CANDIDATE, numbered.")
    ] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Replace the outputs of an earlier verification.")
    ] = False,
    html: Annotated[bool, typer.Option("--html/--no-html", help="Write verify.html.")] = True,
    anonymous: Anonymous = False,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two artefacts or runtimes on the same frames, and fail when the second loses too much."""
    from vmkla.engines import load_runner
    from vmkla.engines.verify.clinical import LiveReference, Reference
    from vmkla.engines.verify.gates import ClinicalGates, read_gates
    from vmkla.engines.verify.page import verify_tables
    from vmkla.engines.verify.run import VerifyOptions, run_verify
    from vmkla.engines.verify.saved_reference import SavedReference, SavingReference, save_answers

    _check_usage(second, data, source, save, load)
    if load is not None:
        of_frames = {
            "--root": root,
            "--split": split,
            "--mask-values": mask_values,
            "--mask-orientation": mask_orientation,
            "--stride": stride != 1,
            "--anonymous": anonymous,
        }
        _refuse_with_load([flag for flag, given in of_frames.items() if given])
    if plugin is not None and not any(_is_engine(model) for model in (first, second or "")):
        raise UsageError("neither model is an engine, and --plugin is of engines", hint="Leave --plugin out.")
    limits = ClinicalGates() if gates is None else read_gates(gates)
    runners: list[Runner] = []

    def loaded(model: str, runtime: Runtime, device: str | None, kernels: Kernels | None) -> Runner:
        # Threads apply to CPUs, the plugin library to engines.
        options: dict[str, Any] = {"plugin": plugin} if _is_engine(model) else {}
        if not (_is_engine(model) or is_gpu(device)):
            options["threads"] = threads
        options["kernels"] = None if kernels is None else kernels.value
        runners.append(load_runner(model, runtime.value, device, **options))
        return runners[-1]

    inputs: VerifyInputs | None = None
    try:
        reference: Reference
        if load is not None:
            saved = SavedReference(load, max_megapixels=max_megapixels)
            reference, total = saved, saved.total
            candidate_name = first
        else:
            reading = read_rules(max_megapixels, mask_values, mask_orientation)
            inputs = _inputs(data, root, split, source, stride, reading, anonymous=anonymous)
            reference = LiveReference(loaded(first, runtime_a, device_a, kernels_a), inputs)
            total = inputs.total or 0
            if save is not None and second is None:
                count = save_answers(reference, save)
                for warning in inputs.warnings:
                    say(f"note: {warning}", quiet=quiet)
                if json:
                    print_json({"saved": save, "frames": count, "reference": reference.identity})
                else:
                    print_line(f"{save}: {count} frames and what {first} answers")
                return
            if save is not None:
                reference = SavingReference(reference, save)
            candidate_name = second or ""
        candidate = loaded(candidate_name, runtime_b, device_b, kernels_b)
        with (
            run_folder(out, Path("runs/verify") / _stem(candidate), again=exist_ok) as out_dir,
            progress_bar("comparing", "frames", quiet=quiet) as bar,
        ):
            document = run_verify(
                reference,
                candidate,
                VerifyOptions(out_dir, limits, locate, html, exist_ok),
                inputs=inputs,
                progress=None if bar is None else lambda done: bar(done, total or None),
            )
    except Exception:
        if inputs is None or not anonymous:
            raise
        with inputs.names.in_errors():
            raise
    finally:
        for runner in runners:
            runner.close()
    for warning in document["warnings"]:
        say(f"note: {warning}", quiet=quiet)
    if json:
        print_json({"out_dir": str(out_dir), **document})
    else:
        print_tables(verify_tables(document))
        for label, file in document["outputs"].items():
            print_line(f"{label + ':':10} {out_dir / file}")
    if not document["passed"]:
        place = document["parting"]
        where = "" if place is None else f"; the graphs diverge at {place['node']}"
        raise GateError(
            f"{candidate_name} failed the check: {'; '.join(document['failures'])}{where}",
            hint=f"See {out_dir / document['outputs'].get('page', document['outputs']['report'])}",
        )


def _is_engine(model: str) -> bool:
    return model.endswith(".plan")


def _check_usage(
    second: str | None, data: str | None, source: str | None, save: Path | None, load: Path | None
) -> None:
    """Reject combinations of flags that make no sense.

    Raises:
        UsageError: there is a model or a set of frames too many or too few.
    """
    if load is not None:
        if second is not None or data or source or save:
            raise UsageError(
                "--load replaces the reference and its frames, so only the candidate is given with it",
                hint="For instance: vmkla verify B --load FILE",
            )
        return
    if second is None and save is None:
        raise UsageError(
            "one model is given, expected two",
            hint="For instance: vmkla verify A B --data DIR, or vmkla verify B --load FILE",
        )
    if bool(data) == bool(source):
        raise UsageError(
            f"{'both' if data else 'neither'} of --data and --source given; no frames are taken by default",
            hint="Labelled images: --data DIR. Images or a video without masks: --source WHAT",
        )


def _refuse_with_load(flags: Sequence[str]) -> None:
    """Reject flags on frames where a file contains them.

    Raises:
        UsageError: there is one.
    """
    if flags:
        raise UsageError(
            f"{flags[0]} shapes the frames, and --load brings them as they were saved",
            hint=f"Give {flags[0]} with --save.",
        )


def _inputs(
    data: str | None,
    root: Path | None,
    split: Split | None,
    source: str | None,
    stride: int,
    reading: ReadRules,
    *,
    anonymous: bool,
) -> VerifyInputs:
    from vmkla.engines.verify.inputs import labelled_inputs, unlabelled_inputs

    if data is None:
        if reading.of_masks:
            raise UsageError(
                "masks are declared, and --source has none", hint="For labelled images: --data DIR"
            )
        from vmkla.names import given_names

        with given_names([source or ""]).in_errors(anonymous):
            return unlabelled_inputs(
                source or "", stride=stride, anonymous=anonymous, max_megapixels=reading.max_megapixels
            )
    from vmkla.data import list_pairs, open_dataset
    from vmkla.data.naming import listing, name_sets

    made = split in (Split.val, Split.train)
    with listing(data, anonymous=anonymous):
        data_set = open_dataset(data, root=root, split_validation=made, reading=reading)
        _, sets = choose_part(data_set, split, data)
        pairs = {label: list_pairs(part) for label, part in sets.items()}
    named = name_sets(pairs, data, anonymous=anonymous)
    chosen = [pair for part in named.sets.values() for pair in part]
    return labelled_inputs(chosen, names=named.names, stride=stride)


def _stem(runner: Runner) -> str:
    return Path(runner.spec.path).stem
