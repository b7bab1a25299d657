"""Render ``report.html``: figures, plots and images in one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from vmkla.evaluation import plots
from vmkla.evaluation.cases import CLASS_RGB, Case
from vmkla.evaluation.judge import ImageResult
from vmkla.evaluation.tables import Table, tables
from vmkla.page import RESEARCH_USE, data_uri, facts_html, figure_html, page_html


def render_report(
    document: Mapping[str, Any], results: Sequence[ImageResult], cases: Mapping[str, Sequence[Case]]
) -> str:
    """Render the page.

    Args:
        document: result of ``run_evaluation``.
        results: results of all images.
        cases: heading -> images to show.
    Raises:
        MissingDependencyError: matplotlib is missing.
    """
    model = document["model"]
    title = f"{model['name'] or model['path']} on {document['data']}"
    parts = [f"<h1>{escape(title)}</h1>", _facts(document)]
    parts += [f'<p class="note">note: {escape(warning)}</p>' for warning in document["warnings"]]
    parts += [table_html(table) for table in tables(document)]
    parts += _plots(document, results)
    parts.append(_cases(cases, document["class_names"]))
    return page_html(title, parts)


def _facts(document: Mapping[str, Any]) -> str:
    model, runtime = document["model"], document["runtime"]
    threshold = document["threshold"]
    rows = [
        ("images", f"{document['images']} ({document['data']}, split {document['split']})"),
        ("model", f"{model['path']}, {model['precision']}, input {'x'.join(map(str, model['input_hw']))}"),
        ("weights, sha256", model["weights_sha256"]),
        ("runtime", f"{runtime['version']}, {runtime['device']}, kernels {runtime['kernels']}"),
        ("threshold", "none, the most probable class wins" if threshold is None else f"{threshold:g}"),
        ("operating point", f"{_point(document['operating_point'])}: {document['operating_point_from']}"),
        ("field of view", document["roi"]),
        ("vmkla", document["vmkla_version"]),
    ]
    return facts_html((name, str(value)) for name, value in rows) + RESEARCH_USE


def _point(point: Mapping[str, float]) -> str:
    return f"peak {point['peak']:g}, smallest area {100 * point['min_fraction']:g} % of the field of view"


def table_html(table: Table) -> str:
    """Render a table, with its text escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell).replace(chr(10), '<br>')}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"<table><caption>{escape(table.title)}</caption><tr>{head}</tr>{body}</table>{note}"


def _plots(document: Mapping[str, Any], results: Sequence[ImageResult]) -> Iterable[str]:
    report = dict(document)
    pictures = {
        "FROC: lesions found over false regions, by the peak that a finding must reach": plots.froc_plot(
            report, results
        ),
        "All measures of the raw mask": plots.measures_plot(report),
        "Images by Dice": plots.dice_histogram(results),
        "Dice by size of the lesion": plots.dice_by_size(results),
        "Dice by sequence": plots.dice_by_sequence(report),
        "Dice by class": plots.dice_by_class(report),
    }
    for heading, png in pictures.items():
        if png is not None:
            yield f'<h2>{heading}</h2><img alt="{heading}" src="{data_uri(png, "png")}">'


def _cases(cases: Mapping[str, Sequence[Case]], class_names: Sequence[str]) -> str:
    if not cases:
        return ""
    parts = ["<h2>Cases</h2>"]
    several = len(class_names) > 1
    if several:
        colours = [CLASS_RGB[index % len(CLASS_RGB)] for index in range(len(class_names))]
        keys = " ".join(
            f'<span class="key" style="border-color: rgb{colour}">{escape(name)}</span>'
            for name, colour in zip(class_names, colours, strict=True)
        )
        parts.append(
            f"<p>Left the truth, right the prediction: findings with a thick line, what else the raw mask "
            f"marks with a thin one. {keys}</p>"
        )
    else:
        parts.append(
            '<p><span class="truth">truth</span> <span class="prediction">finding</span> '
            '<span class="rest">raw mask that is not a finding</span> '
            "Dice is that of the raw mask at native resolution; lesions and false regions are counted by "
            "findings.</p>"
        )
    for heading, chosen in cases.items():
        parts.append(f'<h3>{escape(heading)}</h3><div class="cases{" wide" if several else ""}">')
        parts += [_case(case) for case in chosen]
        parts.append("</div>")
    return "\n".join(parts)


def _case(case: Case) -> str:
    result = case.result
    if lesions := result.lesions.lesions:
        caption = f"Dice {result.native.measures()['dice']:.3f}, {result.lesions.found} of {len(lesions)} "
        caption += (
            f"lesion{'s' * (len(lesions) != 1)} found, {100 * result.truth_fraction:.1f} % of the image"
        )
    else:
        caption = "no lesion"
    if (worst := result.lesions.highest_false) is not None:
        count = len(result.lesions.false_findings)
        caption += f"; {count} false region{'s' * (count != 1)}, highest peak {worst.peak:.4f}, "
        caption += f"{100 * worst.fraction:.1f} % of the image"
    return figure_html(result.name, case.jpeg, f"{result.name}: {caption}")
