"""benchmarks.procedures: figures of known sequences, and a script that keeps to its own identities."""

from __future__ import annotations

import pytest

from benchmarks.procedures.identities import Identities, agreement
from benchmarks.procedures.run import track
from benchmarks.procedures.script import scripted_procedure
from vmkla.segment.preprocess import Rect

BOX, FAR = Rect(10, 10, 20, 20), Rect(100, 100, 20, 20)


def test_perfect_numbers() -> None:
    result = agreement([Identities([{7: BOX, 9: FAR}] * 10, [{1: BOX, 2: FAR}] * 10)])
    assert (result.hota, result.assa, result.idf1) == pytest.approx((1, 1, 1))
    assert (result.lesions, result.switches, result.numbers) == (2, 0, 2)


def test_a_number_that_changes_half_way() -> None:
    """Half of the ten boxes have the identity's better number; HOTA is the root of 1 times that half."""
    given = [{1: BOX}] * 5 + [{2: BOX}] * 5
    result = agreement([Identities([{7: BOX}] * 10, given)])
    assert result.assa == pytest.approx(0.5)
    assert result.hota == pytest.approx(0.5**0.5)
    assert result.idf1 == pytest.approx(0.5)
    assert (result.lesions, result.switches, result.numbers) == (1, 1, 2)


def test_a_lesion_that_was_not_found() -> None:
    result = agreement([Identities([{7: BOX}] * 4, [{}] * 4)])
    assert (result.hota, result.idf1, result.lesions) == (0, 0, 0)


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
