"""``vmkla inspect`` and ``vmkla bench`` on a real file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_inspect_says_what_the_file_holds(vmkla: Any, tiny_onnx: Path) -> None:
    done = vmkla("inspect", tiny_onnx, "--json")
    assert done.status == 0 and done.stderr == ""
    facts = done.json
    assert facts["model_config"]["name"] == "tiny-test" and facts["class_names"] == ["polyp"]
    assert facts["gates"]["passed"] is True and facts["random_weights"] is True
    assert sorted(facts["functions"]) == ["vmkla.BSplineBasis", "vmkla.SelectiveScan2d"]
    text = vmkla("inspect", tiny_onnx).stdout
    assert facts["sha256"] in text and "name: tiny-test" in text and "threshold: 0.5" in text


@pytest.mark.parametrize(("content", "status"), [(None, 3), (b"text", 3), (b"", 3)])
def test_inspect_refuses_what_is_no_model(
    vmkla: Any, tmp_path: Path, content: bytes | None, status: int
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    done = vmkla("inspect", path, "--json")
    assert done.status == status and "model.onnx" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("kernels", ["native", "bodies"])
def test_bench_measures_every_stage(vmkla: Any, tiny_onnx: Path, kernels: str) -> None:
    arguments = ("--iterations", 5, "--warmup", 1, "--frame", "64x96", "--threads", 1, "--kernels", kernels)
    done = vmkla("bench", "--model", tiny_onnx, *arguments, "--json")
    assert done.status == 0, done.stderr
    report = done.json
    assert set(report["latency_ms"]) == {"whole", "prepare", "infer", "restore"}
    for stage in report["latency_ms"].values():
        assert 0 < stage["p50"] <= stage["p95"] <= stage["p99"] <= stage["max"]
    parts = sum(report["latency_ms"][stage]["p50"] for stage in ("prepare", "infer", "restore"))
    assert parts <= 1.2 * report["latency_ms"]["whole"]["max"]
    assert (report["kernels"], report["threads"], report["frame_hw"]) == (kernels, 1, [64, 96])
    assert (report["kernel_instruction_set"] is None) == (kernels == "bodies")
    assert report["peak_memory_bytes"] > 10 << 20


def test_bench_prints_a_table(vmkla: Any, tiny_onnx: Path) -> None:
    done = vmkla("bench", "--model", tiny_onnx, "--iterations", 2, "--warmup", 0, "--frame", "64")
    assert done.status == 0
    assert all(word in done.stdout for word in ("p50", "p99", "whole", "restore", "frames/s", "peak memory"))


def test_complexity_of_a_file_and_of_a_preset(vmkla: Any, tiny_onnx: Path, tiny_weights: Path) -> None:
    from tests.export.exported_models import HEIGHT, TINY, WIDTH, network
    from vmkla.models.vmkla_unet import parameter_count

    documents = [vmkla("inspect", file, "--complexity", "--json").json for file in (tiny_onnx, tiny_weights)]
    assert documents[0]["model_config"] == documents[1]["model_config"]
    for counted in documents:
        assert (counted["height"], counted["width"]) == (HEIGHT, WIDTH)
        assert counted["parameters"] == parameter_count(network()) > 0
        assert counted["flops"] == sum(block["flops"] for block in counted["blocks"]) > 0
        assert [mixer["dim"] for mixer in counted["mixers"]] == list(reversed(TINY.dims))
    larger = vmkla("inspect", tiny_onnx, "--complexity", "--imgsz", "64,128", "--json").json
    assert larger["flops"] > 3.9 * documents[0]["flops"]
    text = vmkla("inspect", "small", "--complexity").stdout
    assert "input: 256x256" in text and "44,404,791" in text and "decoder.stages.3.blocks.0" in text
    assert "KAN linear attention beside SS2D" in text and "issue 110" in text


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("nano", "--imgsz", "64"), 2, "--complexity"),
        (("nano", "--complexity", "--imgsz", "100"), 3, "128x128"),
        (("nano", "--complexity", "--imgsz", "wide"), 2, "wide"),
        (("nothing", "--complexity"), 3, "nothing"),
    ],
)
def test_complexity_refuses(vmkla: Any, arguments: Any, status: int, message: str) -> None:
    done = vmkla("inspect", *arguments)
    assert done.status == status and message in done.stderr and done.stdout == ""
