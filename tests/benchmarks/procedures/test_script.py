"""benchmarks.procedures: a script that keeps to its own identities, and the tracker on it."""

from __future__ import annotations

from benchmarks.procedures.run import track
from benchmarks.procedures.script import scripted_procedure
from vmkla.evaluation.identities import agreement


def test_the_script_and_the_tracker_on_a_few_seconds() -> None:
    """Perfect findings of small frames: the tracker must not do worse than these bounds."""
    frames = list(scripted_procedure(19_013, 2 / 60, 96, 128, errors=False))
    again = list(scripted_procedure(19_013, 0.3 / 60, 96, 128, errors=False))
    assert [frame.lesions for frame in again] == [frame.lesions for frame in frames[:9]]
    assert any(frame.lesions for frame in frames)
    for frame in frames:
        assert len(frame.regions) >= len(frame.lesions)
        assert [region.area_px for region in frame.regions] == sorted(
            (region.area_px for region in frame.regions), reverse=True
        )
    outcome = track(19_013, 2 / 60, 96, 128, False)
    result = agreement([outcome.online])
    assert result.lesions >= 1 and result.switches <= result.lesions
    assert result.hota > 0.8
