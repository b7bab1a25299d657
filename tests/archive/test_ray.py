"""A batch on a Ray cluster of two nodes, one of which is killed, equals local and single runs."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.archive.batches import contents, write_archive
from tests.archive.ray_cluster import VMKLA, run_with_node_deaths
from vmkla.archive.ray_workers import _why


@pytest.mark.slow
def test_twelve_clips_on_local_and_on_ray_with_a_node_killed(tiny_onnx: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", 12, frames=10)
    (archive / "clip3.mp4").write_bytes((archive / "clip3.mp4").read_bytes()[:700])  # corrupted
    common = [
        "batch",
        str(archive),
        "--model",
        str(tiny_onnx),
        "--workers",
        "2",
        "--threads",
        "1",
        "--save-masks",
    ]
    local = subprocess.run(
        [VMKLA, *common, "--out", str(tmp_path / "local")], capture_output=True, text=True, timeout=600
    )
    assert local.returncode == 7 and "pieces of the batch: 1 failed" in local.stderr, local.stderr

    # Ray has workers import from the driver's working folder.
    other = tmp_path / "checkout" / "vmkla"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('not the installed package')\n")
    out = tmp_path / "ray"
    ran = run_with_node_deaths(common, out, pieces=11, deaths=1, working_folder=other.parent)
    assert ran.status == 7 and "pieces of the batch: 1 failed" in ran.messages, ran.messages
    assert ran.left > 0, "the node was killed after the work"
    records: list[Any] = ran.records
    assert contents(out / "results") == contents(tmp_path / "local" / "results")
    assert os.listdir(out / ".batch" / "work") == [] == os.listdir(out / ".batch" / "claims")
    assert [record["source"] for record in records if record["outcome"] == "failed"] == ["clip3.mp4"]
    assert len(records) == 12 and {record["worker"].rsplit("/")[-1] for record in records} == {"0", "1"}
    assert sum(record["attempts"] for record in records) <= 14

    for number in (0, 11):
        alone = tmp_path / f"alone{number}"
        subprocess.run(
            [VMKLA, "infer", "--video", str(archive / f"clip{number}.mp4"), "--model", str(tiny_onnx),
             "--save-masks", "--out", str(alone)],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        piece = next(record["piece"] for record in records if record["source"] == f"clip{number}.mp4")
        assert contents(out / "results" / piece, ignore=("piece.json",)) == contents(alone)


def test_the_cause_of_a_failed_start_is_named() -> None:
    traceback = (
        "The actor died\n  File \"a.py\", line 1\nModuleNotFoundError: No module named 'vmkla.engines'\n"
    )
    assert _why(RuntimeError(traceback)) == "ModuleNotFoundError: No module named 'vmkla.engines'"
    assert _why(RuntimeError("The node died.\n\tclass_name: Host")) == "The node died."
    assert _why(RuntimeError()) == "RuntimeError"


@pytest.mark.slow
def test_an_address_without_a_cluster_is_status_4(tiny_onnx: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done: Any = subprocess.run(
            [VMKLA, "batch", str(archive), "--out", str(tmp_path / "out"), "--model", str(tiny_onnx),
             "--executor", "ray", "--ray-address", address],
            capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip
    assert done.returncode == 4 and f"there is no Ray cluster at {address}" in done.stderr, done.stderr
