"""The folder of a batch: made in one step, true to its settings, on a file system that can be trusted."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.archive.batches import driver_options
from vmkla.archive.layout import find_batch, is_batch, open_batch
from vmkla.errors import ArtefactMismatchError, BadInputError

SETTINGS = {"model_sha256": "a" * 64, "threshold": 0.5, "roi": [1, 2, 3, 4], "alpha": None}


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    open_batch(tmp_path / "out", SETTINGS)
    open_batch(tmp_path / "out", dict(SETTINGS))
    with pytest.raises(ArtefactMismatchError) as caught:
        open_batch(tmp_path / "out", {**SETTINGS, "threshold": 0.25, "roi": "auto"})
    assert caught.value.message.splitlines()[1:] == [
        "  roi: [1, 2, 3, 4] in the folder, 'auto' now",
        "  threshold: 0.5 in the folder, 0.25 now",
    ]
    assert caught.value.exit_status == 6


def test_of_many_that_make_the_folder_one_decides_its_settings(tmp_path: Path) -> None:
    ended: list[str] = []
    ready = threading.Barrier(8)

    def make(number: int) -> None:
        ready.wait()
        try:
            open_batch(tmp_path / "out", {**SETTINGS, "threshold": number % 2})
            ended.append("made")
        except ArtefactMismatchError:
            ended.append("refused")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["made"] * 4 + ["refused"] * 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".batch", "results"]


def test_everything_is_private(tmp_path: Path) -> None:
    folder = open_batch(tmp_path / "out", driver_options(tmp_path).settings)
    for path in [folder.path, *folder.path.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert is_batch(folder.path) and not is_batch(tmp_path)
    with pytest.raises(BadInputError, match="is not the folder of a batch"):
        find_batch(tmp_path)


def untouched(path: Path, times: Any = None, *, ns: Any = None) -> None:
    """A file system that ignores a touch."""
    if times is not None or ns is not None:
        _UTIME(path, times) if times is not None else _UTIME(path, ns=ns)


def replacing(source: Path, target: Path) -> None:
    """A file system that renames a folder onto one with files."""
    import shutil

    shutil.rmtree(target, ignore_errors=True)
    _RENAME(source, target)


_UTIME, _RENAME = os.utime, os.rename


def test_a_file_system_whose_times_do_not_follow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "utime", untouched)
    with pytest.raises(BadInputError, match="its times cannot be trusted"):
        open_batch(tmp_path / "out", SETTINGS)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_system_that_replaces_folders_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "rename", replacing)
    with pytest.raises(BadInputError, match="onto one that holds files"):
        open_batch(tmp_path / "out", SETTINGS)
    assert list((tmp_path / "out").iterdir()) == []
