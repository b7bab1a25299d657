"""Agreement of numbers with identities: figures of known sequences."""

from __future__ import annotations

import numpy as np
import pytest

from vmkla.evaluation import identities
from vmkla.evaluation.identities import Identities, IdentityTally, agreement
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


def test_recordings_are_joined_by_group() -> None:
    """Naming a group twice is measuring its recordings twice."""
    good, bad = (
        Identities([{7: BOX}] * 6, [{1: BOX}] * 6),
        Identities([{7: BOX}] * 4, [{1: BOX}, {}, {2: BOX}, {}]),
    )
    tally = IdentityTally()
    for group, recording in (("a", good), ("b", bad), ("b", good)):
        tally.add(group, recording)
    assert tally.agreement() == agreement([good, bad, good])
    joined, plain = tally.agreement(["b", "a", "a"]), agreement([bad, good, good, good])
    assert vars(joined) == pytest.approx(vars(plain))


def test_thousands_of_false_numbers_cost_little_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes far from any lesion, each frame with new numbers: IDF1 would need a matrix of all numbers."""
    rng = np.random.default_rng(0)
    recording = Identities()
    for frame in range(150):
        truth = {7: BOX} | ({9: Rect(50, 10, 20, 20)} if frame % 3 else {})
        moved = {frame // 20: Rect(10 + int(rng.integers(-9, 9)), 12, 20, 20)} if rng.random() < 0.7 else {}
        strangers = {100 + 2 * frame + at: FAR for at in range(int(rng.integers(0, 3)))}
        recording.truth.append(truth)
        recording.given.append(strangers | moved)
    found = agreement([recording])
    assert int(str(identities._data(recording)["num_tracker_ids"])) <= 10
    monkeypatch.setattr(identities, "_with_few_numbers", lambda recording: recording.given)
    assert int(str(identities._data(recording)["num_tracker_ids"])) > 100
    assert vars(agreement([recording])) == pytest.approx(vars(found))
    assert found.idf1 < found.assa < 1
