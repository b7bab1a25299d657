"""Evaluate findings in annotated recordings and write the files, for ``vmkla eval --procedures``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vmkla import __version__
from vmkla.errors import UsageError
from vmkla.evaluation.evaluate import clinical_point, point_origin
from vmkla.evaluation.identities import IdentityTally
from vmkla.evaluation.outputs import LESIONS, REPORT, output_folder, plain, write_files
from vmkla.evaluation.procedures import RecordingResult, count_recording, summarise_procedures
from vmkla.evaluation.recordings import Finder, network_finder, observe
from vmkla.evaluation.truth.layouts import AnnotatedSet
from vmkla.evaluation.truth.records import AnnotatedRecording
from vmkla.metrics import Bootstrap
from vmkla.runner import Runner, describe_model, describe_runtime, model_warnings
from vmkla.segment.operating_point import OWN_POINT, PointOverrides
from vmkla.segment.preprocess import PreprocessSpec, Rect
from vmkla.video.media.sinks import to_json

_LESION_COLUMNS = ("recording", "procedure", "lesion", "first_s", "frames", "hit_frames") + (
    "first_detection_s",
    "persistence",
)


@dataclass(frozen=True)
class ProcedureOptions:
    """Options of an evaluation by procedure.

    Attributes:
        out_dir: folder of the outputs.
        data: name of the recordings in the report.
        bootstrap: draws of the intervals.
        identities: measure HOTA and IDF1, which needs the package ``trackeval``.
        exist_ok: replace the outputs of an earlier evaluation.
    """

    out_dir: Path
    data: str = ""
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    identities: bool = True
    exist_ok: bool = False


class Judged(Protocol):
    """What is evaluated: a network, or findings that one has left."""

    def finder(self, recording: AnnotatedRecording) -> Finder:
        """Return what gives the findings of a recording's frames."""

    def describe(self) -> dict[str, Any]:
        """Return ``operating_point``, ``operating_point_from``, ``roi``, ``model`` and ``runtime``."""

    def warnings(self) -> list[str]:
        """Return what the reader of the figures must know of it."""


class JudgedNetwork:
    """A network that is evaluated.

    Args:
        runner: a loaded model of one class.
        overrides: values of the operating point in the place of the model's own.
        roi: field of view; None takes the model's own.
    Raises:
        UsageError: the model has several classes, or the operating point does not suit it.
    """

    def __init__(
        self, runner: Runner, overrides: PointOverrides = OWN_POINT, roi: str | Rect | None = None
    ) -> None:
        spec = runner.spec
        if spec.num_classes != 1:
            raise UsageError(
                f"{spec.path} has {spec.num_classes} output channels, and lesions of recordings have one "
                "class",
                hint="Give a model of one class.",
            )
        self._runner, self._overrides = runner, overrides
        self._point = clinical_point(spec, overrides)
        self._preprocess = spec.metadata.preprocess
        if roi is not None:
            self._preprocess = PreprocessSpec(self._preprocess.height, self._preprocess.width, roi)

    def finder(self, recording: AnnotatedRecording) -> Finder:
        """See ``Judged``."""
        return network_finder(self._runner, recording, self._point, self._preprocess)

    def describe(self) -> dict[str, Any]:
        """See ``Judged``."""
        roi = self._preprocess.roi
        return {
            "operating_point": self._point.to_dict(),
            "operating_point_from": point_origin(self._runner.spec, self._overrides),
            "roi": roi if isinstance(roi, str) else ",".join(map(str, roi)),
            "model": describe_model(self._runner),
            "runtime": describe_runtime(self._runner),
        }

    def warnings(self) -> list[str]:
        """See ``Judged``."""
        # Weights are not an exported artefact, so "unverified" would be misleading.
        return [] if self._runner.name == "torch" else model_warnings(self._runner)


