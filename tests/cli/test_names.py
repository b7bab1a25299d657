"""Names in what commands write and print: the file's own and no folder, or with --anonymous none at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.labelled_folders import write_stems
from tests.video.small_videos import write_video

PATIENT, FORENAME = "zyxdoe", "qwjane"
"""Of a folder and of its files."""


def digits(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a patient with a clip and images, two of them equal and one that cannot be read."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / PATIENT
    (folder / "images" / FORENAME).mkdir(parents=True)
    write_video(folder / f"{FORENAME}.mp4", 4)
    rng = np.random.default_rng(3)
    for name in (f"{FORENAME}1.png", f"{FORENAME}2.png", f"{FORENAME}/{FORENAME}3.png"):
        picture = cv2.imencode(".png", rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))[1]
        (folder / "images" / name).write_bytes(picture.tobytes())
    shutil.copy(folder / "images" / f"{FORENAME}1.png", folder / "images" / FORENAME / f"{FORENAME}9.png")
    (folder / "images" / f"{FORENAME}-broken.png").write_bytes(b"no image")
    return folder


def all_that_is_written(folder: Path) -> str:
    """Names and contents of all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(f"{path}\n{path.read_bytes().decode(errors='replace')}" for path in files)


def assert_no_name(text: str) -> None:
    for name in (PATIENT, FORENAME):
        assert name not in text, [line for line in text.splitlines() if name in line]


def test_rows_and_report_of_a_video_hold_its_name_without_its_folder(vmkla: Any, patient: Path) -> None:
    clip = patient / f"{FORENAME}.mp4"
    assert vmkla("infer", "--video", clip).status == 0
    out = patient.parent / "runs" / "infer" / FORENAME
    report = json.loads((out / "report.json").read_text())
    assert report["input"]["name"] == f"{FORENAME}.mp4"
    for name in ("report.json", "frames.jsonl", "procedure.html"):
        assert PATIENT not in (out / name).read_text(), name


def test_rows_and_report_of_images_hold_names_within_the_source(vmkla: Any, patient: Path) -> None:
    done = vmkla("infer", "--source", patient / "images", "--out", "out")
    assert done.status == 7
    written = (patient.parent / "out" / "report.json").read_text()
    report = json.loads(written)
    assert report["input"]["name"] == "images" and PATIENT not in written
    assert [problem["where"] for problem in report["problems"]] == [f"{FORENAME}-broken.png"]
    assert f"{FORENAME}-broken.png cannot be decoded" in report["problems"][0]["what"]
    rows = (patient.parent / "out" / "frames.jsonl").read_text()
    assert f'"{FORENAME}/{FORENAME}3.png"' in rows and PATIENT not in rows


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_an_anonymous_video(vmkla: Any, patient: Path, debug: tuple[str, ...]) -> None:
    clip = patient / f"{FORENAME}.mp4"
    done = vmkla(*debug, "infer", "--video", clip, "--anonymous", "--save-masks", "--json")
    assert done.status == 0, done.stderr
    out = patient.parent / "runs" / "infer" / digits(clip)
    assert done.json["out_dir"] == str(out.relative_to(patient.parent))
    assert done.json["input"]["name"] == digits(clip)
    assert done.json["input"]["sha256"].startswith(digits(clip))
    assert_no_name(done.stdout + done.stderr + all_that_is_written(patient.parent / "runs"))


def test_anonymous_images_and_their_continuation(vmkla: Any, patient: Path) -> None:
    images = patient / "images"
    arguments = ("infer", "--source", images, "--anonymous", "--save-masks")
    done = vmkla(*arguments)
    assert done.status == 7, done.stderr
    (out,) = (patient.parent / "runs" / "infer").iterdir()
    one, two = digits(images / f"{FORENAME}1.png"), digits(images / f"{FORENAME}2.png")
    three, broken = digits(images / FORENAME / f"{FORENAME}3.png"), digits(images / f"{FORENAME}-broken.png")
    expected = {f"{name}.png" for name in (one, f"{one}-2", two, three)}
    assert {path.name for path in (out / "overlay").iterdir()} == expected
    assert {path.name for path in (out / "masks").iterdir()} == expected
    assert broken in done.stderr
    before = all_that_is_written(out)
    assert_no_name(done.stdout + done.stderr + before)
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert [row["sha256"][:12] for row in rows] == [row["name"].split("-")[0] for row in rows]
    assert {row["overlay"] for row in rows} == {f"overlay/{name}" for name in expected}

    # What was done stays; of two equal images as well. One is done again: its overlay is gone.
    (out / "overlay" / f"{one}-2.png").unlink()
    again = vmkla(*arguments, "--continue", "--json")
    assert again.status == 7, again.stderr
    assert again.json["counts"]["kept"] == 3 and again.json["counts"]["frames"] == 4
    assert again.json["out_dir"] == str(out.relative_to(patient.parent))
    assert {path.name for path in (out / "overlay").iterdir()} == expected
    assert_no_name(again.stdout + again.stderr + all_that_is_written(patient.parent / "runs"))

    # Images came and went: the rest is kept by content, whatever it is called now.
    (images / f"{FORENAME}2.png").rename(images / "another.png")
    (images / f"{FORENAME}-broken.png").unlink()
    last = vmkla(*arguments, "--out", out, "--continue", "--json")
    assert last.status == 0 and last.json["counts"]["kept"] == 4, last.stderr


