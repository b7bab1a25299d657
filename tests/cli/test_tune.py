"""``vmkla tune``: the point that is written gives what was printed, and bad input ends before the work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.cli.conftest import Command
from tests.data.labelled_folders import write_folder, write_synapse
from tests.test_imports import BLOCKER, HEAVY
from tests.video.small_videos import write_video
from vmkla.engines.runners.model_file import open_model
from vmkla.files import file_sha256

FRAMES, RATE = 75, 25


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Twelve labelled images, ten of them with a lesion."""
    return write_folder(tmp_path / "set", 12)


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    """Three seconds of moving noise."""
    return write_video(tmp_path / "quiet.mp4", FRAMES)


def alarms_of(vmkla: Command, model: Path, clip: Path, out: Path) -> int:
    """Count the runs of frames with a finding that ``infer`` writes for a clip."""
    done = vmkla("infer", "--video", clip, "--model", model, "--out", out, "--threads", 1)
    assert done.status == 0, done.stderr
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [bool(row["boxes"]) for row in rows]
    return sum(now and not before for before, now in zip([False, *found], found, strict=False))


def figures_of(vmkla: Command, model: Path, data: Path, out: Path) -> tuple[int, int]:
    """Lesions found, and lesions, as ``eval`` counts them at the model's point."""
    done = vmkla(
        "eval", "--model", model, "--data", data, "--out", out, "--no-html", "--json", "--threads", 1
    )
    assert done.status == 0, done.stderr
    return done.json["lesions"]["found"], done.json["lesions"]["lesions"]


@pytest.mark.parametrize("wanted", [("--alarms-per-minute", 300), ("--sensitivity", 0.6)])
def test_the_figures_are_those_of_infer_and_eval(
    vmkla: Command, tiny_onnx: Path, labelled: Path, quiet: Path, tmp_path: Path, wanted: tuple[str, float]
) -> None:
    before = tiny_onnx.read_bytes()
    done = vmkla("tune", tiny_onnx, "--data", labelled, "--quiet", quiet, *wanted, "--json", "--threads", 1)
    assert done.status == 0, done.stderr
    tuned = tmp_path / "tiny-tuned.onnx"
    result = done.json
    assert result["path"] == str(tuned) and "optimistic" in result["warnings"][0]
    assert "optimistic" in done.stderr and tiny_onnx.read_bytes() == before
    assert result["old"] != result["new"]
    for name, model in (("before", tiny_onnx), ("after", tuned)):
        cost = result[name]
        alarms = cost["alarms"]["any"]["alarms"]
        assert alarms == alarms_of(vmkla, model, quiet, tmp_path / f"infer-{name}")
        assert (cost["found"], cost["lesions"]) == figures_of(
            vmkla, model, labelled, tmp_path / f"eval-{name}"
        )
        assert cost["alarms"]["any"]["per_minute"] == pytest.approx(alarms / (FRAMES / RATE / 60))
        assert cost["alarms"]["recorded_s"] == pytest.approx(FRAMES / RATE)
    if wanted[0] == "--sensitivity":
        assert result["after"]["sensitivity"] >= 0.6
    else:
        assert result["after"]["alarms"]["any"]["per_minute"] <= 300
    metadata = open_model(tuned).metadata
    assert metadata.operating_point is not None and metadata.operating_point.to_dict() == result["new"]
    (record,) = metadata.tuning
    assert record == {key: result[key] for key in record}
    assert record["model_sha256"] == file_sha256(tiny_onnx)
    assert record["quiet"] == [{"frames": FRAMES, "recorded_s": 3.0, "sha256": file_sha256(quiet)}]
    assert record["labelled"]["images"] == 12 and record["labelled"]["lesions"] == 10
    assert not {tmp_path.name, "quiet.mp4", "case-00"} & set(json.dumps(record).replace('"', "/").split("/"))


def test_tables_on_stdout(
    vmkla: Command, tiny_onnx: Path, labelled: Path, quiet: Path, tmp_path: Path
) -> None:
    arguments = (
        "tune",
        tiny_onnx,
        "--data",
        labelled,
        "--quiet",
        quiet,
        "--sensitivity",
        "0.6",
        "--threads",
        1,
    )
    output = tmp_path / "deeper" / "site.onnx"
    done = vmkla(*arguments, "--output", output, "-q")
    assert done.status == 0 and done.stderr == ""
    (record,) = open_model(output).metadata.tuning
    for text in (
        "on 10 lesions and 0.05 min of quiet recording",
        "sensitivity per lesion",
        "alarms a minute, any",
        "alarms a minute, of at least 0.5 s",
        "alarms a minute, of at least 2 s",
        "quiet time in an alarm, %",
        f"{record['new']['peak']:g}",
        f"{record['after']['found']} of 10",
        f"written: {output}",
    ):
        assert text in done.stdout, text
    again = vmkla(*arguments, "--output", output, "-q")  # a name that was given is replaced
    assert again.status == 0 and len(open_model(output).metadata.tuning) == 1


