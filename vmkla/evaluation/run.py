"""A whole evaluation with its files: what ``vmkla eval`` calls."""

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
from vmkla.runner import Runner, describe_model, describe_runtime, model_warnings
from vmkla.segment.preprocess import Rect


@dataclass(frozen=True)
class EvalOptions:
    """How to judge, and where to write.

    Attributes:
        out_dir: folder of the outputs.
        data, split: what the images are called in the report.
        declared: what was declared of the masks, see ``ReadRules.of_masks``.
        volumes: samples of one group are the slices of one volume.
        threshold, roi, resamples, seed: as of ``evaluate``.
        html: write ``report.html``, which needs matplotlib.
        exist_ok: replace the outputs of an earlier evaluation.
    """

    out_dir: Path
    data: str = ""
    split: str = ""
    declared: Mapping[str, str] = field(default_factory=dict)
    volumes: bool = False
    threshold: float | None = None
    roi: str | Rect | None = None
    resamples: int = 2000
    seed: int = 0
    html: bool = True
    exist_ok: bool = False


def run_evaluation(
    runner: Runner,
    sets: Mapping[str, Iterable[LabelledImage]],
    options: EvalOptions,
    on_image: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Judge a runner and write ``report.json``, ``per_image.csv`` and ``report.html``.

    Args:
        runner: a loaded model.
        sets: labelled images by the name of their set.
        options: how, and where to.
        on_image: told the number of images that are done.
    Returns:
        What ``report.json`` holds: the keys of ``evaluate`` but for ``each``, which the CSV file has, and
        ``model``, ``runtime``, ``data``, ``split``, ``roi``, ``warnings``, ``outputs``, ``vmkla_version``.
    Raises:
        UsageError: the folder is taken, or the threshold makes no sense.
        BadInputError: images or truths are wrong, or the outputs cannot be written.
        MissingDependencyError: a package that the page or HD95 needs is absent; said before the first image.
    """
    clinical_point(options.threshold, runner.spec)
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
            threshold=options.threshold,
            volumes=options.volumes,
            roi=options.roi,
            resamples=options.resamples,
            seed=options.seed,
            on_image=keep,
        )
        document = _document(runner, options, figures)
        page = None if book is None else render_report(document, results, book.choose(results))
        write_outputs(options.out_dir, document, results, finding_names(runner.spec), page)
    return document


def _document(runner: Runner, options: EvalOptions, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Identities beside the figures."""
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
        # Weights are not an artefact that an export could have checked.
        "warnings": [] if runner.name == "torch" else model_warnings(runner),
        "outputs": outputs,
        **{key: value for key, value in figures.items() if key != "each"},
    }
