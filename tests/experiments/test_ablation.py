"""The ablation's variants, its runs on a tiny budget, and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import ablation
from tests.data.labelled_folders import write_folder
from vmkla.config import DECODER_BLOCKS
from vmkla.models.complexity import measure


def document(variant: str, seed: int, dice: float, late_share: float = 0.01) -> dict[str, Any]:
    """What a run leaves, as far as the table reads it."""
    resolutions = {
        "native": {"per_image": {"dice": dice, "dice_ci95": [dice - 0.02, dice + 0.02]}},
        "model": {"global": {"miou": dice - 0.1, "dsc": dice}},
    }
    return {
        "variant": variant, "seed": seed,
        "late_share": late_share, "plan": {"side": 64, "epochs": 2, "batch_size": 16, "lr": 0.002},
        "machine": {"cpu": "some", "torch": "2"},
        "tests": {"test": {"images": 162, "resolutions": resolutions}},
    }  # fmt: skip


def test_variants_are_the_papers() -> None:
    depths = [ablation.VARIANTS[f"encoder {name}"].encoder_depths for name in ablation.ENCODERS]
    assert depths == [(2, 2, 2, 2), (2, 2, 9, 2), (2, 2, 27, 2)]
    blocks = [ablation.VARIANTS[f"decoder {name}"].decoder_block for name in DECODER_BLOCKS]
    assert blocks == list(DECODER_BLOCKS)
    # One network stands in both tables and is trained once.
    assert ablation.same_network("decoder mkcsa") == "encoder 2-2-2-2"
    assert len({ablation.same_network(name) for name in ablation.VARIANTS}) == 8


def test_the_table_ranks_only_what_the_seeds_separate() -> None:
    scores = {"encoder 2-2-2-2": (0.60, 0.62), "decoder ss2d": (0.50, 0.52), "decoder mkla": (0.61, 0.65)}
    documents = [document(name, seed, s[seed]) for name, s in scores.items() for seed in (0, 1)]
    encoders, decoders = ablation.tables(documents)
    assert [row[0] for row in encoders.rows] == ["2-2-2-2"]
    rank = dict(zip([row[0] for row in decoders.rows], [row[-2] for row in decoders.rows], strict=True))
    assert rank == {"mkcsa": 1, "mkla": 1, "ss2d": 2}
    cells = next(row for row in decoders.rows if row[0] == "mkla")
    assert "0.6300 [0.6100, 0.6500]" in cells and "0.5300" in cells
    cost = measure(ablation.VARIANTS["decoder mkla"], 64, 64)
    assert cells[1:3] == (f"{cost.parameters / 1e6:.2f}", f"{cost.flops / 1e6:.0f}")
    text = ablation.report(documents)
    assert ablation.RULE in text and "All curves have flattened" in text


def test_the_table_names_curves_that_still_fall() -> None:
    documents = [document("encoder 2-2-2-2", 0, 0.5), document("decoder csa", 2, 0.5, late_share=0.2)]
    assert "1 of 2 curves have not: decoder csa seed 2." in ablation.report(documents)


def test_runs_of_unequal_steps_do_not_share_a_table() -> None:
    one, other = document("encoder 2-2-2-2", 0, 0.5), document("decoder csa", 0, 0.5)
    other["plan"] = {**one["plan"], "epochs": 30}
    with pytest.raises(ablation.VmklaError, match="several plans"):
        ablation.report([one, other])


@pytest.mark.slow
def test_runs_are_not_repeated_and_plans_not_mixed(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, output = tmp_path / "runs", tmp_path / "ablation.md"
    common = ("--data", f"polyp={miniature}", "--out", str(out), "--output", str(output), "--imgsz", "32")
    few = (*common, "--batch", "4", "--only", "mkcsa", "mlla", "--seeds", "0")
    assert ablation.main([*few, "--epochs", "2"]) == 0
    result = out / "encoder-2-2-2-2-seed0" / "result.json"
    done = json.loads(result.read_text())
    assert len(done["train_losses"]) == 2 and done["tests"]["test"]["images"] == 4
    text = output.read_text()
    assert "| mkcsa |" in text and "| mlla |" in text and "| 2-2-2-2 |" in text
    written = result.stat().st_mtime_ns
    assert ablation.main([*few, "--epochs", "2"]) == 0
    assert result.stat().st_mtime_ns == written
    assert ablation.main([*few, "--epochs", "3"]) == 1
    assert "another plan" in capsys.readouterr().err
    assert ablation.main(["--table", "--out", str(tmp_path / "empty"), "--output", str(output)]) == 1


def test_data_without_a_test_set_are_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_folder(tmp_path / "set", 6), tmp_path / "runs"
    common = ("--data", str(folder), "--out", str(out), "--output", str(tmp_path / "ablation.md"))
    assert ablation.main([*common, "--imgsz", "32", "--epochs", "1", "--only", "ss2d", "--seeds", "0"]) == 2
    assert "no test set" in capsys.readouterr().err and not out.exists()
