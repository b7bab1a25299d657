"""benchmarks.procedures: a script that keeps to its own identities, and the tracker on it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.procedures.run import SEEDS_FROM, Outcome, Procedure, Progress, measure, track
from benchmarks.procedures.script import scripted_procedure
from vmkla.evaluation.identities import agreement
from vmkla.segment.preprocess import Rect


def test_the_script_and_the_tracker_on_a_few_seconds() -> None:
    """Perfect findings of small frames: the tracker must not do worse than these bounds."""
    frames = list(scripted_procedure(19_013, 2 / 60, 96, 128))
    again = list(scripted_procedure(19_013, 0.3 / 60, 96, 128))
    assert [frame.lesions for frame in again] == [frame.lesions for frame in frames[:9]]
    assert any(frame.lesions for frame in frames)
    for frame in frames:
        assert len(frame.perfect) >= len(frame.lesions)
        for findings in (frame.perfect, frame.regions):
            areas = [region.area_px for region in findings]
            assert areas == sorted(areas, reverse=True)
    assert any(frame.regions != frame.perfect for frame in frames)
    procedure = track(19_013, 2 / 60, 96, 128)
    assert procedure.truth == [frame.lesions for frame in frames]
    perfect, real = (agreement([outcome.online(procedure.truth)]) for outcome in procedure.outcomes)
    assert perfect.lesions >= 1 and perfect.switches <= perfect.lesions
    assert perfect.hota > 0.8
    assert real.hota < perfect.hota


def test_numbers_that_are_joined_become_one_box() -> None:
    boxes = {1: Rect(0, 0, 10, 10), 2: Rect(20, 0, 10, 10), 3: Rect(50, 50, 5, 5)}
    outcome = Outcome([boxes, {2: Rect(0, 0, 4, 4)}], {2: 1})
    assert outcome.online([{}, {}]).given == [boxes, {2: Rect(0, 0, 4, 4)}]
    assert outcome.final([{}, {}]).given == [
        {1: Rect(0, 0, 30, 10), 3: Rect(50, 50, 5, 5)},
        {1: Rect(0, 0, 4, 4)},
    ]


def test_an_interrupted_run_continues_after_its_last_whole_procedure(tmp_path: Path) -> None:
    """A procedure at hand is not rendered again. Lines that are cut off or of another length do not count."""
    path = tmp_path / "results.partial.jsonl"
    outcome = Outcome([{7: Rect(1, 2, 3, 4)}, {}], {8: 7})
    procedure = Procedure([{1: Rect(1, 2, 3, 5)}, {}], (outcome, Outcome([{}, {}])))
    Progress(path, 5.0, "480x360").add(SEEDS_FROM, procedure)
    with open(path, "a") as file:
        file.write(path.read_text()[:40])
    progress = Progress(path, 5.0, "480x360")
    assert progress.done == {SEEDS_FROM: procedure}
    assert measure(1, 5.0, 1, progress) == [procedure]
    progress.add(SEEDS_FROM + 1, procedure)
    assert list(Progress(path, 5.0, "480x360").done) == [SEEDS_FROM, SEEDS_FROM + 1]
    assert not Progress(path, 4.0, "480x360").done
