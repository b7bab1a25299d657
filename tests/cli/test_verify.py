"""``vmkla verify``: its verdict, its files and its exit statuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.data.labelled_folders import write_folder
from tests.export.exported_models import exported, resealed, with_roots

SIZE = {"height": 32, "width": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labelled images."""
    return write_folder(tmp_path_factory.mktemp("set") / "set", 3, **SIZE)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The tiny network's file, saying that it was trained: its masks count."""
    return written(tmp_path / "trained.onnx", onnx.load_model_from_string(exported()))


def written(path: Path, model: onnx.ModelProto, *, random_weights: bool = False) -> Path:
    for entry in model.metadata_props:
        if entry.key == "vmkla.random_weights":
            entry.value = json.dumps(random_weights)
    path.write_bytes(resealed(model))
    return path


def with_forward_routes(path: Path) -> Path:
    """The bodies of the scans read every route forwards."""
    model = onnx.load_model_from_string(exported())
    (body,) = (function for function in model.functions if function.name == "SelectiveScan2d")
    (turn,) = (node for node in body.node if list(node.output) == ["q_back"])
    turn.op_type = "Identity"
    del turn.input[1:]
    return written(path, model)


def test_two_ways_to_run_one_file(vmkla: Any, trained: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = vmkla(
        "verify", trained, trained, "--kernels-b", "bodies", "--data", data, "--out", out, "--json"
    )  # fmt: skip
    assert done.status == 0, done.stderr
    document = done.json
    assert document["passed"] and document["measured"]["frames"] == 3 and document["measured"]["labelled"]
    assert document["candidate"]["runtime"]["kernels"] == "bodies"
    assert document["parting"] is None
    assert [check["name"] for check in document["checks"]][-2:] == ["max_error", "mean_error"]
    kept = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert kept == {key: value for key, value in document.items() if key != "out_dir"}
    assert (out / "verify.html").read_text(encoding="utf-8").count("<figure>") == 3
    again = vmkla("verify", trained, trained, "--data", data, "--out", out)
    assert again.status == 2 and "--exist-ok" in again.stderr


def test_a_planted_body_is_refused_and_located(vmkla: Any, trained: Path, data: Path, tmp_path: Path) -> None:
    wrong = with_forward_routes(tmp_path / "wrong.onnx")
    out = tmp_path / "out"
    done = vmkla("verify", trained, wrong, "--kernels-b", "bodies", "--data", data, "--out", out)
    assert done.status == 5
    node = "encoder.stages.0.blocks.0.scan/SelectiveScan2d"
    assert f"the graphs diverge at {node}" in done.stderr and "mean probability error" in done.stderr
    assert node in done.stdout and "FAILED" in done.stdout
    assert node in (out / "verify.html").read_text(encoding="utf-8")
    quick = vmkla(
        "verify", trained, wrong, "--kernels-b", "bodies", "--data", data, "--out", out, "--exist-ok",
        "--no-locate", "--no-html", "--json",
    )  # fmt: skip
    assert quick.status == 5 and quick.json["parting"] is None and not quick.json["passed"]


def test_a_model_that_gives_nan_is_refused(vmkla: Any, trained: Path, data: Path, tmp_path: Path) -> None:
    model = onnx.load(str(trained))
    weights = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    last = [node for node in model.graph.node if weights.keys() & set(node.input)][-1]
    node, weight = last.name, next(name for name in last.input if name in weights)
    broken = written(tmp_path / "broken.onnx", with_roots(model, weight))
    done = vmkla("verify", trained, broken, "--data", data, "--out", tmp_path / "out", "--json")
    assert done.status == 5
    assert "the candidate's probability holds NaN or infinity in 3 of 3 frames" in done.stderr
    assert done.json["measured"]["probability_error"]["max"] is None
    assert done.json["parting"]["node"] == node and done.json["parting"]["error"] is None
    assert "not finite" in (tmp_path / "out" / "verify.html").read_text(encoding="utf-8")


def test_saved_answers_stand_in_for_torch(
    vmkla: Any, tiny_onnx: Path, tiny_weights: Path, data: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "reference.zip", tmp_path / "out"
    saved = vmkla("verify", tiny_weights, "--data", data, "--save", file, "--json")
    assert saved.status == 0, saved.stderr
    assert saved.json["frames"] == 3
    live = vmkla("verify", tiny_weights, tiny_onnx, "--data", data, "--out", out, "--json")
    loaded = vmkla("verify", tiny_onnx, "--load", file, "--out", out, "--exist-ok", "--json")
    assert (live.status, loaded.status) == (0, 0), loaded.stderr
    assert loaded.json == live.json
    assert "weights are random" in loaded.stderr
    both = vmkla(
        "verify", tiny_weights, tiny_onnx, "--data", data, "--save", tmp_path / "second.zip", "--out", out,
        "--exist-ok", "--json",
    )  # fmt: skip
    assert both.json == live.json and (tmp_path / "second.zip").stat().st_size > 1000


def test_gates_from_a_file(vmkla: Any, trained: Path, data: Path, tmp_path: Path) -> None:
    gates, out = tmp_path / "gates.json", tmp_path / "out"
    arguments = ("verify", trained, trained, "--kernels-b", "bodies", "--data", data, "--gates", gates)
    gates.write_text('{"max_error": 0.0}', encoding="utf-8")
    strict = vmkla(*arguments, "--out", out, "--json")
    assert strict.status == 5 and strict.json["gates"]["max_error"] == 0.0
    assert "no value that both graphs have differs" in "".join(strict.json["warnings"])
    gates.write_text('{"max_worst_dice_drop": 0.5}', encoding="utf-8")
    loose = vmkla(*arguments, "--out", tmp_path / "other")
    assert loose.status == 3 and "looser" in loose.stderr and not (tmp_path / "other").exists()


def test_without_masks(vmkla: Any, trained: Path, data: Path, tmp_path: Path) -> None:
    """One unreadable image of twenty is named and passed over; two are too many."""
    folder = write_folder(tmp_path / "many", 20, **SIZE) / "images"
    (folder / "case-07.png").write_bytes(b"not a picture")
    done = vmkla("verify", trained, trained, "--source", folder, "--out", tmp_path / "out", "--json")
    assert done.status == 0, done.stderr
    assert done.json["measured"]["frames"] == 19 and len(done.json["unreadable"]) == 1
    assert "passed over" in done.stderr and "case-07.png" in done.stderr
    assert "agreement with the reference does not show that both are right" in done.stderr
    (folder / "case-08.png").write_bytes(b"")
    refused = vmkla("verify", trained, trained, "--source", folder, "--out", tmp_path / "second")
    assert refused.status == 3 and "2 of 20 images cannot be read" in refused.stderr
    assert not (tmp_path / "second").exists()


def test_a_file_that_is_not_whole(vmkla: Any, trained: Path, data: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(trained.read_bytes()[:5000])
    done = vmkla("verify", trained, cut, "--data", data)
    assert done.status == 3 and "not a whole ONNX file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nano"], "one model is given"),
        (["nano", "nano"], "neither of --data and --source"),
        (["nano", "nano", "--data", "x", "--source", "y"], "both of --data and --source"),
        (["nano", "nano", "--load", "x"], "--load replaces the reference"),
        (["nano", "--load", "x", "--data", "y"], "--load replaces the reference"),
        (["nano", "--load", "x", "--anonymous"], "Give --anonymous with --save"),
        (["nano", "--load", "x", "--stride", "2"], "--stride shapes the frames"),
        (["nano", "--load", "x", "--mask-values", "1"], "--mask-values shapes the frames"),
        (["nano", "--save", "x"], "neither of --data and --source"),
    ],
)
def test_usage(vmkla: Any, arguments: list[str], said: str) -> None:
    done = vmkla("verify", *arguments)
    assert done.status == 2 and said in done.stderr


def test_locate_needs_two_onnx_files(
    vmkla: Any, tiny_onnx: Path, tiny_weights: Path, data: Path, tmp_path: Path
) -> None:
    done = vmkla("verify", tiny_weights, tiny_onnx, "--data", data, "--locate", "--out", tmp_path / "out")
    assert done.status == 2 and "two ONNX files" in done.stderr
    assert not (tmp_path / "out").exists()
