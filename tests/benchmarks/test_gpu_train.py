"""The command for borrowed GPUs, whole, on the CPU with a tiny budget."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import gpu_train
import polyp
import pytest
import rows
from labelled_folders import write_folder
from safetensors import safe_open

TINY = ("--imgsz", 32, "--batch", 4, "--epochs", 2, "--device", "cpu", "--precision", "fp32", "--threads", 1)


def call(main: Any, *arguments: object) -> int:
    """A script's exit status."""
    return int(main([str(argument) for argument in arguments]))


@pytest.mark.slow
def test_it_packs_trains_judges_and_goes_on(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ("--data", f"polyp={miniature}", "--out", out, "--rows", "nano", "unet", *TINY)
    # No time for more than packing; then a run that is cut off in its first epoch.
    assert call(gpu_train.main, *command, "--max-minutes", 1e-6) == 1
    assert "call it again" in capsys.readouterr().err.lower()
    pack, row = out / "data-32.vmkpack", out / "nano"
    assert call(polyp.main, "train", "nano", "--data", pack, "--out", row, *TINY, "--max-minutes", 1e-6) == 0
    assert "before one epoch" in capsys.readouterr().err
    assert (row / "run" / "state.pt").is_file() and not (row / "row.json").exists()
    assert not (out / "result" / "table.md").exists()

    assert call(gpu_train.main, *command) == 0
    table = (out / "result" / "table.md").read_text()
    assert table in capsys.readouterr().out and "| nano |" in table and "| unet |" in table
    assert "2 of 2" in table and "Stopped before" not in table
    for name in ("nano", "unet"):
        document = json.loads((out / "result" / f"{name}.json").read_text())
        assert document["finished"] and set(document["tests"]) == {"Kvasir", "CVC-ClinicDB"}
        dice = document["tests"]["Kvasir"]["resolutions"]["native"]["per_image"]["dice"]
        assert 0 <= dice <= 1 and f"{dice:.4f}" in table
        with (out / "result" / f"{name}.csv").open() as file:
            assert [line["epoch"] for line in csv.DictReader(file)] == ["1", "2"]
    assert all(path.stat().st_size < 16_000_000 for path in (out / "result").iterdir())

    # The pieces make the very checkpoints; a third call repeats no epoch.
    assert call(gpu_train.main, "--join", out / "result") == 0
    for name in ("nano", "unet"):
        whole = (out / "result" / f"{name}.safetensors").read_bytes()
        assert whole == (out / name / "run" / "best.safetensors").read_bytes()
    state = (out / "nano" / "run" / "state.pt").stat().st_mtime_ns
    assert call(gpu_train.main, *command) == 0
    assert (out / "nano" / "run" / "state.pt").stat().st_mtime_ns == state


@pytest.mark.slow
def test_one_row_of_the_polyp_table(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "unet"
    data = ("--data", f"polyp={miniature}", "--out", out)
    assert call(polyp.main, "train", "unet", *data, *TINY, "--lr", 0.004) == 0
    assert "| unet | 6.63 |" in capsys.readouterr().out
    document = json.loads((out / "row.json").read_text())
    assert (document["recipe"]["lr"], document["recipe"]["epochs"]) == (0.004, 2)
    assert str(tmp_path) not in json.dumps(document)  # nothing of this machine's folders
    with safe_open(out / "run" / "best.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["vmkla.model_config"])["encoder"] == "mobilenet_v2"
    assert call(polyp.main, "table", out, "--title", "Two") == 0
    assert capsys.readouterr().out.startswith("## Two\n")


def test_what_cannot_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(gpu_train.main, "--data", f"polyp={tmp_path}", "--out", tmp_path / "o", *TINY) == 3
    assert call(polyp.main, "train", "nano", "--data", tmp_path / "none", "--out", tmp_path / "o") == 3
    assert "none" in capsys.readouterr().err
    untested = write_folder(tmp_path / "set", 6)
    assert call(polyp.main, "train", "nano", "--data", untested, "--out", tmp_path / "o", *TINY) == 2
    assert "no test set" in capsys.readouterr().err and not (tmp_path / "o" / "run").exists()
    (tmp_path / "result").mkdir()
    assert call(gpu_train.main, "--join", tmp_path / "result") == 3
    assert "holds no list of pieces" in capsys.readouterr().err


def test_a_packed_file_of_other_data_is_not_trained_on(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(data: str, *more: object) -> int:
        flags = ("--data", data, "--out", tmp_path / "out", "--max-minutes", 1e-9, *TINY, *more)
        return call(gpu_train.main, *flags)

    assert stopped(f"polyp={miniature}") == 1  # packs, and has no time for more
    assert stopped(f"polyp={miniature}") == 1 and "the time was up" in capsys.readouterr().err
    other = write_folder(tmp_path / "other", 6)
    assert stopped(str(other)) == 2 and "Choose another --out" in capsys.readouterr().err
    assert stopped(f"polyp={miniature}", "--seed", 1) == 2
    (tmp_path / "out" / "data-32.json").unlink()  # a packed file brought from another machine
    assert stopped(str(other)) == 1


def test_rows_that_are_done_leave_their_time_to_the_others(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, float] = {}

    def trained(row: rows.Row, say: Any) -> None:
        assert row.config.max_minutes is not None
        given[row.name] = row.config.max_minutes

    monkeypatch.setattr(gpu_train, "run_row", trained)
    out = tmp_path / "out"
    command = ("--data", f"polyp={miniature}", "--out", out, "--rows", "tiny", "nano", "unet", *TINY)
    for name, epochs in (("tiny", 1), ("nano", 2)):  # the first was done when fewer epochs were asked for
        document = {"finished": True, "run": {"epochs_done": epochs}}
        rows.write_json(out / name / rows.ROW, document)
    assert call(gpu_train.main, *command, "--max-minutes", 60) == 1  # nothing was trained: no table
    assert given == pytest.approx({"tiny": 30, "nano": 60, "unet": 60}, abs=1)


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


def test_a_row_of_gpu_train_takes_its_own_settings_unless_told(tmp_path: Path) -> None:
    dataset = gpu_train.DataSet(())

    def row(**changes: Any) -> rows.Row:
        values: dict[str, Any] = {
            "out": tmp_path, "recipe": "long", "epochs": 3, "imgsz": 64, "batch": None, "lr": None,
            "drop_path": None, "precision": "bf16", "device": "cpu", "threads": 1, "seed": 0,
            "max_minutes": None, "compile": False, "deterministic": True, "workers": None, **changes,
        }  # fmt: skip
        return gpu_train.row_of("small", gpu_train.argparse.Namespace(**values), dataset)

    assert (row().config.lr, row().drop_path, row().config.ema_decay) == (5e-4, 0.2, 0.997)
    assert (row(lr=3e-4).config.lr, row(drop_path=0.0).drop_path) == (3e-4, 0.0)
    paper = row(recipe="paper")
    assert (paper.config.lr, paper.drop_path, paper.config.t_max_epochs) == (1e-4, 0.0, 50)
