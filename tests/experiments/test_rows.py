"""Rows of the polyp table, on the CPU with a tiny budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from experiments import polyp, rows
from tests.data.labelled_folders import write_folder

TINY = ("--imgsz", 32, "--batch", 4, "--epochs", 2, "--device", "cpu", "--precision", "fp32", "--threads", 1)


def call(main: Any, *arguments: object) -> int:
    """A script's exit status."""
    return int(main([str(argument) for argument in arguments]))


@pytest.mark.slow
def test_one_row_of_the_polyp_table(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "unet"
    data = ("--data", f"polyp={miniature}", "--out", out)
    flags = (*data, *TINY, "--lr", 0.004)
    assert call(polyp.main, "train", "unet", *flags, "--max-minutes", 1e-6) == 0
    assert "before one epoch" in capsys.readouterr().err and not (out / "row.json").exists()
    assert call(polyp.main, "train", "unet", *flags) == 0  # goes on
    assert "| unet | 6.63 |" in capsys.readouterr().out
    document = json.loads((out / "row.json").read_text())
    assert (document["recipe"]["lr"], document["recipe"]["epochs"]) == (0.004, 2)
    assert str(tmp_path) not in json.dumps(document)  # nothing of this machine's folders
    with safe_open(out / "run" / "best.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["vmkla.model_config"])["encoder"] == "mobilenet_v2"
    assert call(polyp.main, "table", out, "--title", "Two") == 0
    assert capsys.readouterr().out.startswith("## Two\n")


def test_what_cannot_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(polyp.main, "train", "nano", "--data", f"polyp={tmp_path}", "--out", tmp_path / "o") == 3
    assert call(polyp.main, "train", "nano", "--data", tmp_path / "none", "--out", tmp_path / "o") == 3
    assert "none" in capsys.readouterr().err
    untested = write_folder(tmp_path / "set", 6)
    assert call(polyp.main, "train", "nano", "--data", untested, "--out", tmp_path / "o", *TINY) == 2
    assert "no test set" in capsys.readouterr().err and not (tmp_path / "o" / "run").exists()


def test_names_lead_to_networks(tmp_path: Path) -> None:
    config = rows.TrainConfig(out_dir=tmp_path)

    def row(name: str) -> rows.Row:
        return rows.Row(name, tmp_path, config, {}, drop_path=0.1)

    assert row("unet").unet == rows.UNetConfig(name="unet")
    encoder = row("unet:resnet34").unet
    assert encoder is not None and (encoder.encoder, encoder.name) == ("resnet34", "unet:resnet34")
    assert row("small").unet is None
    assert rows.train_config(row("small")).model_config.drop_path == 0.1
    with pytest.raises(rows.UsageError, match="huge"):
        rows.train_config(row("huge"))
