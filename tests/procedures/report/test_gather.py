"""What the report finds in a run's folder, compared with hand-written rows."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.procedures.report.made_up import lesion, row, write_run
from vmkla.errors import BadInputError
from vmkla.procedures.report.gather import CARDS, LISTED, TIMELINE_POINTS, gather


def test_counts_and_lanes_by_hand(tmp_path: Path) -> None:
    rows = [row(index, [1] if 10 <= index <= 20 else []) for index in range(60)]
    for index in range(30, 35):
        rows[index]["poor"] = "black"
    for index in range(35, 37):
        rows[index]["poor"] = "blur"
    rows[37]["poor"] = "glare"
    rows[40]["poor"] = "frozen"
    rows[30]["lesion_events"] = [{"kind": "ended", "lesion": 1}, {"kind": "cut"}]
    rows[50]["lesion_events"] = [{"kind": "returned"}]
    stored = lesion(1, 1.0, 2.0, gaps=[[1.2, 1.5]])
    procedure = gather(write_run(tmp_path, rows, [stored]))
    assert (procedure.frames, procedure.segmented, procedure.with_finding) == (60, 60, 11)
    assert (procedure.first_s, procedure.last_s) == (0.0, 5.9)
    assert procedure.lesions == 1 and procedure.cuts == 2
    assert procedure.lanes.spans == {
        "black": [(3.0, 3.5)],
        "frozen": [(4.0, 4.1)],
        "poor picture": [(3.5, 3.8)],
        "cuts": [(3.0, 3.0), (5.0, 5.0)],
        "lesion 1": [(1.0, 1.2), (1.5, 2.0)],
    }
    assert procedure.poor_s == pytest.approx({"black": 0.5, "blur": 0.2, "glare": 0.1, "frozen": 0.1})
    assert procedure.shown[0].seen_s == pytest.approx(0.7)
    assert procedure.missing == ["There is no overlay.mp4 beside this page: times are not links."]


def test_a_stride_joins_and_skipped_frames_count(tmp_path: Path) -> None:
    rows = [row(index, [] if index % 30 == 0 else None) for index in range(100)]
    rows[30]["poor"] = rows[60]["poor"] = "blur"
    procedure = gather(write_run(tmp_path, rows, [], {"settings": {"stride": 30}}))
    assert (procedure.frames, procedure.segmented) == (100, 4)
    assert procedure.lanes.spans["poor picture"] == [(3.0, 9.0)]
    assert procedure.poor_s == {"blur": 6.0}
    broken = gather(write_run(tmp_path / "of one", rows, []))  # each stands for a second at most
    assert broken.lanes.spans["poor picture"] == [(3.0, 3.0), (6.0, 6.0)]


def test_lesions_are_ranked_by_time_seen_times_peak(tmp_path: Path) -> None:
    lesions = [
        lesion(1, 0.0, 1.0, peak_probability=0.9),
        lesion(2, 0.0, 10.0, gaps=[[0.5, 9.9]], peak_probability=0.99),  # seen for 0.6 s
        lesion(3, 2.0, 4.0, peak_probability=0.6),
        lesion(4, 5.0, 5.0, peak_probability=1.0),
        lesion(5, 6.0, 6.0, peak_probability=0.7),
    ]
    procedure = gather(write_run(tmp_path, [row(index) for index in range(101)], lesions))
    assert [each.id for each in procedure.shown] == [3, 1, 2, 4, 5]
    assert (procedure.lesions, procedure.lasting) == (5, 2)  # 2 s and 1 s
    assert list(procedure.lanes.spans)[-5:] == ["lesion 1", "lesion 2", "lesion 3", "lesion 4", "lesion 5"]


def test_many_lesions_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    count = CARDS + LISTED + 7
    lesions = [
        lesion(number, number / 10, number / 10 + (count - number) / 1000, gaps=[[number / 10, number / 10]])
        for number in range(1, count + 1)
    ]
    for each in lesions:  # seen for less the later it comes
        each["still"] = None
    procedure = gather(write_run(tmp_path, [row(index) for index in range(2000)], lesions))
    assert procedure.lesions == count
    assert [each.id for each in procedure.shown] == list(range(1, CARDS + 1))
    assert [each.id for each in procedure.listed] == list(range(CARDS + 1, CARDS + LISTED + 1))
    assert procedure.listed[0].seen_s == pytest.approx((count - CARDS - 1) / 1000)
    spans = procedure.lanes.spans
    assert 2 * sum(map(len, spans.values())) <= TIMELINE_POINTS
    others = spans["other lesions"]
    assert (
        others[0][0] == pytest.approx((CARDS + 1) / 10)
        and others[-1][0] <= count / 10 <= others[-1][1] + 1e-9
    )


def test_flicker_does_not_exceed_the_points(tmp_path: Path) -> None:
    rows = [row(index, **({"poor": "blur"} if index % 2 else {})) for index in range(6000)]
    procedure = gather(write_run(tmp_path, rows, []))
    spans = procedure.lanes.spans["poor picture"]
    assert 2 * len(spans) <= TIMELINE_POINTS and procedure.lanes.joined_s > 0
    assert (spans[0][0], spans[-1][1]) == (0.1, 599.9)
    assert procedure.poor_s == {"blur": pytest.approx(299.9)}


def test_a_procedure_without_findings(tmp_path: Path) -> None:
    procedure = gather(write_run(tmp_path, [row(index) for index in range(5)]))
    assert (procedure.lesions, procedure.shown, procedure.with_finding, procedure.poor_s) == (0, [], 0, {})


def test_times_that_jump(tmp_path: Path) -> None:
    rows = [row(index, poor="blur") for index in range(10)]
    rows += [row(index, poor="blur", pts_s=1000 + index / 10) for index in range(10)]
    rows += [row(index, poor="blur", pts_s=-5 + index / 10) for index in range(10)]
    rows[10]["lesion_events"] = rows[20]["lesion_events"] = [{"kind": "jump"}]
    procedure = gather(write_run(tmp_path, rows))
    assert (procedure.first_s, procedure.last_s) == (-5.0, 1000.9)
    assert procedure.lanes.spans["poor picture"] == [(-5.0, -4.1), (0.0, 0.9), (1000.0, 1000.9)]
    assert procedure.lanes.spans["time jumps"] == [(-5.0, -5.0), (1000.0, 1000.0)]
    assert procedure.poor_s == {"blur": pytest.approx(2.7)}


def test_an_exam_of_five_hours(tmp_path: Path) -> None:
    """A frame each two seconds, a lesion that flickers all the time, and one at the end, in little memory."""
    count = 5 * 60 * 30
    rows = [
        row(at, (*([1] if at % 2 else []), *([2] if at >= count - 9 else [])), pts_s=2.0 * at)
        for at in range(count)
    ]
    write_run(tmp_path, rows, None)
    del rows
    tracemalloc.start()
    procedure = gather(tmp_path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (procedure.first_s, procedure.last_s) == (0.0, 17_998.0)
    assert (procedure.frames, procedure.lesions, procedure.with_finding) == (9000, 2, 4504)
    flicker, last = sorted(procedure.shown, key=lambda lesion: lesion.id)
    assert len(flicker.gaps) == 1000 and flicker.gaps_left_out_s == 3499 * 4.0
    assert flicker.seen_s == 0.0 and last.seen_s == 16.0
    assert 2 * sum(map(len, procedure.lanes.spans.values())) <= TIMELINE_POINTS
    assert peak_bytes < (tmp_path / "frames.jsonl").stat().st_size / 2


def test_a_clock_that_begins_late(tmp_path: Path) -> None:
    """Chromium opens overlay.mp4#t=610 of a video from 600 s to 603 s at its begin: it has 3 s."""
    folder = write_run(tmp_path, [row(index, pts_s=600 + index / 10) for index in range(31)])
    (folder / "overlay.mp4").touch()
    (sentence,) = gather(folder).missing
    assert "clock begins at 10:00.0: links to times after 0:03.0" in sentence
    write_run(folder, [row(index, pts_s=1.4 + index / 10) for index in range(31)])
    assert gather(folder).missing == []


