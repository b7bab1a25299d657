"""Pictures judged by lesion and alarm, the halves of a set, and the point that is chosen on one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from experiments import operating_point as script
from tests.data.labelled_folders import write_folder
from tests.evaluation.colour_runners import RedRunner
from vmkla.data import Sample
from vmkla.data.windows import WINDOW
from vmkla.errors import BadInputError
from vmkla.segment.operating_point import OperatingPoint

SIDE = 64
OWN = OperatingPoint(0.5, min_fraction=0.05)
Disc = tuple[int, int, float]


def discs(*places: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A mask with discs of 5 px around places (x, y)."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for place in places:
        cv2.circle(mask, place, 5, 1, -1)
    return mask


def sample(name: str, marks: tuple[Disc, ...], *lesions: tuple[int, int], group: str = "") -> Sample:
    """An image in which ``RedRunner`` marks discs (x, y, probability), and its truth."""
    image = np.full((SIDE, SIDE, 3), 70, np.uint8)
    for x, y, probability in marks:
        image[discs((x, y)) > 0, 0] = round(255 * probability)
    return Sample(name, image, discs(*lesions), group)


def judged(name: str, marks: tuple[Disc, ...], *lesions: tuple[int, int], group: str = "") -> script.Judged:
    return script.judge(RedRunner(SIDE, SIDE), sample(name, marks, *lesions, group=group), OWN)


def test_lesions_are_found_by_the_findings_that_touch_them() -> None:
    one = judged("one", ((12, 12, 0.6), (50, 50, 0.9), (12, 50, 0.7)), (10, 12), (53, 50), (50, 12))
    assert one.lesions == 3
    low, high = OperatingPoint(0.5), OperatingPoint(0.5, 0.8)
    found = script.count([one], low)
    assert (found.lesions, found.found, found.false_regions, found.images, found.quiet) == (3, 2, 1, 1, 0)
    found = script.count([one], high)
    assert (found.found, found.false_regions) == (1, 0)
    assert script.count([one], OperatingPoint(0.5, 0.5, 0.05)).found == 0  # a disc is 2 % of the view


def test_a_finding_over_two_lesions_finds_both_and_two_on_one_find_it_once() -> None:
    across = judged("across", ((30, 30, 0.9),), (23, 30), (37, 30))
    assert script.count([across], OperatingPoint(0.5)).found == across.lesions == 2
    twice = judged("twice", ((21, 30, 0.9), (33, 30, 0.9)), (27, 30))
    counts = script.count([twice], OperatingPoint(0.5))
    assert (counts.lesions, counts.found, counts.false_regions) == (1, 1, 0)


def test_alarms_are_pictures_and_not_regions() -> None:
    pictures = [
        judged("empty", ((12, 12, 0.9), (50, 50, 0.9))),
        judged("silent", ()),
        judged(f"image 1{WINDOW}", ((12, 12, 0.6),)),
    ]
    counts = script.count(pictures, OperatingPoint(0.5))
    assert (counts.empty_alarms, counts.empty, counts.window_alarms, counts.windows) == (1, 2, 1, 1)
    assert (counts.alarms, counts.quiet, counts.lesions) == (2, 3, 0)
    assert script.count(pictures, OperatingPoint(0.5, 0.8)).alarms == 1


def quiet_and_lesions() -> list[script.Judged]:
    """Four quiet pictures with peaks from 0.62 to 0.92, and four lesions from 0.67 to 0.97."""
    peaks = (0.62, 0.72, 0.82, 0.92)
    quiet = [judged(f"quiet {peak}", ((30, 30, peak),), group=f"{peak}") for peak in peaks]
    lesions = [
        judged(f"lesion {peak}", ((30, 30, peak + 0.05),), (30, 30), group=f"{peak}") for peak in peaks
    ]
    return quiet + lesions


@pytest.mark.parametrize(
    ("limit", "peak", "found", "alarms"), [(0.0, 0.95, 1, 0), (0.25, 0.85, 2, 1), (0.5, 0.75, 3, 2)]
)
def test_the_point_finds_most_lesions_with_few_enough_alarms(
    limit: float, peak: float, found: int, alarms: int
) -> None:
    pictures = quiet_and_lesions()
    point = script.choose(pictures, 0.5, limit)
    assert point == OperatingPoint(0.5, peak, 0.0)
    counts = script.count(pictures, point)
    assert (counts.found, counts.alarms) == (found, alarms)


def test_a_limit_that_no_point_keeps_is_an_error() -> None:
    loud = [judged("quiet", ((30, 30, 1.0),)), judged("lesion", ((30, 30, 0.9),), (30, 30))]
    with pytest.raises(BadInputError, match="at most 10.0% of 1 polyp-free pictures; .* one has 1"):
        script.choose(loud, 0.5, 0.1)


@pytest.mark.parametrize(
    ("share", "peak", "found", "alarms"),
    [(1.0, 0.65, 4, 3), (0.75, 0.75, 3, 2), (0.7, 0.75, 3, 2), (0.2, 0.95, 1, 0)],
)
def test_the_point_keeps_enough_lesions_with_fewest_alarms(
    share: float, peak: float, found: int, alarms: int
) -> None:
    pictures = quiet_and_lesions()
    pictures.append(
        judged("never found", (), (30, 30), group="missed")
    )  # no point keeps what the threshold misses
    point = script.choose_keeping(pictures, 0.5, share)
    assert point == OperatingPoint(0.5, peak, 0.0)
    counts = script.count(pictures, point)
    assert (counts.found, counts.alarms) == (found, alarms)


def test_halves_are_balanced_and_keep_groups_together() -> None:
    pictures = [
        judged(f"{group}-{number}", (), group=f"group {group}")
        for group in range(9)
        for number in range(group)
    ] + [judged(f"lesion {n}", (), (30, 30), group=f"lesion {n}") for n in range(11)]
    one, other = script.halve(pictures, 0)
    assert sorted(p.name for p in (*one, *other)) == sorted(p.name for p in pictures)
    assert not {p.group for p in one} & {p.group for p in other}
    quiet = [sum(not p.lesions for p in half) for half in (one, other)]
    assert sum(quiet) == 36 and abs(quiet[0] - quiet[1]) <= 1
    assert abs(sum(p.lesions for p in one) - sum(p.lesions for p in other)) <= 1
    again, _ = script.halve(pictures[::-1], 0)
    assert {p.name for p in again} == {p.name for p in one}
    third, _ = script.halve(pictures, 1)
    assert {p.name for p in third} != {p.name for p in one}
    with pytest.raises(BadInputError, match="1 groups have 36 and 0 polyp-free pictures, 11 and 0 lesions"):
        script.halve([replace(picture, group="one") for picture in pictures], 0)


def test_sequences_and_look_alikes_are_joined() -> None:
    rng = np.random.default_rng(0)
    small = [rng.uniform(0, 255, (32, 32, 3)).astype(np.float32) for _ in range(5)]
    small[3] = small[0] + 10
    groups = script.join_alike(["", "a", "a", "", ""], small)
    assert groups[0] == groups[3] and groups[1] == groups[2]
    assert len(set(groups)) == 3


def test_windows_are_judged_with_their_image() -> None:
    noise = np.random.default_rng(0).integers(0, 40, (SIDE, SIDE, 3)).astype(np.uint8)
    image = noise + np.array((100, 0, 0), np.uint8)
    pictures = script.judge_all(RedRunner(SIDE, SIDE), [Sample("set/a", image, discs((8, 8)))], OWN)
    names = [picture.name for picture in pictures]
    assert names == ["set/a", *(f"set/a {n}{WINDOW}" for n in range(1, len(names)))] and len(names) > 2
    assert [picture.lesions for picture in pictures] == [1, *[0] * (len(names) - 1)]
    assert len({picture.group for picture in pictures}) == 1


def test_the_tables_count_both_halves() -> None:
    choosing, reporting, both = script.report(quiet_and_lesions(), OperatingPoint(0.5), [0.5], [1.0], 0)
    assert [row[0] for row in both.rows] == ["threshold only", "chosen for 50.0%", "chosen to keep 100.0%"]
    assert both.rows[0][3].startswith("4 of 4") and both.rows[0][6].startswith("4 of 4")
    assert all(table.rows[0][3].startswith("2 of 2") for table in (choosing, reporting))


def test_a_shipped_model_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "set", 10)
    for number, path in enumerate(sorted((data / "images").iterdir())):  # so that no two look alike
        cv2.imwrite(str(path), cv2.convertScaleAbs(cv2.imread(str(path)), alpha=1 + number / 3))
    flags = ["nano", "--val", str(data), "--most-alarms", "0.99"]
    assert script.main([*flags]) == 0
    text = capsys.readouterr().out
    assert text.startswith("nano.onnx, sha256 ") and "## Reporting half" in text
    assert "of 2 |" in text  # case-04 and case-09 show nothing
    assert script.main([*flags[:3], "--most-alarms", "1"]) == 2
    assert script.main([*flags, "--least-kept", "0"]) == 2
    assert script.main(["nano", "--val", str(tmp_path / "absent")]) == 3
