"""The search for what stays in higher precision, and the sensitivities that guide it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.calibration.small_graphs import SIDE, small_weights, write_small
from tests.export.exported_models import frames
from vmkla.calibration.artefact import open_artefact
from vmkla.calibration.ranges import measure_ranges
from vmkla.calibration.search import search
from vmkla.calibration.sensitivity import Sensitivity, measure_groups, plot, table
from vmkla.engines.runners.onnxruntime_runner import OnnxRuntimeRunner


@dataclass(frozen=True)
class Judged:
    """A verdict."""

    passed: bool
    failures: tuple[str, ...]


def open_quietly(path: Path) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(path, threads=1, warn_unverified=False)


@pytest.mark.parametrize("outlier", ["one", "two", "three"])
def test_a_planted_outlier_layer_is_found(tmp_path: Path, outlier: str) -> None:
    """The one product whose activation has a huge channel comes first, far from the others."""
    artefact = open_artefact(write_small(tmp_path / "m.onnx", small_weights(outlier=outlier)), "cpu", "fp32")
    shown = frames(12, SIDE, SIDE)
    ranges = measure_ranges(artefact.path, artefact.layers, shown, "min-max", input_type="uint8", batch=None)
    reference = open_quietly(artefact.path)
    steps: list[str] = []
    rows = measure_groups(
        artefact,
        ranges,
        shown,
        reference=reference,
        open_runner=open_quietly,
        folder=tmp_path,
        progress=lambda done, total, note="": steps.append(f"{done}/{total} {note}"),
    )
    reference.close()
    assert [row.group for row in rows][0] == outlier and len(rows) == 3
    assert rows[0].dice_loss > 10 * rows[1].dice_loss and rows[0].mean_error > 10 * rows[1].mean_error
    assert steps == ["1/3 one", "2/3 two", "3/3 three"]
    assert table(rows).splitlines()[2].startswith(f"| {outlier} | 1 | 0.")
    plot(rows, [outlier], tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_not_a_number_is_the_most_sensitive() -> None:
    rows = [Sensitivity("a", 1, 0.5, 0.5, 0.1), Sensitivity("b", 1, 0.0, 0.0, float("nan"))]
    assert max(rows, key=lambda row: row.rank).group == "b"


def test_groups_go_back_until_it_passes() -> None:
    tried: list[frozenset[str]] = []

    def judge(back: frozenset[str]) -> Judged:
        tried.append(back)
        return Judged({"c", "a"} <= back, () if {"c", "a"} <= back else (f"fails with {len(back)}",))

    found = search(lambda: ["c", "a", "b", "d"], 4, judge)
    assert tried == [frozenset(), {"c"}, {"c", "a"}] and found.tried == 3 and found.verdict.passed
    assert [(back.group, back.because) for back in found.put_back] == [
        ("c", ("fails with 0",)),
        ("a", ("fails with 1",)),
    ]


def test_what_passes_at_once_needs_no_ranking() -> None:
    def never() -> list[str]:
        raise AssertionError("asked for a ranking")

    assert search(never, 3, lambda back: Judged(True, ())).put_back == ()


def test_the_last_group_is_not_put_back() -> None:
    """Then nothing would be left to quantize: the verdict of the last candidate stands."""
    found = search(lambda: ["a", "b", "c"], 3, lambda back: Judged(False, ("no",)))
    assert not found.verdict.passed and [back.group for back in found.put_back] == ["a", "b"]