def test_a_holdout_is_not_seen_by_the_fit(
    vmkla: Command, tiny_onnx: Path, labelled: Path, quiet: Path, tmp_path: Path
) -> None:
    arguments = (
        "tune",
        tiny_onnx,
        "--data",
        labelled,
        "--quiet",
        quiet,
        "--holdout",
        "--json",
        "--threads",
        1,
    )
    short = vmkla(*arguments, "--sensitivity", 0.6)
    assert short.status == 3 and "hold 5 lesions to fit to" in short.stderr
    done = vmkla(*arguments, "--sensitivity", 0.5)
    assert done.status == 0 and "optimistic" not in done.stderr and done.json["warnings"] == []
    after = done.json["after"]
    assert done.json["holdout"] is True and after["alarms"]["recorded_s"] == pytest.approx(38 / RATE)
    tuned = tmp_path / "tiny-tuned.onnx"
    others = tmp_path / "others.txt"  # every other one of the images with a disc
    others.write_text("\n".join(f"case-{number:02d}" for number in (1, 3, 6, 8, 11)), encoding="utf-8")
    found = figures_of(vmkla, tuned, Path(f"{labelled}:{others}"), tmp_path / "others")
    assert found == (after["found"], after["lesions"]) and after["lesions"] == 5


def test_one_sequence_leaves_nothing_to_judge(
    vmkla: Command, tiny_onnx: Path, labelled: Path, quiet: Path, tmp_path: Path
) -> None:
    one = tmp_path / "one.txt"
    one.write_text("case-01", encoding="utf-8")
    done = vmkla(
        "tune", tiny_onnx, "--data", f"{labelled}:{one}", "--quiet", quiet, "--sensitivity", 0.01,
        "--holdout", "--threads", 1,
    )  # fmt: skip
    assert done.status == 3 and "of a single sequence" in done.stderr


