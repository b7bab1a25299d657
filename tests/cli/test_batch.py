"""``vmkla batch``: results equal to those of ``vmkla infer``, exit statuses, and an interrupted run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.archive.batches import contents, write_archive
from vmkla.cli.shards import parse_shard
from vmkla.errors import UsageError

VMKLA = str(Path(sys.executable).with_name("vmkla"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive", 2)


@pytest.mark.slow
def test_a_batch_and_the_same_command_again(
    vmkla: Any, tiny_onnx: Path, archive: Path, tmp_path: Path
) -> None:
    (archive / "bad.mp4").write_text("no video" * 40)
    out = tmp_path / "out"
    command = ("batch", archive, "--out", out, "--model", tiny_onnx, "--workers", 1, "--save-masks")
    planned = vmkla(*command, "--plan", "--json")
    assert planned.status == 0 and not out.exists()
    assert planned.json["to_do"] == ["bad.mp4", "clip0.mp4", "clip1.mp4"]
    assert planned.json["forecast"]["frames"] >= 8 and planned.json["forecast"]["seconds"] > 0

    done = vmkla(*command, "--json")
    assert done.status == 7 and "pieces of the batch: 1 failed" in done.stderr
    assert "random" in done.stderr  # the tiny model says that it was never trained
    assert {key: done.json["run"][key] for key in ("done", "failed", "left")} == {
        "done": 2,
        "failed": 1,
        "left": 0,
    }
    assert done.json["summary"]["pieces"] == {"done": 2, "failed": 1}
    records = [json.loads(line) for line in (out / "status.jsonl").read_text().splitlines()]
    for record in records[1:]:
        alone = tmp_path / record["piece"]
        source = archive / record["source"]
        single = vmkla("infer", "--video", source, "--model", tiny_onnx, "--save-masks", "--out", alone)
        assert single.status == 0, single.stderr
        assert contents(out / record["folder"], ignore=("piece.json",)) == contents(alone)

    before = contents(out / "results")
    again = vmkla(*command)
    assert again.status == 7 and contents(out / "results") == before
    assert again.stdout.startswith("this run:  0 done, 0 degraded, 0 failed; 2 done and 1 failed before")
    planned = vmkla(*command, "--plan")
    assert planned.stdout.splitlines()[:2] == [
        "to do:    0 sources, 0.00 GB",
        "done:     2; failed: 1; copies: 0",
    ]
    other = vmkla(*command, "--threshold", 0.25)
    assert other.status == 6 and "  threshold: 0.5 in the folder, 0.25 now" in other.stderr
    pages = list(out.rglob("procedure.html"))
    for page in pages:
        page.unlink()
    assert vmkla("report", out, "--json").json == {"pages": 2, "failed": 0}
    assert sorted(out.rglob("procedure.html")) == sorted(pages)
    (out / "summary.html").unlink()
    assert vmkla("batch", "--summary", out).status == 0 and (out / "summary.html").exists()


@pytest.mark.slow
def test_a_batch_that_is_interrupted_continues(tiny_onnx: Path, tmp_path: Path) -> None:
    archive, out = write_archive(tmp_path / "archive", 6, frames=8), tmp_path / "out"
    command = [VMKLA, "batch", archive, "--out", out, "--model", tiny_onnx, "--workers", "1"]
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until_s, before = time.monotonic() + 120, len(published(out))
        while len(published(out)) == before and time.monotonic() < until_s:
            time.sleep(0.02)
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 128 + number, messages
        assert "pieces are left, and the same command continues" in messages
        assert not list((out / ".batch" / "work").iterdir())
    assert 2 <= len(published(out)) < 6
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(published(out)) == 6 and len((out / "status.jsonl").read_text().splitlines()) == 6


def published(out: Path) -> list[Path]:
    return list((out / "results").iterdir()) if (out / "results").exists() else []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "a batch needs a folder"),
        (("--out", "OUT"), 2, "give either sources or --manifest"),
        (("ARCHIVE", "--manifest", "list.csv", "--out", "OUT"), 2, "give either sources or --manifest"),
        (("ARCHIVE", "--out", "OUT", "--shard", "4/4"), 2, "there is no shard 4 of 4"),
        (("ARCHIVE", "--out", "OUT", "--shard", "one"), 2, "--shard is 'one', expected I/N or N"),
        (("ARCHIVE", "--out", "OUT", "--lease-s", "0"), 2, "--lease-s is 0, expected at least 1"),
        (("ARCHIVE", "--out", "OUT", "--threshold", "7"), 2, "threshold is 7"),
        (("EMPTY", "--out", "OUT"), 3, "holds no video"),
        (("GONE", "--out", "OUT"), 3, "there is no file or folder"),
        (("--manifest", "GONE", "--out", "OUT"), 3, "cannot be read"),
        (("ARCHIVE", "--out", "OUT", "--model", "GONE"), 3, "GONE"),
        (("ARCHIVE", "--summary", "OUT"), 2, "takes no sources"),
        (("ARCHIVE", "--out", "OUT", "--ray-address", "HOST:6379"), 2, "Add --executor ray"),
        (("--summary", "EMPTY"), 3, "is not the folder of a batch"),
    ],
)
def test_bad_input(
    vmkla: Any, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], status: int, message: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    places = {"ARCHIVE": "archive", "OUT": "out", "EMPTY": "empty"}
    done = vmkla("batch", *(places.get(each, each) for each in arguments))
    assert done.status == status and message in done.stderr, done.stderr
    assert done.stdout == "" and not (tmp_path / "out").exists()


SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        (None, {}, None),
        ("2/5", {}, (2, 5)),
        ("2/5", SLURM, (2, 5)),
        (None, {**SLURM, "SLURM_ARRAY_TASK_STEP": "2"}, (3, 4)),
        (None, {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, (3, 4)),
        ("16", {"JOB_COMPLETION_INDEX": "9"}, (9, 16)),
        (None, {"SLURM_JOB_ID": "9"}, None),
    ],
)
def test_shards_of_schedulers(
    text: str | None, environment: dict[str, str], shard: tuple[int, int] | None
) -> None:
    assert parse_shard(text, environment) == shard


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        (None, {"JOB_COMPLETION_INDEX": "9"}, "number 9 of an array"),
        ("16", {}, "neither JOB_COMPLETION_INDEX nor"),
        ("1/0", {}, "expected I/N"),
        ("-1/4", {}, "expected I/N"),
    ],
)
def test_shards_that_are_not_known(text: str | None, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard(text, environment)


def test_the_number_of_a_shard_comes_from_the_scheduler(
    vmkla: Any, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    done = vmkla("batch", archive, "--out", tmp_path / "out")
    assert done.status == 2 and "--shard N; for all of the archive: --shard 0/1" in done.stderr
