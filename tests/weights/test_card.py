"""What the model card and the results say of `nano` is what the commands print, digit for digit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from experiments.operating_point import main as choose_point
from tests import ROOT
from vmkla.cli.main import main

# What a row is called, and how many images it has -> what `vmkla eval --data` takes, and the set of several.
SETS = {
    ("val_PolypGen", 167): ("{data}/polypgen:{data}/splits/val_PolypGen.txt", None),
    ("Kvasir-SEG", 1000): ("{data}/kvasir-seg", None),
    ("CVC-ClinicDB", 612): ("{data}/cvc-clinicdb", None),
    ("Kvasir-SEG", 100): ("polyp={data}", "Kvasir"),
    ("CVC-ClinicDB", 62): ("polyp={data}", "CVC-ClinicDB"),
}
LONG_IMAGES = 200
"""Larger sets are judged by hand."""
FIGURES = {
    "mean Dice": lambda report: _with_interval(report["per_image"], "dice"),
    "mean IoU": lambda report: f"{report['per_image']['iou']:.3f}",
    "sensitivity": lambda report: f"{report['per_image']['sensitivity']:.3f}",
    "specificity": lambda report: f"{report['per_image']['specificity']:.3f}",
    "global DSC": lambda report: f"{report['global']['dsc']:.3f}",
    "global mIoU": lambda report: f"{report['global']['miou']:.3f}",
    "polyps missed": lambda report: "{missed} of {images}".format(**report["with_polyp"]),
    "lesions found": lambda report: (
        f"{_with_interval(report['lesions'], 'sensitivity')}, "
        f"{report['lesions']['found']} of {report['lesions']['lesions']}"
    ),
    "images with one found": lambda report: (
        f"{_with_interval(report['lesions'], 'image_sensitivity')}, "
        f"{report['lesions']['images_found']} of {report['lesions']['images_with']}"
    ),
    "false regions an image": lambda report: _with_interval(report["lesions"], "false_regions_per_image"),
}


def _with_interval(values: dict[str, Any], name: str) -> str:
    low, high = values[f"{name}_ci95"]
    return f"{values[name]:.3f} [{low:.3f}, {high:.3f}]"


def rows_by_set(path: Path) -> list[dict[str, str]]:
    """The rows of all tables that begin with a set and its number of images: heading -> cell."""
    rows: list[dict[str, str]] = []
    head: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if head and cells and set(cells[0]) != {"-"}:
            rows.append(dict(zip(head, cells, strict=True)))
        elif not head and cells[:2] == ["set", "images"]:
            head = cells
        elif not cells:
            head = []
    return rows


def rows_of(document: str) -> list[Any]:
    """One parameter a row."""
    parameters = []
    for row in rows_by_set(ROOT / document):
        key = re.findall(r"[\w-]+", row["set"])[0], int(row["images"])
        marks = [pytest.mark.long] if key[1] > LONG_IMAGES else []
        name = f"{document} {list(row)[2]} {key[0]} {key[1]}"
        parameters.append(pytest.param(document, row, key, id=name, marks=marks))
    return parameters


@pytest.fixture(scope="module")
def judged(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Evaluates each set once."""
    reports: dict[str, Any] = {}

    def report(key: tuple[str, int]) -> Any:
        text, part = SETS[key]
        if text not in reports:
            out = tmp_path_factory.mktemp("card") / "out"
            data = text.format(data=shared_data / "data")
            assert main(["eval", "--model", "nano", "--data", data, "--out", str(out), "--quiet"]) == 0
            assert (out / "report.html").stat().st_size > 100_000
            reports[text] = json.loads((out / "report.json").read_text(encoding="utf-8"))
        return reports[text] if part is None else reports[text]["by_set"][part]

    return report


@pytest.mark.slow
@pytest.mark.needs_data
@pytest.mark.parametrize(
    ("document", "row", "key"), [*rows_of("vmkla/weights/nano.md"), *rows_of("docs/results.md")]
)
def test_every_printed_digit(judged: Any, document: str, row: dict[str, str], key: tuple[str, int]) -> None:
    report = judged(key)
    names = [name for name in row if name in FIGURES]
    assert len(names) >= 3 and report["images"] == key[1] and report["resolution"] == "native"
    assert {name: FIGURES[name](report) for name in names} == {name: row[name] for name in names}


@pytest.mark.slow
@pytest.mark.needs_data
def test_the_operating_point(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rule gives the peak of the card, and the counts of the half that did not choose it."""
    data = shared_data / "data"
    val = f"{data}/polypgen:{data}/splits/val_PolypGen.txt"
    assert choose_point(["nano", "--val", val, "--most-alarms", "0.1"]) == 0
    half = capsys.readouterr().out.split("## Reporting half")[1].split("##")[0]
    printed = {cells[0]: cells[1:] for cells in table_cells(half)}
    card = {cells[0]: cells[1:] for cells in table_cells((ROOT / "vmkla/weights/nano.md").read_text("utf-8"))}
    for name, row in (
        ("threshold only", "threshold only"),
        ("chosen for 10.0%", "peak 0.791, as chosen on the first half"),
        ("the model's own", "peak 0.72, as shipped"),
    ):
        peak, _, alarms, _, _, found, of_those, _ = printed[name]
        assert name == "threshold only" or f"peak {peak}," in row
        assert card[row][:2] == [alarms, found] and of_those.startswith(card[row][2])


def table_cells(text: str) -> list[list[str]]:
    """The cells of each line of a table."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
