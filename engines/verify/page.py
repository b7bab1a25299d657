"""The report of a comparison for people: tables, and a page with the frames that differ most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np

from vmkla.engines.verify.clinical import ShownFrame
from vmkla.engines.verify.gates import TITLES
from vmkla.evaluation.cases import draw_classes, draw_contours, encode_jpeg
from vmkla.evaluation.html import table_html
from vmkla.evaluation.tables import Table
from vmkla.page import figure_html, page_html


def verify_tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """Yield all tables of a document that ``run_verify`` returned."""
    seen = document["measured"]
    yield _verdict(document)
    yield _figures(seen)
    yield _lesions(seen)
    if document["parting"] is not None:
        yield _divergence(document["parting"])


def verify_page(document: Mapping[str, Any], shown: tuple[ShownFrame, ...]) -> str:
    """Render ``verify.html``, a page in one file.

    Args:
        document: result of ``run_verify``.
        shown: the frames that differ most, worst first.
    """
    title = f"{_name(document['candidate'])} against {_name(document['reference'])}"
    passed = document["passed"]
    parts = [f"<h1>{escape(title)}</h1>", f"<p><b>{'passed' if passed else 'FAILED'}</b></p>"]
    if not passed:
        parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in document["failures"]) + "</ul>")
    parts += [f'<p class="note">note: {escape(line)}</p>' for line in document["warnings"]]
    parts += [table_html(_identities(document)), *map(table_html, verify_tables(document))]
    if shown:
        parts.append("<h2>Frames that differ most</h2>")
        parts.append(_key(shown[0]))
        parts.append('<div class="cases wide">')
        parts += [_figure(frame) for frame in shown]
        parts.append("</div>")
    parts.append("<p>Research use, not a medical device.</p>")
    return page_html(title, parts)


def _verdict(document: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            TITLES[check["name"]],
            _number(check["measured"]),
            _number(check["limit"]),
            "passed" if check["passed"] else "FAILED",
        )
        for check in document["checks"]
    )
    against = "truth" if document["measured"]["labelled"] else "the reference's masks: no truth was given"
    return Table(
        f"Gates ({document['gates']['name']}), {document['measured']['frames']} frames, against {against}",
        ("gate", "measured", "allowed", ""),
        rows,
        "A dash: no frame could show it.",
    )


def _figures(seen: Mapping[str, Any]) -> Table:
    error, agreement, dice = seen["probability_error"], seen["agreement"], seen["dice"]
    alarms, outline = seen["false_alarms"], seen["boundary_px"]
    rows = [
        ("probability error: max", "", _number(error["max"])),
        ("probability error: 99.9 % of pixels below", "", _number(error["p999"])),
        ("probability error: mean", "", _number(error["mean"])),
        ("Dice of the two masks: mean", "", _number(agreement["mean_dice"])),
        ("Dice of the two masks: worst image", "", _number(agreement["worst_dice"])),
    ]
    if seen["labelled"]:
        rows.append(("Dice against truth: mean", _number(dice["reference"]), _number(dice["candidate"])))
    sides = [outline["reference"] or {}, outline["candidate"] or {}]
    to = "the truth's outline" if seen["labelled"] else "the reference's outline"
    for name, key in (("mean", "mean"), ("95th percentile", "hd95"), ("the same, worst image", "worst_hd95")):
        cells = [_number(side.get(key)) for side in sides]
        rows.append((f"distance to {to}, px: {name}", *(cells if seen["labelled"] else ("", cells[1]))))
    empty = f"false alarms on {alarms['frames']} frames without a lesion"
    rows.append((empty, str(alarms["reference"]), str(alarms["candidate"])))
    return Table("Figures", ("", "reference", "candidate"), tuple(rows))


def _lesions(seen: Mapping[str, Any]) -> Table:
    lesions = seen["lesions"]
    rows = [(row["size"], row) for row in lesions["by_size"]] + [("all", lesions)]
    return Table(
        "Lesions by share of the image",
        ("size", "lesions", "found by reference", "found by candidate", "lost"),
        tuple(
            (
                name,
                str(row["total"]),
                str(row["found_by_reference"]),
                str(row["found_by_candidate"]),
                str(row["lost"]),
            )
            for name, row in rows
        ),
        "Found: a pixel of it is marked. Lost: the reference finds it and the candidate does not.",
    )


def _divergence(found: Mapping[str, Any]) -> Table:
    inputs = ", ".join(f"{name} {value:.1e}" for name, value in found["inputs"].items())
    error = "not finite" if found["error"] is None else f"{found['error']:.3g}"
    return Table(
        "Where the graphs diverge",
        ("node", "operator", "error", "limit"),
        ((found["node"], found["op"], error, f"{found['limit']:.3g}"),),
        f"The first node whose inputs agree and whose output does not, relative to the output's largest "
        f"magnitude. Inputs: {inputs or 'the frames'}.",
    )


def _identities(document: Mapping[str, Any]) -> Table:
    rows = []
    for side in ("reference", "candidate"):
        model, runtime = document[side]["model"], document[side]["runtime"]
        running = f"{runtime['version']}, {runtime['device']}, kernels {runtime['kernels']}"
        rows.append((side, model["path"], model["precision"], running, model["sha256"]))
    return Table("Compared", ("", "file", "precision", "runtime", "sha256"), tuple(rows))


def _key(shown: ShownFrame) -> str:
    if shown.frame.mask is not None and _binary(shown):
        return (
            '<p>Left the reference, right the candidate. <span class="truth">truth</span> '
            '<span class="prediction">what it marks</span></p>'
        )
    return "<p>Left what the reference marks, right what the candidate marks.</p>"


def _figure(shown: ShownFrame) -> str:
    frame, masks, result = shown.frame, shown.masks, shown.result
    if frame.mask is not None and _binary(shown):
        sides = [draw_contours(frame.image_rgb, frame.mask, m) for m in (masks.reference, masks.candidate)]
        picture = np.concatenate(sides, axis=1)
    else:
        picture = draw_classes(frame.image_rgb, masks.reference, masks.candidate)
    caption = f"{result.name}: Dice of the two masks {result.agreement:.3f}"
    if frame.mask is not None:
        caption += f", against truth {result.dice_reference:.3f} and {result.dice_candidate:.3f}"
    lost = sum(lesion.lost for lesion in result.lesions)
    caption += f", probability error up to {result.max_error:.2g}" + (f", {lost} lost" if lost else "")
    if not (result.finite_reference and result.finite_candidate):
        caption += ", NaN or infinity"
    return figure_html(result.name, encode_jpeg(picture), caption)


def _binary(shown: ShownFrame) -> bool:
    return max(int(m.max(initial=0)) for m in (shown.masks.reference, shown.masks.candidate)) <= 1


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _name(identity: Mapping[str, Any]) -> str:
    runtime = identity["runtime"]
    return f"{identity['model']['path']} ({runtime['runner']}, {runtime['kernels']})"
