"""What a run writes for its reader."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from unittest import mock

import pytest

from vmkla.training import EpochReport
from vmkla.training.records import TensorBoard

REPORT = EpochReport(
    epoch=1, epochs=9, lr=1e-3, train_loss=1.5, val_loss=1.25, val_dice=0.5, val_iou=0.375, best=True,
    seconds=3.0, images_per_s=12.0,
)  # fmt: skip


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every curve, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_a_board_wrote(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, wanted=True)
    for epoch in (1, 2, 3):
        board.add(dataclasses.replace(REPORT, epoch=epoch, val_dice=epoch / 4))
    board.close()
    found = scalars(tmp_path)
    assert found.keys() == set(TensorBoard.SHOWN)
    assert found["val_dice"] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert found["train_loss"] == [(1, 1.5), (2, 1.5), (3, 1.5)]


def test_a_resumed_run_has_each_epoch_once(tmp_path: Path) -> None:
    for first in (1, 2):
        board = TensorBoard(tmp_path, wanted=True)
        for epoch in range(first, first + 2):
            board.add(dataclasses.replace(REPORT, epoch=epoch, val_dice=first / 8))
        board.close()
    assert scalars(tmp_path)["val_dice"] == [(1, 0.125), (2, 0.25), (3, 0.25)]


def test_nothing_is_written_unwanted_or_without_tensorboard(tmp_path: Path) -> None:
    with mock.patch("vmkla.training.records.find_spec", return_value=None):
        boards = [TensorBoard(tmp_path / "absent", wanted=True)]
    boards.append(TensorBoard(tmp_path / "unwanted", wanted=False))
    for board in boards:
        board.add(REPORT)
        board.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("epochs", [1, 3])
def test_curves(tmp_path: Path, epochs: int) -> None:
    from vmkla.training.records import draw_curves

    draw_curves(tmp_path / "c.png", [dataclasses.replace(REPORT, epoch=n + 1) for n in range(epochs)])
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
