"""The loop: it learns, goes on bit for bit, stops cleanly, and refuses what cannot be trained."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import numpy as np
import pytest
import torch

from tests.data.labelled_folders import write_folder
from tests.training.tiny_runs import TINY, assert_same_state, interrupt_at, state_of
from vmkla.data.augment import AugmentConfig
from vmkla.data.sources import DataSource
from vmkla.errors import BadInputError, StoppedError, UsageError, VmklaError
from vmkla.files import output_errors
from vmkla.models.checkpoints import load_weights
from vmkla.training import Ranks, StepReport, TrainConfig, TrainResult, train
from vmkla.training.processes import Processes
from vmkla.training.run_folder import BEST, LAST, STATE
from vmkla.training.start import prepare
from vmkla.training.state import save_state
from vmkla.training.steps import Stepper


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp32", "channels_last": True},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"quiet_share": 0.25, "batch_size": 4},
    ],
    ids=str,
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(config, **changes)
    whole = train(config)
    assert whole.finished and whole.epochs_done == 3
    parts = dataclasses.replace(config, out_dir=tmp_path / "parts")
    with pytest.raises(StoppedError, match="epoch 1 after step 1 of 2") as stopped:
        train(parts, on_step=interrupt_at(1, 1))
    assert stopped.value.exit_status == 143
    assert state_of(parts.out_dir)["progress"]["step"] == 1
    parts = dataclasses.replace(parts, resume=True)
    with pytest.raises(StoppedError) as stopped:  # after an epoch's last step, before its validation
        train(parts, on_step=interrupt_at(2, 2, signal.SIGINT))
    assert stopped.value.exit_status == 130
    result = train(parts)
    assert result.finished
    assert_same_state(config.out_dir, parts.out_dir)
    for name in (BEST, LAST):
        one, two = (
            load_weights(folder / name).model.state_dict() for folder in (config.out_dir, parts.out_dir)
        )
        assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_equal_seeds_agree_and_others_do_not(config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, epochs=1)
    runs = [
        dataclasses.replace(config, out_dir=tmp_path / str(number), seed=seed)
        for number, seed in enumerate((3, 3, 4))
    ]
    losses = [train(run).history[0].train_loss for run in runs]
    assert_same_state(runs[0].out_dir, runs[1].out_dir)
    assert losses[0] == losses[1] != losses[2]


def test_what_a_run_writes(config: TrainConfig) -> None:
    seen = []
    result = train(dataclasses.replace(config, curves=True), on_epoch=seen.append)
    out_dir = config.out_dir
    assert sorted(path.name for path in out_dir.iterdir()) == [
        BEST, "config.json", "curves.png", LAST, "metrics.csv", STATE,
    ]  # fmt: skip
    assert tuple(seen) == result.history and [report.epoch for report in seen] == [1, 2, 3]
    rows = list(csv.DictReader((out_dir / "metrics.csv").open(encoding="utf-8")))
    assert [float(row["val_dice"]) for row in rows] == [report.val_dice for report in seen]
    assert (out_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out_dir / "config.json").read_text())["seed"] == 3
    best = load_weights(result.best_weights or "")
    assert best.config == TINY and best.training["epoch"] == result.best_epoch
    assert best.training["preprocess"] == {"height": 32, "width": 64, "roi": "none"}
    assert best.training["train_images"] == 9 and best.training["val_images"] == 4
    assert str(out_dir.parent) not in json.dumps(best.training)
    assert result.best_dice == max(report.val_dice for report in seen)


def test_validation_figures_are_those_of_the_saved_weights(config: TrainConfig) -> None:
    """Loss and Dice of the last epoch, computed again from the files by other means."""
    from vmkla.config import IMAGENET_MEAN, IMAGENET_STD
    from vmkla.data.folder import iter_samples
    from vmkla.segment.preprocess import PreprocessSpec, Rect, prepare

    result = train(config)
    model = load_weights(config.out_dir / LAST).model
    scores, losses = [], []
    for sample in iter_samples(config.val):
        height, width = sample.mask.shape
        spec, rect = PreprocessSpec(32, 64), Rect(0, 0, width, height)
        image = prepare(sample.image_rgb, spec, rect) / 255.0
        truth = (
            prepare(np.repeat(sample.mask[..., None] * np.uint8(255), 3, axis=2), spec, rect)[..., 0] > 127
        )
        x = torch.from_numpy((image - IMAGENET_MEAN) / IMAGENET_STD).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            probability = torch.sigmoid(model(x))[0, 0].double().numpy()
        found = probability >= 0.5
        both = found.sum() + truth.sum()
        scores.append(2 * (found & truth).sum() / both if both else 1.0)
        bce = -np.log(np.where(truth, probability, 1 - probability)).mean()
        dice = (2 * probability[truth].sum() + 1) / (probability.sum() + truth.sum() + 1)
        losses.append(bce + 1 - dice)
    assert result.history[-1].val_dice == pytest.approx(np.mean(scores), abs=2e-3)
    assert result.history[-1].val_loss == pytest.approx(np.mean(losses), abs=2e-3)


def test_it_learns_a_few_images_by_heart(config: TrainConfig, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "few", 4, first_seed=50)
    copy = write_folder(tmp_path / "copy", 4, first_seed=50)
    result = train(
        dataclasses.replace(
            config,
            data=(DataSource(folder),),
            val=(DataSource(copy),),
            model=dataclasses.replace(TINY, drop_path=0.0),
            epochs=25,
            batch_size=1,
            lr=5e-3,
            augment=AugmentConfig.off(),
            ema_decay=0.0,
            save_minutes=60,
        )
    )
    first, last = result.history[0], result.history[-1]
    assert first.train_loss > 1.0
    assert last.train_loss < 0.6 and last.val_dice > 0.85


def test_training_on_rendered_frames_alone(config: TrainConfig) -> None:
    result = train(dataclasses.replace(config, data=(), rendered=4, epochs=1))
    assert result.epochs_done == 1 and math.isfinite(result.history[0].train_loss)
    assert load_weights(config.out_dir / LAST).training["rendered_images"] == 4


def test_learning_from_a_teacher(config: TrainConfig, tmp_path: Path) -> None:
    """A teacher of weight 1 that sees polyps everywhere is believed against the true masks."""
    from vmkla.data.arrays import cache_spec, prepared_pair
    from vmkla.data.folder import iter_samples
    from vmkla.data.packing import pack_teacher
    from vmkla.data.sources import Sample

    config = dataclasses.replace(config, epochs=6, lr=1e-2, ema_decay=0.0)
    spec = cache_spec(config.image_size_hw, config.roi, config.augment)
    pack = tmp_path / "teacher.vmkpack"
    samples = [
        Sample(
            s.name,
            prepared_pair(s, spec)[0],
            np.full((spec.height, spec.width), 250, np.uint8),
            prepared=spec,
        )
        for s in iter_samples(config.data)
    ]
    pack_teacher(samples, pack, spec, made_by={})
    taught = dataclasses.replace(config, teacher=pack, teacher_weight=1.0, rendered=2)
    train(taught)
    weights = load_weights(taught.out_dir / LAST)
    with torch.no_grad():
        assert torch.sigmoid(weights.model(torch.zeros(1, 3, 32, 64))).mean() > 0.6
    assert (weights.training["teacher"], weights.training["teacher_weight"]) == ("teacher.vmkpack", 1.0)
    val = dataclasses.replace(
        config, out_dir=tmp_path / "leak", teacher=pack, val=config.data, data=config.val
    )
    with pytest.raises(BadInputError, match="9 images are in the training and in the validation set"):
        train(val)
    with pytest.raises(UsageError, match="need the images that they are of"):
        dataclasses.replace(config, teacher=pack, data=(), rendered=4)


def test_a_quiet_share_adds_windows_and_refuses_what_the_data_cannot_give(config: TrainConfig) -> None:
    said: list[str] = []
    result = train(dataclasses.replace(config, quiet_share=0.25, epochs=1), on_message=said.append)
    training = load_weights(result.last_weights or "").training
    windows = training["polyp_free_windows"]
    assert training["quiet_share"] == 0.25 and training["train_images"] == 9 and windows > 0
    assert (
        f"{9 + windows} training images, {windows} of them polyp-free windows of others, 4 validation"
        in str(said)
    )
    with pytest.raises(BadInputError, match=rf"has {1 + windows}: {windows} polyp-free windows of images"):
        train(dataclasses.replace(config, quiet_share=0.875, batch_size=8, out_dir=config.out_dir / "b"))


def test_a_run_of_two_processes_goes_on_as_one(config: TrainConfig, tmp_path: Path) -> None:
    """Without drop-path the random numbers do not matter, and what is left must be the same."""
    config = dataclasses.replace(config, model=dataclasses.replace(TINY, drop_path=0.0))
    train(config)
    parts = dataclasses.replace(config, out_dir=tmp_path / "parts")
    with pytest.raises(StoppedError):
        train(parts, on_step=interrupt_at(2, 1))
    state = state_of(parts.out_dir)
    torch.save({**state, "random": state["random"] * 2}, parts.out_dir / STATE)
    said: list[str] = []
    train(dataclasses.replace(parts, resume=True), on_message=said.append)
    assert any("was on 2 processes and is on 1 now" in line for line in said)
    one, two = state_of(config.out_dir), state_of(parts.out_dir)
    for kind in ("model", "average"):
        assert all(torch.equal(value, two[kind][name]) for name, value in one[kind].items())


def test_time_is_up(config: TrainConfig) -> None:
    steps: list[StepReport] = []

    def slow(report: StepReport) -> None:
        steps.append(report)
        time.sleep(0.1)

    limited = dataclasses.replace(config, max_minutes=0.002)
    result = train(limited, on_step=slow)
    assert not result.finished and result.epochs_done < 3
    result = train(dataclasses.replace(config, resume=True))
    assert result.finished and result.epochs_done == 3


@pytest.mark.parametrize("unread", [0, 1])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_value_that_is_not_finite_ends_the_run(config: TrainConfig, where: str, unread: int) -> None:
    real = Stepper.loss
    calls = []

    def poisoned(self: Stepper, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = real(self, logits, target)
        calls.append(logits.requires_grad)
        if sum(calls) == 4:
            # The square root of 0 is 0, and its slope is infinite.
            return loss * float("nan") if where == "loss" else loss + (logits * 0).sum().sqrt()
        return loss

    with (
        mock.patch.object(Stepper, "loss", poisoned),
        mock.patch("vmkla.training.loop.steps_unread", lambda device: unread),
        pytest.raises(VmklaError, match=f"epoch 2, step 2.*{LAST} holds the weights after epoch 1") as caught,
    ):
        train(config)
    assert caught.value.exit_status == 1
    assert not list(config.out_dir.glob(".*"))
    saved = np.load(config.out_dir / "bad_batch.npz")
    assert saved["images_rgb"].shape == (4, 32, 64, 3) and len(saved["names"]) == 4
    assert all(value.isfinite().all() for value in state_of(config.out_dir)["model"].values())
    assert load_weights(config.out_dir / LAST).training["epoch"] == 1


def test_values_that_are_read_a_step_later_change_nothing(config: TrainConfig, tmp_path: Path) -> None:
    """What a GPU does: the same reports in the same order, the same state, resumed in the middle as well."""
    reports: list[list[StepReport]] = [[], [], []]
    train(config, on_step=reports[0].append)
    late, parts = (dataclasses.replace(config, out_dir=tmp_path / name) for name in ("late", "parts"))
    with mock.patch("vmkla.training.loop.steps_unread", lambda device: 1):
        train(late, on_step=reports[1].append)

        def interrupt(report: StepReport) -> None:
            reports[2].append(report)
            interrupt_at(1, 1)(report)

        with pytest.raises(StoppedError, match="epoch 1 after step 2 of 2"):
            train(parts, on_step=interrupt)
        train(dataclasses.replace(parts, resume=True), on_step=reports[2].append)
    assert reports[0] == reports[1] == reports[2] and len(reports[0]) == 6
    assert_same_state(config.out_dir, late.out_dir)
    assert_same_state(config.out_dir, parts.out_dir)


def test_a_stop_does_not_save_a_step_that_is_not_finite(config: TrainConfig) -> None:
    """The signal comes when the step was taken, and before its loss was read."""
    real, calls = Stepper.loss, []

    def poisoned(self: Stepper, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(logits.requires_grad)
        return real(self, logits, target) * (float("nan") if sum(calls) == 4 else 1.0)

    with (
        mock.patch.object(Stepper, "loss", poisoned),
        mock.patch("vmkla.training.loop.steps_unread", lambda device: 1),
        pytest.raises(VmklaError, match="the loss is nan in epoch 2, step 2"),
    ):
        train(config, on_step=interrupt_at(2, 1))
    progress = state_of(config.out_dir)["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 0)


def test_a_folder_with_a_run_is_not_overwritten(config: TrainConfig) -> None:
    train(dataclasses.replace(config, epochs=1))
    with pytest.raises(UsageError, match="holds a run already"):
        train(config)
    with pytest.raises(UsageError, match="lr: 0.001 then, 0.002 now"):
        train(dataclasses.replace(config, resume=True, epochs=1, lr=2e-3))
    # The cosine reaches over all epochs here, so more of them would bend it.
    with pytest.raises(UsageError, match="epochs: 1 then, 3 now"):
        train(dataclasses.replace(config, resume=True))
    train(dataclasses.replace(config, resume=True, epochs=1, threads=2))
    assert json.loads((config.out_dir / "config.json").read_text())["threads"] == 2
    folder = config.data[0].folder
    for part in ("images", "masks"):
        (folder / part / "case-03.png").unlink()
    with pytest.raises(UsageError, match="train set has changed"):
        train(dataclasses.replace(config, resume=True, epochs=1))


def test_another_validation_set_is_another_run(config: TrainConfig) -> None:
    """Best so far would be compared with a Dice on other images."""
    train(dataclasses.replace(config, epochs=1))
    folder = config.val[0].folder
    for part in ("images", "masks"):
        file = next(iter(sorted((folder / part).iterdir())))
        file.rename(file.with_name("another.png"))
    with pytest.raises(UsageError, match="val set has changed"):
        train(dataclasses.replace(config, resume=True, epochs=1))


def test_resuming_nothing_or_rubbish(config: TrainConfig) -> None:
    config = dataclasses.replace(config, resume=True)
    with pytest.raises(BadInputError, match="no run to resume"):
        train(config)
    config.out_dir.mkdir()
    (config.out_dir / STATE).write_bytes(b"rubbish" * 100)
    with pytest.raises(BadInputError, match="not a state"):
        train(config)


def test_missing_and_shared_data_are_refused(config: TrainConfig) -> None:
    with pytest.raises(UsageError, match="nothing to train on"):
        train(dataclasses.replace(config, data=()))
    with pytest.raises(UsageError, match="nothing to validate on"):
        train(dataclasses.replace(config, val=()))
    with pytest.raises(BadInputError, match="4 images are in the training and in the validation set"):
        train(dataclasses.replace(config, data=config.data + config.val))


@pytest.mark.parametrize(
    ("changes", "ranks", "message"),
    [
        ({"device": "tpu"}, Ranks(), "device is 'tpu', expected cpu, cuda or cuda:N"),
        ({"device": "cuda:0"}, Ranks(1, 1, 2), "2 processes cannot share it"),
        ({"backend": "mamba_ssm"}, Ranks(), "mamba_ssm runs on an NVIDIA GPU"),
        ({"init": Path("no such weights")}, Ranks(), "there is no weights file"),
    ],
)
def test_what_cannot_run_is_refused_before_the_images_are_read(
    config: TrainConfig, changes: dict[str, Any], ranks: Ranks, message: str
) -> None:
    unread = (DataSource(Path("no such folder")),)
    with pytest.raises(VmklaError, match=message):
        train(dataclasses.replace(config, data=unread, **changes), ranks=ranks)
    assert not config.out_dir.exists()


def test_a_loss_that_is_not_finite_at_once_promises_no_weights(config: TrainConfig) -> None:
    def poisoned(self: Stepper, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return logits.sum() * float("nan")

    with mock.patch.object(Stepper, "loss", poisoned), pytest.raises(VmklaError, match="step 1") as caught:
        train(config)
    assert LAST not in caught.value.message and not (config.out_dir / LAST).exists()


def test_the_backend_is_said(config: TrainConfig) -> None:
    said: list[str] = []
    train(dataclasses.replace(config, epochs=1, backend="reference"), on_message=said.append)
    assert "the scan runs on cpu by backend reference" in said


@pytest.mark.parametrize(("precision", "lacks"), [("bf16", True), ("bf16", False), ("fp32", True)])
def test_slow_bfloat16_is_said(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, precision: str, lacks: bool
) -> None:
    monkeypatch.setattr("vmkla.training.start.lacks_bfloat16", lambda: lacks)
    said: list[str] = []
    train(dataclasses.replace(config, epochs=1, precision=precision), on_message=said.append)
    assert ("bf16 is slow on this CPU" in "\n".join(said)) == (precision == "bf16" and lacks)


def test_starting_from_weights(config: TrainConfig, tmp_path: Path) -> None:
    first = train(dataclasses.replace(config, epochs=1))
    begun = dataclasses.replace(config, out_dir=tmp_path / "next", init=first.last_weights, epochs=1)
    start = prepare(begun, None, Processes(Ranks(), "cpu"), lambda line: None)
    initial = start.model.state_dict()
    expected = load_weights(first.last_weights or "").model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in initial.items())
    with pytest.raises(UsageError, match="another network"):
        other = dataclasses.replace(TINY, d_state=3)
        train(dataclasses.replace(begun, out_dir=tmp_path / "other", model=other))


def workers_of(pid: int) -> list[int]:
    """Augmentation workers of a process that run; other tests leave children of other kinds."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            of_pool = b"augment_worker" in (stat.parent / "cmdline").read_bytes()
            if int(parent) == pid and of_pool and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_to_a_process_of_its_own(config: TrainConfig, tmp_path: Path, workers: int) -> None:
    """The real signal, from outside, at an unknown moment of the training; to its workers as well.

    The script has no ``if __name__ == "__main__"``.
    """
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from vmkla.data.sources import DataSource\n"
        "from vmkla.config import ModelConfig\n"
        "from vmkla.errors import VmklaError\n"
        "from vmkla.training import TrainConfig, train\n"
        f"model = ModelConfig.from_dict({TINY.to_dict()!r})\n"
        f"config = TrainConfig(out_dir=Path({str(config.out_dir)!r}), model=model, image_size_hw=(32, 64),\n"
        f"    data=(DataSource(Path({str(config.data[0].folder)!r})),), epochs=100000, batch_size=4,\n"
        f"    val=(DataSource(Path({str(config.val[0].folder)!r})),), curves=False, threads=1,\n"
        f"    tensorboard=False, workers={workers})\n"
        "try:\n"
        "    train(config, on_epoch=lambda report: print(report.epoch, flush=True))\n"
        "except VmklaError as error:\n"
        "    sys.exit(error.exit_status)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "1\n"
        children = workers_of(process.pid)
        assert len(children) == workers
        for pid in (*children, process.pid):  # the workers go on until the state is saved
            os.kill(pid, signal.SIGTERM)
        assert process.wait(60) == 143
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    progress = state_of(config.out_dir)["progress"]
    assert progress["epoch"] >= 1 and progress["step"] >= 1
    assert not list(config.out_dir.glob(".*"))


