"""``vmkla infer``: results, exit statuses, messages, and nothing half-written under a final name."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.video.media.small_images import black_png, write_irregular
from tests.video.media.woven_clips import woven_frames, write_flagged
from tests.video.small_videos import count_frames, write_tracks, write_video

VMKLA = str(Path(sys.executable).with_name("vmkla"))


def finals(folder: Path) -> list[str]:
    """Files under a folder that carry a final name."""
    if not folder.exists():
        return []
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def infer(vmkla: Any, tiny_onnx: Path, tmp_path: Path) -> Callable[..., Any]:
    """``vmkla infer`` with the tiny model, into ``tmp_path / "out"``."""

    def run(*arguments: object) -> Any:
        return vmkla("infer", "--model", tiny_onnx, "--out", tmp_path / "out", *arguments)

    return run


def test_a_video(infer: Any, clip: Path, tmp_path: Path) -> None:
    done = infer("--video", clip, "--save-masks")
    assert done.status == 0, done.stderr
    out = tmp_path / "out"
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines()[1:])
    assert done.stdout.startswith("6 of 6 frames segmented, ")
    assert lines["overlay"].strip() == str(out / "overlay.mp4")
    found = json.loads((out / "report.json").read_text())["findings"]
    assert found["regions"] > 0 and found["first_s"] <= found["largest"]["pts_s"] <= found["last_s"]
    assert f" {found['regions']} regions in {found['frames']} frames, first at " in lines["findings"]
    assert lines["largest"].endswith(f"at {found['largest']['pts_s']:.2f} s, {found['largest']['place']}")
    assert lines["contact_sheet"].strip() == str(out / "contact_sheet.jpg")
    assert count_frames(out / "overlay.mp4") == 6
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(6))
    assert len(finals(out / "masks")) == 6
    assert "random" in done.stderr  # the tiny model says that it was never trained


def test_json_is_one_document_and_the_report(infer: Any, clip: Path, tmp_path: Path) -> None:
    done = infer("--video", clip, "--json", "--quiet")
    assert (done.status, done.stderr) == (0, "")
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert done.json == {"out_dir": str(tmp_path / "out"), **written}
    assert written["exit_status"] == 0 and written["counts"]["frames"] == 6


def test_a_folder_a_pattern_and_one_image(vmkla: Any, tiny_onnx: Path, images: Path, tmp_path: Path) -> None:
    expected = {"": 3, "/*.png": 1, "/**/*.png": 2, "/b c é.jpg": 1}
    for number, (suffix, count) in enumerate(expected.items()):
        out = tmp_path / f"out{number}"
        done = vmkla("infer", "--source", f"{images}{suffix}", "--model", tiny_onnx, "--out", out, "--json")
        assert done.status == 0, done.stderr
        assert done.json["counts"]["frames"] == count
        assert len(finals(out / "overlay")) == count
    assert finals(tmp_path / "out0" / "overlay") == ["a.png", "b c é.png", "deeper/a.png"]


def test_the_default_folder_is_named_and_numbered(
    vmkla: Any, tiny_onnx: Path, clip: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def folder(*arguments: object) -> str:
        done = vmkla("infer", "--model", tiny_onnx, "--json", *arguments)
        assert done.status == 0, done.stderr
        return str(done.json["out_dir"])

    assert folder("--video", clip) == "runs/infer/clip"
    assert folder("--video", clip) == "runs/infer/clip-2"
    assert folder("--video", clip, "--exist-ok") == "runs/infer/clip-2"
    assert folder("--source", images) == "runs/infer/images"
    assert folder("--source", f"{images}/*.png") == "runs/infer/images-2"
    assert folder("--source", images / "b c é.jpg") == "runs/infer/b c é"
    assert folder("--source", images, "--continue") == "runs/infer/images-2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threshold", "7"), "threshold is 7"),
        (("--threshold", "nan"), "threshold is nan"),
        (("--threshold", "-0.5"), "threshold is -0.5"),
        (("--alpha", "1.5"), "alpha is 1.5"),
        (("--overlay", "sparkle"), "--overlay"),
        (("--stride", "0"), "stride is 0"),
        (("--roi", "1,2,3"), "1,2,3"),
        (("--runtime", "magic"), "--runtime"),
        (("--threads", "0"), "--threads"),
        (("--source", "also.mp4"), "either --video or --source"),
    ],
)
def test_wrong_values_are_status_2(
    infer: Any, clip: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = infer("--video", clip, *arguments)
    assert done.status == 2 and message in done.stderr
    assert done.stdout == "" and finals(tmp_path / "out") == []


def test_a_source_is_needed(vmkla: Any) -> None:
    done = vmkla("infer")
    assert done.status == 2 and "--video or --source" in done.stderr


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    (folder / "empty" / "readme.txt").write_text("no image here")
    return folder / "empty"


def text_as_video(folder: Path) -> Path:
    (folder / "text.mp4").write_text("this is not a video\n" * 100)
    return folder / "text.mp4"


def empty_file(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def no_frames(folder: Path) -> Path:
    """A well-formed container with a video stream and no frame."""
    path = folder / "noframes.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
    return path


def only_sound(folder: Path) -> Path:
    path = folder / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = np.random.default_rng(0).integers(-9000, 9000, (1, 800), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def damaged_image(folder: Path) -> Path:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = folder / "damaged.png"
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes()[:200])
    return path


def colliding_names(folder: Path) -> Path:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (folder / "twins").mkdir()
    for name in ("same.png", "same.jpg"):
        cv2.imwrite(str(folder / "twins" / name), picture)
    return folder / "twins"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing.mp4", "missing.mp4"),
        (lambda folder: folder / "none*.png", r"none\*.png matches nothing"),
        (empty_folder, "holds no image"),
        (text_as_video, "text.mp4"),
        (empty_file, "empty.mp4"),
        (no_frames, "noframes.avi"),
        (only_sound, "sound.wav"),
        (damaged_image, "damaged.png"),
        (colliding_names, r"same\.(png|jpg) and same\.(png|jpg)"),
    ],
)
def test_bad_input_is_status_3_and_leaves_nothing(
    infer: Any, tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    source = make(tmp_path)
    done = infer("--source", source)
    assert done.status == 3, (done.stdout, done.stderr)
    assert re.search(message, done.stderr) and "Traceback" not in done.stderr
    assert done.stdout == "" and finals(tmp_path / "out") == []


def test_a_video_that_was_cut_off_is_status_7_and_keeps_its_frames(infer: Any, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=40).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    done = infer("--video", cut, "--json")
    assert done.status == 7 and "cut.mkv" in done.stderr
    assert done.json["outcome"] == "degraded" and 0 < done.json["counts"]["frames"] < 40
    assert count_frames(tmp_path / "out" / "overlay.mp4") == done.json["counts"]["frames"]


def test_one_bad_image_among_good_ones_is_status_7(infer: Any, images: Path, tmp_path: Path) -> None:
    shutil.copy(damaged_image(tmp_path), images / "damaged.png")
    done = infer("--source", images)
    assert done.status == 7 and "damaged.png" in done.stderr
    assert finals(tmp_path / "out" / "overlay") == ["a.png", "b c é.png", "deeper/a.png"]
    assert str(tmp_path / "out") in done.stdout


def encode(name: str, picture: np.ndarray[Any, Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())
        return path

    return make


RNG = np.random.default_rng(11)


@pytest.mark.parametrize(
    "make",
    [
        encode("deep.png", RNG.integers(0, 65536, (41, 57, 3), dtype=np.uint16)),
        encode("deep gray.tif", RNG.integers(0, 65536, (41, 57), dtype=np.uint16)),
        encode("gray.png", RNG.integers(0, 256, (41, 57), dtype=np.uint8)),
        encode("rgba é.png", RNG.integers(0, 256, (41, 57, 4), dtype=np.uint8)),
        lambda folder: write_video(folder / "with space é.mp4", size_wh=(98, 66)),
    ],
)
def test_unusual_but_good_input_is_status_0(infer: Any, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    done = infer("--source", make(tmp_path), "--save-masks")
    assert done.status == 0, done.stderr
    mask = next((tmp_path / "out" / "masks").rglob("*.png"))
    assert set(np.unique(cv2.imdecode(np.frombuffer(mask.read_bytes(), np.uint8), -1))) <= {0, 255}


@pytest.mark.parametrize("blocked", ["file", "below a file", "proc"])
def test_an_output_that_cannot_be_written_is_status_3(
    vmkla: Any, tiny_onnx: Path, clip: Path, tmp_path: Path, blocked: str
) -> None:
    (tmp_path / "taken").write_text("mine")
    out = {"file": tmp_path / "taken", "below a file": tmp_path / "taken" / "out", "proc": Path("/proc/out")}
    done = vmkla("infer", "--video", clip, "--model", tiny_onnx, "--out", out[blocked])
    assert done.status == 3 and str(out[blocked]) in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "taken").read_text() == "mine"


def test_earlier_outputs_are_replaced_only_when_told(infer: Any, clip: Path, tmp_path: Path) -> None:
    assert infer("--video", clip).status == 0
    before = (tmp_path / "out" / "report.json").read_bytes()
    again = infer("--video", clip, "--stride", "2")
    assert again.status == 2 and "--exist-ok" in again.stderr
    assert (tmp_path / "out" / "report.json").read_bytes() == before
    assert infer("--video", clip, "--stride", "2", "--exist-ok", "--json").json["counts"]["segmented"] == 3


def spoilt(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return spoil


def without_metadata(path: Path) -> None:
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (spoilt(lambda content: content[: len(content) // 2]), 3),
        (spoilt(lambda content: b"not a model at all"), 3),
        (spoilt(lambda content: b""), 3),
        (without_metadata, 6),
        (Path.unlink, 3),
    ],
)
def test_a_model_that_is_none_of_ours(
    infer: Any, clip: Path, tiny_onnx: Path, tmp_path: Path, spoil: Callable[[Path], None], status: int
) -> None:
    spoil(tiny_onnx)
    done = infer("--video", clip)
    assert done.status == status, done.stderr
    assert str(tiny_onnx) in done.stderr and "Traceback" not in done.stderr
    assert finals(tmp_path / "out") == []


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_a_runtime_of_engines_takes_no_onnx_file(infer: Any, clip: Path, runtime: str) -> None:
    done = infer("--video", clip, "--runtime", runtime)
    assert done.status == 6 and "is not an engine" in done.stderr and f"--runtime {runtime}" in done.stderr


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_playable_files(
    tiny_onnx: Path, tmp_path: Path, signum: signal.Signals, status: int
) -> None:
    """The source is a long video, and the signal comes once frames are being written."""
    frames = 3000
    source = write_video(tmp_path / "long.mp4", frames=frames, size_wh=(64, 48))
    out = tmp_path / "out"
    command = [VMKLA, "infer", "--video", source, "--model", tiny_onnx, "--out", out, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not any(path.stat().st_size > 2000 for path in out.glob("*frames*.jsonl")):
                assert process.poll() is None and time.monotonic() < deadline, "no frame was written"
                time.sleep(0.01)
            os.kill(process.pid, signum)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == status, stderr
    report = json.loads(stdout)
    assert report["outcome"] == "interrupted" and report["exit_status"] == status
    written = count_frames(out / "overlay.mp4")
    assert 0 < written == report["counts"]["frames"] < frames
    assert len((out / "frames.jsonl").read_text().splitlines()) == written
    assert "Traceback" not in stderr


def test_the_larger_of_two_tracks_is_read_unless_another_is_asked_for(infer: Any, tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "two.mkv", [(64, 48), (96, 64)])
    done = infer("--video", path, "--json")
    assert done.status == 0 and "track 1 (64x48, h264)" in done.stderr
    assert (done.json["input"]["track"], done.json["input"]["frame_hw"]) == (2, [64, 96])
    done = infer("--video", path, "--track", 1, "--json", "--exist-ok")
    assert done.status == 0 and done.json["input"]["frame_hw"] == [48, 64]
    done = infer("--video", path, "--track", 3, "--exist-ok")
    assert done.status == 2 and "no video track 3" in done.stderr


def test_images_have_no_tracks(infer: Any, images: Path) -> None:
    done = infer("--source", images, "--track", 1)
    assert done.status == 2 and "video track 1" in done.stderr


def test_an_interlaced_video_is_reported(infer: Any, tmp_path: Path) -> None:
    path = write_flagged(tmp_path / "woven.mp4", woven_frames(6)[0])
    done = infer("--video", path, "--json")
    assert done.status == 0 and "note: the recording is interlaced" in done.stderr
    fields = done.json["input"]["fields"]
    assert fields["deinterlaced"] and fields["because"] == "content" and fields["order"] == "top first"
    done = infer("--video", path, "--json", "--exist-ok", "--deinterlace", "no")
    assert done.status == 0 and "interlaced" not in done.stderr
    assert done.json["input"]["fields"]["deinterlaced"] is False
    assert done.json["settings"]["deinterlace"] == "no"


def test_a_time_stamp_that_no_mp4_can_hold(infer: Any, tmp_path: Path) -> None:
    """The first frame of a Flash video in another hour than the rest: FFmpeg's muxer gave up on it."""
    path = tmp_path / "a.mkv"
    write_flagged(path, woven_frames(6)[1], pts=[25 * 3600, *(25 * 3600 * 24 * 40 + n for n in range(5))])
    done = infer("--video", path, "--json")
    assert done.status == 0 and "start again once" in done.stderr
    assert done.json["counts"]["timestamp_jumps"] == 1
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([3600 + n / 25 for n in range(6)])


