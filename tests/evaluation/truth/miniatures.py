"""One scripted scene in every layout of annotated recordings, with figures that are counted by hand.

Twelve frames of 48x32 at 30 frames a second. Lesion ``1`` is visible in frames 1 to 8 and is marked in 3, 4,
6, 7 and 8. Lesion ``2`` is visible in frames 5 to 9 and is never marked. Frames 0, 1 and 6 have a mark where
it shows no lesion. What is red is marked by ``RedRunner``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.preprocess import Rect

FRAMES, HEIGHT, WIDTH = 12, 32, 48
ONE, TWO, FALSE = Rect(6, 6, 10, 8), Rect(30, 4, 8, 8), Rect(28, 20, 9, 8)
VISIBLE = {"1": range(1, 9), "2": range(5, 10)}
PLACES = {"1": ONE, "2": TWO}
MARKED = {3: [ONE], 4: [ONE], 6: [ONE, FALSE], 7: [ONE], 8: [ONE], 0: [FALSE], 1: [FALSE]}

Image = npt.NDArray[np.uint8]


def filled(boxes: dict[Rect, int]) -> Image:
    """A mask, (HEIGHT, WIDTH), with a value in each box."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for box, value in boxes.items():
        mask[box.y : box.y + box.h, box.x : box.x + box.w] = value
    return mask


def write(path: Path, image: Image) -> None:
    """Write a PNG file, whatever its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def frame(index: int, marked: dict[int, list[Rect]] = MARKED) -> Image:
    """A frame, BGR: the same noise with little red in all, and full red where it is marked."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 100, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[filled(dict.fromkeys(marked.get(index, []), 1)) > 0, 2] = 255
    return image


def visible(index: int) -> dict[str, Rect]:
    """The lesions of a frame."""
    return {lesion: PLACES[lesion] for lesion, frames in VISIBLE.items() if index in frames}


def real_colon(root: Path) -> None:
    """Frames from number 100 on, XML files, and the table of videos."""
    for index in range(FRAMES):
        stem = f"001-001_{100 + index}"
        write(root / "001-001_frames" / f"{stem}.jpg", frame(index))
        objects = "".join(
            f"<object><name>lesion</name><unique_id>001-001_{lesion}</unique_id><box_id>{lesion}</box_id>"
            f"<bndbox><xmin>{box.x}</xmin><xmax>{box.x + box.w}</xmax><ymin>{box.y}</ymin>"
            f"<ymax>{box.y + box.h}</ymax></bndbox></object>"
            for lesion, box in visible(index).items()
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>"
        path = root / "001-001_annotations" / f"{stem}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (root / "video_info.csv").write_text("unique_video_name,age,fps,num_frames\n001-001,61,30,12\n")


def coco(root: Path) -> None:
    """A video in CocoVID's style: one lesion as a box and a polygon, the other as run lengths."""
    images, annotations = [], []
    for index in range(FRAMES):
        name = f"exam/{index:04}.png"
        write(root / "images" / name, frame(index))
        image = {"id": index + 1, "video_id": 7, "file_name": name, "frame_id": index}
        images.append(image | {"height": HEIGHT, "width": WIDTH})
        for lesion, box in visible(index).items():
            entry = {"id": len(annotations), "image_id": index + 1, "category_id": 1, "bbox": list(box)}
            if lesion == "2":
                before = box.x * HEIGHT + box.y
                counts = [before, *[box.h, HEIGHT - box.h] * box.w]
                counts[-1] += HEIGHT * WIDTH - sum(counts)
                entry |= {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
                entry |= {"attributes": {"track_id": int(lesion)}}
            elif index % 2:
                right, bottom = box.x + box.w - 1, box.y + box.h - 1  # corners are centres of pixels
                entry |= {"segmentation": [[box.x, box.y, right, box.y, right, bottom, box.x, bottom]]}
                entry |= {"instance_id": int(lesion)}
            else:
                entry |= {"segmentation": [], "track_id": int(lesion)}
            annotations.append(entry)
    document = {
        "videos": [{"id": 7, "name": "exam", "fps": 30}],
        "images": images,
        "annotations": annotations,
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "truth.json").write_text(json.dumps(document))


def mot(root: Path) -> None:
    """A sequence with ``seqinfo.ini``."""
    rows = []
    for index in range(FRAMES):
        write(root / "exam" / "img1" / f"{index + 1:06}.jpg", frame(index))
        rows += [
            f"{index + 1},{lesion},{box.x},{box.y},{box.w},{box.h},1,1,1.0"
            for lesion, box in visible(index).items()
        ]
    (root / "exam" / "gt").mkdir()
    (root / "exam" / "gt" / "gt.txt").write_text("\n".join(rows))
    (root / "exam" / "seqinfo.ini").write_text(
        "[Sequence]\nname=exam\nimDir=img1\nframeRate=30\nseqLength=12\nimWidth=48\nimHeight=32\nimExt=.jpg\n"
    )


def masks(root: Path) -> None:
    """Frames and masks; the value of a pixel is its lesion. Needs ``--fps 30``."""
    for index in range(FRAMES):
        write(root / "exam" / "frames" / f"shot{index:03}.png", frame(index))
        values = {box: int(lesion) for lesion, box in visible(index).items()}
        write(root / "exam" / "masks" / f"shot{index:03}.png", filled(values))


def sun_seg(root: Path) -> None:
    """A clip of lesion 1 alone, and a clip without a lesion in which frames 2 and 3 are marked."""
    for index in range(FRAMES):
        name = f"case_M_a2_image{index + 1:04}"
        write(root / "TestEasyDataset/Seen/Frame/case1_2" / f"{name}.jpg", frame(index))
        lesion = {ONE: 255} if index in VISIBLE["1"] else {}
        write(root / "TestEasyDataset/Seen/GT/case1_2" / f"{name}.png", filled(lesion))
        write(root / "SUN-Negative/case3" / f"{name}.jpg", frame(index, {2: [FALSE], 3: [FALSE]}))


LAYOUTS: dict[str, tuple[Callable[[Path], None], float | None]] = {
    "REAL-Colon": (real_colon, None),
    "COCO": (coco, None),
    "MOT": (mot, None),
    "masks beside frames": (masks, 30.0),
}
"""Layouts of the whole scene: what writes it, and ``--fps``."""