def test_an_older_run_has_no_lesions(tmp_path: Path) -> None:
    rows = [row(index, [1] if index < 3 else []) for index in range(6)]
    for each in rows:
        del each["box_lesions"]
    procedure = gather(write_run(tmp_path, rows, None))
    assert procedure.lesions is None and procedure.poor_s is None
    assert procedure.lanes.spans["findings"] == [(0.0, pytest.approx(0.3))]
    assert any("older than lesions" in sentence for sentence in procedure.missing)


def test_an_interrupted_run(tmp_path: Path) -> None:
    rows = [row(index, [4] if index < 3 else [4, 7]) for index in range(6)]
    write_run(tmp_path, rows, None, name=".frames.partial.jsonl")
    (tmp_path / "report.json").unlink()
    with open(tmp_path / ".frames.partial.jsonl", "a") as file:
        file.write('{"index": 6, "pts_s": 0.6, "segm')
    stills = tmp_path / ".lesions.partial"
    stills.mkdir()
    for name in ("0004.jpg", "0004.marked.jpg", "0007.jpg"):
        (stills / name).touch()
    procedure = gather(tmp_path)
    assert procedure.frames == 6 and procedure.lesions == 2
    assert [(each.id, each.spans) for each in procedure.shown] == [(4, [(0.0, 0.5)]), (7, [(0.3, 0.5)])]
    still = procedure.shown[0].still
    assert still is not None and still.image == ".lesions.partial/0004.jpg"
    assert procedure.shown[1].still is None  # one of its two files is missing
    said = " ".join(procedure.missing)
    assert "killed before its end" in said and "no report.json" in said and "no lesions.jsonl" in said
    assert "1 damaged lines of the rows" in said