def run_procedures(
    judged: Judged,
    annotated: AnnotatedSet,
    options: ProcedureOptions,
    on_frame: Callable[[int, str], None] = lambda done, name: None,
) -> dict[str, Any]:
    """Evaluate findings in annotated recordings and write ``report.json`` and ``per_lesion.csv``.

    Args:
        judged: what is evaluated.
        annotated: the recordings.
        options: options and outputs.
        on_frame: called with the number of frames done and the recording's name.
    Returns:
        The document of ``report.json``: the keys of ``summarise_procedures``, and ``identities``, ``model``,
        ``runtime``, ``data``, ``layout``, ``operating_point``, ``roi``, ``missing``, ``warnings``,
        ``outputs``, ``vmkla_version``.
    Raises:
        UsageError: the folder is taken.
        BadInputError: frames or truth are wrong, or the outputs cannot be written.
        MissingDependencyError: ``trackeval`` is missing; raised before the first frame.
    """
    tally = IdentityTally() if options.identities else None
    results: list[RecordingResult] = []
    missing: list[str] = []
    done = 0
    with output_folder(options.out_dir, exist_ok=options.exist_ok):
        for recording in annotated.recordings:

            def count(name: str = recording.name) -> None:
                nonlocal done
                done += 1
                on_frame(done, name)

            seen = observe(judged.finder(recording), recording, count)
            results.append(
                count_recording(recording.name, recording.procedure, seen.frames, recording.frame_s)
            )
            if tally is not None:
                tally.add(recording.procedure, seen.identities)
            missing += [seen.missing] if seen.missing else []
        figures = summarise_procedures(results, options.bootstrap)
        document = {
            "vmkla_version": __version__,
            "data": options.data,
            "layout": annotated.layout,
            **judged.describe(),
            "warnings": [*judged.warnings(), *_gaps(results)],
            "missing": missing,
            "outputs": {"report": REPORT, "per_lesion": LESIONS},
            **figures,
            "identities": None if tally is None else _identities(tally, results, options.bootstrap),
        }
        report = to_json(plain(document), indent=2) + b"\n"
        write_files(options.out_dir, {LESIONS: _per_lesion(figures["each"]).encode(), REPORT: report})
    return document


def _identities(
    tally: IdentityTally, results: Sequence[RecordingResult], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Compute HOTA, IDF1 and switches with their intervals over procedures."""
    groups = list(dict.fromkeys(result.procedure for result in results))

    def figures(chosen: Sequence[int]) -> list[float]:
        found = tally.agreement([groups[at] for at in chosen])
        return [found.hota, found.idf1]

    hota_ci95, idf1_ci95 = bootstrap.of_statistics(len(groups), lambda drawn: figures(drawn.tolist()))
    whole = tally.agreement()
    return {
        "hota": whole.hota,
        "hota_ci95": list(hota_ci95),
        "idf1": whole.idf1,
        "idf1_ci95": list(idf1_ci95),
        "lesions": whole.lesions,
        "switches": whole.switches,
        "numbers": whole.numbers,
    }


def _gaps(results: Sequence[RecordingResult]) -> list[str]:
    """Report gaps in time, which shorten the recorded time."""
    with_gaps = [result for result in results if result.gaps]
    if not with_gaps:
        return []
    gaps = sum(result.gaps for result in with_gaps)
    return [
        f"the times of {len(with_gaps)} of {len(results)} recordings jump, {gaps} times in all (the first is "
        f"{with_gaps[0].name}): a gap ends an alarm, and counts neither as recorded nor as a delay"
    ]


def _per_lesion(each: Sequence[Mapping[str, Any]]) -> str:
    """Make one row per lesion; the time to first detection of a missed one is ``inf``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_LESION_COLUMNS)
    for recording in each:
        for lesion in recording["lesions"]:
            own = (lesion[column] for column in _LESION_COLUMNS[2:])
            writer.writerow((recording["name"], recording["procedure"], *own))
    return text.getvalue()
