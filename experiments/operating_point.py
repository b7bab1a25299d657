"""Choose an operating point on half of the validation sequences, and report it on the other half.

    python experiments/operating_point.py MODEL --val DIR:VAL.txt --most-alarms 0.03 0.1 --least-kept 0.97

Quiet pictures are the images with an empty mask, and polyp-free windows of the others (0.4 or 0.45 of the
field's sides, apart from each other). An alarm is a quiet picture with a finding. A lesion is a connected
region of the truth; it is found when a finding shares a pixel with it. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind the installed vmkla

from benchmarks.common import Table
from vmkla.data import DataSource, Sample, iter_samples
from vmkla.data.windows import WINDOW, separate_windows
from vmkla.engines.runners.load import load_runner
from vmkla.errors import BadInputError, UsageError, VmklaError
from vmkla.evaluation.lesions import LesionMatch, match
from vmkla.metrics import wilson
from vmkla.runner import Runner
from vmkla.segment.findings import find
from vmkla.segment.operating_point import OperatingPoint, PointOverrides
from vmkla.segment.steps import check, infer, view
from vmkla.tuning.candidates import Candidates
from vmkla.tuning.evidence import Evidence, QuietFrames, fractions_for, reaches

ALIKE = 20.0
"""Images whose copies of 32x32 px differ by less (of 255, on average) belong to one group."""


@dataclass(frozen=True)
class Judged:
    """What the network marked in one picture.

    Attributes:
        name: of the picture.
        group: sequence and look-alikes of its image.
        matches: its lesions and false regions, by the smallest area of a finding.
    """

    name: str
    group: str
    matches: Mapping[float, LesionMatch]

    @property
    def lesions(self) -> int:
        """How many lesions the truth shows; 0 makes it a quiet picture."""
        return len(next(iter(self.matches.values())).lesions)


@dataclass(frozen=True)
class Counts:
    """Counts over pictures at one operating point.

    Attributes:
        windows, empty: how many quiet pictures there are: polyp-free windows, and images with an empty mask.
        window_alarms, empty_alarms: how many of them have a finding.
        lesions, found: lesions, and those that a finding touches.
        images: pictures with a lesion.
        false_regions: findings in these that touch no lesion.
    """

    windows: int = 0
    window_alarms: int = 0
    empty: int = 0
    empty_alarms: int = 0
    lesions: int = 0
    found: int = 0
    images: int = 0
    false_regions: int = 0

    @property
    def quiet(self) -> int:
        """How many quiet pictures there are."""
        return self.windows + self.empty

    @property
    def alarms(self) -> int:
        """How many quiet pictures have a finding."""
        return self.window_alarms + self.empty_alarms


def judge(runner: Runner, sample: Sample, own: OperatingPoint) -> Judged:
    """Segment a picture as ``vmkla infer`` does, and match its regions with the lesions.

    Args:
        runner: the network.
        sample: picture and truth.
        own: the model's point; its threshold makes the regions, and its area is tried beside others.
    """
    seen = view(sample.image_rgb, runner.spec.metadata.preprocess)
    probability = infer(runner, [seen.pixels_rgb])
    check(probability, runner.spec)
    frame_hw = (sample.mask.shape[0], sample.mask.shape[1])
    found = find(probability[0], seen.rect, frame_hw, OperatingPoint(own.threshold))
    field_px = seen.rect.w * seen.rect.h
    matches = {
        fraction: match(
            sample.mask,
            found.mask,
            found.regions,
            OperatingPoint(own.threshold, min_fraction=fraction),
            field_px,
        )
        for fraction in fractions_for(own)
    }
    return Judged(sample.name, sample.group, matches)


def judge_all(runner: Runner, samples: Iterable[Sample], own: OperatingPoint) -> list[Judged]:
    """Judge images and their polyp-free windows; look-alikes get one group."""
    judged: list[list[Judged]] = []
    small: list[npt.NDArray[np.float32]] = []
    for sample in samples:
        windows = [
            replace(
                sample,
                name=f"{sample.name} {number}{WINDOW}",
                image_rgb=window,
                mask=np.zeros_like(sample.mask),
            )
            for number, window in enumerate(separate_windows(sample.image_rgb, sample.mask), start=1)
        ]
        judged.append([judge(runner, picture, own) for picture in (sample, *windows)])
        small.append(cv2.resize(sample.image_rgb, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))
    groups = join_alike([pictures[0].group for pictures in judged], small)
    return [
        replace(picture, group=group)
        for group, pictures in zip(groups, judged, strict=True)
        for picture in pictures
    ]


def join_alike(groups: Sequence[str], small: Sequence[npt.NDArray[np.float32]]) -> list[str]:
    """Name the group of each image: images of one sequence, and images that look alike, share one.

    Args:
        groups: of each image the sequence that its name tells; empty when it does not.
        small: of each image a copy of 32x32 px.
    """
    of_image = list(range(len(groups)))
    for one, other in itertools.combinations(range(len(groups)), 2):
        same = groups[one] and groups[one] == groups[other]
        if same or float(np.abs(small[one] - small[other]).mean()) < ALIKE:
            joined, replaced = of_image[one], of_image[other]
            of_image = [joined if number == replaced else number for number in of_image]
    return [f"group {number}" for number in of_image]


def halve(judged: Sequence[Judged], seed: int) -> tuple[list[Judged], list[Judged]]:
    """Split pictures into halves; groups stay whole.

    Groups come in the order of their number of quiet pictures, largest first, equal ones in the order of a
    hash of seed and name. Each goes to the half with fewer quiet pictures so far, or with fewer lesions where
    these are equal.

    Raises:
        BadInputError: a half has no quiet picture or no lesion.
    """
    members: dict[str, list[Judged]] = {}
    for picture in judged:
        members.setdefault(picture.group, []).append(picture)
    sizes = {
        name: np.array([sum(not p.lesions for p in group), sum(p.lesions for p in group)])
        for name, group in members.items()
    }

    def order(name: str) -> tuple[int, str]:
        return -int(sizes[name][0]), hashlib.sha256(f"{seed}/{members[name][0].name}".encode()).hexdigest()

    halves: tuple[list[Judged], list[Judged]] = ([], [])
    held = [np.zeros(2, int), np.zeros(2, int)]  # quiet pictures, lesions
    for name in sorted(members, key=order):
        half = int(tuple(held[1]) < tuple(held[0]))
        halves[half].extend(members[name])
        held[half] += sizes[name]
    if not np.all(held):
        raise BadInputError(
            f"halves of {len(members)} groups have {held[0][0]} and {held[1][0]} polyp-free pictures, "
            f"{held[0][1]} and {held[1][1]} lesions, expected some of each",
            hint="Use more sequences.",
        )
    return halves


def count(judged: Iterable[Judged], point: OperatingPoint) -> Counts:
    """Count alarms, found lesions and false regions at a point of the judged threshold and areas."""
    total = Counts()
    for picture in judged:
        matched = picture.matches[point.min_fraction]
        false = _reaching([region.peak for region in matched.false_regions], point)
        if picture.lesions:
            peaks = [lesion.peak for lesion in matched.lesions if lesion.peak is not None]
            total = replace(
                total,
                images=total.images + 1,
                lesions=total.lesions + picture.lesions,
                found=total.found + _reaching(peaks, point),
                false_regions=total.false_regions + false,
            )
        elif picture.name.endswith(WINDOW):
            total = replace(total, windows=total.windows + 1, window_alarms=total.window_alarms + bool(false))
        else:
            total = replace(total, empty=total.empty + 1, empty_alarms=total.empty_alarms + bool(false))
    return total


def _reaching(peaks: Sequence[float], point: OperatingPoint) -> int:
    return int(reaches(np.array(peaks, np.float64), point).sum())


def evidence_of(judged: Sequence[Judged]) -> Evidence:
    """The peaks of lesions and of quiet pictures; each quiet picture counts like a recording of one frame."""
    fractions = tuple(sorted(judged[0].matches))

    def highest(peaks: Iterable[float | None]) -> float:
        return max((peak for peak in peaks if peak is not None), default=-math.inf)

    lesions, quiet = [], []
    for picture in judged:
        matches = [picture.matches[fraction] for fraction in fractions]
        if picture.lesions:
            lesions += [
                [highest([match.lesions[number].peak]) for match in matches]
                for number in range(picture.lesions)
            ]
        else:
            peaks = [highest(region.peak for region in match.false_regions) for match in matches]
            quiet.append(QuietFrames(np.zeros(1), np.array([peaks])))
    return Evidence(fractions, np.array(lesions).reshape(-1, len(fractions)), quiet)


def choose(judged: Sequence[Judged], threshold: float, most_alarms: float) -> OperatingPoint:
    """Return the operating point that finds most lesions with few enough alarms.

    Args:
        judged: pictures, judged at the threshold.
        threshold: of the point.
        most_alarms: share of the quiet pictures that may have a finding, 0 to 1.
    Raises:
        BadInputError: no point that finds a lesion is quiet enough.
    """
    evidence = evidence_of(judged)
    candidates = Candidates.of(evidence, threshold)
    quiet = len(evidence.quiet)
    point = candidates.most_found(most_alarms * quiet)
    if point is None:
        fewest = candidates.alarms[candidates.found > 0].min(initial=quiet)
        raise BadInputError(
            f"no point finds a lesion with alarms in at most {most_alarms:.1%} of {quiet} polyp-free "
            f"pictures; the quietest that finds one has {fewest}",
            hint="Raise --most-alarms, or use a quieter network.",
        )
    return point


def choose_keeping(judged: Sequence[Judged], threshold: float, least_kept: float) -> OperatingPoint:
    """Return the operating point with fewest alarms that keeps enough of what the threshold alone finds.

    Args:
        judged: pictures, judged at the threshold.
        threshold: of the point.
        least_kept: share of the lesions found at the threshold alone that stay findings, 0 to 1.
    """
    before = count(judged, OperatingPoint(threshold)).found
    point = Candidates.of(evidence_of(judged), threshold).fewest_alarms(least_kept * before)
    assert point is not None  # the threshold alone keeps them all
    return point


def report(
    judged: Sequence[Judged],
    own: OperatingPoint,
    limits: Sequence[float],
    shares_kept: Sequence[float],
    seed: int,
) -> list[Table]:
    """Choose a point for each limit on one half, and count on both.

    Args:
        judged: pictures, judged at the threshold of ``own``.
        own: the model's own point.
        limits: shares of the quiet pictures that may have a finding.
        shares_kept: shares of the lesions found at the threshold that are to stay findings.
        seed: of the halves.
    Returns:
        One table for each half and one for both.
    Raises:
        BadInputError: as of ``halve`` and ``choose``.
    """
    choosing, reporting = halve(judged, seed)
    low = OperatingPoint(own.threshold)
    points = {"threshold only": low, "the model's own": own}
    if own == low:
        del points["the model's own"]
    for limit in limits:
        points[f"chosen for {limit:.1%}"] = choose(choosing, own.threshold, limit)
    for share in shares_kept:
        points[f"chosen to keep {share:.1%}"] = choose_keeping(choosing, own.threshold, share)
    parts = {
        f"Choosing half (seed {seed})": choosing,
        "Reporting half": reporting,
        "Both halves, chosen on the first": judged,
    }
    tables = []
    for title, pictures in parts.items():
        table = Table(
            title,
            ("point", "peak", "min_fraction", "alarms", "on windows", "on empty images", "lesions found",
             "of those at the threshold", "false regions an image"),
        )  # fmt: skip
        before = count(pictures, low)
        for name, point in points.items():
            c = count(pictures, point)
            table.add(
                name,
                f"{point.peak:g}",
                f"{point.min_fraction:g}",
                share_of(c.alarms, c.quiet),
                f"{c.window_alarms} of {c.windows}",
                f"{c.empty_alarms} of {c.empty}",
                share_of(c.found, c.lesions),
                share_of(c.found, before.found),
                f"{c.false_regions / c.images:.2f}",
            )
        tables.append(table)
    tables[-1].notes += [
        f"Threshold {own.threshold:g}. Chosen for: most lesions found with alarms in at most so many of the",
        "choosing half's quiet pictures. Chosen to keep: fewest alarms with at least so many of the lesions",
        "that the threshold finds there. A half has whole sequences, and images that look alike are in one",
        "half. In brackets: 95 % Wilson intervals, which take pictures as independent; those of one sequence",
        "and of one image are not, so the true intervals are wider.",
    ]
    return tables


def share_of(hits: int, total: int) -> str:
    """Format a share with its 95 % Wilson interval, in brackets."""
    if not total:
        return "0 of 0"
    low, high = wilson(hits, total)
    return f"{hits} of {total}, {hits / total:.1%} [{low:.1%}, {high:.1%}]"


def main(arguments: Sequence[str]) -> int:
    """Judge a model, choose its points and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a shipped model's name, .onnx, .plan or .safetensors")
    parser.add_argument("--val", required=True, help="DIR or DIR:FILE, validation images with masks")
    alarms, kept = "shares of the quiet pictures", "shares of the lesions found at the threshold"
    parser.add_argument("--most-alarms", type=float, nargs="+", default=[0.03], help=alarms)
    parser.add_argument("--least-kept", type=float, nargs="+", default=[], help=kept)
    parser.add_argument("--threshold", type=float, help="default: the model's own")
    parser.add_argument("--seed", type=int, default=0, help="of the halves")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    try:
        for limit in args.most_alarms:
            if not 0 <= limit < 1:
                raise UsageError(f"--most-alarms is {limit}, expected at least 0 and below 1")
        for share in args.least_kept:
            if not 0 < share <= 1:
                raise UsageError(f"--least-kept is {share}, expected above 0 and at most 1")
        with load_runner(args.model, threads=args.threads) as runner:
            if runner.spec.num_classes != 1:
                raise UsageError(f"{args.model} has {runner.spec.num_classes} classes, expected one")
            own = runner.spec.point_at(PointOverrides(threshold=args.threshold))
            judged = judge_all(runner, iter_samples([DataSource.parse(args.val)]), own)
            path, sha256 = Path(runner.spec.path), runner.spec.sha256
        tables = report(judged, own, args.most_alarms, args.least_kept, args.seed)
        print(f"{path.name}, sha256 {sha256}", *(table.markdown() for table in tables), sep="\n\n")
        return 0
    except VmklaError as error:
        print(error, file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
