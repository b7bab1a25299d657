"""Flags that the scripts which train share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest

from experiments import ablation, polyp


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    polyp.add_recipe_flags(parser)
    return parser.parse_args(flags)


@pytest.mark.parametrize("recipe", ["paper", "long"])
def test_speed_flags_reach_the_training(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    common = ("--recipe", recipe, "--device", "cuda")
    fast = polyp.config_of(parsed(*common, "--no-deterministic", "--workers", "7"), out_dir=Path("run"))
    assert (fast.deterministic, fast.workers) == (False, 7)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    usual = polyp.config_of(parsed(*common), out_dir=Path("run"))
    assert (usual.deterministic, usual.workers) == (True, None)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_the_ablation_takes_them(miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def stop(config: Any) -> None:
        seen.append(config)
        raise ablation.VmklaError("enough")

    monkeypatch.setattr(ablation, "train", stop)
    flags = (
        "--data",
        f"polyp={miniature}",
        "--out",
        str(tmp_path / "runs"),
        "--only",
        "ss2d",
        "--seeds",
        "0",
    )
    assert ablation.main([*flags, "--no-deterministic", "--workers", "0"]) == 1
    assert ablation.main([*flags]) == 1
    assert [(config.deterministic, config.workers) for config in seen] == [(False, 0), (True, None)]
