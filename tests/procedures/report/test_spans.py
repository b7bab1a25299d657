"""Spans stay bounded, and joining never loses time that was covered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmkla.procedures.report.spans import Lanes, joined


def test_few_spans_are_kept_as_they_are() -> None:
    lanes = Lanes(10)
    lanes.add("a", [(0.0, 1.0), (1.001, 2.0)])
    lanes.add("b", [(5.0, 5.0)])
    lanes.limit(3)
    assert lanes.spans == {"a": [(0.0, 1.0), (1.001, 2.0)], "b": [(5.0, 5.0)]} and lanes.joined_s == 0.0


def test_the_closest_are_joined_first() -> None:
    lanes = Lanes(100)
    lanes.add("a", [(0.0, 1.0), (1.05, 2.0), (9.0, 10.0), (30.0, 31.0)])
    lanes.limit(3)
    assert lanes.spans["a"] == [(0.0, 2.0), (9.0, 10.0), (30.0, 31.0)]
    assert 0.05 <= lanes.joined_s < 7.0
    lanes.limit(2)
    assert lanes.spans["a"] == [(0.0, 10.0), (30.0, 31.0)]


def test_many_spans_are_bounded_while_they_come() -> None:
    lanes = Lanes(50)
    for index in range(10_000):
        lanes.add("a", [(index, index + 0.5)])
        assert len(lanes.spans["a"]) <= 101
    lanes.limit(50)
    assert lanes.spans["a"][0][0] == 0 and lanes.spans["a"][-1][1] == 9999.5


TIMES = st.floats(-10, 10)


@given(st.lists(st.tuples(TIMES, TIMES).map(lambda pair: (min(pair), max(pair)))), st.floats(0, 3))
def test_joined_spans_cover_what_they_covered(spans: list[tuple[float, float]], distance_s: float) -> None:
    result = joined(spans, distance_s)
    assert all(any(start <= span[0] and span[1] <= end for start, end in result) for span in spans)
    edges = {edge for span in spans for edge in span}
    assert all(start in edges and end in edges for start, end in result)
    assert all(later[0] - former[1] > distance_s for former, later in zip(result, result[1:], strict=False))
