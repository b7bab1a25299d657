"""``vmkla eval``: which images are judged, what is printed and written, and how errors end."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.data.labelled_folders import write_folder
from vmkla.data import iter_samples, open_dataset
from vmkla.engines import load_runner
from vmkla.evaluation import evaluate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six labelled images, the fifth without a disc."""
    return write_folder(tmp_path / "set", 6)


def test_json_is_what_evaluate_says(vmkla: Any, tiny_weights: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = vmkla("eval", "--model", tiny_weights, "--data", folder, "--out", out, "--threads", 1, "--json")
    assert done.status == 0, done.stderr
    runner = load_runner(tiny_weights, threads=1)
    expected = evaluate(runner, iter_samples(open_dataset(str(folder), split_validation=False).train))
    runner.close()
    del expected["each"]
    result = done.json
    assert {key: result[key] for key in expected} == json.loads(json.dumps(expected))
    assert result["runtime"]["runner"] == "torch" and result["split"] == "all" and result["images"] == 6
    assert set(result["per_image"]) >= {"dice", "iou"} and set(result["global"]) >= {"dsc", "miou"}
    assert result["warnings"] == [] and "6 images (all)" in done.stderr
    for file in result["outputs"].values():
        assert (out / file).stat().st_size > 0
    stored = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {**stored, "out_dir": str(out)} == result
    with (out / "per_image.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 6


def test_an_onnx_file_gives_the_same(
    vmkla: Any, tiny_weights: Path, tiny_onnx: Path, folder: Path, tmp_path: Path
) -> None:
    """One network as weights and as an artefact: the same figures up to rounding, another runtime."""
    results = [
        vmkla(
            "eval", "--model", model, "--data", folder, "--out", tmp_path / name, "--no-html", "--json"
        ).json
        for name, model in (("a", tiny_weights), ("b", tiny_onnx))
    ]
    assert [result["runtime"]["runner"] for result in results] == ["torch", "onnxruntime"]
    assert "the model's weights are random: its findings mean nothing" in results[1]["warnings"]
    first, second = (result["resolutions"] for result in results)
    for where in ("native", "model"):
        assert first[where]["per_image"]["dice"] == pytest.approx(
            second[where]["per_image"]["dice"], abs=1e-3
        )
        assert first[where]["global"]["dsc"] == pytest.approx(second[where]["global"]["dsc"], abs=1e-3)
    assert results[0]["model"]["weights_sha256"] == results[1]["model"]["weights_sha256"]
    assert not (tmp_path / "a" / "report.html").exists()


def test_tables_on_stdout_and_a_numbered_folder(
    vmkla: Any, tiny_weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("eval", "--model", tiny_weights, "--data", folder, "--no-html", "--quiet")
    done = vmkla(*arguments)
    assert done.status == 0 and done.stderr == ""
    report = json.loads(Path("runs/eval/tiny/report.json").read_text(encoding="utf-8"))
    for figure in (report["per_image"]["dice"], report["resolutions"]["model"]["global"]["dsc"]):
        assert f"{figure:.3f}" in done.stdout
    for text in ("6 images", "native", "32x64", "small, below 5 %", "at least 0.5 % of", "runs/eval/tiny/"):
        assert text in done.stdout, text
    assert vmkla(*arguments).status == 0 and Path("runs/eval/tiny-2/report.json").is_file()
    assert vmkla(*arguments, "--exist-ok").status == 0
    assert [path.name for path in sorted(Path("runs/eval").iterdir())] == ["tiny", "tiny-2"]


def test_which_images(vmkla: Any, tiny_weights: Path, tmp_path: Path) -> None:
    """Test sets when there are any, then the validation set, then everything; or what was asked for."""
    parts = tmp_path / "parts"
    for number, name in enumerate(("train", "val", "test")):
        write_folder(parts / name, 2 + number, first_seed=10 * number)
    pranet = tmp_path / "pranet"
    write_folder(pranet / "TrainDataset", 10, first_seed=40)
    for number, name in enumerate(("Kvasir", "CVC-300")):
        write_folder(pranet / "TestDataset" / name, 2 + number, first_seed=60 + 10 * number)
    (tmp_path / "two.txt").write_text("case-00\ncase-01\n")

    def judged(data: object, *more: object) -> Any:
        done = vmkla(
            "eval", "--model", tiny_weights, "--data", data, "--out", tmp_path / "out", "--exist-ok",
            "--no-html", "--json", *more,
        )  # fmt: skip
        return done.json if done.status == 0 else done

    assert (judged(parts)["split"], judged(parts)["images"]) == ("test", 4)
    assert judged(parts, "--split", "val")["images"] == 3
    assert judged(parts, "--split", "train")["images"] == 2
    everything = judged(parts, "--split", "all")
    assert everything["images"] == 9 and list(everything["by_set"]) == ["train", "val", "test"]
    assert judged(f"{parts / 'train'}:{tmp_path / 'two.txt'}")["images"] == 2
    tests = judged(pranet)
    assert {name: report["images"] for name, report in tests["by_set"].items()} == {"Kvasir": 2, "CVC-300": 3}
    assert judged("polyp", "--root", pranet)["by_set"] == tests["by_set"]
    assert judged(f"polyp={pranet}", "--split", "val")["images"] == 1  # a tenth of ten, split off by the seed
    missing = judged(parts / "train", "--split", "test")
    assert missing.status == 3 and "has no test set, it has: train" in missing.stderr


def test_volumes(vmkla: Any, tmp_path: Path) -> None:
    """Synapse's layout through a network of nine classes."""
    from dataclasses import replace

    from tests.export.exported_models import HEIGHT, TINY, WIDTH, network
    from vmkla.data.layouts import ORGANS
    from vmkla.models.checkpoints import save_weights

    weights = tmp_path / "organs.safetensors"
    training = {"image_size_hw": [HEIGHT, WIDTH], "roi": "none"}
    save_weights(network(replace(TINY, num_classes=9)), weights, training=training, class_names=ORGANS)
    rng = np.random.default_rng(2)
    root = tmp_path / "synapse"
    (root / "test_vol_h5").mkdir(parents=True)
    for number, slices in ((1, 3), (2, 2)):
        label = np.kron(rng.integers(0, 9, (slices, 4, 4)), np.ones((1, 12, 12))).astype(np.float32)
        with h5py.File(root / "test_vol_h5" / f"case000{number}.npy.h5", "w") as file:
            file["image"], file["label"] = rng.random(label.shape, np.float32), label
    done = vmkla(
        "eval",
        "--model",
        weights,
        "--data",
        f"synapse={root}",
        "--out",
        tmp_path / "out",
        "--json",
        "--no-html",
    )
    assert done.status == 0, done.stderr
    volumes = done.json["volumes"]
    assert volumes["count"] == 2 and list(volumes["by_organ"]) == list(ORGANS[1:])
    assert set(volumes["each"]) == {"case0001", "case0002"} and done.json["images"] == 5
    assert "5 images (test)" in done.stderr
    assert done.json["threshold"] is None and "by_class" in done.json
    wrong = vmkla("eval", "--model", "nano", "--data", f"synapse={root}", "--out", tmp_path / "no")
    assert wrong.status == 2 and "needs 9" in wrong.stderr and not (tmp_path / "no").exists()


def test_a_name_that_is_no_valid_unicode(
    vmkla: Any, tiny_weights: Path, folder: Path, tmp_path: Path
) -> None:
    for kind in ("images", "masks"):
        (folder / kind / "case-00.png").rename(os.fsdecode(os.fsencode(folder / kind) + b"/\xe4.png"))
    out = tmp_path / "out"
    done = vmkla("eval", "--model", tiny_weights, "--data", folder, "--out", out)
    assert done.status == 0, done.stderr
    assert b"set/\xe4," in (out / "per_image.csv").read_bytes()
    assert "set/\\udce4" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "--data"),
        (("--data", "missing"), 3, "missing"),
        (("--data", "SET", "--model", "missing.onnx"), 3, "missing.onnx"),
        (("--data", "SET", "--threshold", "7"), 2, "above 0 and at most 1"),
        (("--data", "SET", "--peak", "0.3"), 2, "the peak is 0.3"),
        (("--data", "SET", "--min-fraction", "1"), 2, "expected at least 0 and below 1"),
        (("--data", "SET", "--roi", "cake"), 2, "cake"),
        (("--data", "SET", "--roi", "0,0,999,999"), 3, "leaves the frame"),
        (
            ("--data", "SET", "--runtime", "tensorrt"),
            6,
            "vmkla build nano --output nano.plan --runtime tensorrt",
        ),
        (("--data", "SET", "--split", "some"), 2, "some"),
        (("--data", "polyps=SET"), 2, "polyps"),
        (("--data", "polyp"), 2, "polyp"),
    ],
)
def test_wrong_values(
    vmkla: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, status: int,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [str(part).replace("SET", str(folder)) for part in arguments]
    done = vmkla("eval", *given, "--out", tmp_path / "out", "--no-html")
    assert done.status == status and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()


def test_a_taken_folder_and_a_damaged_image(
    vmkla: Any, tiny_weights: Path, folder: Path, tmp_path: Path
) -> None:
    arguments = ("eval", "--model", tiny_weights, "--data", folder, "--out", tmp_path / "out", "--no-html")
    assert vmkla(*arguments).status == 0
    taken = vmkla(*arguments)
    assert taken.status == 2 and "--exist-ok" in taken.stderr
    before = (tmp_path / "out" / "per_image.csv").read_bytes()
    image = folder / "images" / "case-03.png"
    image.write_bytes(image.read_bytes()[:100])
    damaged = vmkla(*arguments, "--exist-ok")
    assert damaged.status == 3 and "case-03" in damaged.stderr
    assert (tmp_path / "out" / "per_image.csv").read_bytes() == before


def test_peak_and_smallest_area_reach_the_findings_and_leave_the_raw_mask(
    vmkla: Any, tiny_weights: Path, folder: Path, tmp_path: Path
) -> None:
    common = ("eval", "--model", tiny_weights, "--data", folder, "--exist-ok", "--no-html", "--json")
    plain, strict = (
        vmkla(*common, "--out", tmp_path / "out", *more).json
        for more in ((), ("--peak", 0.999, "--min-fraction", 0.5))
    )
    assert strict["per_image"] == plain["per_image"]
    assert strict["operating_point"] == {"threshold": 0.5, "peak": 0.999, "min_fraction": 0.5}
    assert plain["lesions"]["lesions"] == strict["lesions"]["lesions"] == 5
    assert plain["lesions"]["found"] > strict["lesions"]["found"] == 0 == strict["lesions"]["false_regions"]
    assert len(plain["lesions"]["froc"]["peak"]) > len(strict["lesions"]["froc"]["peak"])


def test_threshold_and_field_of_view_reach_the_judge(
    vmkla: Any, tiny_weights: Path, folder: Path, tmp_path: Path
) -> None:
    common = ("eval", "--model", tiny_weights, "--data", folder, "--exist-ok", "--no-html", "--json")
    plain, strict, cut = (
        vmkla(*common, "--out", tmp_path / "out", *more).json
        for more in ((), ("--threshold", 0.999), ("--roi", "0,0,32,48"))
    )
    assert (plain["threshold"], strict["threshold"]) == (0.5, 0.999)
    assert strict["per_image"]["sensitivity"] < plain["per_image"]["sensitivity"]
    assert (plain["roi"], cut["roi"]) == ("none", "0,0,32,48")
    assert cut["per_image"]["dice"] != plain["per_image"]["dice"]


WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from vmkla.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def test_the_page_needs_matplotlib_and_no_torch(tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    """As after ``pip install 'vmkla[report]'``, and as in the base install."""

    def run(absent: str, *more: str) -> subprocess.CompletedProcess[str]:
        given = ["eval", "--model", tiny_onnx, "--data", folder, "--out", tmp_path / "out", *more]
        command = [sys.executable, "-I", "-c", WITHOUT, absent, *map(str, given)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    absent = "torch,onnx,safetensors,h5py,imagehash,monai,scipy,captum"
    done = run(f"{absent},matplotlib")
    assert done.returncode == 4 and "pip install 'vmkla[report]'" in done.stderr
    assert not (tmp_path / "out").exists()
    done = run(absent)
    assert done.returncode == 0, done.stderr
    assert "data:image/png" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