def test_workers_change_nothing(config: TrainConfig, tmp_path: Path) -> None:
    """Begun without workers and resumed with two, the run is that of one without, to the last bit."""
    train(config)
    parts = dataclasses.replace(config, out_dir=tmp_path / "parts")
    with pytest.raises(StoppedError):
        train(parts, on_step=interrupt_at(1, 1))
    train(dataclasses.replace(parts, resume=True, workers=2))
    assert_same_state(config.out_dir, parts.out_dir)
    assert not workers_of(os.getpid())


def test_a_worker_that_is_killed_ends_the_run_and_leaves_its_state(config: TrainConfig) -> None:
    def kill(report: StepReport) -> None:
        if (report.epoch, report.step) == (2, 1):
            os.kill(workers_of(os.getpid())[0], signal.SIGKILL)

    with pytest.raises(VmklaError, match="augmentation worker .* was ended by SIGKILL"):
        train(dataclasses.replace(config, epochs=1000, workers=1), on_step=kill)
    assert state_of(config.out_dir)["progress"]["epoch"] >= 1
    assert not workers_of(os.getpid())


def test_handlers_are_put_back(config: TrainConfig) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    result: TrainResult = train(dataclasses.replace(config, epochs=1))
    assert result.finished
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_with_more_epochs_than_asked_for_is_refused_and_left_alone(config: TrainConfig) -> None:
    config = dataclasses.replace(config, t_max_epochs=2)
    assert train(config).epochs_done == 3
    before = {path: path.read_bytes() for path in config.out_dir.iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="has finished 3 epochs, and 2 are asked for") as caught:
        train(dataclasses.replace(config, resume=True, epochs=2))
    assert "--epochs" in str(caught.value.hint)
    assert {path: path.read_bytes() for path in config.out_dir.iterdir() if path.is_file()} == before
    said: list[str] = []
    result = train(dataclasses.replace(config, resume=True), on_message=said.append)
    assert result.finished and result.epochs_done == 3
    assert said[-1] == "nothing to do: all 3 epochs are finished"


