"""The weights that ship: what they say of themselves, and what they find."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vmkla.config import ModelConfig
from vmkla.data.folder import iter_samples
from vmkla.data.sources import DataSource
from vmkla.engines import load_runner
from vmkla.engines.runners.model_file import open_model
from vmkla.evaluation import evaluate
from vmkla.metrics import Bootstrap
from vmkla.models.checkpoints import load_weights
from vmkla.models.serving import weights_sha256
from vmkla.models.weights_file import read_weights
from vmkla.runner import Runner
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment
from vmkla.weights import resolve, shipped

COLONOSCOPY_FRAMES = 1347


def test_what_ships_has_checksums() -> None:
    onnx_file, weights_file = (open_model(resolve("nano")), read_weights(resolve("nano", ".safetensors")))
    assert onnx_file.notes == () and weights_file.has_checksum
    assert onnx_file.metadata.weights_sha256 == weights_sha256(
        load_weights(resolve("nano", ".safetensors")).model
    )


@pytest.fixture(scope="module")
def nano() -> Iterator[Runner]:
    runner = load_runner("nano", threads=2)
    yield runner
    runner.close()


def test_nano_ships_verified_and_trained_on_polypgen_alone(nano: Runner) -> None:
    metadata = nano.spec.metadata
    assert metadata.verified
    assert not metadata.random_weights
    assert {source.split(":")[0] for source in metadata.training["data"]} == {"polypgen"}
    assert {source.split(":")[0] for source in metadata.training["val"]} == {"polypgen"}


def test_both_files_hold_the_same_network(nano: Runner) -> None:
    assert set(shipped(".onnx")) == set(shipped(".safetensors"))
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (1, nano.spec.height, nano.spec.width, 3), dtype=np.uint8)
    torch_runner = load_runner(resolve("nano", ".safetensors"), "torch")
    try:
        difference = np.abs(torch_runner.infer(frames) - nano.infer(frames))
    finally:
        torch_runner.close()
    # Rounding through the whole network; another epoch's weights differ by 1e-1.
    assert difference.max() < 1e-3
    config = ModelConfig.from_dict(nano.spec.metadata.model_config)
    assert load_weights(resolve("nano", ".safetensors")).config == config


def overlap(box: list[int], truth: list[int]) -> bool:
    """A found box (x, y, w, h) and a true one (left, top, right, bottom) share a pixel."""
    x, y, w, h = box
    left, top, right, bottom = truth
    return x < right and left < x + w and y < bottom and top < y + h


@pytest.mark.needs_data
def test_half_of_the_frames_with_a_true_box_are_hit(nano: Runner, shared_data: Path, tmp_path: Path) -> None:
    segment(nano, str(shared_data / "video" / "polyp_seq1.mp4"), SegmentOptions(out_dir=tmp_path / "out"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "frames.jsonl").read_text().splitlines()]
    truths = json.loads((shared_data / "video" / "polyp_seq1_boxes.json").read_text())["frames"]
    assert len(rows) == len(truths) == 53
    with_truth = [(row["boxes"], boxes) for row, boxes in zip(rows, truths, strict=True) if boxes]
    hits = sum(any(overlap(b, t["bbox"]) for b in found for t in boxes) for found, boxes in with_truth)
    assert hits >= len(with_truth) / 2, f"{hits} of {len(with_truth)} frames"


@pytest.mark.slow
@pytest.mark.needs_data
def test_every_frame_of_a_real_withdrawal_is_written(nano: Runner, shared_data: Path, tmp_path: Path) -> None:
    video = shared_data / "video" / "colonoscopy.mp4"
    report = segment(nano, str(video), SegmentOptions(out_dir=tmp_path / "out"))
    assert report.exit_status == 0
    assert report.counts.frames == report.counts.segmented == COLONOSCOPY_FRAMES


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.needs_data
@pytest.mark.parametrize(("name", "floor"), [("kvasir-seg", 0.60), ("cvc-clinicdb", 0.45)])
def test_unseen_sets_reach_their_floor(nano: Runner, shared_data: Path, name: str, floor: float) -> None:
    """Mean Dice over every image at native resolution: the least that a shipped model must do."""
    found = evaluate(
        nano, iter_samples([DataSource(shared_data / "data" / name)]), bootstrap=Bootstrap(resamples=100)
    )
    assert found["per_image"]["dice"] >= floor