def test_images_with_their_rate_and_several_recordings(
    vmkla: Command, tiny_onnx: Path, labelled: Path, quiet: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    folder = tmp_path / "stills"
    folder.mkdir()
    for index in range(20):
        cv2.imwrite(str(folder / f"f{index}.png"), rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    (folder / "f7.png").write_bytes(b"no image")
    done = vmkla(
        "tune", tiny_onnx, "--data", labelled, "--quiet", quiet, folder, "--fps", 10, "--sensitivity", 0.6,
        "--json", "--threads", 1,
    )  # fmt: skip
    assert done.status == 7 and "1 of 20 images cannot be read" in done.stderr
    assert [part["frames"] for part in done.json["quiet"]] == [FRAMES, 19]
    assert done.json["quiet"][1]["recorded_s"] == pytest.approx(2.0)
    assert Path(done.json["path"]).is_file() and len(done.json["missing"]) == 1


def test_a_checkpoint_is_tuned_through_torch(
    vmkla: Command, tiny_weights: Path, labelled: Path, tmp_path: Path
) -> None:
    clip, output = write_video(tmp_path / "short.mp4", 5), tmp_path / "site.safetensors"
    done = vmkla(
        "tune", tiny_weights, "--data", labelled, "--quiet", clip, "--sensitivity", 0.6, "--json",
        "--output", output, "--threads", 1,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert figures_of(vmkla, output, labelled, tmp_path / "eval")[0] == done.json["after"]["found"]


def test_a_shipped_model_gets_its_tuned_file_here(
    vmkla: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmkla import weights
    from vmkla.cli.tune import tuned_name

    monkeypatch.chdir(tmp_path)
    assert tuned_name(weights.resolve("nano")) == Path("nano-tuned.onnx")
    assert tuned_name(tmp_path / "m.fp16.onnx") == tmp_path / "m.fp16-tuned.onnx"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "give either"),
        (("--sensitivity", "0.5", "--alarms-per-minute", "1"), 2, "give either"),
        (("--sensitivity", "1.2"), 2, "above 0 and below 1"),
        (("--alarms-per-minute", "0"), 2, "above 0"),
        (("--sensitivity", "0.5", "--fps", "25"), 2, "--fps is for"),
        (("--sensitivity", "0.5", "--output", "MODEL"), 2, "would replace the model"),
        (("--sensitivity", "0.5", "--output", "new.plan"), 2, "ends in .onnx"),
        (("--sensitivity", "0.5", "--output", "quiet.mp4/new.onnx"), 3, "cannot be written"),
        (("--alarms-per-minute", "1"), 3, "at least 3.00 min"),
        (("--sensitivity", "0.95"), 3, "hold 10 lesions"),
        (("--sensitivity", "0.5", "--data", "missing"), 3, "missing"),
        (("--sensitivity", "0.5", "--data", "EMPTY"), 3, "hold no lesion"),
        (("--sensitivity", "0.5", "--data", "ORGANS"), 2, "needs 9"),
        (("--sensitivity", "0.5", "--quiet", "missing.mp4"), 3, "missing.mp4"),
        (("--sensitivity", "0.5", "--quiet", "STILLS"), 2, "Add: --fps"),
        (("--sensitivity", "0.5", "--quiet", "NOTHING"), 3, "holds no image"),
    ],
)
def test_bad_input_ends_before_the_network_runs(
    vmkla: Command,
    tiny_onnx: Path,
    labelled: Path,
    quiet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = write_folder(tmp_path / "empty", 1, first_seed=4)
    (tmp_path / "nothing").mkdir()
    organs = write_synapse(tmp_path / "organs", patients=1, slices=1) if "ORGANS" in arguments else tmp_path
    places = {
        "MODEL": tiny_onnx, "EMPTY": empty, "STILLS": labelled / "images", "NOTHING": tmp_path / "nothing",
        "ORGANS": f"synapse={organs}",
    }  # fmt: skip
    given = [str(places.get(argument, argument)) for argument in arguments]
    known = () if "--data" in given else ("--data", labelled)
    clips = () if "--quiet" in given else ("--quiet", quiet)

    def refuse(*_: Any) -> Any:
        raise AssertionError("the network ran")

    monkeypatch.setattr("vmkla.tuning.collect.segment", refuse)
    before = tiny_onnx.read_bytes()
    done = vmkla("tune", tiny_onnx, *known, *clips, *given)
    assert done.status == status and message in done.stderr and done.stdout == ""
    assert tiny_onnx.read_bytes() == before and len(list(tmp_path.glob("*.onnx"))) == 1


def test_more_bad_input(vmkla: Command, tiny_onnx: Path, labelled: Path, quiet: Path, tmp_path: Path) -> None:
    base = ("tune", tiny_onnx, "--data", labelled, "--sensitivity", "0.6")
    assert "Add: --quiet CLIP" in vmkla(*base).stderr
    assert "one argument too many" in vmkla("tune", tiny_onnx, quiet, *base[2:]).stderr
    (tmp_path / "tiny-tuned.onnx").write_bytes(b"mine")
    taken = vmkla(*base, "--quiet", quiet)
    assert taken.status == 2 and "already a file" in taken.stderr
    assert (tmp_path / "tiny-tuned.onnx").read_bytes() == b"mine"


def test_a_request_that_no_point_reaches(
    vmkla: Command, tiny_onnx: Path, labelled: Path, quiet: Path, tmp_path: Path
) -> None:
    """Random weights raise four alarms a second at least, at any peak with which they find a lesion."""
    done = vmkla(
        "tune", tiny_onnx, "--data", labelled, "--quiet", quiet, "--alarms-per-minute", 100, "--threads", 1
    )
    assert done.status == 5 and "the fewest with which one is found are 240.00" in done.stderr
    assert not (tmp_path / "tiny-tuned.onnx").exists()


def test_no_torch_and_no_onnx(tiny_onnx: Path, labelled: Path, quiet: Path, tmp_path: Path) -> None:
    arguments = [
        "tune", str(tiny_onnx), "--data", str(labelled), "--quiet", str(quiet), "--sensitivity", "0.6",
        "--json", "--threads", "1",
    ]  # fmt: skip
    blocker, rest = BLOCKER.format(blocked=HEAVY, names=["vmkla.cli.main"]).split("loaded = ")
    code = f"{blocker}if status := vmkla.cli.main.main({arguments!r}): sys.exit(status)\nloaded = {rest}"
    code = code.replace("import importlib, sys", "import importlib, sys, vmkla", 1)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(tmp_path / "tiny-tuned.onnx")
