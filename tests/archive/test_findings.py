"""Findings that a batch stored give the figures of the network itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.archive.batches import InlineExecutor, driver_options, open_red
from tests.evaluation.truth import miniatures
from tests.video.red_runner import RedRunner
from vmkla.archive.batch import run_batch
from vmkla.archive.findings import StoredFindings
from vmkla.archive.identity import batch_settings
from vmkla.archive.layout import open_batch
from vmkla.archive.options import DriverOptions
from vmkla.archive.work import find_work
from vmkla.errors import BadInputError, UsageError, VmklaError
from vmkla.evaluation.procedure_run import JudgedNetwork, ProcedureOptions, run_procedures
from vmkla.evaluation.truth.layouts import AnnotatedSet, open_annotated
from vmkla.evaluation.truth.records import TruthRules
from vmkla.video.cancellation import Cancellation
from vmkla.video.file.options import SegmentOptions
from vmkla.video.media.clip import write_clip


def batch(source: Path, out: Path) -> Path:
    """Segment all sources below a folder."""
    options, folder = driver_options(out), open_red(out)
    run_batch(folder, find_work([source], out).entries, InlineExecutor(), options, Cancellation())
    return out


def recordings(folder: Path, layout: str) -> AnnotatedSet:
    """Write recordings of a layout, and open them."""
    if layout == "video":
        masks = folder / "exam" / "masks"
        write_clip(folder / "exam" / "clip.mp4", 12, 6, height=96, width=128, masks_dir=masks)
        return open_annotated(folder)
    make, fps = miniatures.LAYOUTS[layout]
    make(folder)
    return open_annotated(folder, TruthRules(fps))


@pytest.mark.parametrize("layout", ["video", "REAL-Colon", "COCO"])
def test_the_figures_are_those_of_the_network(tmp_path: Path, layout: str) -> None:
    source = tmp_path / "set"
    source.mkdir()
    annotated = recordings(source, layout)
    results = batch(source, tmp_path / "batch")
    stored = StoredFindings(results, annotated.recordings)
    found = run_procedures(stored, annotated, ProcedureOptions(tmp_path / "stored"))
    expected = run_procedures(JudgedNetwork(RedRunner()), annotated, ProcedureOptions(tmp_path / "network"))
    assert found["operating_point_from"] == "the batch's settings" and found["lesions"]["found"] == 1
    assert found["model"]["sha256"] == "1" * 64 and found["runtime"]["runner"] == "red"
    assert found.pop("operating_point_from") != expected.pop("operating_point_from")
    assert repr(found) == repr(expected)  # NaN differs from itself
    assert found["alarms"]["any"]["alarms"] > 0 or layout == "video"


def refused(results: Path, annotated: AnnotatedSet) -> VmklaError:
    """Return why results cannot be evaluated."""
    with pytest.raises(VmklaError) as caught:
        StoredFindings(results, annotated.recordings)
    return caught.value


def test_results_that_do_not_fit(tmp_path: Path) -> None:
    source = tmp_path / "set"
    source.mkdir()
    annotated = recordings(source, "MOT")
    other = tmp_path / "other"
    other.mkdir()
    write_clip(other / "clip.mp4", 4, 6, height=96, width=128)
    error = refused(batch(other, tmp_path / "others"), annotated)
    assert isinstance(error, BadInputError) and "no result of 1 of 1 recordings: " in error.message
    changes: tuple[dict[str, Any], ...] = ({"save_masks": False}, {"save_masks": True, "stride": 2})
    for change, why in zip(changes, ("has no masks", "one frame in 2 only"), strict=True):
        out = tmp_path / why
        options = SegmentOptions(out, **change)
        settings = batch_settings(RedRunner(), options)
        run_batch(
            open_batch(out, settings),
            find_work([source], out).entries,
            InlineExecutor(),
            DriverOptions(options, settings),
            Cancellation(),
        )
        error = refused(out, annotated)
        assert isinstance(error, UsageError) and why in error.message and "--save-masks" in str(error.hint)


def test_damaged_results(tmp_path: Path) -> None:
    source = tmp_path / "set"
    source.mkdir()
    annotated = recordings(source, "MOT")
    results = batch(source, tmp_path / "batch")
    (rows,) = results.glob("results/*/frames.jsonl")
    whole = rows.read_bytes()
    rows.write_bytes(whole.replace(b'"index": 4', b'"index": 5', 1))
    for damage, why in ((lambda: None, "no row of frame 4"), (lambda: rows.write_bytes(whole), "")):
        damage()
        stored = StoredFindings(results, annotated.recordings)
        if why:
            with pytest.raises(BadInputError, match=why):
                run_procedures(stored, annotated, ProcedureOptions(tmp_path / "out"))
    masks = sorted(rows.parent.glob("masks/*.png"))
    masks[4].write_bytes(masks[5].read_bytes())
    with pytest.raises(BadInputError, match="the mask of frame 4 does not fit"):
        run_procedures(stored, annotated, ProcedureOptions(tmp_path / "out"))