@pytest.mark.parametrize("change", [{"data": (DataSource(Path("missing")),)}, {"batch_size": 1000}], ids=str)
@pytest.mark.parametrize("exists", [True, False])
def test_a_start_that_fails_leaves_nothing(config: TrainConfig, change: dict[str, Any], exists: bool) -> None:
    """Images that are missing, or too few for one batch."""
    if exists:
        config.out_dir.mkdir(parents=True)
    with pytest.raises(VmklaError):
        train(dataclasses.replace(config, **change))
    assert config.out_dir.exists() is exists
    assert not exists or list(config.out_dir.iterdir()) == []


def test_a_state_that_the_disk_refuses_keeps_the_earlier_one(config: TrainConfig) -> None:
    """The system refuses its second half, as a full disk does; torch has its own words for that."""
    config = dataclasses.replace(config, t_max_epochs=2, save_minutes=1e-9)
    train(dataclasses.replace(config, epochs=1))
    path = config.out_dir / STATE
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def refuse(_: StepReport) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))

    try:
        with pytest.raises(BadInputError) as caught:
            train(dataclasses.replace(config, resume=True), on_step=refuse)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.message == f"cannot write {path}: File too large"
    assert path.read_bytes() == before and not list(path.parent.glob(".*"))
    assert train(dataclasses.replace(config, resume=True)).finished


def test_a_full_disk_at_the_state_is_called_so(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def on_a_full_disk(path: Path, **_: bool) -> Iterator[BinaryIO]:
        with output_errors(path), open("/dev/full", "wb") as file:
            yield file

    monkeypatch.setattr("vmkla.training.state.written_whole", on_a_full_disk)
    with pytest.raises(BadInputError, match="state.pt: No space left on device") as caught:
        save_state(config.out_dir / STATE, {"model": torch.zeros(100_000)}, config)
    assert "Free some space" in str(caught.value.hint) and caught.value.exit_status == 3
