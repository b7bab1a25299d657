"""Run a verification and write its files, for ``vmkla verify``."""

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
from vmkla.engines.verify.locate import Divergence, locate
from vmkla.engines.verify.page import verify_page
from vmkla.errors import ArtefactMismatchError, MissingDependencyError, UsageError
from vmkla.files import write_whole
from vmkla.folders import check_free, locked_folder
from vmkla.runner import Runner, RunnerSpec
from vmkla.video.media.sinks import to_json

REPORT, PAGE = "report.json", "verify.html"
SHOWN_FRAMES = 12


@dataclass(frozen=True)
class VerifyOptions:
    """Options of a verification.

    Attributes:
        out_dir: folder of the outputs.
        gates: the limits, before they are adapted to the pair.
        locate: find the node where two ONNX graphs diverge; None does so where a gate fails and both are ONNX
            files on this machine.
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
    """Compare two sides, and write ``report.json`` and ``verify.html``.

    Args:
        reference: the side that is right, live or saved.
        candidate: the runner to check.
        options: limits and outputs.
        inputs: the reference's frames, for unreadable ones; None for a saved reference.
        progress: called with the number of frames done.
    Returns:
        The document of ``report.json``: the keys of ``VerifyReport.to_dict``, and ``each``, ``parting``
        (where the graphs diverge; None where that was not searched or not found), ``unreadable``,
        ``warnings``, ``outputs``, ``vmkla_version``. A gate that fails raises nothing.
    Raises:
        UsageError: the folder is taken, another run is active there, or ``locate`` is set and the two are not
            ONNX files.
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
    divergence, notes = _divergence(reference.spec, candidate.spec, report, options)
    document = {
        "vmkla_version": __version__,
        **report.to_dict(),
        "each": [result.to_dict() for result in report.each],
        "parting": None if divergence is None else divergence.to_dict(),
        "unreadable": [] if inputs is None else list(inputs.problems),
        "warnings": [*_warnings(report), *notes, *([] if inputs is None else inputs.warnings)],
        "outputs": {"report": REPORT, **({"page": PAGE} if options.html else {})},
    }
    _write(document, report, options)
    return document


def _divergence(
    a: RunnerSpec, b: RunnerSpec, report: VerifyReport, options: VerifyOptions
) -> tuple[Divergence | None, list[str]]:
    """Search for the node where the graphs diverge, if requested; return it and notes on the search."""
    if options.locate is False or (options.locate is None and report.passed):
        return None, []
    try:
        found = locate(_onnx_side(a), _onnx_side(b), report.largest_error_input)
    except (ArtefactMismatchError, MissingDependencyError, UsageError) as error:
        if options.locate:
            raise
        return None, [f"the node where the two graphs diverge was not searched: {error.message}"]
    if found is None:
        return None, ["no value that both graphs have differs by more than their precision explains"]
    return found, []


def _onnx_side(spec: RunnerSpec) -> tuple[Path, Kernels]:
    """Return file and kernels of an ONNX Runtime runner on the CPU.

    Raises:
        UsageError: it is another runner, or its file is not on this machine.
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
    """List what a user must know beside the verdict."""
    warnings = []
    if not report.figures["labelled"]:
        warnings.append("no masks were given: agreement with the reference does not show that both are right")
    if report.reference["model"]["random_weights"] or report.candidate["model"]["random_weights"]:
        warnings.append("weights are random: only probabilities are checked")
    elif report.reference["model"]["weights_sha256"] != report.candidate["model"]["weights_sha256"]:
        warnings.append("the two were not made from the same weights")
    return warnings


def _write(document: dict[str, Any], report: VerifyReport, options: VerifyOptions) -> None:
    if options.html:
        page = verify_page(document, report.shown)
        write_whole(options.out_dir / PAGE, page.encode("utf-8", "backslashreplace"))
    write_whole(options.out_dir / REPORT, to_json(document, indent=2))
