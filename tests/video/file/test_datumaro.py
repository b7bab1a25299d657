"""Datumaro reads the COCO and CVAT files of a run, in a process with packages of its own.

Its full installation takes about 560 MB and puts another OpenCV in place of this environment's, so it gets a
folder of its own with those of its packages that reading needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.video.file.scripted import RATE, procedure
from tests.video.file.test_annotations import busy_frames, saved_masks
from vmkla.video.file.pipeline import SegmentOptions, segment

pytestmark = pytest.mark.slow

NEEDED = (
    *("datumaro>=1.10", "orjson", "json-stream", "json-stream-rs-tokenizer", "shapely", "lxml"),
    *("pandas<3", "pytz", "python-dateutil", "tzdata"),
)
READ = """
import sys
import numpy as np
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
path, kind, output = sys.argv[1:]
masks = {}
data = Dataset.import_from(path, kind)
labels = [label.name for label in data.categories()[AnnotationType.label]]
numbers = [label for label in labels if label != "background"]
for item in data:
    mask = None
    for each in item.annotations:
        if each.type == AnnotationType.bbox:
            continue  # it makes one of each mask
        assert 0 < each.attributes["score" if kind == "coco_instances" else "probability"] <= 1
        mask = np.zeros(each.image.shape, np.uint8) if mask is None else mask
        mask[np.asarray(each.image, bool)] = 1 + numbers.index(labels[each.label])
    masks[item.id] = np.zeros(item.media.size, np.uint8) if mask is None else mask
np.savez(output, **masks)
"""


@pytest.fixture(scope="module")
def datumaro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datumaro")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--target", str(folder), *NEEDED], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        pytest.skip(f"pip cannot fetch datumaro here: {done.stderr.strip()[-300:]}")
    return folder


def read(datumaro: Path, code: str, *arguments: object) -> str:
    """Run code beside datumaro, which wants other versions than the tests, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(datumaro)},
        cwd=datumaro.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("classes", [1, 3])
def test_masks_are_those_of_the_run(
    tmp_path: Path, datumaro: Path, write_clip: Any, make_runner: Any, classes: int
) -> None:
    clip, out = write_clip("clip.mp4", busy_frames(4, (96, 128))), tmp_path / "out"
    options = SegmentOptions(out, save_masks=True, export=("coco", "cvat"), export_frames=True)
    segment(make_runner(96, 128, classes=classes), clip, options)
    wanted = saved_masks(out, classes, video=True)
    for kind, name in (("coco_instances", ""), ("cvat", "annotations.xml")):
        found = tmp_path / f"{kind}.npz"
        read(datumaro, READ, out / "export" / name, kind, found)
        masks = dict(np.load(found))
        assert sorted(masks) == [Path(each).stem for each in wanted]
        # It reads the frames too: they are those of the run.
        for each, mask in wanted.items():
            np.testing.assert_array_equal(masks[Path(each).stem], mask, err_msg=f"{kind} {each}")


READ_TRACKS = """
import json, sys
from datumaro.components.dataset import Dataset
data = Dataset.import_from(sys.argv[1], "cvat")
print(json.dumps({
    item.id: [
        [each.type.name, each.attributes["track_id"], each.attributes["outside"]] for each in item.annotations
    ]
    for item in data
}))
"""


def test_tracks_are_the_lesions_of_the_run(
    tmp_path: Path, datumaro: Path, write_clip: Any, make_runner: Any
) -> None:
    """It gives each shape the number of its track: that of the lesion."""
    clip, out = write_clip("clip.mp4", procedure(), rate=Fraction(RATE)), tmp_path / "out"
    segment(make_runner(96, 128), clip, SegmentOptions(out, export=("cvat",), export_frames=True))
    shapes = json.loads(read(datumaro, READ_TRACKS, out / "export" / "tracks.xml").splitlines()[-1])
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert any(row["box_lesions"] for row in rows)
    for row in rows:
        of_frame = shapes.get(f"frame_{row['index']:06d}", [])
        assert all(kind == "polygon" for kind, _, _ in of_frame)
        assert sorted(number for _, number, outside in of_frame if not outside) == sorted(row["box_lesions"])
