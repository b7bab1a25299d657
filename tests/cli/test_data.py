"""``vmkla data``: the table and the JSON of the check, and a packed file that trains."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.labelled_folders import write_folder, write_pranet
from vmkla.cli.data import pack as pack_command
from vmkla.data.arrays import CROP_MARGIN
from vmkla.data.packing import PackOptions


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Twelve images; three are wrong, each in its own way."""
    folder = write_folder(tmp_path / "set", 12)
    (folder / "masks" / "case-01.png").unlink()
    (folder / "images" / "case-02.png").write_text("no picture", encoding="utf-8")
    cv2.imwrite(str(folder / "masks" / "case-03.png"), np.full((48, 64), 77, np.uint8))
    return folder


def test_check_lists_all_and_ends_with_status_3(vmkla: Any, faulty: Path) -> None:
    done = vmkla("data", "check", "--data", faulty)
    assert done.status == 3 and "Traceback" not in done.stderr
    assert "3 problems in 11 images" in done.stderr
    for part in ("case-01.png has no mask", "case-02.png cannot be decoded", "the largest value is 77"):
        assert part in done.stdout, done.stdout
    rows = dict(line.rsplit(None, 1) for line in done.stdout.splitlines() if line.endswith(("none", "1")))
    assert rows["folders, lists and partners"] == rows["files that cannot be read"] == "1"
    assert rows["masks that are not binary"] == "1" and rows["image and mask of different size"] == "none"


def test_check_as_json(vmkla: Any, faulty: Path, tmp_path: Path) -> None:
    done = vmkla("data", "check", "--data", faulty, "--json", "--quiet")
    assert done.status == 3
    assert done.json["ok"] is False and done.json["data"] == str(faulty)
    assert sum(done.json["images"].values()) == 11
    assert [problem["kind"] for problem in done.json["problems"]] == ["layout", "unreadable", "mask"]
    clean = vmkla("data", "check", "--data", write_folder(tmp_path / "clean", 12), "--json")
    assert clean.status == 0 and clean.json["ok"] is True and clean.json["problems"] == []
    assert clean.json["images"] == {"train": 12}
    assert clean.json["without_foreground"] == {"train": 2}


def test_a_long_list_is_cut_in_the_table_and_whole_in_json(vmkla: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 30)
    for path in (folder / "masks").iterdir():
        path.write_text("no picture", encoding="utf-8")
    done = vmkla("data", "check", "--data", folder)
    assert done.status == 3 and "and 10 more; --json lists all" in done.stdout
    assert done.stdout.count("cannot be decoded") == 20
    assert len(vmkla("data", "check", "--data", folder, "--json").json["problems"]) == 30


def test_recipes_by_name_and_by_root(vmkla: Any, tmp_path: Path) -> None:
    root = write_pranet(tmp_path / "set")
    first = vmkla("data", "check", "--data", f"polyp={root}", "--json").json["images"]
    second = vmkla("data", "check", "--data", "polyp", "--root", root, "--json").json["images"]
    assert first == second == {"train": 12, "test/CVC-300": 2, "test/Kvasir": 2}
    assert vmkla("data", "check", "--data", f"polyps={root}").status == 2
    assert vmkla("data", "check", "--data", "polyp").status == 2
    assert vmkla("data", "check", "--data", tmp_path / "absent").status == 3


def test_pack_then_train_on_the_one_file(vmkla: Any, tmp_path: Path) -> None:
    root, out = write_pranet(tmp_path / "set"), tmp_path / "out" / "polyps.vmkpack"
    packed = vmkla("data", "pack", "--data", f"polyp={root}", "--out", out, "--imgsz", "32", "--json")
    assert packed.status == 0, packed.stderr
    assert packed.json["path"] == str(out) and packed.json["size_bytes"] == out.stat().st_size
    assert packed.json["images"] == {"train": 11, "val": 1, "test/CVC-300": 2, "test/Kvasir": 2}
    again = vmkla("data", "pack", "--data", f"polyp={root}", "--out", out, "--imgsz", "32")
    assert again.status == 2 and "--exist-ok" in again.stderr
    over = vmkla("data", "pack", "--data", f"polyp={root}", "--out", out, "--imgsz", "32", "--exist-ok")
    assert over.status == 0 and packed.json["sha256"] in over.stdout
    assert f"vmkla train --data {out} --imgsz 32x32" in over.stderr
    run = tmp_path / "run"
    size = ("--imgsz", 32, "--batch", 4, "--epochs", 1, "--no-curves", "--threads", 1)
    trained = vmkla("train", "--data", out, *size, "--out", run, "--json")
    assert trained.status == 0, trained.stderr
    said = json.loads((run / "config.json").read_text())
    assert said["data"] == [f"{out} train"] and said["val"] == [f"{out} val"]
    wrong = vmkla("train", "--data", out, *size, "--imgsz", 64, "--out", tmp_path / "other")
    assert wrong.status == 3 and "vmkla data pack" in wrong.stderr


def test_wrong_values_and_damage(vmkla: Any, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 12)
    out = tmp_path / "set.vmkpack"
    for flags, status in (
        (("--out", tmp_path / "set.zip"), 2),
        (("--out", out, "--quality", 0), 2),
        (("--out", out, "--imgsz", "big"), 2),
        (("--out", out, "--roi", "left"), 2),
        (("--out", folder / "images" / "case-00.png" / "x.vmkpack"), 3),
    ):
        done = vmkla("data", "pack", "--data", folder, *flags)
        assert done.status == status and "Traceback" not in done.stderr, (flags, done.stderr)
    assert vmkla("data", "pack", "--data", folder, "--out", out, "--imgsz", 32).status == 0
    out.write_bytes(out.read_bytes()[:-200])
    damaged = vmkla("data", "check", "--data", out)
    assert damaged.status == 3 and "damaged or cut off" in damaged.stderr


def test_defaults_are_those_of_the_options() -> None:
    defaults = {name: p.default for name, p in inspect.signature(pack_command).parameters.items()}
    assert defaults["margin"] == PackOptions().margin == CROP_MARGIN
    assert defaults["quality"] == PackOptions().quality and defaults["roi"] == PackOptions().roi
    assert tuple(map(int, [defaults["imgsz"]] * 2)) == PackOptions().size_hw
