"""The state of a run on disk: a flipped bit is noticed before the run goes on with it."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
import torch

from tests.training.tiny_runs import TINY
from vmkla.errors import BadInputError, UsageError
from vmkla.training import TrainConfig
from vmkla.training.state import load_state, save_state


@pytest.fixture
def state(config: TrainConfig, tmp_path: Path) -> Path:
    path = tmp_path / "state.pt"
    torch.manual_seed(1)
    weights = {"a": torch.randn(300, 40), "b": torch.randn(7)}
    save_state(path, {"model": weights, "progress": {"epoch": 2}}, config)
    return path


def test_what_was_saved_comes_back(state: Path, config: TrainConfig) -> None:
    torch.manual_seed(1)
    found = load_state(state, config)
    assert torch.equal(found["model"]["a"], torch.randn(300, 40)) and found["progress"] == {"epoch": 2}
    assert found["config"]["model"]["dim"] == TINY.dim


def test_a_flipped_bit_of_a_tensor_is_noticed(state: Path, config: TrainConfig) -> None:
    data = state.read_bytes()
    with zipfile.ZipFile(state) as archive:
        weights = max(archive.infolist(), key=lambda member: member.file_size)
    rng = random.Random(7)
    for _ in range(40):
        at = weights.header_offset + 200 + rng.randrange(weights.file_size - 200)
        state.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        with pytest.raises(BadInputError, match=r"is not a state .*damaged") as caught:
            load_state(state, config)
        assert caught.value.exit_status == 3 and "--init best.safetensors" in (caught.value.hint or "")


def test_a_flipped_bit_anywhere_changes_nothing_that_is_loaded(state: Path, config: TrainConfig) -> None:
    """In names, padding and directories it is refused or harmless."""
    data, whole = state.read_bytes(), load_state(state, config)
    rng = random.Random(8)
    for _ in range(150):
        at = rng.randrange(len(data))
        state.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        try:
            found = load_state(state, config)
        except BadInputError:
            continue
        assert found.keys() == whole.keys() and found["progress"] == whole["progress"]
        assert all(torch.equal(value, found["model"][key]) for key, value in whole["model"].items())


def test_other_files_are_not_taken_for_a_state(tmp_path: Path, config: TrainConfig) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(b"not a state")
    with pytest.raises(BadInputError, match="is not a state"):
        load_state(path, config)
    torch.save({"format": 2, "config": [1, 2]}, path)
    with pytest.raises(BadInputError, match="is not a state"):
        load_state(path, config)
    torch.save({"format": 2, "config": {}, "progress": {"epoch": 0}}, path)
    with pytest.raises(UsageError, match="other settings"):
        load_state(path, config)
