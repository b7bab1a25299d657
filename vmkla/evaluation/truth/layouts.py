"""Find out how annotated recordings are laid out, and open them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vmkla.errors import BadInputError
from vmkla.evaluation.truth import coco, masks, mot, real_colon, sun_seg
from vmkla.evaluation.truth.records import AnnotatedRecording, TruthRules

_LAYOUTS = {
    "REAL-Colon": real_colon.find_recordings,
    "SUN-SEG": sun_seg.find_recordings,
    "COCO": coco.find_recordings,
    "MOT": mot.find_recordings,
    "masks beside frames": masks.find_recordings,
}
_EXPECTED = """Expected one of:
  SSS-VVV_frames/, SSS-VVV_annotations/ and video_info.csv (REAL-Colon)
  Frame/<CLIP>/ and GT/<CLIP>/, also in TestEasyDataset/Seen/ and so on (SUN-SEG)
  a .json file with video and track ids, here or in annotations/, and the images (COCO)
  <RECORDING>/gt/gt.txt and <RECORDING>/img1/ or one video (MOT)
  <RECORDING>/frames/ or one video, and <RECORDING>/masks/, one value for each lesion"""


@dataclass(frozen=True, eq=False)
class AnnotatedSet:
    """Annotated recordings of one data set.

    Attributes:
        layout: name of its layout.
        recordings: the recordings, at least one.
    """

    layout: str
    recordings: tuple[AnnotatedRecording, ...]


def open_annotated(path: Path, rules: TruthRules | None = None) -> AnnotatedSet:
    """Open annotated recordings in whichever layout they come.

    Args:
        path: the folder.
        rules: frames a second and limits; None takes the defaults.
    Raises:
        BadInputError: it has none of the layouts, or more than one, or its content is wrong.
        UsageError: frames a second are missing, or stated twice.
    """
    if not path.is_dir():
        raise BadInputError(
            f"{path} does not exist" if not path.exists() else f"{path} is not a folder", hint=_EXPECTED
        )
    try:
        found = {name: find(path, rules or TruthRules()) for name, find in _LAYOUTS.items()}
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error}") from error
    found = {name: recordings for name, recordings in found.items() if recordings}
    if len(found) != 1:
        inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
        seen = f"the layouts of {' and of '.join(found)}" if found else "none of the layouts that are known"
        raise BadInputError(f"{path} has {seen}; it holds: {inside}", hint=_EXPECTED)
    ((layout, recordings),) = found.items()
    names = Counter(recording.name for recording in recordings)
    if twice := [name for name, count in names.items() if count > 1]:
        raise BadInputError(f"{path}: two recordings are called {twice[0]}")
    return AnnotatedSet(layout, tuple(recordings))
