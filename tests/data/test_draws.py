"""Batches with a share of quiet images: counts, weights, order, and what the data cannot give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vmkla.data.draws import HARD_WEIGHT, Draws
from vmkla.errors import BadInputError, UsageError

QUIET = np.arange(30) % 3 == 0  # 10 quiet images, 20 with a lesion


def draws_of(quiet: np.ndarray = QUIET, **changes: object) -> Draws:  # type: ignore[type-arg]
    settings = {"batch_size": 8, "seed": 5, "share": 0.375, **changes}
    return Draws(quiet, **settings)  # type: ignore[arg-type]


def test_without_a_share_every_image_comes_once_in_an_order_of_the_seed() -> None:
    draws = draws_of(share=0.0)
    batches = draws.batches(2)
    expected = np.random.default_rng((5, 2)).permutation(30)
    assert draws.steps == len(batches) == 3
    assert np.array_equal(np.concatenate(batches), expected[:24])
    assert [rows.tolist() for rows in draws.batches(3)] != [rows.tolist() for rows in batches]


def test_every_batch_has_its_share_and_every_lesion_comes_once() -> None:
    draws = draws_of()
    assert (draws.steps, draws.quiet_per_batch) == (4, 3)
    for epoch in range(3):
        rows = np.array(draws.batches(epoch)) % 30
        assert rows.shape == (4, 8)
        assert (QUIET[rows].sum(axis=1) == 3).all()
        lesions = rows[~QUIET[rows]]
        assert len(set(lesions.tolist())) == len(lesions) == 20
        counts = Counter(rows[QUIET[rows]].tolist())
        assert len(counts) == 10 and sorted(counts.values()) == [1] * 8 + [2] * 2


def test_another_copy_of_an_image_has_another_row() -> None:
    """Equal rows of one epoch would be augmented alike."""
    rows = np.concatenate(draws_of(share=0.5).batches(0))
    assert len(set(rows.tolist())) == len(rows) > len(set((rows % 30).tolist()))


def test_what_was_marked_comes_more_often_from_the_next_epoch_on() -> None:
    quiet = np.arange(100) < 40
    draws = draws_of(quiet, batch_size=10, share=0.4)
    before = [rows.tolist() for rows in draws.batches(1)]
    hard = np.arange(8)
    for row in range(40):
        draws.note(np.array([row + 100 * (row % 2)]), [0.25 if row in hard else 0.0])
    draws.note(np.array([3]), [0.0])  # a second copy: marked in one of the two counts
    assert [rows.tolist() for rows in draws.batches(1)] == before
    draws.end_epoch([draws.noted])
    totals = np.zeros(40)
    for epoch in range(50):
        rows = np.concatenate(draws.batches(epoch)) % 100
        totals += np.bincount(rows[rows < 40], minlength=40)
    # 40 draws an epoch over a weight of 8 x 4 + 32 x 1.
    assert totals.sum() == 50 * 40
    assert totals[hard] / 50 == pytest.approx(np.full(8, HARD_WEIGHT * 40 / 64), abs=0.15)
    assert totals[8:] / 50 == pytest.approx(np.full(32, 40 / 64), abs=0.25)


def test_notes_of_several_processes_count_and_what_was_not_shown_keeps_its_weight() -> None:
    draws = draws_of()
    assert draws.marked.all()  # nobody knows yet
    one, two = draws.noted.copy(), draws.noted.copy()
    one[[0, 3]], two[6] = (0, 1), 0
    draws.end_epoch([one, two])
    assert draws.marked[[0, 3, 6, 9]].tolist() == [False, True, False, True]
    assert (draws.noted == -1).all()


def test_a_state_holds_all_that_the_next_batches_depend_on() -> None:
    draws, again = draws_of(), draws_of()
    draws.note(np.array([0, 3]), [0.0, 0.1])
    draws.end_epoch([draws.noted])
    draws.note(np.array([3, 6]), [0.0, 0.0])
    again.restore(draws.state([draws.noted]))
    for each in (draws, again):
        each.note(np.array([9]), [0.0])
        each.end_epoch([each.noted])
    assert [rows.tolist() for rows in draws.batches(2)] == [rows.tolist() for rows in again.batches(2)]
    assert draws.marked[QUIET].tolist() == [False, False, False, False, True, True, True, True, True, True]


@pytest.mark.parametrize("share", [0.05, 0.97])
def test_a_share_of_no_image_or_of_all_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=f"a quiet share of {share} is [08] of the 8 images of a batch"):
        draws_of(share=share)


def test_a_share_that_the_data_cannot_give_names_the_windows() -> None:
    quiet = np.arange(60) < 5
    with pytest.raises(BadInputError) as error:
        draws_of(quiet, share=0.5, windows=3)
    assert error.value.message == (
        "a quiet share of 0.5 takes 52 quiet images an epoch, each at most 4 times; the training set has 5: "
        "3 polyp-free windows of images with lesions, and 2 images without a lesion"
    )
    draws_of(quiet, share=0.25)  # 18 of at most 20


def test_a_set_without_lesions_is_refused() -> None:
    with pytest.raises(BadInputError, match="has 0 images with a lesion, and a batch takes 5 of them"):
        draws_of(np.ones(20, bool))