def test_a_run_with_names_is_not_continued_without(vmkla: Any, patient: Path) -> None:
    images = patient / "images"
    assert vmkla("infer", "--source", images, "--out", "out").status == 7
    done = vmkla("infer", "--source", images, "--out", "out", "--anonymous", "--continue")
    assert done.status == 6 and "anonymous" in done.stderr
    assert_no_name(done.stderr)


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--video", f"{FORENAME}.none"),
        ("--source", f"{FORENAME}-*.none"),
        ("--source", f"images/{FORENAME}-broken.png"),
        ("--video", "notes.mp4"),
        ("--video", "images"),
        ("--video", f"{FORENAME}_*.mp4"),
        ("--source", f"{FORENAME}_*.mp4"),
        ("--video", f"{FORENAME} o'neil"),
    ],
)
def test_an_anonymous_error_names_nothing(vmkla: Any, patient: Path, flag: str, name: str) -> None:
    (patient / "notes.mp4").write_bytes(FORENAME.encode())
    (patient / f"{FORENAME} o'neil").mkdir()
    for spec in (patient / name, os.path.relpath(patient / name)):
        for live in ((), ("--live",)) if flag == "--video" else ((),):
            done = vmkla("--debug", "infer", flag, spec, "--anonymous", *live)
            assert done.status in (2, 3), done.stderr
            assert "vmkla: " in done.stderr
            assert_no_name(done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (("--max-megapixels", "nan"), 2),
        (("--max-megapixels", "0"), 2),
        (("--threshold", "2"), 2),
        (("--stride", "0"), 2),
        (("--roi", "1,2"), 2),
    ],
)
def test_values_are_checked_before_files_are_read_for_their_names(
    vmkla: Any, patient: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, str], status: int
) -> None:
    monkeypatch.setattr(
        "vmkla.video.media.naming.digest_or_none", lambda path: pytest.fail(f"{path} was read")
    )
    for source in ("--video", patient / f"{FORENAME}.mp4"), ("--source", patient / "images"):
        done = vmkla("infer", *source, "--anonymous", *flags)
        assert done.status == status, done.stderr
        assert_no_name(done.stdout + done.stderr)


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_file_that_is_played_live(vmkla: Any, patient: Path, anonymous: bool) -> None:
    clip = patient / f"{FORENAME}.mp4"
    wanted = ("--anonymous",) if anonymous else ()
    done = vmkla("infer", "--live", "--source", clip, "--loop", "--duration-s", 1, "--record", *wanted)
    assert done.status in (0, 7), done.stderr
    name = digits(clip) if anonymous else FORENAME
    written = all_that_is_written(patient.parent / "runs")
    report = json.loads((patient.parent / "runs" / "infer" / name / "report.json").read_text())
    assert report["input"]["address"] == (name if anonymous else f"{name}.mp4")
    assert PATIENT not in written
    if anonymous:
        assert_no_name(written + done.stdout + done.stderr)


@pytest.fixture
def labelled(patient: Path) -> Path:
    """A labelled set of the patient: two images of one sequence, and a copy of the first."""
    folder = write_stems(patient / f"{FORENAME}-set", [f"{FORENAME}-{number}" for number in range(3)])
    for part in ("images", "masks"):
        shutil.copy(folder / part / f"{FORENAME}-0.png", folder / part / f"{FORENAME}-9.png")
    return folder


