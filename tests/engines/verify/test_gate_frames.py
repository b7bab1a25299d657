"""Frames that a new file is checked on: spread over their source, and what was left out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.labelled_folders import write_folder
from tests.video.media.small_images import stating
from tests.video.small_videos import write_tracks
from vmkla.engines.verify.gate_frames import SOURCE_FRAMES, load_gate_frames
from vmkla.errors import BadInputError
from vmkla.segment.preprocess import PreprocessSpec

SPEC = PreprocessSpec(32, 32)


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    path = write_tracks(tmp_path / "two.mkv", [(64, 48), (192, 144)])
    assert load_gate_frames(str(path), SPEC, say=said.append).shape == (5, 32, 32, 3)
    (note,) = said
    assert note.startswith("note: video track 2 (192x144, h264) was read")
    folder = write_folder(tmp_path / "set", 40) / "images"
    (folder / "case-00.png").write_bytes(stating(2500, 2500, "png"))
    said.clear()
    assert len(load_gate_frames(str(folder), SPEC, max_megapixels=1.0, say=said.append)) <= SOURCE_FRAMES
    (note,) = said
    assert "case-00.png" in note and "--max-megapixels" in note


def test_the_limit_can_be_raised(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set", 1) / "images" / "case-00.png"
    assert len(load_gate_frames(str(path), SPEC)) == 1
    with pytest.raises(BadInputError, match="--max-megapixels"):
        load_gate_frames(str(path), SPEC, max_megapixels=0.001)
