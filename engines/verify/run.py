"""A whole verification with its files: what ``vmkla verify`` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla import __version__
from vmkla.engines.runners.onnxruntime_runner import Kernels
from vmkla.engines.verify.clinical import Reference, VerifyReport, verify_reference
from vmkla.engines.verify.gates import ClinicalGates
from vmkla.engines.verify.inputs import VerifyInputs
from vmkla.engines.verify.locate import Parting, locate
from vmkla.engines.verify.page import verify_page
from vmkla.errors import ArtefactMismatchError, MissingDependencyError, UsageError
from vmkla.files import output_errors, write_atomically
from vmkla.folders import check_free, locked_folder
from vmkla.runner import Runner, RunnerSpec
from vmkla.video.media.sinks import to_json

REPORT, PAGE = "report.json", "verify.html"
SHOWN_FRAMES = 12


@dataclass(frozen=True)
class VerifyOptions:
    """How to compare, and where to write.

    Attributes:
        out_dir: folder of the outputs.
        gates: the limits, before the pair is looked at.
        locate: find the node where two ONNX graphs part; None does so where a gate fails and both are ONNX
            files that lie here.
        html: write ``verify.html``.
        exist_ok: replace the outputs of an earlier verification.
    """

    out_dir: Path
    gates: ClinicalGates = ClinicalGates()
    locate: bool | None = None
    html: bool = True
    exist_ok: bool = False


def run_verify(
    reference: Reference,
    candidate: Runner,
    options: VerifyOptions,
    *,
    inputs: VerifyInputs | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Compare, and write ``report.json`` and ``verify.html``.

    Args:
        reference: what is right, live or saved.
        candidate: what is to be checked.
        options: how, and where to.
        inputs: where the reference's frames come from, for what could not be read; None for saved ones.
        progress: told the number of frames done.
    Returns:
        What ``report.json`` holds: the keys of ``VerifyReport.to_dict``, and ``each``, ``parting`` (None when
        it was not looked for or is nowhere), ``unreadable``, ``warnings``, ``outputs``, ``vmkla_version``.
        Nothing is raised when a gate does not hold.
    Raises:
        UsageError: the folder is taken, or another run is active there, or there are no two ONNX files to
            locate in.
        BadInputError: the frames are wrong, or the outputs cannot be written.
    """
    with locked_folder(options.out_dir, (REPORT, PAGE)):
        check_free(options.out_dir, (REPORT, PAGE), exist_ok=options.exist_ok)
        return _compare(reference, candidate, options, inputs, progress)


def _compare(
    reference: Reference,
    candidate: Runner,
    options: VerifyOptions,
    inputs: VerifyInputs | None,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    if options.locate:
        _onnx_side(reference.spec)
        _onnx_side(candidate.spec)
    show = SHOWN_FRAMES if options.html else 0
    report = verify_reference(reference, candidate, options.gates, show=show, progress=progress)
    parting, notes = _parting(reference.spec, candidate.spec, report, options)
    document = {
        "vmkla_version": __version__,
        **report.to_dict(),
        "each": [result.to_dict() for result in report.each],
        "parting": None if parting is None else parting.to_dict(),
        "unreadable": [] if inputs is None else list(inputs.problems),
        "warnings": [*_warnings(report), *notes, *([] if inputs is None else inputs.warnings)],
        "outputs": {"report": REPORT, **({"page": PAGE} if options.html else {})},
    }
    _write(document, report, options)
    return document


def _parting(
    a: RunnerSpec, b: RunnerSpec, report: VerifyReport, options: VerifyOptions
) -> tuple[Parting | None, list[str]]:
    """Where the graphs part, if it is wanted; and what a person is to know about the search."""
    if options.locate is False or (options.locate is None and report.passed):
        return None, []
    try:
        found = locate(_onnx_side(a), _onnx_side(b), report.loudest_input)
    except (ArtefactMismatchError, MissingDependencyError, UsageError) as error:
        if options.locate:
            raise
        return None, [f"the node where the two part was not looked for: {error.message}"]
    if found is None:
        return None, ["no value that both graphs have differs by more than their precision explains"]
    return found, []


def _onnx_side(spec: RunnerSpec) -> tuple[Path, Kernels]:
    """File and kernels of a runner of ONNX Runtime on the CPU.

    Raises:
        UsageError: it is none, or its file is not here.
    """
    kernels: dict[str, Kernels] = {"native": "native", "bodies": "bodies"}
    path = Path(spec.path)
    if path.suffix != ".onnx" or spec.kernels not in kernels or spec.device != "cpu":
        raise UsageError(
            f"{spec.path} runs on {spec.runtime}, {spec.device}; nodes are compared between two ONNX files "
            "on ONNX Runtime on the CPU"
        )
    if not path.is_file():
        raise UsageError(f"{path} is not on this machine, so its nodes cannot be compared")
    return path, kernels[spec.kernels]


def _warnings(report: VerifyReport) -> list[str]:
    """What a person must know beside the verdict."""
    warnings = []
    if not report.figures["labelled"]:
        warnings.append("no masks were given: agreement with the reference says nothing about the truth")
    if report.reference["model"]["random_weights"] or report.candidate["model"]["random_weights"]:
        warnings.append("weights are random: probabilities alone are judged")
    elif report.reference["model"]["weights_sha256"] != report.candidate["model"]["weights_sha256"]:
        warnings.append("the two were not made of the same weights")
    return warnings


def _write(document: dict[str, Any], report: VerifyReport, options: VerifyOptions) -> None:
    with output_errors(options.out_dir):
        if options.html:
            page = verify_page(document, report.shown)
            write_atomically(options.out_dir / PAGE, page.encode("utf-8", "backslashreplace"))
        write_atomically(options.out_dir / REPORT, to_json(document, indent=2))