@pytest.mark.parametrize(
    "change",
    [
        {"pts_s": 1e9}, {"pts_s": "1"}, {"pts_s": None}, {"pts_s": True}, {"segmented": 1}, {"boxes": None},
        {"box_peaks": [0.5]}, {"box_peaks": ["0.5", 0.5]}, {"box_lesions": ["a", 1]}, {"frame_hw": [0, 5]},
        {"frame_hw": 7}, {"lesion_events": 7}, {"lesion_events": [{}]}, {"poor": 3},
        {"box_areas_px": [1, 1.5]}, {"box_areas_px": [-5, 1]}, {"box_areas_px": [9000, 1001]},
        {"frame_hw": [1 << 40, 1 << 40]}, {"frame_hw": [100]},
    ],
    ids=str,
)  # fmt: skip
def test_damaged_rows_are_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = [row(0, [1, 2]), row(1, [1, 2], **change), row(2, [1, 2])]
    procedure = gather(write_run(tmp_path, rows, None))
    assert procedure.frames == 2 and procedure.lesions == 2
    assert "1 damaged lines of the rows were left out." in procedure.missing


@pytest.mark.parametrize(
    "change",
    [
        {"id": 0}, {"id": "1"}, {"first_s": 3.0}, {"last_s": 1e12}, {"gaps": [[1.9, 1.1]]}, {"gaps": 3},
        {"peak_probability": 2}, {"frames": None}, {"still": {"pts_s": 1.0}},
        {"gaps_left_out_s": -0.1}, {"gaps_left_out_s": 1.1},
        {"still": {"pts_s": 1.0, "image": "../secret.jpg", "marked": "lesions/0001.marked.jpg"}},
        {"still": {"pts_s": 1.0, "image": "lesions/0002.jpg", "marked": "lesions/0002.marked.jpg"}},
    ],
    ids=str,
)  # fmt: skip
def test_damaged_lesions_are_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write_run(tmp_path, [row(index) for index in range(30)], [lesion(2)])
    with open(folder / "lesions.jsonl", "a") as file:
        file.write(json.dumps(lesion(1) | change) + "\nnot json\n[]\n")
    procedure = gather(folder)
    assert [each.id for each in procedure.shown] == [2]
    assert "3 damaged lines of the lesions were left out." in procedure.missing


def test_one_identity_twice(tmp_path: Path) -> None:
    procedure = gather(write_run(tmp_path, [row(index) for index in range(30)], [lesion(1), lesion(1)]))
    assert procedure.lesions == 2 and procedure.lanes.spans["lesion 1"] == [(1.0, 2.0)]


@pytest.mark.parametrize("input_kind", ["images", "screen", None])
def test_other_runs_are_rejected(tmp_path: Path, input_kind: str | None) -> None:
    write_run(tmp_path, [row(0)], [], {"input": {"kind": input_kind}})
    with pytest.raises(BadInputError, match="expected one over a video file"):
        gather(tmp_path)


def test_a_live_run_is_rejected(tmp_path: Path) -> None:
    write_run(tmp_path, [row(0)], [], {"ended_by": "closed"})
    with pytest.raises(BadInputError, match="a live source"):
        gather(tmp_path)


def test_folders_without_rows_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"has no frames\.jsonl"):
        gather(tmp_path)
    write_run(tmp_path, [{"index": 0, "name": "a.png"}])
    with pytest.raises(BadInputError, match="no row of a video; 1 lines"):
        gather(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(BadInputError, match=r"report\.json cannot be read"):
        gather(tmp_path)
