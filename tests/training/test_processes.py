"""Two processes under torchrun: what one would compute, one end for both, and nobody left waiting."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import FIND_TESTS
from tests.tolerances import tol
from tests.training.tiny_runs import TINY, assert_same_state, state_of
from vmkla.training import TrainConfig, train

pytestmark = pytest.mark.slow

SCRIPT = """
import dataclasses, json, os, pickle, signal, sys
from pathlib import Path
from vmkla.errors import VmklaError
from vmkla.training import Ranks, train
from vmkla.training.steps import Stepper

out, act = Path(sys.argv[1]), sys.argv[2]
config = pickle.loads((out / "config.pickle").read_bytes())
ranks = Ranks.of(os.environ)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's own, once the other process has ended
assert ranks.world == 2
(out / f"pid-{ranks.rank}").write_text(str(os.getpid()))

def on_step(report):
    if (report.epoch, report.step) == (1, 1) and act == "signal":
        os.kill(int((out / "pid-1").read_text()), signal.SIGTERM)  # the other process, not this one

if ranks.rank == 1 and act == "data":
    config = dataclasses.replace(config, val=())
if ranks.rank == 1 and act in ("nan", "crash"):
    real, calls = Stepper.loss, []
    def loss(self, logits, target):
        calls.append(1)
        if len(calls) == 2 and act == "crash":
            os._exit(9)
        return real(self, logits, target) * (float("nan") if len(calls) == 2 else 1.0)
    Stepper.loss = loss

status, message, losses = 0, "", []
try:
    result = train(config, ranks=ranks, on_step=on_step)
    losses = [[report.train_loss, report.val_loss, report.val_dice] for report in result.history]
except VmklaError as error:
    status, message = error.exit_status, str(error)
end = {"status": status, "message": message, "losses": losses}
(out / f"end-{ranks.rank}.json").write_text(json.dumps(end))
sys.exit(status)
"""


def torchrun(folder: Path, config: TrainConfig, act: str = "none") -> tuple[int, list[dict[str, Any]]]:
    """Train in two processes.

    Returns:
        torchrun's status, and how each process ended; an empty dictionary for one that could not say.
    """
    import pickle

    folder.mkdir(exist_ok=True)
    (folder / "config.pickle").write_bytes(pickle.dumps(config))
    (folder / "script.py").write_text(FIND_TESTS + SCRIPT)
    for rank in (0, 1):
        (folder / f"end-{rank}.json").unlink(missing_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(folder / "script.py"), str(folder), act],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    ends = [folder / f"end-{rank}.json" for rank in (0, 1)]
    found = [json.loads(end.read_text()) if end.is_file() else {} for end in ends]
    assert any(found), done.stderr[-3000:]
    return done.returncode, found


@pytest.fixture
def shared(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A run for two processes; 5 validation images, so that their shares differ."""
    return dataclasses.replace(config, out_dir=tmp_path / "two", epochs=2)


@pytest.mark.telling
def test_two_processes_compute_what_one_does_with_twice_the_batch(
    shared: TrainConfig, config: TrainConfig, tmp_path: Path
) -> None:
    """Without drop-path: each process draws its own random numbers there."""
    model = dataclasses.replace(TINY, drop_path=0.0)
    shared = dataclasses.replace(shared, model=model)
    status, ends = torchrun(tmp_path / "scripts", shared)
    assert status == 0, ends
    assert ends[0]["losses"] == ends[1]["losses"]
    alone = dataclasses.replace(shared, out_dir=tmp_path / "one")
    result = train(alone)
    for mine, theirs in zip(result.history, ends[0]["losses"], strict=True):
        expected = [mine.train_loss, mine.val_loss, mine.val_dice]
        torch.testing.assert_close(
            torch.tensor(theirs), torch.tensor(expected), **tol(("two processes", "one"), torch.float32)
        )
    one, two = state_of(alone.out_dir), state_of(shared.out_dir)
    for kind in ("model", "average"):
        for name, value in one[kind].items():
            torch.testing.assert_close(two[kind][name], value, **tol(("two processes", "one"), torch.float32))
    halves = train(dataclasses.replace(shared, out_dir=tmp_path / "half", batch_size=2))
    assert abs(halves.history[-1].val_loss - result.history[-1].val_loss) > 1e-3  # the batch does matter


def test_a_signal_to_one_process_stops_both_and_they_go_on_bit_for_bit(
    shared: TrainConfig, tmp_path: Path
) -> None:
    whole = dataclasses.replace(shared, out_dir=tmp_path / "whole")
    assert torchrun(tmp_path / "scripts", whole)[0] == 0
    status, ends = torchrun(tmp_path / "scripts", shared, "signal")
    assert status != 0 and [end["status"] for end in ends] == [128 + signal.SIGTERM] * 2, ends
    state = state_of(shared.out_dir)
    assert state["progress"]["epoch"] * 2 + state["progress"]["step"] in (1, 2)
    assert len(state["random"]) == 2
    assert not torch.equal(state["random"][0]["cpu"], state["random"][1]["cpu"])
    status, ends = torchrun(tmp_path / "scripts", dataclasses.replace(shared, resume=True))
    assert status == 0, ends
    assert_same_state(whole.out_dir, shared.out_dir)


@pytest.mark.parametrize(
    ("act", "status", "message"),
    [
        ("data", 2, "process 1 of 2 failed: there is nothing to validate on"),
        ("nan", 1, "the loss is nan in epoch 1, step 2"),
        ("crash", None, ""),
    ],
)
def test_an_error_in_one_process_ends_both(
    shared: TrainConfig, tmp_path: Path, act: str, status: int | None, message: str
) -> None:
    begun_s = time.monotonic()
    code, ends = torchrun(tmp_path / "scripts", shared, act)
    assert code != 0 and time.monotonic() - begun_s < 120
    assert message in ends[0]["message"]
    if status is None:  # it went without a word; the other one notices, or torchrun ends it
        assert ends[1] == {} and ends[0]["status"] != 0
    else:
        assert [end["status"] for end in ends] == [status, status]
    bad = sorted(path.name for path in shared.out_dir.glob("bad_batch*"))
    assert bad == (["bad_batch-1.npz"] if act == "nan" else [])


def test_the_command_that_the_guide_names(config: TrainConfig, tmp_path: Path) -> None:
    """``vmkla train`` itself under torchrun: one process reports, and both ended well."""
    vmkla = Path(sys.executable).with_name("vmkla")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "--no-python", vmkla, "train", "--data", str(config.data[0]), "--val", str(config.val[0]),
         "--imgsz", "32", "--batch", "4", "--epochs", "1", "--no-curves", "--no-tensorboard",
         "--threads", "1", "--out", tmp_path / "run", "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)  # one document, so one process printed
    assert result["finished"] and len(state_of(tmp_path / "run")["random"]) == 2
