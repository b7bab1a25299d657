"""Each clinical gate: what it refuses, what it lets through, and the files that tighten them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.verify.scenes import (
    GREEN,
    LESION,
    NOTHING,
    RED,
    Bools,
    ChannelRunner,
    SpoiltRunner,
    box,
    frame,
)
from vmkla.engines.verify.clinical import VerifyReport, verify_runners
from vmkla.engines.verify.frame import VerifyFrame
from vmkla.engines.verify.gates import ClinicalGates, read_gates
from vmkla.errors import BadInputError, MissingDependencyError, ShapeError

NEIGHBOUR = box(30, 30, 5, 5)
"""25 of 1600 pixels: 1.6 % of the image."""
SPECK = box(30, 30, 3, 5)
"""15 of 1600 pixels: 0.94 %."""


def same(count: int, region: Bools = LESION) -> list[VerifyFrame]:
    """Frames in which both are right."""
    return [frame(f"same {number}", region, region, region) for number in range(count)]


def compared(frames: list[VerifyFrame], gates: ClinicalGates | None = None, **options: int) -> VerifyReport:
    return verify_runners(ChannelRunner(RED), ChannelRunner(GREEN), frames, gates, **options)


def failed(report: VerifyReport) -> list[str]:
    assert report.passed is (not report.failures)
    return [check.name for check in report.checks if not check.passed]


SCENES: dict[str, tuple[list[VerifyFrame], list[str]]] = {
    "nothing lost": (same(3), []),
    # 380 of 400 pixels: Dice 760 / 780, a drop of 0.0256 in every frame.
    "a little in each": (
        [frame(f"{n}", LESION, box(5, 5, 19, 20), LESION) for n in range(3)],
        ["max_mean_dice_drop"],
    ),
    # 300 of 400 pixels: Dice 600 / 700, a drop of 0.143; 0.0071 over 20 frames.
    "much in one": (
        [*same(19), frame("worst", LESION, box(5, 5, 15, 20), LESION)],
        ["max_worst_dice_drop"],
    ),
    # The neighbour alone is lost: Dice 800 / 825, a drop of 0.03 in one frame of four.
    "a lesion": (
        [*same(3), frame("lost", LESION | NEIGHBOUR, LESION, LESION | NEIGHBOUR)],
        ["max_lost_lesion"],
    ),
    "a lesion under 1 %": ([*same(3), frame("lost", LESION | SPECK, LESION, LESION | SPECK)], []),
    "a lesion that neither finds": ([*same(3), frame("missed", LESION, LESION, LESION | NEIGHBOUR)], []),
    # One frame of 60 without a lesion: 1.7 points; a mean drop of 1 / 120.
    "an alarm": (
        [*same(60), *same(59, NOTHING), frame("alarm", NOTHING, NEIGHBOUR, NOTHING)],
        ["max_false_alarm_rise"],
    ),
    # 7 of 1600 pixels are less than 0.5 %.
    "a mark too small to alarm": ([*same(110), frame("mark", NOTHING, box(1, 1, 1, 7), NOTHING)], []),
    "an alarm that both give": ([*same(9), frame("both", NEIGHBOUR, NEIGHBOUR, NOTHING)], []),
    "a candidate that is better": ([frame("better", NOTHING, LESION, LESION)], []),
}


@pytest.mark.parametrize("name", SCENES)
def test_each_gate_against_truth(name: str) -> None:
    frames, expected = SCENES[name]
    assert failed(compared(frames)) == expected


def test_without_truth_the_reference_is_right() -> None:
    """The same candidate that is better than the reference against truth differs from it without."""
    assert failed(compared([frame("one", NOTHING, LESION)])) == ["max_mean_dice_drop", "max_false_alarm_rise"]
    report = compared([frame("two", LESION, NOTHING)])
    assert failed(report) == ["max_mean_dice_drop", "max_worst_dice_drop", "max_lost_lesion"]
    assert report.figures["dice"]["reference"] == 1.0
    assert failed(compared([frame("empty", NOTHING, NOTHING)])) == []
    assert compared([frame("empty", NOTHING, NOTHING)]).figures["agreement"]["worst_dice"] == 1.0


def test_marks_of_a_few_pixels_are_no_lesions_without_truth() -> None:
    dot = box(3, 3, 2, 3)
    report = compared([*[frame(f"{n}", LESION, LESION) for n in range(200)], frame("dot", dot, NOTHING)])
    assert failed(report) == []
    assert report.figures["lesions"]["total"] == 200
    assert report.figures["false_alarms"]["frames"] == 0


def spoil_with_nan(probability: npt.NDArray[np.float32]) -> None:
    probability[0, 0, 0, 0] = np.nan


def spoil_with_infinity(probability: npt.NDArray[np.float32]) -> None:
    probability[0, 0, -1, -1] = np.inf


@pytest.mark.parametrize("spoil", [spoil_with_nan, spoil_with_infinity])
def test_one_value_that_is_not_finite_is_refused(spoil: Callable[[npt.NDArray[np.float32]], None]) -> None:
    for runners in ((ChannelRunner(RED), SpoiltRunner(spoil)), (SpoiltRunner(spoil), ChannelRunner(RED))):
        report = verify_runners(*runners, same(2))
        assert failed(report) == ["finite"]
        side = "candidate" if isinstance(runners[1], SpoiltRunner) else "reference"
        assert report.failures[0].startswith(f"the {side}'s probability holds NaN or infinity in 2 of 2")
        assert report.figures["probability_error"]["max"] is None
        json.dumps(report.to_dict(), allow_nan=False)


def test_probability_decides_between_equals_in_float32() -> None:
    """Same weights, both float32: the masks may be the same and the arithmetic wrong."""

    def spoil(probability: npt.NDArray[np.float32]) -> None:
        probability += np.where(probability > 0.5, -1e-3, 0).astype(np.float32)

    reference, candidate = ChannelRunner(RED, weights="9" * 64), SpoiltRunner(spoil)
    report = verify_runners(reference, candidate, same(2))
    assert failed(report) == ["max_error", "mean_error"]
    assert failed(verify_runners(ChannelRunner(RED), candidate, same(2))) == []


def test_random_weights_are_judged_by_probability_alone() -> None:
    frames = SCENES["a lesion"][0]
    reference = ChannelRunner(RED, random_weights=True)
    report = verify_runners(reference, ChannelRunner(GREEN), frames)
    assert failed(report) == ["max_error", "mean_error"]
    assert [check.name for check in report.checks] == ["finite", "max_error", "mean_error"]
    assert failed(verify_runners(reference, ChannelRunner(RED, weights="5" * 64), frames)) == []


@pytest.mark.parametrize(
    ("precisions", "limits"),
    [
        (("fp32", "fp32"), (5e-4, 2e-6)),
        (("fp16", "fp32"), (1e-1, 1e-3)),
        (("fp32", "fp16"), (1e-1, 1e-3)),
        (("fp16", "int8"), (2.5e-1, 2e-2)),
    ],
)
def test_limits_of_probability_go_by_the_coarser(
    precisions: tuple[str, str], limits: tuple[float, float]
) -> None:
    gates = ClinicalGates().for_pair(precisions, same_weights=True, random_weights=True)
    assert (gates.max_error, gates.mean_error) == limits
    trained = ClinicalGates().for_pair(precisions, same_weights=True, random_weights=False)
    assert (trained.max_error is None) is (precisions != ("fp32", "fp32"))
    assert trained.max_mean_dice_drop == 0.01
    with pytest.raises(BadInputError, match="fp7"):
        ClinicalGates().for_pair(("fp32", "fp7"), same_weights=True, random_weights=True)


def test_defaults_are_what_the_guide_says(root: Path) -> None:
    limits = ClinicalGates().limits()
    guide = (root / "docs" / "guide.md").read_text(encoding="utf-8")
    for name, limit in limits.items():
        assert f"| `{name}` | {'none' if limit is None else f'{limit:g}'} |" in guide


@given(st.dictionaries(st.sampled_from(sorted(ClinicalGates().limits())), st.floats(0, 2), max_size=6))
def test_gates_are_tightened_and_never_loosened(values: dict[str, float]) -> None:
    old = ClinicalGates().limits()
    looser = [n for n, value in values.items() if value > 1 or (old[n] is not None and value > old[n])]
    if looser:
        with pytest.raises(BadInputError):
            ClinicalGates().tightened(values)
    else:
        assert ClinicalGates().tightened(values).limits() == {**old, **values}


def test_a_file_of_gates(tmp_path: Path) -> None:
    path = tmp_path / "gates.json"
    path.write_text('{"max_mean_dice_drop": 0.001, "max_error": 0.2}', encoding="utf-8")
    gates = read_gates(path)
    assert (gates.max_mean_dice_drop, gates.max_error, gates.max_worst_dice_drop) == (0.001, 0.2, 0.10)
    frames = [*same(9), frame("less", LESION, box(5, 5, 19, 20), LESION)]
    assert failed(compared(frames)) == []
    assert failed(compared(frames, gates)) == ["max_mean_dice_drop", "max_error"]


def test_a_toml_file_of_gates(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_text("max_lost_lesion = 0.0\n", encoding="utf-8")
    if sys.version_info < (3, 11):  # TOML came into Python with 3.11
        with pytest.raises(MissingDependencyError, match="tomllib"):
            read_gates(path)
        return
    assert read_gates(path).max_lost_lesion == 0.0
    assert failed(compared(SCENES["a lesion under 1 %"][0], read_gates(path))) == ["max_lost_lesion"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("g.json", '{"max_mean_dice_drop": 0.02}', "looser than the 0.01"),
        ("g.json", '{"min_dice": 0.5}', "no gate 'min_dice'"),
        ("g.json", '{"max_error": "0.1"}', "a number from 0 to 1"),
        ("g.json", '{"max_error": true}', "a number from 0 to 1"),
        ("g.json", '{"max_error": NaN}', "the number nan, expected a finite one"),
        ("g.json", "[0.1]", "expected names and values"),
        ("g.json", "[" * 30000, "nested deeper than 32 levels"),
        ("g.toml", "a = " + "[" * 30000, "nested deeper than 32 levels"),
        ("g.toml", "max_error = inf", "the number inf, expected a finite one"),
        ("g.json", '{"max_error": 1e400}', "the number inf, expected a finite one"),
        ("g.json", '{"max_error": ' + "9" * 5000 + "}", "it is not JSON"),
        ("g.json", '{"max_error": 0.1, "max_error": 0.2}', "a name twice"),
        ("g.json", " " * 70000, "larger than 65,536 bytes"),
        ("g.json", "{", "not JSON"),
        ("g.json", "\xff", "not JSON"),
    ],
)
def test_files_of_gates_that_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    toml_is_missing = path.suffix == ".toml" and sys.version_info < (3, 11)
    kind, said = (MissingDependencyError, "tomllib") if toml_is_missing else (BadInputError, said)
    with pytest.raises(kind, match=said):
        read_gates(path)
    with pytest.raises(BadInputError, match="cannot be read"):
        read_gates(tmp_path / "absent.json")


def test_what_cannot_be_compared() -> None:
    with pytest.raises(BadInputError, match="no frame"):
        compared([])
    with pytest.raises(BadInputError, match="has no mask"):
        compared([*same(1), frame("bare", LESION, LESION)])
    with pytest.raises(ShapeError, match="expected \\(H, W, 3\\)"):
        verify_runners(ChannelRunner(RED), ChannelRunner(RED), [np.zeros((8, 8, 3), np.float32)])
    small = VerifyFrame("small", np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4), np.uint8))
    with pytest.raises(BadInputError, match="must be equal"):
        compared([small])
    wrong = VerifyFrame("wrong", np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 2, np.uint8))
    with pytest.raises(BadInputError, match="class 2"):
        compared([wrong])
