"""Pickled files are data, never code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vmkla.errors import BadInputError
from vmkla.models.pickles import read_pickle


class Malicious:
    """Creates a file when a plain ``pickle.load`` reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_tensors_and_containers_come_back(tmp_path: Path) -> None:
    content = {"model": {"a": torch.arange(3)}, "epoch": 4, "names": ["x"]}
    torch.save(content, tmp_path / "plain.pth")
    loaded = read_pickle(tmp_path / "plain.pth")
    assert torch.equal(loaded["model"].pop("a"), torch.arange(3))
    assert loaded == {"model": {}, "epoch": 4, "names": ["x"]}


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    torch.save({"model": {"a": torch.zeros(2)}, "extra": Malicious(trap)}, tmp_path / "bad.pth")
    with pytest.raises(BadInputError, match=r"bad\.pth is not a file of plain tensors"):
        read_pickle(tmp_path / "bad.pth")
    assert not trap.exists()
    torch.load(tmp_path / "bad.pth", weights_only=False)
    assert trap.exists(), "the trap itself does not work"


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no checkpoint .*absent\.pth"):
        read_pickle(tmp_path / "absent.pth")


@pytest.mark.parametrize("keep", [0, 1, 40, 0.5, 0.99])
def test_cut_off_file_is_refused(tmp_path: Path, keep: float) -> None:
    torch.save({"a": torch.randn(100)}, tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(BadInputError, match=r"cut\.pth"):
        read_pickle(tmp_path / "cut.pth")


def test_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("these are not the weights you are looking for\n")
    with pytest.raises(BadInputError, match=r"notes\.pth"):
        read_pickle(tmp_path / "notes.pth")
