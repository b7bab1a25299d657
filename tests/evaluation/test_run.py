"""The files of an evaluation: what they hold, that they need no other, and that none is left half done."""

from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.evaluation.colour_runners import ClassRunner, Labelled, RedRunner, labelled
from vmkla.errors import BadInputError, MissingDependencyError, UsageError
from vmkla.evaluation import evaluate
from vmkla.evaluation.run import EvalOptions, run_evaluation
from vmkla.metrics import MEASURES

FILES = {"report.json", "per_image.csv", "report.html"}


def images(count: int = 9) -> list[Labelled]:
    """Discs that are found better and better; the last but one frame has none and a false alarm."""
    rng = np.random.default_rng(6)
    down, across = np.mgrid[:48, :64]
    found: list[Labelled] = []
    for number in range(count):
        y, x = rng.integers(14, 34), rng.integers(14, 50)
        truth = (down - y) ** 2 + (across - x) ** 2 <= (4 + number) ** 2
        prediction = np.roll(truth, count - number, 1)
        if number >= count - 2:
            prediction = truth & (number == count - 2)
            truth = np.zeros_like(truth)
        found.append(labelled(f"set/<{number}>", prediction, truth, "seq" if number < 3 else ""))
    return found


class Page(HTMLParser):
    """Checks that every element is closed, and keeps pictures, texts and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "src":
                self.pictures.append(value or "")
            if name == "href" or (name == "src" and not (value or "").startswith("data:")):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_files_hold_what_evaluate_says(tmp_path: Path) -> None:
    done: list[int] = []
    options = EvalOptions(out_dir=tmp_path / "out", data="a<b", split="test")
    document = run_evaluation(RedRunner(48, 64), {"": images()}, options, done.append)
    assert {path.name for path in options.out_dir.iterdir()} == FILES
    assert done == list(range(1, 10))
    expected = evaluate(RedRunner(48, 64), images())
    each = expected.pop("each")
    assert {key: document[key] for key in expected} == expected
    stored = json.loads((options.out_dir / "report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(document))
    assert stored["model"]["weights_sha256"] == "0" * 64 and stored["runtime"]["version"] == "numpy"
    rows = list(csv.DictReader((options.out_dir / "per_image.csv").open(encoding="utf-8")))
    assert [row["name"] for row in rows] == [row["name"] for row in each]
    for name in MEASURES:
        for where in ("native", "model"):
            values = [float(row[f"{where}_{name}"]) for row in rows]
            assert np.mean(values) == pytest.approx(document["resolutions"][where]["per_image"][name])
    for name in ("size", "lesions", "lesions_found", "false_regions"):
        assert [row[name] for row in rows] == [str(row[name]) for row in each], name
    for name, total in (
        ("lesions", "lesions"),
        ("lesions_found", "found"),
        ("false_regions", "false_regions"),
    ):
        assert sum(int(row[name]) for row in rows) == document["lesions"][total] > 0, name
    assert rows[0]["group"] == "seq" and rows[0]["height_px"] == "48" and rows[-2]["truth_fraction"] == "0.0"


def test_page_is_whole_and_needs_no_other_file(tmp_path: Path) -> None:
    options = EvalOptions(out_dir=tmp_path / "out", data="a<b>", split="test")
    document = run_evaluation(RedRunner(48, 64), {"": images()}, options)
    page = Page((options.out_dir / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and page.addresses == []
    text = " ".join(page.texts)
    assert "red on a<b>" in text and "set/<0>" in text and "Research use" in text
    assert f"{document['per_image']['dice']:.3f} ± {document['per_image']['dice_std']:.3f}" in text
    assert f"{document['global']['dsc']:.3f}" in text
    for heading in ("Best", "Median", "Worst", "Worst false alarms", "Dice by sequence", "FROC"):
        assert heading in text
    pictures = [re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", source) for source in page.pictures]
    kinds = [match[1] for match in pictures if match]
    assert kinds.count("png") == 5  # FROC, measures, histogram, size, sequences
    # Seven images have a lesion, one has a false alarm, and beside the smallest lesion is a false region.
    assert kinds.count("jpeg") == 4 + 4 + 7 + 1 + 1
    assert (
        "set/<0>: Dice 0.000, 0 of 1 lesion found" in text and "; 1 false region, highest peak 1.0000" in text
    )
    for match in pictures:
        assert match
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(match[2]), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.std() > 1


def test_several_classes_and_volumes(tmp_path: Path) -> None:
    truth = np.zeros((3, 32, 32), np.uint8)
    truth[:, 4:14, 4:14], truth[1:, 20:26, 18:30] = 1, 2
    samples = [labelled(f"case1/{n}", np.roll(t, 1, 0), t, "case1") for n, t in enumerate(truth)]
    runner = ClassRunner(32, 32, ("background", "left kidney", "liver"))
    options = EvalOptions(out_dir=tmp_path / "out", volumes=True)
    document = run_evaluation(runner, {"": samples}, options)
    assert document["volumes"]["by_organ"]["liver"]["hd95_voxels"] == 1.0
    rows = list(csv.DictReader((options.out_dir / "per_image.csv").open(encoding="utf-8")))
    dice = [float(row["native_dice_left kidney"]) for row in rows]
    assert np.mean(dice) == pytest.approx(document["by_class"]["left kidney"]["dice"])
    text = " ".join(Page((options.out_dir / "report.html").read_text(encoding="utf-8")).texts)
    assert "HD95, voxels" in text and "left kidney" in text and "Dice by class" in text
    assert "Left the truth, right the prediction" in text


def test_a_taken_folder_is_left_alone_or_replaced(tmp_path: Path) -> None:
    options = EvalOptions(out_dir=tmp_path / "out")
    run_evaluation(RedRunner(48, 64), {"": images()}, options)
    before = (tmp_path / "out" / "report.json").read_bytes()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(UsageError, match="holds outputs already"):
        run_evaluation(RedRunner(48, 64), {"": images(3)}, options)
    assert (tmp_path / "out" / "report.json").read_bytes() == before
    again = EvalOptions(out_dir=tmp_path / "out", exist_ok=True, html=False)
    run_evaluation(RedRunner(48, 64), {"": images(3)}, again)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES - {"report.html"} | {"mine.txt"}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["images"] == 3


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    class Breaks(RedRunner):
        def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return np.full((1, 1, 48, 64), np.nan, np.float32)

    options = EvalOptions(out_dir=tmp_path / "out")
    with pytest.raises(Exception, match="NaN"):
        run_evaluation(Breaks(48, 64), {"": images()}, options)
    with pytest.raises(BadInputError, match="no labelled image"):
        run_evaluation(RedRunner(48, 64), {"": []}, options)
    assert not options.out_dir.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="cannot write"):
        run_evaluation(RedRunner(48, 64), {"": images()}, EvalOptions(out_dir=tmp_path / "file" / "deeper"))
    # An earlier evaluation stays whole when the next one fails before its end.
    run_evaluation(RedRunner(48, 64), {"": images()}, options)
    before = {path.name: path.read_bytes() for path in options.out_dir.iterdir()}
    with pytest.raises(Exception, match="NaN"):
        run_evaluation(Breaks(48, 64), {"": images()}, EvalOptions(out_dir=tmp_path / "out", exist_ok=True))
    assert {path.name: path.read_bytes() for path in options.out_dir.iterdir()} == before


def test_a_missing_package_is_said_before_the_first_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    def never(*_: Any) -> None:
        raise AssertionError("an image was judged")

    volumes = EvalOptions(out_dir=tmp_path / "out", html=False, volumes=True)
    for module, options, extra in (
        ("matplotlib", EvalOptions(out_dir=tmp_path / "out"), "report"),
        ("monai.metrics.utils", volumes, "train"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingDependencyError, match=module) as caught:
                run_evaluation(RedRunner(48, 64), {"": images()}, options, never)
            assert f"vmkla[{extra}]" in str(caught.value)
    assert not (tmp_path / "out").exists()
