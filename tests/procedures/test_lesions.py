"""vmkla.procedures.lesions and look_ahead: figures per lesion by hand, and which numbers are joined."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from tests import ROOT
from tests.procedures.scripted import region
from vmkla.procedures.assignment import Assignment
from vmkla.procedures.files import ROW_MAX_BYTES
from vmkla.procedures.lesions import GAPS_LISTED, LesionRecords
from vmkla.procedures.look_ahead import LookAhead
from vmkla.procedures.report.stored import to_lesion
from vmkla.procedures.tracker import LesionTracker, TrackerOptions
from vmkla.segment.findings import Region

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "lesions.schema.json").read_text(encoding="utf-8"))


def row(
    time_s: float, *found: tuple[int | None, int, float], events: list[Any] | None = None
) -> dict[str, Any]:
    """A row of frames.jsonl: number, area and peak of each finding."""
    values: dict[str, Any] = {
        "pts_s": time_s,
        "frame_hw": [100, 200],
        "box_lesions": [number for number, _, _ in found],
        "box_areas_px": [area_px for _, area_px, _ in found],
        "box_peaks": [peak for _, _, peak in found],
    }
    return values | ({"lesion_events": events} if events else {})


def tracked_rows(frames: list[list[Region]], step_s: float) -> list[dict[str, Any]]:
    """Rows of findings, numbered by a tracker that reports candidates."""
    tracker = LesionTracker(TrackerOptions(candidate_s=6.0))
    rows = []
    for index, regions in enumerate(frames):
        tracked = tracker.update(index * step_s, regions)
        found = [
            (number, each.area_px, each.peak) for number, each in zip(tracked.numbers, regions, strict=True)
        ]
        rows.append(row(index * step_s, *found, events=[event.to_dict() for event in tracked.events]))
    return rows


def joined(rows: list[dict[str, Any]]) -> dict[int, int]:
    look_ahead = LookAhead()
    for each in rows:
        look_ahead.add(each)
    return look_ahead.joined()


class TestRecords:
    def test_by_hand(self) -> None:
        records = LesionRecords()
        unsegmented = {"pts_s": 1.5, "frame_hw": [100, 200], "box_lesions": None}
        for each in (
            row(1.0, (1, 100, 0.6)),
            unsegmented,
            row(2.0, (2, 50, 0.55), (1, 200, 0.9)),
            row(3.0),
            row(4.0, (1, 30, 0.7), (1, 20, 0.5), (None, 3, 0.99)),
            row(4.5, (2, 70, 0.4)),
        ):
            records.add(each, marked=True)
        assert [record.to_dict() for record in records.by_number.values()] == [
            {
                "id": 1, "first_s": 1.0, "last_s": 4.0, "frames": 3, "gaps": [[2.0, 4.0]],
                "largest_area_px": 200, "largest_area_fraction": 0.01, "median_area_px": 100,
                "peak_probability": 0.9, "first_marker_after_s": 0.0, "joined": [], "still": None,
            },
            {
                "id": 2, "first_s": 2.0, "last_s": 4.5, "frames": 2, "gaps": [[2.0, 4.5]],
                "largest_area_px": 70, "largest_area_fraction": 0.0035, "median_area_px": 60.0,
                "peak_probability": 0.55, "first_marker_after_s": 0.0, "joined": [], "still": None,
            },
        ]  # fmt: skip

    def test_without_markers_and_with_classes(self) -> None:
        records = LesionRecords()
        records.add({**row(0.0, (1, 9, 0.5)), "box_classes": [2]}, marked=False)
        [record] = records.by_number.values()
        assert record.to_dict()["first_marker_after_s"] is None and record.to_dict()["class"] == 2

    def test_the_time_to_the_first_marker(self) -> None:
        records = LesionRecords()
        for time_s, marked in ((1.0, False), (1.25, False), (1.5, True), (2.0, False)):
            records.add(row(time_s, (1, 9, 0.5)), marked=marked)
        assert records.by_number[1].to_dict()["first_marker_after_s"] == 0.5

    @pytest.mark.parametrize("absent", ["pts_s", "box_lesions"])
    def test_rows_of_images_and_of_older_runs_have_no_lesions(self, absent: str) -> None:
        older = row(0.0, (1, 9, 0.5), events=[{"kind": "started", "lesion": 1}])
        del older[absent]
        records = LesionRecords()
        records.add(older, marked=True)
        assert not records.by_number
        if absent == "pts_s":
            assert joined([older]) == {}

    def test_of_many_gaps_the_longest_are_listed_and_the_others_counted(self) -> None:
        """Hours of flicker at 30 frames a second; in every 600th gap four frames are without a finding."""
        records, rate = LesionRecords(), 30
        records.add(row(0.0, (1, 9, 0.5)), marked=True)
        [record] = records.by_number.values()
        gaps = [2 + 3 * (place % 600 == 0) for place in range(200_000)]  # frames from finding to finding
        at = 0
        for frames in gaps:
            record.add_gap(at / rate, (at + frames) / rate)
            at += frames
        record.last_s = at / rate
        values = record.to_dict()
        assert len(values["gaps"]) == GAPS_LISTED == 1000
        assert values["gaps"] == sorted(values["gaps"])
        long = [gap for gap in values["gaps"] if gap[1] - gap[0] > 0.1]
        assert len(long) == gaps.count(5) == 334 and long[0] == [0.0, 5 / rate]
        assert values["gaps_left_out"] == 199_000
        listed_s = sum(after_s - before_s for before_s, after_s in values["gaps"])
        assert listed_s + values["gaps_left_out_s"] == pytest.approx(sum(gaps) / rate)
        assert record.to_dict() == values
        assert len(json.dumps(values)) < ROW_MAX_BYTES / 10
        jsonschema.validate(values, SCHEMA)
        assert to_lesion(values).seen_s == pytest.approx(0.0, abs=1e-3)


class TestLookAhead:
    BOX = region(100, 100, 40, 40)

    def test_a_lesion_that_returns_after_a_long_gap(self) -> None:
        rows = tracked_rows([[self.BOX]] * 10 + [[]] * 40 + [[self.BOX]] * 10, 0.1)
        assert rows[-1]["box_lesions"] == [2]
        assert joined(rows) == {2: 1}

    def test_a_gap_beyond_the_limit(self) -> None:
        rows = tracked_rows([[self.BOX]] * 10 + [[]] * 65 + [[self.BOX]] * 10, 0.1)
        assert joined(rows) == {}

    def test_a_short_false_alarm_does_not_take_the_place_of_the_lesion(self) -> None:
        """A false alarm of one frame, nearer in time, and the lesion itself are both new to the tracker."""
        alarm = region(118, 112, 30, 30)
        frames = [[self.BOX]] * 10 + [[]] * 30 + [[alarm]] + [[]] * 22 + [[self.BOX]] * 10
        rows = tracked_rows(frames, 0.1)
        assert rows[40]["box_lesions"] == [2] and rows[-1]["box_lesions"] == [3]
        assert joined(rows) == {3: 1}

    def test_two_that_return_are_assigned_together(self) -> None:
        left, right = region(80, 100, 40, 40), region(140, 100, 40, 40)
        rows = tracked_rows([[left, right]] * 10 + [[]] * 30 + [[right, left]] * 10, 0.1)
        assert rows[-1]["box_lesions"] == [3, 4]
        assert joined(rows) == {3: 2, 4: 1}

    def test_a_chain_of_gaps(self) -> None:
        rows = tracked_rows(([[self.BOX]] * 8 + [[]] * 30) * 3 + [[self.BOX]] * 8, 0.1)
        assert joined(rows) == {2: 1, 3: 1, 4: 1}

    def test_a_piece_that_soon_merges_again_was_a_piece(self) -> None:
        whole = [region(100, 100, 80, 40)]
        pieces = [region(100, 100, 40, 40), region(146, 100, 34, 40)]
        rows = tracked_rows([whole, *[pieces] * 30, *[whole] * 10], 1 / 30)
        assert rows[-12]["box_lesions"] == [1, 2] and rows[-1]["box_lesions"] in ([1], [2])
        assert joined(rows) == {2: 1}

    def test_what_stays_apart_for_long_is_two_lesions(self) -> None:
        whole = [region(100, 100, 80, 40)]
        pieces = [region(100, 100, 40, 40), region(146, 100, 34, 40)]
        rows = tracked_rows([whole, *[pieces] * 90, *[whole] * 10], 1 / 30)
        assert joined(rows) == {}

    def test_lesions_seen_at_the_same_time_are_never_joined(self) -> None:
        events = [{"kind": "started", "lesion": 2, "candidates": [[1, 0.9]]}]
        rows = [
            row(0.0, (1, 9, 0.5)),
            row(1.0, (2, 9, 0.5), events=events),
            row(2.0, (1, 9, 0.5), (2, 9, 0.5)),
        ]
        assert joined(rows) == {}

    def test_hours_of_flicker_in_one_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every lesion could be one of the six before: decided in parts, each of which takes the best."""
        sizes: list[int] = []
        pairs = Assignment.pairs

        def watched(self: Assignment, scores: Any, least: float) -> list[tuple[int, int]]:
            sizes.append(scores.size)
            return pairs(self, scores, least)

        monkeypatch.setattr(Assignment, "pairs", watched)
        look_ahead = LookAhead()
        for number in range(1, 2001):
            before = [[other, 0.5 + 0.4 / (number - other)] for other in range(max(1, number - 6), number)]
            started = {"kind": "started", "lesion": number, "candidates": before}
            look_ahead.add(row(number / 2, *[(number, 50, 0.9)] * 5, events=[started]))
        joined = look_ahead.joined()
        assert max(sizes) < 520 * 520 and len(sizes) == 4
        assert joined == dict.fromkeys(range(2, 2001), 1)
