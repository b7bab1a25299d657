"""Trainings of one small budget: their lengths, the centres, and both tables from a miniature."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments import equal_budget as script
from tests.data.labelled_folders import write_stems
from vmkla.data import AugmentConfig, DataSource, iter_samples
from vmkla.data.arrays import cache_spec
from vmkla.data.draws import Draws
from vmkla.data.packing import pack_teacher
from vmkla.data.sources import Sample
from vmkla.errors import BadInputError
from vmkla.segment.preprocess import field_of_view, prepare

STEMS = {
    "C1": "100H0050_1", "C2": "EndoCV2021_001002", "C3": "C3_EndoCV2021_0049",
    "C4": "19_endocv2021_positive_757", "C5": "EndoCV2021_C5_50000034", "C6": "EndoCV2021_C6_0100013",
}  # fmt: skip


def test_names_tell_the_centre() -> None:
    assert {centre: script.centre_of(stem) for centre, stem in STEMS.items()} == {c: c for c in STEMS}
    assert script.centre_of("186OLCV1_100H0053") == script.centre_of("100S0003") == "C1"
    assert script.centre_of("35_endocv2021_negative_1005") == "C4"
    with pytest.raises(BadInputError, match="cju0 tells no centre"):
        script.centre_of("cju0")


@pytest.mark.needs_data
def test_every_image_of_polypgen_has_its_centre(shared_data: Path) -> None:
    stems = [path.stem for path in (shared_data / "data" / "polypgen" / "images").iterdir()]
    counts = {c: sum(script.centre_of(stem) == c for stem in stems) for c in script.CENTRES}
    assert counts == {"C1": 231, "C2": 271, "C3": 412, "C4": 205, "C5": 188, "C6": 80}


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_every_training_shows_as_many_images(share: float) -> None:
    plan = script.Plan(images=24000, batch_size=16)
    quiet = np.arange(1184) < 600
    steps = Draws(quiet, batch_size=16, seed=0, share=share).steps
    epochs = plan.epochs(1184, 584, share)
    assert epochs * steps * 16 == pytest.approx(24000, rel=0.03)


def write_polypgen(root: Path) -> tuple[str, str]:
    """Write a miniature with 20 training and 16 validation images; return both as the script takes them."""
    train = [f"C3_EndoCV2021_{n:03d}" for n in range(15)] + [f"7_endocv2021_positive_{n}" for n in range(5)]
    val = [f"EndoCV2021_C5_{n:03d}" for n in range(12)] + [f"8_endocv2021_negative_{n}" for n in range(4)]
    write_stems(root, [*train, *val, "EndoCV2021_001002"])  # the last one is left out of training
    for number, path in enumerate(sorted((root / "images").iterdir())):  # so that few look alike
        dark = cv2.convertScaleAbs(cv2.imread(str(path)), alpha=0.4 + number / 25)
        cv2.imwrite(str(path), dark)
    (root / "train.txt").write_text("\n".join([*train, "EndoCV2021_001002"]), encoding="utf-8")
    (root / "val.txt").write_text("\n".join(val), encoding="utf-8")
    return f"{root}:{root / 'train.txt'}", f"{root}:{root / 'val.txt'}"


def write_teacher(data: DataSource, path: Path) -> Path:
    """Write the pack of a teacher that knows the true masks."""
    spec = cache_spec((32, 32), "none", AugmentConfig())
    stems = script.left_out()
    samples = (
        Sample(
            sample.name,
            prepare(sample.image_rgb, spec, field_of_view(sample.image_rgb, "none")),
            cv2.resize(sample.mask * np.uint8(255), (spec.width, spec.height)),
            prepared=spec,
        )
        for sample in iter_samples([data])
        if sample.name.rsplit("/", 1)[1] not in stems
    )
    pack_teacher(samples, path, spec, made_by={})
    return path


@pytest.mark.slow
def test_a_miniature_is_trained_judged_and_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, val = write_polypgen(tmp_path / "polypgen")
    out, output = tmp_path / "runs", tmp_path / "equal_budget.md"
    common = ["--out", str(out), "--output", str(output)]
    given = [*common, "--data", data, "--val", val, "--imgsz", "32", "--batch", "4", "--images", "16"]
    only = ["--only", "scratch", "teacher", "C4", "C3"]
    assert script.main([*given, *only]) == 2
    assert "--teacher FILE.vmkpack" in capsys.readouterr().err
    pack = write_teacher(DataSource.parse(data), tmp_path / "teacher.vmkpack")
    assert script.main([*given, *only, "--teacher", str(pack)]) == 0
    documents = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}
    assert {name: d["training_images"] for name, d in documents.items()} == {
        "scratch": 20, "teacher": 20, "C4": 15, "C3": 5,
    }  # fmt: skip
    assert {d["images"] for d in (documents["scratch"], documents["teacher"])} == {16}
    assert (documents["C4"]["images"], documents["C3"]["images"]) == (9, 15)
    empty = {n: documents[n]["counts"]["empty"] for n in ("C4", "C3")}
    configs = {name: json.loads((out / name / "config.json").read_text()) for name in documents}
    assert {name: c["quiet_share"] for name, c in configs.items()} == {
        "scratch": 0.0, "teacher": 0.25, "C4": 0.25, "C3": 0.25,
    }  # fmt: skip
    assert [name for name, c in configs.items() if c["teacher"]] == ["teacher"]
    assert all(c["init"] is None and c["init_encoder"] is None for c in configs.values())
    text = output.read_text()
    assert "| + teacher | threshold only |" in text and "| C4 | 15 | 9 |" in text
    assert sum(empty.values()) and text.count("no empty image") == sum(not n for n in empty.values())

    written = (out / "scratch" / "result.json").stat().st_mtime_ns
    assert script.main([*given, *only]) == 0  # all are done, so no pack is needed
    assert (out / "scratch" / "result.json").stat().st_mtime_ns == written
    assert script.main([*common, "--table"]) == 0 and output.read_text() == text
    assert script.main([*given, "--only", "scratch", "--seed", "1"]) == 1
    assert "another plan" in capsys.readouterr().err