@pytest.mark.parametrize("anonymous", [False, True])
def test_an_evaluation(vmkla: Any, patient: Path, labelled: Path, anonymous: bool) -> None:
    wanted = ("--anonymous",) if anonymous else ()
    done = vmkla("eval", "--data", labelled, "--split", "all", "--out", "out", *wanted)
    assert done.status == 0, done.stderr
    written = all_that_is_written(patient.parent / "out")
    assert PATIENT not in written
    names = [
        line.split(",")[0] for line in (patient.parent / "out" / "per_image.csv").read_text().splitlines()
    ]
    if not anonymous:
        assert f"{FORENAME}-set/{FORENAME}-0" in names
        return
    files = [labelled / "images" / f"{FORENAME}-{number}.png" for number in (0, 1, 2, 9)]
    assert names[1:] == [*map(digits, files[:3]), f"{digits(files[0])}-2"]
    assert_no_name(done.stdout + done.stderr + written)


def test_named_sets_and_patients_of_an_anonymous_evaluation(vmkla: Any, patient: Path) -> None:
    for name, seed in ((FORENAME, 1), (PATIENT, 2)):
        write_stems(
            patient / "all" / "test" / name, [f"{name}{number}" for number in range(2)], first_seed=seed
        )
    done = vmkla("eval", "--data", patient / "all", "--out", "out", "--anonymous", "--json")
    assert done.status == 0, done.stderr
    assert len(done.json["by_set"]) == 2 and all(len(name) == 12 for name in done.json["by_set"])
    assert_no_name(done.stdout + done.stderr + all_that_is_written(patient.parent / "out"))


@pytest.mark.parametrize("command", ["eval", "verify", "calibrate"])
def test_anonymous_errors_of_labelled_images_name_nothing(
    vmkla: Any, patient: Path, labelled: Path, command: str
) -> None:
    words: tuple[Any, ...] = {
        "eval": ("eval", "--split", "all"),
        "verify": ("verify", "nano", "nano", "--split", "all"),
        "calibrate": ("calibrate", "nano", "--target", "cpu", "--output", "x.onnx", "--allow-few"),
    }[command]
    for broken in ("decoded", "listed", "absent"):
        if broken == "decoded":
            (labelled / "images" / f"{FORENAME}-1.png").write_bytes(b"no image")
        elif broken == "listed":
            (labelled / "masks" / f"{FORENAME}-2.png").unlink()
        data = labelled if broken != "absent" else labelled / FORENAME
        done = vmkla("--debug", *words, "--data", data, "--anonymous", "--out", "out")
        assert done.status in (2, 3), done.stderr
        assert_no_name(done.stdout + done.stderr)


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize("flag", ["--data", "--source"])
def test_a_verification(vmkla: Any, patient: Path, labelled: Path, flag: str, anonymous: bool) -> None:
    what = labelled if flag == "--data" else patient / f"{FORENAME}.mp4"
    wanted = ("--anonymous",) if anonymous else ()
    if flag == "--data":
        wanted += ("--split", "all")
    done = vmkla("verify", "nano", "nano", flag, what, "--out", "out", *wanted)
    assert done.status == 0, done.stderr
    written = all_that_is_written(patient.parent / "out")
    assert PATIENT not in written
    if anonymous:
        first = digits(labelled / "images" / f"{FORENAME}-0.png") if flag == "--data" else digits(what)
        assert first in written
        assert_no_name(done.stdout + done.stderr + written)


@pytest.mark.slow
def test_anonymous_explanations(vmkla: Any, patient: Path, tiny_weights: Path) -> None:
    done = vmkla("explain", "--source", patient / "images", "--model", tiny_weights, "--anonymous")
    assert done.status == 7, done.stderr
    assert digits(patient / "images" / f"{FORENAME}-broken.png") in done.stderr
    written = all_that_is_written(patient.parent / "runs")
    assert digits(patient / "images" / f"{FORENAME}1.png") + "-2.png" in written
    assert_no_name(done.stdout + done.stderr + written)


@pytest.mark.slow
def test_an_anonymous_calibration_and_the_model_that_it_writes(vmkla: Any, patient: Path) -> None:
    assert vmkla("sample", patient / f"{FORENAME}-views.mp4", "--frames", "8").status == 0
    data = ("--data", patient / f"{FORENAME}-views.mp4", "--data", patient / "images")
    flags = (
        "--allow-few",
        "--no-sensitivity",
        "--skip-gates",
        "--frames",
        "3",
        "--out",
        "out",
        "--anonymous",
    )
    for name in range(30):
        shutil.copy(patient / "images" / f"{FORENAME}1.png", patient / "images" / f"{FORENAME}-{name}.png")
    done = vmkla(
        "calibrate", "nano", *data, "--target", "cpu", "--output", "made/int8.onnx", "--out", "out", *flags
    )
    assert done.status == 0, done.stderr
    assert_no_name(done.stdout + done.stderr + all_that_is_written(patient.parent / "out"))
    assert_no_name((patient.parent / "made" / "int8.onnx").read_bytes().decode(errors="replace"))
