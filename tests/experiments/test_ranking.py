"""Ranks only where the seeds' intervals separate; and when a loss curve counts as flat."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.ranking import late_share, ranks


def test_separate_intervals_are_ranked() -> None:
    scores = {"c": [0.1, 0.2, 0.15], "a": [0.9, 0.8, 0.85], "b": [0.5, 0.6, 0.7]}
    assert ranks(scores) == {"a": 1, "b": 2, "c": 3}


def test_overlapping_intervals_share_a_rank() -> None:
    scores = {"a": [0.60, 0.70], "b": [0.65, 0.66], "c": [0.40, 0.59]}
    assert ranks(scores) == {"a": 1, "b": 1, "c": 2}


def test_overlap_goes_through_others() -> None:
    # a and c do not touch, and b bridges them: neither may be called better.
    assert ranks({"a": [0.7, 0.8], "b": [0.5, 0.72], "c": [0.4, 0.55]}) == {"a": 1, "b": 1, "c": 1}


def test_equal_ends_are_no_separation() -> None:
    assert ranks({"a": [0.5, 0.6], "b": [0.4, 0.5]}) == {"a": 1, "b": 1}


def test_a_rank_separates_all_pairs() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        scores = {str(number): list(rng.normal(rng.choice([0.3, 0.5, 0.7]), 0.04, 3)) for number in range(6)}
        found = ranks(scores)
        for one in scores:
            for other in scores:
                if found[one] < found[other]:
                    assert min(scores[one]) > max(scores[other])
        assert sorted(set(found.values())) == list(range(1, max(found.values()) + 1))


def test_a_variant_without_a_score_is_refused() -> None:
    with pytest.raises(ValueError, match="b"):
        ranks({"a": [0.5], "b": []})


def test_late_share_of_known_curves() -> None:
    straight = list(np.linspace(1.0, 0.0, 101))
    assert late_share(straight) == pytest.approx(0.2, abs=0.01)
    flat = [*np.linspace(1.0, 0.1, 50), *[0.1] * 50]
    assert late_share(flat) == pytest.approx(0.0, abs=1e-12)
    assert late_share([1.0] * 10) == 1.0 and late_share([0.5, 0.4, 0.3]) == 1.0
