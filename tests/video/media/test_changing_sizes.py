"""A frame size that changes within a video: the run goes on, and every frame keeps its own pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vmkla.errors import DegradedError
from vmkla.segment.preprocess import Rect
from vmkla.video.file.letterbox import letterbox
from vmkla.video.file.pipeline import SegmentOptions, segment
from vmkla.video.file.view import Views
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.frames import Frame, VideoTraits

Image = npt.NDArray[np.uint8]
WriteClip = Callable[..., Path]
ReadBack = Callable[[Path], tuple[list[Image], list[Fraction], Any]]


def bordered(height: int, width: int, field: Rect, box: Rect) -> Image:
    """A grey field in a black border, with a red box that RedRunner finds."""
    image = np.zeros((height, width, 3), np.uint8)
    image[field.y : field.y + field.h, field.x : field.x + field.w] = 90
    image[box.y : box.y + box.h, box.x : box.x + box.w] = (230, 20, 20)
    return image


SMALL = (96, 128, Rect(16, 8, 96, 80), Rect(48, 32, 32, 24))
LARGE = (192, 320, Rect(64, 16, 192, 160), Rect(96, 64, 64, 48))


@pytest.fixture
def changing(write_clip: WriteClip, tmp_path: Path) -> Path:
    """Six frames of 128x96, six of 320x192, six of 128x96 again."""
    options = {"tune": "zerolatency", "crf": "4"}
    parts = [
        write_clip(f"{name}.h264", [bordered(*what)] * 6, options=options)
        for name, what in (("a", SMALL), ("b", LARGE))
    ]
    small, large = (part.read_bytes() for part in parts)
    path = tmp_path / "both.h264"
    path.write_bytes(small + large + small)
    return path


def run(path: Path, out: Path, runner: Any, **options: Any) -> tuple[DegradedError, list[Any], Any]:
    with pytest.raises(DegradedError) as caught:
        segment(runner, str(path), SegmentOptions(out, **options))
    lines = (out / "frames.jsonl").read_text("utf-8").splitlines()
    return caught.value, [json.loads(line) for line in lines], json.loads((out / "report.json").read_text())


def test_the_run_goes_on_in_each_frames_own_pixels(
    changing: Path, make_runner: Any, read_back: ReadBack, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    error, rows, report = run(changing, out, make_runner(roi="auto"), save_masks=True)
    assert error.exit_status == 7 and "frame size changes 2 times" in error.message
    assert (report["outcome"], report["exit_status"], report["counts"]["size_changes"]) == ("degraded", 7, 2)
    assert [row["frame_hw"] for row in rows] == [[96, 128]] * 6 + [[192, 320]] * 6 + [[96, 128]] * 6
    for row, (height, width, _, box) in zip(rows, [SMALL] * 6 + [LARGE] * 6 + [SMALL] * 6, strict=True):
        (found,) = row["boxes"]
        assert np.abs(np.subtract(found, box)).max() <= 4, f"{found} for {box}"
        mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask is not None and mask.shape == (height, width)
        assert cv2.boundingRect(mask) == tuple(found)
    # The field of view is found for each size, and the rows of the report say where.
    sizes = {tuple(size["frame_hw"]): size for size in report["input"]["sizes"]}
    assert sizes[(96, 128)]["segmented"] == 12 and sizes[(192, 320)]["segmented"] == 6
    for height, width, field, _ in (SMALL, LARGE):
        assert np.abs(np.subtract(sizes[(height, width)]["field_of_view"], field)).max() <= 2
    images, times, traits = read_back(out / "overlay.mp4")
    assert traits["size_wh"] == (128, 96) and len(images) == 18
    source = [frame.pts_s for frame in VideoSource(changing).frames()]
    assert [float(time) for time in times] == pytest.approx(source)
    # 320x192 fits 128 wide: 128x77 with black above and below.
    assert images[8][:8].mean() < 3 and images[8][-8:].mean() < 3
    assert images[8][48, 64, 0] > 80 and images[2][48, 64, 0] > 80


def test_a_given_rectangle_holds_for_the_first_size_only(
    changing: Path, make_runner: Any, tmp_path: Path
) -> None:
    _, _, report = run(changing, tmp_path / "out", make_runner(), roi=Rect(20, 10, 80, 70))
    first, second = report["input"]["sizes"]
    assert first["field_of_view"] == [20, 10, 80, 70]
    assert np.abs(np.subtract(second["field_of_view"], LARGE[2])).max() <= 2


def test_whole_frames_stay_whole(changing: Path, make_runner: Any, tmp_path: Path) -> None:
    _, _, report = run(changing, tmp_path / "out", make_runner(), roi="none")
    assert [size["field_of_view"] for size in report["input"]["sizes"]] == [[0, 0, 128, 96], [0, 0, 320, 192]]


def joined(write_clip: WriteClip, tmp_path: Path, images: list[Image], bframes: str) -> Path:
    """Square pixels, then such that are 4/3 as wide as high, in one transport stream of one frame size."""
    data = b""
    for name, ratio in (("square.ts", Fraction(1)), ("wide.ts", Fraction(4, 3))):

        def colours(context: Any, ratio: Fraction = ratio) -> None:
            context.sample_aspect_ratio = ratio

        data += write_clip(name, images, colours=colours, options={"bf": bframes, "crf": "4"}).read_bytes()
    path = tmp_path / "both.ts"
    path.write_bytes(data)
    return path


class TestPixelShape:
    @pytest.mark.parametrize("deinterlace", ["auto", "no", "yes"])
    @pytest.mark.parametrize("bframes", ["0", "3"])
    def test_each_frame_has_its_own(
        self, write_clip: WriteClip, make_frames: Any, tmp_path: Path, bframes: str, deinterlace: Any
    ) -> None:
        """It was the decoder's, which is some frames ahead, and looked at only where the size changes."""
        path = joined(write_clip, tmp_path, make_frames(12, 48, 64), bframes)
        source = VideoSource(path, deinterlace=deinterlace)
        found = [frame.traits.sample_aspect_ratio for frame in source.frames() if frame.traits]
        assert found == [Fraction(1)] * 12 + [Fraction(4, 3)] * 12
        assert source.ratio_changes == 1 and source.size_changes == 0 and source.problems == ()
        assert any("shape of the pixels changes once" in note for note in source.copy_notes())

    def test_a_short_first_part(self, write_clip: WriteClip, make_frames: Any, tmp_path: Path) -> None:
        path = joined(write_clip, tmp_path, make_frames(2, 48, 64), "0")
        for deinterlace in ("auto", "yes"):
            frames = list(VideoSource(path, deinterlace=deinterlace).frames())  # type: ignore[arg-type]
            found = [frame.traits.sample_aspect_ratio for frame in frames if frame.traits]
            assert found == [Fraction(1)] * 2 + [Fraction(4, 3)] * 2

    def test_the_copy_keeps_the_shape_of_what_is_seen(
        self, write_clip: WriteClip, make_runner: Any, tmp_path: Path, read_back: ReadBack
    ) -> None:
        """The copy has one shape of pixels; frames of another are fitted into it, as are other sizes."""
        path = joined(write_clip, tmp_path, [np.full((48, 64, 3), 200, np.uint8)] * 4, "0")
        report = segment(make_runner(roi="none"), str(path), SegmentOptions(tmp_path / "out", overlay="none"))
        assert report.exit_status == 0 and any("shape of the pixels" in text for text in report.warnings)
        images, _, traits = read_back(tmp_path / "out" / "overlay.mp4")
        assert traits["size_wh"] == (64, 48) and traits["sample_aspect_ratio"] in (None, 1)
        assert len(images) == 8 and images[1][:4].mean() > 150
        # 64 pixels of 4/3 are 85.3 square ones: fitted into 64 they are 36 lines high.
        assert images[6][:4].mean() < 40 and images[6][-4:].mean() < 40 and images[6][8:40].mean() > 150


