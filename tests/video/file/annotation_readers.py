"""Read annotation formats back as class masks, without vmkla."""

from __future__ import annotations

import contextlib
import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO

Mask = npt.NDArray[np.uint8]


def read_coco(path: Path) -> dict[str, Mask]:
    """Return the class mask of each image by its name, from pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    masks = {}
    for image in coco.loadImgs(coco.getImgIds()):
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds([image["id"]])):
            inside = coco.annToMask(annotation).astype(bool)
            rows, columns = np.nonzero(inside)
            x, y = columns.min(), rows.min()
            assert annotation["bbox"] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
            assert annotation["area"] == inside.sum() and 0 < annotation["score"] <= 1
            assert not mask[inside].any()
            mask[inside] = annotation["category_id"]
        masks[image["file_name"]] = mask
    return masks


def read_cvat(path: Path) -> dict[str, Mask]:
    """Return the class mask of each image by its name, from CVAT's description of its XML."""
    root = ElementTree.parse(path).getroot()
    assert root.findtext("version") == "1.1"
    labels = [label.findtext("name") for label in root.iter("label")]
    masks = {}
    for image in root.iter("image"):
        mask = np.zeros((int(image.attrib["height"]), int(image.attrib["width"])), np.uint8)
        for shape in image.iter("mask"):
            left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
            pixels: list[int] = []
            for place, count in enumerate(map(int, shape.attrib["rle"].split(","))):
                pixels += [place % 2] * count
            inside = np.array(pixels, bool).reshape(height, width)
            mask[top : top + height, left : left + width][inside] = 1 + labels.index(shape.attrib["label"])
            attributes = {each.attrib["name"]: each.text for each in shape.iter("attribute")}
            probability = attributes["probability"]
            assert probability is not None and 0 < float(probability) <= 1
        masks[image.attrib["name"]] = mask
    assert root.findtext("meta/task/size") == str(len(masks))
    return masks


def read_yolo(folder: Path, name: str, size_hw: tuple[int, int]) -> Mask:
    """Return the class mask of an image as Ultralytics fills polygons: scaled, cut to integers, filled."""
    mask = np.zeros(size_hw, np.uint8)
    for line in (folder / "labels" / name).with_suffix(".txt").read_text().splitlines():
        label, *numbers = line.split()
        places = np.array(numbers, np.float32).reshape(-1, 2)
        assert len(places) >= 3 and places.min() >= 0 and places.max() <= 1
        cv2.fillPoly(mask, [(places * size_hw[::-1]).astype(np.int32)], 1 + int(label))
    return mask