def test_a_folder_with_other_than_regular_files_is_segmented_with_status_7(
    infer: Any, images: Path, tmp_path: Path
) -> None:
    """A named pipe hung the run, a link to /dev/zero filled the memory, and one to itself stopped it."""
    irregular = write_irregular(images)
    done = infer("--source", images, "--json")
    count = len(irregular)
    assert done.status == 7 and f"{count} of {3 + count} images cannot be read" in done.stderr
    assert done.json["counts"]["frames"] == 3 and done.json["counts"]["unreadable"] == count
    assert [problem["where"] for problem in done.json["problems"]] == irregular
    only = infer("--source", f"{images}/p*.png", "--exist-ok")
    assert only.status == 3 and "none of them a regular file" in only.stderr


def test_anonymous_runs_name_nothing_that_is_not_a_file(infer: Any, images: Path, tmp_path: Path) -> None:
    irregular = write_irregular(images)
    done = infer("--source", images, "--anonymous", "--json")
    assert done.status == 7 and "not a file 1" in done.stderr
    assert "a named pipe" in "".join(problem["what"] for problem in done.json["problems"])
    for name in irregular:
        assert name not in done.stdout + done.stderr


def test_a_size_bomb_is_refused_at_once_and_a_limit_can_be_raised(
    infer: Any, images: Path, tmp_path: Path
) -> None:
    (images / "bomb.png").write_bytes(black_png(20000, 20000))  # 400 kB
    done = infer("--source", images / "bomb.png")
    assert done.status == 3 and "bomb.png is 20000x20000 (width x height, 400 megapixels)" in done.stderr
    assert "--max-megapixels 400" in done.stderr and finals(tmp_path / "out") == []
    done = infer("--source", images)
    assert done.status == 7 and "1 of 4 images cannot be read: bomb.png" in done.stderr
    small = infer("--source", images / "a.png", "--max-megapixels", 0.002, "--exist-ok")
    assert small.status == 3 and "expected at most 0.002 megapixels" in small.stderr
    assert infer("--source", images / "a.png", "--max-megapixels", 0.00224, "--exist-ok").status == 0
    assert infer("--source", images, "--max-megapixels", 0).status == 2


