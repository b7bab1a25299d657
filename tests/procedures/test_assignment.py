"""vmkla.procedures.assignment: the best pairs, by trying all."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from vmkla.errors import MissingDependencyError
from vmkla.procedures.assignment import Assignment

LEAST = 0.3


def best_sum(scores: np.ndarray) -> float:
    """The largest sum of what exceeds the least score, over all sets of pairs."""
    if scores.shape[0] > scores.shape[1]:
        scores = scores.T
    worth = np.where(scores >= LEAST, scores - LEAST, 0)
    rows = range(scores.shape[0])
    return max(
        float(worth[list(rows), list(columns)].sum())
        for columns in itertools.permutations(range(scores.shape[1]), scores.shape[0])
    )


@settings(max_examples=200, deadline=None)
@given(
    scores=st_numpy.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 5)),
        elements=st.sampled_from([-1.0, 0.1, 0.29999, 0.3, 0.5, 0.7, 0.71, 1.0, 1.9]),
    )
)
def test_the_pairs_have_the_largest_sum(scores: np.ndarray) -> None:
    pairs = Assignment().pairs(scores, LEAST)
    assert all(scores[pair] >= LEAST for pair in pairs)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert sum(scores[pair] - LEAST for pair in pairs) == pytest.approx(best_sum(scores), abs=1e-6)


def test_a_greedy_choice_would_be_worse() -> None:
    assert Assignment().pairs(np.array([[0.9, 0.8], [0.8, 0.35]]), LEAST) == [(0, 1), (1, 0)]


def test_nothing_to_pair() -> None:
    assert Assignment().pairs(np.full((3, 2), -1.0), LEAST) == []


def test_a_missing_package_is_reported_before_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lap", None)
    with pytest.raises(MissingDependencyError, match="lap"):
        Assignment()
