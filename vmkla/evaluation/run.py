"""Run an evaluation and write its files, for ``vmkla eval``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla import __version__
from vmkla.evaluation.cases import CaseBook
from vmkla.evaluation.evaluate import clinical_point, evaluate, finding_names
from vmkla.evaluation.html import render_report
from vmkla.evaluation.judge import ImageResult, LabelledImage, Mask
from vmkla.evaluation.outputs import PAGE, REPORT, ROWS, output_folder, write_outputs
from vmkla.imports import require
from vmkla.metrics import Bootstrap
from vmkla.runner import Runner, describe_model, describe_runtime, model_warnings
from vmkla.segment.operating_point import OWN_POINT, PointOverrides
from vmkla.segment.preprocess import Rect


@dataclass(frozen=True)
class EvalOptions:
    """Options of an evaluation.

    Attributes:
        out_dir: folder of the outputs.
        data, split: name of the images in the report.
        declared: the user's declarations on the masks, see ``ReadRules.of_masks``.
        volumes: samples of one group are the slices of one volume.
        point, roi, bootstrap: see ``evaluate``.
        html: write ``report.html``, which needs matplotlib.
        exist_ok: replace the outputs of an earlier evaluation.
    """

    out_dir: Path
    data: str = ""
    split: str = ""
    declared: Mapping[str, str] = field(default_factory=dict)
    volumes: bool = False
    point: PointOverrides = OWN_POINT
    roi: str | Rect | None = None
    bootstrap: Bootstrap = Bootstrap()
    html: bool = True
    exist_ok: bool = False


def run_evaluation(
    runner: Runner,
    sets: Mapping[str, Iterable[LabelledImage]],
    options: EvalOptions,
    on_image: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a runner and write ``report.json``, ``per_image.csv`` and ``report.html``.

    Args:
        runner: a loaded model.
        sets: labelled images by the name of their set.
        options: options and outputs.
        on_image: called with the number of images done.
    Returns:
        The document of ``report.json``: the keys of ``evaluate`` but for ``each``, which the CSV file has,
        and ``model``, ``runtime``, ``data``, ``split``, ``roi``, ``warnings``, ``outputs``,
        ``vmkla_version``.
    Raises:
        UsageError: the folder is taken, or the operating point does not suit the model.
        BadInputError: images or truths are wrong, or the outputs cannot be written.
        MissingDependencyError: a package for the page or HD95 is missing; raised before the first image.
    """
    clinical_point(runner.spec, options.point)
    if options.html:
        require("matplotlib", extra="report", purpose="report.html (leave it out with --no-html)")
    if options.volumes:
        require("monai.metrics.utils", extra="train", purpose="HD95 of volumes")
    results: list[ImageResult] = []
    with output_folder(options.out_dir, exist_ok=options.exist_ok), contextlib.ExitStack() as stack:
        book = stack.enter_context(CaseBook()) if options.html else None

        def keep(result: ImageResult, sample: LabelledImage, prediction: Mask) -> None:
            results.append(result)
            if book is not None:
                book.add(result, sample, prediction)
            if on_image is not None:
                on_image(len(results))

        figures = evaluate(
            runner,
            sets,
            point=options.point,
            volumes=options.volumes,
            roi=options.roi,
            bootstrap=options.bootstrap,
            on_image=keep,
        )
        document = _document(runner, options, figures)
        page = None if book is None else render_report(document, results, book.choose(results))
        write_outputs(options.out_dir, document, results, finding_names(runner.spec), page)
    return document


def _document(runner: Runner, options: EvalOptions, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Add model, runtime, data and options to the figures."""
    roi = options.roi or runner.spec.metadata.preprocess.roi
    outputs = {"report": REPORT, "per_image": ROWS, **({"page": PAGE} if options.html else {})}
    return {
        "vmkla_version": __version__,
        "data": options.data,
        "split": options.split,
        **options.declared,
        "roi": roi if isinstance(roi, str) else ",".join(map(str, roi)),
        "model": describe_model(runner),
        "runtime": describe_runtime(runner),
        # Weights are not an exported artefact, so "unverified" would be misleading.
        "warnings": [] if runner.name == "torch" else model_warnings(runner),
        "outputs": outputs,
        **{key: value for key, value in figures.items() if key != "each"},
    }
