"""SUN-SEG: clips of 30 frames a second of one polyp each, and clips without a polyp."""

from __future__ import annotations

from pathlib import Path

from vmkla.errors import BadInputError
from vmkla.evaluation.truth.masks import masks_of
from vmkla.evaluation.truth.records import AnnotatedRecording, TruthRules, stem_of

FPS = 30.0
_FRAMES, _MASKS, _NEGATIVE = "Frame", "GT", "SUN-Negative"
_DEEPEST = 3
"""Levels of folders between the root and ``Frame``: ``TestEasyDataset/Seen``."""


def find_recordings(root: Path, rules: TruthRules) -> list[AnnotatedRecording]:
    """Read every clip below folders ``Frame`` and ``GT``, and the folders of ``SUN-Negative``.

    A clip ``case1_2`` is of the procedure and the lesion ``case1``. Frames follow each other in the order of
    their names, since numbers start again within a case.

    Raises:
        BadInputError: a clip has no masks, a frame no mask, or a mask no frame.
        UsageError: ``--fps`` is given.
    Source: Ji et al., Video Polyp Segmentation, MIR 19, 2022; its repository's data description.
    """
    recordings = []
    for frames in _frame_folders(root):
        for clip in _folders(frames):
            masks = frames.with_name(_MASKS) / clip.name
            if not masks.is_dir():
                raise BadInputError(f"{clip} has no masks: there is no folder {masks}")
            case = clip.name.partition("_")[0]
            name = (frames.parent / clip.name).relative_to(root).as_posix()
            recordings.append(_recording(name, case, clip, masks, rules))
    if recordings and (root / _NEGATIVE).is_dir():
        for clip in _folders(root / _NEGATIVE):
            name = f"{_NEGATIVE}/{clip.name}"
            recordings.append(_recording(name, name, clip, None, rules))
    return recordings


def _recording(
    name: str, procedure: str, frames: Path, masks: Path | None, rules: TruthRules
) -> AnnotatedRecording:
    source = rules.images(frames)
    stems = [stem_of(item.name) for item in source.items]
    rate = rules.rate(name, FPS)
    times_s = tuple(index / rate for index in range(len(stems)))
    truth = {} if masks is None else masks_of(stems, frames, masks, rules, procedure)
    return AnnotatedRecording(name, procedure, source, truth, times_s, 1 / rate)


def _frame_folders(root: Path) -> list[Path]:
    found, level = [], [root]
    for _ in range(_DEEPEST):
        found += [folder / _FRAMES for folder in level if (folder / _FRAMES).is_dir()]
        level = [child for folder in level if folder.name != _FRAMES for child in _folders(folder)]
    return [folder for folder in found if folder.with_name(_MASKS).is_dir()]


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
