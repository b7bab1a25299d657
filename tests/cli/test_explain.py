"""``vmkla explain``: pictures for an image or a folder, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest


def test_a_picture_for_every_image(vmkla: Any, images: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = vmkla("explain", "--source", images, "--model", tiny_weights, "--out", out, "--json")
    assert done.status == 0, done.stderr
    rows = done.json["images"]
    assert [row["image"] for row in rows] == ["a.png", "b c é.jpg", "deeper/a.png"]
    for row in rows:
        picture = cv2.imread(row["picture"])
        assert picture is not None and picture.shape[0] > 40 and picture.shape[1] == 3 * 56 + 2 * 6
        assert [panel["block"] for panel in row["panels"]] == ["mkcsa 2.0", "mkcsa 3.0"]
    assert (out / "overlay" / "deeper" / "a.png").is_file()


def test_nothing_is_overwritten_unasked(vmkla: Any, images: Path, tiny_weights: Path, tmp_path: Path) -> None:
    command = ("explain", "--source", images / "a.png", "--model", tiny_weights, "--out", tmp_path / "out")
    assert vmkla(*command).status == 0
    again = vmkla(*command)
    assert again.status == 2 and "--exist-ok" in again.stderr
    assert vmkla(*command, "--exist-ok").status == 0


def test_exist_ok_goes_into_the_last_default_folder(
    vmkla: Any, images: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("explain", "--source", images / "a.png", "--model", tiny_weights, "--block", "3")
    for more in ((), (), ("--exist-ok",)):
        assert vmkla(*command, *more).status == 0
    assert [path.name for path in sorted(Path("runs/explain").iterdir())] == ["tiny", "tiny-2"]


def test_two_images_that_would_share_a_picture(
    vmkla: Any, images: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (images / "a.bmp").write_bytes((images / "a.png").read_bytes())
    done = vmkla("explain", "--source", images, "--model", tiny_weights, "--out", tmp_path / "out")
    assert done.status in (2, 3) and "a.bmp" in done.stderr and not (tmp_path / "out").exists()


def test_two_networks_side_by_side(vmkla: Any, images: Path, tiny_weights: Path, tmp_path: Path) -> None:
    import dataclasses

    from tests.export.exported_models import HEIGHT, TINY, WIDTH, network
    from vmkla.models.checkpoints import save_weights

    other = tmp_path / "ss2d.safetensors"
    model = network(dataclasses.replace(TINY, decoder_block="ss2d"))
    save_weights(model, other, training={"image_size_hw": [HEIGHT, WIDTH], "roi": "none"})
    command = ("explain", "--source", images / "a.png", "--model", tiny_weights, "--against", other)
    done = vmkla(*command, "--out", tmp_path / "out", "--json")
    assert done.status == 0, done.stderr
    blocks = [panel["block"] for panel in done.json["images"][0]["panels"]]
    assert blocks == ["mkcsa 3.0", "ss2d 3.0"]
    again = vmkla(*command, "--block", "1", "--block", "2.0", "--out", tmp_path / "two", "--json")
    assert [p["block"] for p in again.json["images"][0]["panels"]] == ["mkcsa 1.0", "ss2d 2.0"]


def test_one_block_alone(vmkla: Any, images: Path, tiny_weights: Path, tmp_path: Path) -> None:
    done = vmkla(
        "explain",
        "--source",
        images / "a.png",
        "--model",
        tiny_weights,
        "--block",
        "0",
        "--out",
        tmp_path / "o",
    )
    assert done.status == 0 and "pictures: 1 in" in done.stdout
    assert cv2.imread(str(tmp_path / "o" / "overlay" / "a.png")).shape[1] == 2 * 56 + 6


def test_an_image_that_cannot_be_read_is_named(
    vmkla: Any, images: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    done = vmkla("explain", "--source", images, "--model", tiny_weights, "--out", tmp_path / "out", "--json")
    assert done.status == 7 and "broken.png" in done.stderr and len(done.json["images"]) == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--block", "9"), 2, "9.0"),
        (("--block", "3.7"), 2, "3.7"),
        (("--block", "x"), 2, "'x'"),
        (("--block", "1", "--block", "2", "--block", "3"), 2, "3 blocks"),
        (("--device", "cuda:63"), 4, "cuda:63"),
        (("--device", "tpu"), 2, "tpu"),
        (("--against", "missing.safetensors"), 3, "missing.safetensors"),
        (("--model", "missing.safetensors"), 3, "missing.safetensors"),
    ],
)
def test_wrong_values(
    vmkla: Any, images: Path, tiny_weights: Path, tmp_path: Path, arguments: Any, status: int, message: str
) -> None:
    model = () if "--model" in arguments else ("--model", tiny_weights)
    done = vmkla("explain", "--source", images, *model, *arguments, "--out", tmp_path / "out")
    assert done.status == status and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_video_is_no_image(vmkla: Any, clip: Path, tiny_weights: Path, tmp_path: Path) -> None:
    done = vmkla("explain", "--source", clip, "--model", tiny_weights, "--out", tmp_path / "out")
    assert done.status == 3 and "video" in done.stderr