def test_frames_beyond_the_limit(infer: Any, clip: Path, tmp_path: Path) -> None:
    """From the first frame on: status 3. A frame that grows on the way is lost, and the rest is not."""
    done = infer("--video", clip, "--max-megapixels", 0.006)
    assert done.status == 3 and "has frames of 96x64 (width x height, 0.006144 megapixels)" in done.stderr
    pictures = [
        np.full(size, 90, np.uint8) for size in ((48, 64, 3), (48, 64, 3), (2000, 3000, 3), (48, 64, 3))
    ]
    grows = tmp_path / "grows.mjpeg"
    grows.write_bytes(b"".join(cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures))
    done = infer("--video", grows, "--max-megapixels", 1, "--json")
    assert done.status == 7
    assert (done.json["counts"]["frames"], done.json["counts"]["lost_packets"]) == (3, 1)


def test_overlays_of_images_as_jpeg(infer: Any, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = infer("--source", images, "--image-format", "jpg", "--save-masks", "--json")
    assert done.status == 0, done.stderr
    assert finals(out / "overlay") == ["a.jpg", "b c é.jpg", "deeper/a.jpg"]
    assert finals(out / "masks") == ["a.png", "b c é.png", "deeper/a.png"]
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text("utf-8").splitlines()]
    assert [row["overlay"] for row in rows] == ["overlay/a.jpg", "overlay/b c é.jpg", "overlay/deeper/a.jpg"]
    assert (out / "overlay" / "a.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    as_png = infer("--source", images, "--out", tmp_path / "png", "--save-masks")
    assert as_png.status == 0
    exact = cv2.imread(str(tmp_path / "png" / "overlay" / "a.png")).astype(int)
    assert np.abs(cv2.imread(str(out / "overlay" / "a.jpg")) - exact).mean() < 12  # noise, of quality 95
    assert done.json["settings"]["image_format"] == "jpg"
    again = infer("--source", images, "--image-format", "jpg", "--save-masks", "--continue", "--json")
    assert again.status == 0 and again.json["counts"]["kept"] == 3
    other = infer("--source", images, "--continue", "--save-masks")
    assert other.status == 6 and "image_format was 'jpg', now it is 'png'" in other.stderr


def test_a_video_with_continue_keeps_answers_until_its_end(infer: Any, clip: Path, tmp_path: Path) -> None:
    done = infer("--video", clip, "--continue")
    assert done.status == 0 and not list((tmp_path / "out").glob(".answers.*"))
    again = infer("--video", clip, "--continue")
    assert again.status == 2 and "holds outputs already" in again.stderr


def test_a_format_of_images_for_a_video_is_refused(infer: Any, clip: Path, tmp_path: Path) -> None:
    done = infer("--video", clip, "--image-format", "jpg")
    assert done.status == 2 and "is a video" in done.stderr and "--image-format" in done.stderr
    assert infer("--video", clip, "--image-format", "gif").status == 2


def test_a_folder_is_no_video(infer: Any, images: Path, tmp_path: Path) -> None:
    folder = images.rename(tmp_path / "a folder")
    done = infer("--video", folder)
    assert done.status == 2 and f"vmkla infer --source '{folder}'" in done.stderr
    assert finals(tmp_path / "out") == []


def test_hide_blacks_out_what_is_written(infer: Any, images: Path, tmp_path: Path) -> None:
    done = infer(
        "--source", images, "--hide", "0,0,10,8", "--hide", "20,30,99,99", "--overlay", "none", "--json"
    )
    assert done.status == 0, done.stderr
    assert done.json["settings"]["hide"] == [[0, 0, 10, 8], [20, 30, 99, 99]]
    for name in ("a.png", "b c é.png", "deeper/a.png"):
        overlay = cv2.imread(str(tmp_path / "out" / "overlay" / name))
        assert not overlay[:8, :10].any() and not overlay[30:, 20:].any() and overlay[8:30].mean() > 90


@pytest.mark.parametrize(
    ("value", "message"),
    [("0,0,5", "X,Y,W,H"), ("0,0,0,5", "cannot be hidden"), ("900,0,5,5", "is not in the frame of 56x40")],
)
def test_a_rectangle_that_hides_nothing_is_refused(
    infer: Any, images: Path, tmp_path: Path, value: str, message: str
) -> None:
    done = infer("--source", images, "--hide", value)
    assert done.status == 2 and message in done.stderr, done.stderr
    assert finals(tmp_path / "out") == []
