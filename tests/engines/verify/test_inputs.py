"""What is compared on, and images that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.data.labelled_folders import write_folder
from tests.video.media.small_images import stating
from tests.video.small_videos import write_tracks, write_video
from vmkla.data import DataSource, list_pairs
from vmkla.engines.verify.inputs import VerifyInputs, labelled_inputs, unlabelled_inputs
from vmkla.errors import BadInputError


def inputs_of(folder: Path, *, labelled: bool, stride: int = 1) -> VerifyInputs:
    if labelled:
        return labelled_inputs(list_pairs([DataSource(folder)]), stride=stride)
    return unlabelled_inputs(folder / "images", stride=stride)


@pytest.mark.parametrize("labelled", [True, False])
def test_images_in_order(tmp_path: Path, labelled: bool) -> None:
    inputs = inputs_of(write_folder(tmp_path / "set", 7), labelled=labelled, stride=3)
    found = list(inputs)
    assert inputs.total == 3 and inputs.problems == []
    assert [Path(frame.name).stem for frame in found] == ["case-00", "case-03", "case-06"]
    assert all((frame.mask is not None) is labelled for frame in found)
    assert all(frame.image_rgb.shape == (48, 64, 3) for frame in found)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("spoilt", [1, 2])
def test_unreadable_images_are_listed_and_too_many_are_refused(
    tmp_path: Path, labelled: bool, spoilt: int
) -> None:
    """One of twenty is 5 %, two are more."""
    folder = write_folder(tmp_path / "set", 20)
    for number in (4, 11)[:spoilt]:
        (folder / "images" / f"case-{number:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    inputs = inputs_of(folder, labelled=labelled)
    if spoilt == 1:
        assert len(list(inputs)) == 19
        assert len(inputs.problems) == 1 and "case-04.png" in inputs.problems[0]
        assert len(list(inputs)) == 19 and len(inputs.problems) == 1, "counted once, however often it is read"
    else:
        with pytest.raises(BadInputError, match=r"2 of 20 images cannot be read(.|\n)*case-04(.|\n)*case-11"):
            list(inputs)


def test_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    every = list(unlabelled_inputs(path))
    second = list(unlabelled_inputs(path, stride=2))
    assert len(every) == 6 and [frame.name for frame in second] == [f"clip.mp4 frame {n}" for n in (0, 2, 4)]
    assert all(np.array_equal(a.image_rgb, b.image_rgb) for a, b in zip(every[::2], second, strict=True))


def test_what_is_not_a_file_is_counted_for_itself(tmp_path: Path) -> None:
    """One of 21 names is 5 % nearly; with an image that cannot be read it was taken for two of twenty."""
    folder = write_folder(tmp_path / "set", 40) / "images"
    os.mkfifo(folder / "pipe.png")
    for number in (4, 11):
        (folder / f"case-{number:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    inputs = unlabelled_inputs(folder)
    assert len(list(inputs)) == 38 and len(inputs.problems) == 3 and "pipe.png" in inputs.problems[0]
    for number in range(2):
        os.mkfifo(folder / f"other-{number}.png")
    with pytest.raises(BadInputError, match=r"3 of 43 images cannot be read(.|\n)*pipe.png"):
        unlabelled_inputs(folder)


def test_notes_of_a_video(tmp_path: Path) -> None:
    """That another track was left out, and nothing about a copy, which is not made here."""
    inputs = unlabelled_inputs(write_tracks(tmp_path / "two.mkv", [(64, 48), (192, 144)]))
    assert inputs.warnings == []
    assert {frame.image_rgb.shape for frame in inputs} == {(144, 192, 3)}
    (note,) = inputs.warnings
    assert "track 1 (64x48, h264)" in note and "vmkla infer --track N" in note
    list(inputs)
    assert inputs.warnings == [note], "once, however often it is read"


def test_an_image_that_is_too_large_names_the_flag(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", 20) / "images"
    (folder / "case-04.png").write_bytes(stating(2500, 2500, "png"))
    inputs = unlabelled_inputs(folder, max_megapixels=1.0)
    assert len(list(inputs)) == 19
    (problem,) = inputs.problems
    assert "2500x2500" in problem and "--max-megapixels" in problem
