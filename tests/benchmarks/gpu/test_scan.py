"""How `make gpu-proof` judges the torch backends, on one that a CPU has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import scan as gpu_scan
from benchmarks.gpu.records import Context, Recorder, read_rows


def judged(shape: gpu_scan.Shape, path: Path) -> tuple[int, list[str]]:
    """How many rows the check of ``native`` writes, and what it calls wrong."""
    gpu_scan.check_case("native", (shape, torch.float32), "cpu", Recorder(path), repeatable=True)
    rows = read_rows(path)
    return sum("table" in row for row in rows), [row["wrong"] for row in rows if "wrong" in row]


@pytest.mark.parametrize("shape", gpu_scan.RAGGED[:4])
def test_a_right_backend_passes(shape: gpu_scan.Shape, tmp_path: Path) -> None:
    assert judged(shape, tmp_path / "rows") == (1, [])


def test_a_wrong_result_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = gpu_scan.run

    def spoilt(inputs: list[torch.Tensor], grad_y: torch.Tensor, backend: str) -> list[torch.Tensor]:
        found = right(inputs, grad_y, backend)
        found[4] = found[4] + 1e-2 * torch.randn(found[4].shape)  # the gradient of A
        found[6][0] = float("nan")
        return found

    monkeypatch.setattr(gpu_scan, "run", spoilt)
    _, wrong = judged((1, 3, 4, 5, 3, 2), tmp_path / "rows")
    assert [line.split(": ")[1].split()[0] for line in wrong] == ["A", "delta_bias", "two"]


@pytest.mark.parametrize("spoilt", [False, True])
def test_bases_are_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoilt: bool) -> None:
    right = gpu_scan.bspline_basis

    def shifted(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """The bases of other values in float32: by a thousandth of a cell."""
        return right(x + 4e-4 * (x.dtype == torch.float32), *arguments, **options)

    if spoilt:
        monkeypatch.setattr(gpu_scan, "bspline_basis", shifted)
    context = Context("cpu", tmp_path, tmp_path, tmp_path, 60)
    gpu_scan.check_bases("native", context, torch.float32, Recorder(tmp_path / "rows"))
    rows = read_rows(tmp_path / "rows")
    assert sum("table" in row for row in rows) == 1
    assert [row["wrong"].split()[4] for row in rows if "wrong" in row] == ["bases", "gradient"] * spoilt


def test_shapes_are_those_of_the_presets() -> None:
    assert gpu_scan.stages("small", 1)[0] == (1, 64, 64, 192, 16, 6)
    assert gpu_scan.stages("nano", 2)[3] == (2, 8, 8, 512, 16, 16)