class TestLetterbox:
    @pytest.mark.parametrize(
        ("from_hw", "into_hw", "ratio", "place"),
        [
            ((50, 100), (100, 100), None, Rect(0, 25, 100, 50)),
            ((100, 50), (100, 100), None, Rect(25, 0, 50, 100)),
            ((200, 400), (100, 100), None, Rect(0, 25, 100, 50)),
            ((100, 100), (100, 100), Fraction(2), Rect(0, 25, 100, 50)),  # pixels twice as wide as high
            ((30, 40), (60, 80), None, Rect(0, 0, 80, 60)),
        ],
    )
    def test_it_fits_in_the_middle_in_its_own_shape(
        self, from_hw: tuple[int, int], into_hw: tuple[int, int], ratio: Fraction | None, place: Rect
    ) -> None:
        boxed = letterbox(np.full((*from_hw, 3), 200, np.uint8), into_hw, ratio)
        assert boxed.shape == (*into_hw, 3)
        wanted = np.zeros(into_hw, np.uint8)
        wanted[place.y : place.y + place.h, place.x : place.x + place.w] = 200
        np.testing.assert_array_equal(boxed[..., 0], wanted)

    def test_nothing_vanishes(self) -> None:
        assert letterbox(np.full((1, 5000, 3), 200, np.uint8), (10, 10)).max() == 200


class TestViews:
    def test_another_size_is_looked_for_until_it_is_seen(self) -> None:
        """The first frames of the new size are dark."""
        traits = VideoTraits(Fraction(1, 25), Fraction(25))

        def frame(image: Image) -> Frame:
            return Frame(0, image, "0", pts=0, pts_s=0.0, traits=traits)

        views = Views("auto", Rect(16, 8, 96, 80))
        assert views.of(frame(bordered(*SMALL))) == Rect(16, 8, 96, 80)
        assert views.of(frame(np.zeros((192, 320, 3), np.uint8))) == Rect(0, 0, 320, 192)
        assert views.of(frame(bordered(*LARGE))) == LARGE[2]
        assert views.of(frame(np.zeros((192, 320, 3), np.uint8))) == LARGE[2]

    def test_an_image_has_its_own(self) -> None:
        views = Views("auto")
        for height, width, field, box in (SMALL, LARGE):
            assert views.of(Frame(0, bordered(height, width, field, box), "0")) == field
