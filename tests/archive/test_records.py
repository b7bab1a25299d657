"""Records: published once, listed completely."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.archive.batches import open_red
from vmkla.archive.layout import BatchFolder
from vmkla.archive.records import PieceRecord, Records
from vmkla.archive.summary import summarise, write_summary

DONE = PieceRecord(
    "k1", "case 1/clip.mp4", "done", "", None, 1, "host/0", 20.0, "a" * 64, "results/k1",
    {"kind": "video", "frames": 100, "regions": 7, "lesions": 2, "alarms": 3, "recorded_s": 90.0},
)  # fmt: skip
FAILED = PieceRecord(
    "k2", "case 2/bad.mp4", "failed", "bad.mp4 is not a video", "Give one.", 2, "host/1", 0.1, None, None, {}
)


def private(folder: BatchFolder, name: str) -> Path:
    made = folder.work / name
    made.mkdir()
    (made / "overlay.mp4").write_text(name)
    return made


def status(folder: BatchFolder) -> list[tuple[str, str]]:
    lines = (folder.path / "status.jsonl").read_text().splitlines()
    return [(values["piece"], values["outcome"]) for values in map(json.loads, lines)]


def test_a_piece_is_published_once(tmp_path: Path) -> None:
    folder = open_red(tmp_path)
    records, others = Records(folder), Records(folder)
    assert records.publish(private(folder, "first"), DONE)
    assert others.is_done("k1") and not others.is_done("k2")
    assert not others.publish(private(folder, "second"), replace(DONE, worker="other"))
    assert (folder.results / "k1" / "overlay.mp4").read_text() == "first"
    assert list(folder.work.iterdir()) == []
    assert others.all() == [DONE]


def test_a_server_that_lost_its_answer_is_believed(tmp_path: Path) -> None:
    """NFS repeats a rename whose answer was lost, and then reports that the old name is missing."""
    folder = open_red(tmp_path)
    records, made = Records(folder), private(folder, "first")
    assert records.publish(made, DONE)
    made.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        import os

        def renamed_before(source: Path, target: Path) -> None:
            import shutil

            shutil.rmtree(source)
            raise FileNotFoundError(2, "No such file or directory")

        patch.setattr(os, "rename", renamed_before)
        assert records.publish(made, DONE)


def test_a_result_is_worth_more_than_a_failure(tmp_path: Path) -> None:
    folder = open_red(tmp_path)
    records = Records(folder)
    records.fail(replace(DONE, outcome="failed", folder=None))
    assert records.publish(private(folder, "later"), DONE)
    assert records.failure("k1") is None
    records.fail(replace(DONE, outcome="failed", folder=None))  # by an owner that had lost its claim
    assert records.all() == [DONE]


def test_the_last_writer_of_the_status_has_every_record(tmp_path: Path) -> None:
    folder = open_red(tmp_path)
    first, second = Records(folder), Records(folder)
    first.publish(private(folder, "first"), DONE)
    reading, passes = first.all, []

    def all_records() -> list[PieceRecord]:
        found = reading()
        passes.append(len(found))
        if len(passes) == 1:  # between the reading of one and its writing, another publishes and fails
            second.publish(private(folder, "third"), replace(DONE, piece="k3", folder="results/k3"))
            second.fail(FAILED)
            second.write_status()
        return found

    first.all = all_records  # type: ignore[method-assign]
    first.write_status()
    assert passes == [1, 3, 3]
    assert status(folder) == [("k1", "done"), ("k3", "done"), ("k2", "failed")]


def test_damaged_records_are_left_out(tmp_path: Path) -> None:
    folder = open_red(tmp_path)
    records = Records(folder)
    records.publish(private(folder, "first"), DONE)
    (folder.results / "k1" / "piece.json").write_text('{"piece": "k1"')
    (folder.failed / "k2.json").write_text("[]")
    assert Records(folder).all() == [] and Records(folder).is_done("k1")


def test_the_summary_adds_up_and_links(tmp_path: Path) -> None:
    facts = {"kind": "images", "frames": 50, "regions": 1}
    images = replace(DONE, piece="k4", source="=cmd()", folder="results/k4", facts=facts)
    records = [DONE, FAILED, images, replace(FAILED, piece="k5", source="other/bad.mp4")]
    summary = write_summary(tmp_path, records)
    assert summary.to_dict() == {
        "pieces": {"done": 2, "failed": 2},
        "frames": 150,
        "hours": 0.025,
        "regions": 8,
        "lesions": 2,
        "alarms_per_minute": 2.0,
    }
    assert summary.messages == {"... is not a video": 2}
    assert summary.workers["host/0"].frames == 150 and summary.workers["host/0"].seconds == 40.0
    page = (tmp_path / "summary.html").read_text()
    assert '<a href="results/k1/procedure.html">case 1/clip.mp4</a>' in page
    assert '<a href="results/k4/">=cmd()</a>' in page
    assert "3.75</td>" in page  # frames a second of the worker
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [
        "case 1/clip.mp4",
        "case 2/bad.mp4",
        "'=cmd()",
        "other/bad.mp4",
    ]
    assert rows[0]["alarms"] == "3" and rows[1]["message"] == "bad.mp4 is not a video"


def test_names_in_the_summary_are_escaped(tmp_path: Path) -> None:
    write_summary(tmp_path, [replace(DONE, source="<script>&\x1b[31m", message="<b>")])
    page = (tmp_path / "summary.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;&amp;\\x1b[31m" in page and "&lt;b&gt;" in page
    assert summarise([]).alarms_per_minute is None
