"""vmkla.open and the segmenter: three lines of Python from a frame to its findings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vmkla
from tests.faults.commanded import CommandedRunner
from vmkla.errors import BadInputError, DegradedError, ShapeError, UsageError, VmklaError
from vmkla.segment.segmenter import Segmenter
from vmkla.segment.steps import find, infer, view
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vmkla.video.media.clip import write_clip

    path = tmp_path_factory.mktemp("segmenter") / "clip.mp4"
    write_clip(path, seed=7, frames=12, height=120, width=160)
    return path


def coloured(height: int = 60, width: int = 80, box: tuple[int, int, int, int] = (10, 20, 20, 30)) -> Any:
    """A frame of the runner whose probability is the red channel: one region, of a known box."""
    rgb = np.full((height, width, 3), 40, np.uint8)
    y, x, h, w = box
    rgb[y : y + h, x : x + w, 0] = 250
    return rgb


def test_one_frame() -> None:
    runner = CommandedRunner()
    rgb = coloured()
    with Segmenter(runner) as segmenter:
        findings = segmenter(rgb)
    seen = view(rgb, runner.spec.metadata.preprocess)
    expected = find(infer(runner, [seen.pixels_rgb])[0], seen.rect, (60, 80), segmenter.point)
    np.testing.assert_array_equal(findings.mask, expected.mask)
    assert findings.regions == expected.regions and len(findings.regions) == 1
    assert findings.probability is not None and findings.probability.shape == (1, 32, 48)
    drawn = vmkla.draw(rgb, findings)
    assert drawn.shape == rgb.shape and (drawn != rgb).any()


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("classes", [1, 3])
def test_frames_of_several_sizes_through_any_batch(batch: int | None, classes: int) -> None:
    sizes = [(60, 80), (32, 48), (100, 70), (45, 45)]
    rgbs = [coloured(height, width, (8, 9, 12, 14)) for height, width in sizes]
    segmenter = Segmenter(CommandedRunner(batch=batch, classes=classes))
    together = segmenter.batch(rgbs)
    for rgb, findings in zip(rgbs, together, strict=True):
        alone = segmenter(rgb)
        assert findings.mask.shape == rgb.shape[:2]
        np.testing.assert_array_equal(findings.mask, alone.mask)
        assert findings.regions == alone.regions
    assert segmenter.batch([]) == []


def test_the_point_and_the_field_of_view_can_be_given() -> None:
    rgb = coloured()
    assert not Segmenter(CommandedRunner(), point=vmkla.OperatingPoint(0.5, peak=0.99))(rgb).any
    inside = Segmenter(CommandedRunner(), roi=vmkla.Rect(0, 0, 80, 15))(rgb)
    assert inside.any and not inside.mask[15:].any()
    with pytest.raises(UsageError, match="field of view"):
        Segmenter(CommandedRunner(), roi="middle")
    with pytest.raises(BadInputError, match="leaves the frame"):
        Segmenter(CommandedRunner(), roi=vmkla.Rect(0, 0, 200, 200))(rgb)


@pytest.mark.parametrize(
    ("frame", "hint"),
    [
        (coloured().astype(np.float32) / 255, "astype"),
        (coloured().transpose(2, 0, 1).copy(), "transpose"),
        (coloured()[None], "batch"),
        (coloured()[..., 0], "repeat"),
        (np.dstack([coloured(), coloured()[..., :1]]), "alpha"),
        (coloured().astype(np.int16), None),
        (coloured().tolist(), "asarray"),
        (np.zeros((0, 80, 3), np.uint8), None),
    ],
)
def test_a_frame_of_another_kind_is_rejected(frame: Any, hint: str | None) -> None:
    with pytest.raises(ShapeError, match=r"expected .*\(H, W, 3\) uint8") as caught:
        Segmenter(CommandedRunner())(frame)
    assert (hint is None) == (caught.value.hint is None)
    assert hint is None or hint in str(caught.value.hint)


def test_a_closed_segmenter_says_so() -> None:
    segmenter = Segmenter(CommandedRunner())
    segmenter.close()
    segmenter.close()
    with pytest.raises(VmklaError, match="closed"):
        segmenter(coloured())


def test_open_a_shipped_model(clip: Path) -> None:
    with vmkla.open("nano", threads=1) as segmenter:
        frames = list(segmenter.video(clip))
        assert [frame.index for frame in frames] == list(range(12))
        assert all(frame.rgb.shape == (120, 160, 3) == (*frame.findings.mask.shape, 3) for frame in frames)
        assert frames[3].pts_s is not None and frames[3].pts_s > frames[2].pts_s  # type: ignore[operator]


def test_open_rejects_what_it_cannot_load(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no shipped"):
        vmkla.open("giant")
    with pytest.raises(UsageError, match="runtime"):
        vmkla.open("nano", runtime="other")
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(VmklaError):
        vmkla.open(tmp_path / "model.onnx")


def test_a_source_that_is_not_whole_raises_after_its_last_frame(clip: Path, tmp_path: Path) -> None:
    from vmkla.video.media.images import write_png

    write_png(tmp_path / "a.png", coloured())
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with vmkla.open("nano", threads=1) as segmenter:
        seen = []
        with pytest.raises(DegradedError, match="b.png"):
            for frame in segmenter.video(tmp_path):
                seen.append(frame.name)
        assert seen == ["a.png"]
        with pytest.raises(BadInputError):
            next(segmenter.video(tmp_path / "missing.mp4"))


@pytest.mark.parametrize("fault", ["cut off", "damaged"])
def test_a_video_that_is_not_complete_ends_as_infer_does(fault: str, tmp_path: Path) -> None:
    """Every frame that can be read, then the error of status 7 with the same message."""
    path = noise_video(tmp_path / ("clip.mkv" if fault == "cut off" else "clip.mp4"), frames=60)
    data = bytearray(path.read_bytes())
    if fault == "cut off":
        del data[len(data) * 6 // 10 :]
    else:
        with av.open(str(path)) as container:
            packet = [packet for packet in container.demux(video=0) if packet.size][15]
        assert packet.pos is not None
        data[packet.pos + 4 : packet.pos + packet.size] = np.random.default_rng(1).bytes(packet.size - 4)
    path.write_bytes(data)
    frames = 0
    with pytest.raises(DegradedError, match="cut off" if fault == "cut off" else "damaged|decoded") as caught:
        for _ in Segmenter(CommandedRunner()).video(path):
            frames += 1
    assert 20 < frames < 61
    with pytest.raises(DegradedError) as infer:
        segment(CommandedRunner(), path, SegmentOptions(out_dir=tmp_path / "out"))
    assert caught.value.message == f"{tmp_path}/{infer.value.message}" and caught.value.exit_status == 7


def noise_video(path: Path, frames: int) -> Path:
    """Write noise in H.264, of which every packet is large."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(frames):
            image = rng.integers(0, 256, (96, 128, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_import_is_light() -> None:
    """`import vmkla` loads nothing heavy; `vmkla.open` loads neither torch nor the video package."""
    script = (
        "import sys, vmkla\n"
        "assert not {'numpy', 'cv2', 'onnxruntime'} & set(sys.modules), 'import vmkla is not light'\n"
        "import numpy\n"
        "with vmkla.open('nano', threads=1) as segmenter:\n"
        "    frame = numpy.full((40, 50, 3), 90, numpy.uint8)\n"
        "    vmkla.draw(frame, segmenter(frame))\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules\n"
        "loaded = [name for name in sys.modules if name.startswith('vmkla.video') or name == 'av']\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-I", "-c", script], check=True)


def test_every_public_name_is_there() -> None:
    for name in vmkla.__all__:
        assert getattr(vmkla, name).__doc__, name
    assert set(vmkla.__all__) <= set(dir(vmkla))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = vmkla.nonsense
