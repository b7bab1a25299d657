"""``vmkla eval --procedures``: figures that are counted by hand, the files, and how errors end."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import vmkla.engines
from tests.evaluation.colour_runners import RedRunner
from tests.evaluation.truth import miniatures
from tests.evaluation.truth.miniatures import HEIGHT, LAYOUTS, WIDTH


@pytest.fixture
def red(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that marks what is red, in the place of the shipped one."""

    @contextmanager
    def load(*_: object, **__: object) -> Iterator[RedRunner]:
        yield RedRunner(HEIGHT, WIDTH)

    monkeypatch.setattr(vmkla.engines, "load_runner", load)


@pytest.mark.usefixtures("red")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_figures_of_every_layout(vmkla: Any, tmp_path: Path, layout: str) -> None:
    make, fps = LAYOUTS[layout]
    (tmp_path / "set").mkdir()
    make(tmp_path / "set")
    rate = () if fps is None else ("--fps", fps)
    out = tmp_path / "out"
    done = vmkla("eval", "--procedures", tmp_path / "set", "--out", out, "--json", *rate)
    assert done.status == 0, done.stderr
    found = done.json
    assert (found["layout"], found["procedures"], found["frames"]) == (layout, 1, 12)
    assert found["recorded_s"] == pytest.approx(0.4)
    assert (found["lesions"]["lesions"], found["lesions"]["found"]) == (2, 1)
    assert found["lesions"]["sensitivity"] == 0.5 and found["lesions"]["sensitivity_ci95"] == [None, None]
    detection = found["first_detection"]
    assert detection["median_s"] == pytest.approx(2 / 30)
    assert (detection["missed"], detection["p95_s"]) == (1, None)  # infinite, which JSON lacks
    assert found["persistence"]["mean"] == pytest.approx(5 / 6)
    assert found["per_frame"]["sensitivity"] == pytest.approx(5 / 9)
    assert found["per_frame"]["specificity"] == pytest.approx(2 / 3)
    alarms = found["alarms"]
    assert alarms["share_of_time"] == pytest.approx(3 / 12)
    assert (alarms["any"]["alarms"], alarms["any"]["per_procedure"]) == (2, 2)
    assert alarms["any"]["per_minute"] == pytest.approx(2 / (0.4 / 60))
    assert alarms["0.5_s"]["alarms"] == 0
    assert found["identities"]["switches"] == 0 and found["identities"]["lesions"] == 1
    # Of 13 boxes of lesions and 8 findings, the five on lesion 1 agree.
    assert found["identities"]["idf1"] == pytest.approx(2 * 5 / (13 + 8))
    report = json.loads((out / "report.json").read_text())
    assert report == {key: value for key, value in found.items() if key != "out_dir"}
    rows = list(csv.DictReader((out / "per_lesion.csv").read_text().splitlines()))
    assert [(row["lesion"][-1], row["frames"], row["hit_frames"]) for row in rows] == [
        ("1", "8", "5"),
        ("2", "5", "0"),
    ]
    assert rows[1]["first_detection_s"] == "inf"


@pytest.mark.usefixtures("red")
def test_sun_seg_and_its_tables(vmkla: Any, tmp_path: Path) -> None:
    """Two procedures: a clip of one lesion, and one without; three alarms in 24 frames."""
    miniatures.sun_seg(tmp_path)
    done = vmkla("eval", "--procedures", tmp_path, "--out", tmp_path / "out")
    assert done.status == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "2 procedures in 2 recordings" in text and "lesions found 1 of 1 1.000 [1.000, 1.000]" in text
    assert "time to first detection, median, s 0.07 [0.07, 0.07]" in text
    assert "any 3 1.50 225.00 [1.00, 2.00] [150.00, 300.00]" in text
    assert "SUN-Negative/case3" in text and "per_lesion.csv" in text


def test_the_shipped_model(vmkla: Any, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    miniatures.mot(tmp_path / "set")
    arguments = ("eval", "--procedures", tmp_path / "set", "--out", tmp_path / "out", "--threads", 1)
    done = vmkla(*arguments, "--peak", 0.999, "--min-fraction", 0.5, "--json")
    assert done.status == 0, done.stderr
    point = done.json["operating_point"]
    assert (point["peak"], point["min_fraction"]) == (0.999, 0.5)
    assert (done.json["lesions"]["found"], done.json["alarms"]["any"]["alarms"]) == (0, 0)
    assert done.json["per_frame"]["specificity"] == 1.0
    taken = vmkla(*arguments)
    assert taken.status == 2 and "--exist-ok" in taken.stderr


@pytest.mark.usefixtures("red")
def test_without_trackeval(vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    miniatures.mot(tmp_path)
    arguments = ("eval", "--procedures", tmp_path, "--out", tmp_path / "out")
    done = vmkla(*arguments)
    assert done.status == 4 and "pip install 'vmkla[procedures]'" in done.stderr
    assert not (tmp_path / "out").exists()
    done = vmkla(*arguments, "--no-identities", "--json")
    assert done.status == 0 and done.json["identities"] is None, done.stderr


@pytest.mark.usefixtures("red")
def test_an_unreadable_frame_and_a_jump(vmkla: Any, tmp_path: Path) -> None:
    miniatures.real_colon(tmp_path)
    damaged = tmp_path / "001-001_frames" / "001-001_111.jpg"
    damaged.write_bytes(damaged.read_bytes()[:60])
    for path in (*tmp_path.glob("*/001-001_100.*"), *tmp_path.glob("*/001-001_101.*")):
        path.rename(path.with_stem(path.stem.replace("_1", "_")))
    done = vmkla("eval", "--procedures", tmp_path, "--out", tmp_path / "out", "--json")
    assert done.status == 7 and "001-001_111" in done.stderr and "jump, 1 times" in done.stderr, done.stderr
    assert done.json["frames"] == 11 and len(done.json["missing"]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--procedures", "absent"), 3, "does not exist"),
        (("--procedures", "."), 3, "none of the layouts"),
        (("--procedures", ".", "--data", "."), 2, "--data has no meaning beside --procedures"),
        (("--procedures", ".", "--split", "val"), 2, "--split has no meaning"),
        (("--procedures", ".", "--anonymous"), 2, "--anonymous has no meaning"),
        (("--procedures", ".", "--fps", "0"), 2, "above 0"),
        (("--data", ".", "--fps", "25"), 2, "--fps has no meaning beside --data"),
        (("--fps", "25"), 2, "--procedures DIR"),
    ],
)
def test_wrong_values(
    vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, status: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = vmkla("eval", *arguments, "--out", tmp_path / "out")
    assert done.status == status and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()


def test_findings_as_truth(vmkla: Any, tmp_path: Path) -> None:
    """What ``infer --export coco`` writes of a clip is a truth that the same model meets everywhere."""
    clip, run = tmp_path / "clip.mp4", tmp_path / "run"
    assert vmkla("sample", clip, "--frames", 8, "--seed", 6, "--size", "96x128").status == 0
    point = ("--min-fraction", 0.005, "--threads", 1)
    exported = vmkla("infer", "--video", clip, "--out", run, "--export", "coco", "--export-frames", *point)
    assert exported.status == 0, exported.stderr
    out = ("--out", tmp_path / "out", "--json")
    done = vmkla("eval", "--procedures", run / "export", "--fps", 30, *point, *out)
    assert done.status == 0, done.stderr
    found = done.json
    assert found["lesions"]["found"] == found["lesions"]["lesions"] > 0
    assert found["first_detection"]["p95_s"] == 0 and found["persistence"]["mean"] == 1
    assert found["per_frame"]["sensitivity"] == 1 and found["alarms"]["any"]["alarms"] == 0
    assert (found["identities"]["hota"], found["identities"]["idf1"]) == pytest.approx((1, 1))


@pytest.mark.slow
def test_results_of_a_batch(vmkla: Any, tmp_path: Path) -> None:
    """The figures without a model are those of the model that the batch ran."""
    miniatures.mot(tmp_path / "set")
    model = ("--model", "nano", "--threads", 1)
    done = vmkla("batch", tmp_path / "set", "--out", tmp_path / "batch", "--save-masks", "--workers", 1)
    assert done.status == 0, done.stderr
    evaluate = ("eval", "--procedures", tmp_path / "set", "--json", "--out")
    stored = vmkla(*evaluate, tmp_path / "stored", "--results", tmp_path / "batch")
    assert stored.status == 0, stored.stderr
    network = vmkla(*evaluate, tmp_path / "network", *model)
    for key in ("lesions", "alarms", "identities", "each", "operating_point", "roi", "layout"):
        assert stored.json[key] == network.json[key]
    assert stored.json["model"]["name"] == "nano"
    beside = vmkla(*evaluate, tmp_path / "other", "--results", tmp_path / "batch", "--peak", 0.9)
    assert beside.status == 2 and "--peak has no meaning beside --results" in beside.stderr
