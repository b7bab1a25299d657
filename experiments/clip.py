"""Count the findings of a clip's frames, and what the operating point takes away from the raw mask.

    python experiments/clip.py MODEL CLIP [--threshold F] [--peak F] [--min-fraction F]

The clip is one with a lesion in every frame. Printed as JSON: frames; frames with more than one region of the
raw mask, and with more than one finding; frames whose largest region is not a finding; frames without a
finding; and the highest peak, to two decimals, that few enough frames' largest regions stay below.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vmkla
from vmkla.errors import VmklaError
from vmkla.segment.findings import Findings
from vmkla.segment.operating_point import OperatingPoint, PointOverrides

MOST_LOST = 0.03
"""Share of the frames that may lose their largest region at ``highest_peak``."""


def of_frame(raw: Findings, kept: Findings) -> dict[str, bool]:
    """Compare the raw mask of one frame with its findings.

    Args:
        raw, kept: findings of the frame when every region counts, and at the operating point.
    """
    return {
        "several_regions": len(raw.regions) > 1,
        "several_findings": len(kept.regions) > 1,
        "largest_lost": bool(raw.regions) and raw.regions[0] not in kept.regions,
        "without_region": not raw.any,
        "without_finding": not kept.any,
    }


def count(model: str, clip: Path, overrides: PointOverrides) -> dict[str, Any]:
    """Count over all frames of a clip; see the module."""
    counts: Counter[str] = Counter()
    frames, largest = 0, list[float]()
    with vmkla.open(model) as segmenter, vmkla.open(model) as raw:
        segmenter.point = segmenter.spec.point_at(overrides)
        raw.point = OperatingPoint(segmenter.point.threshold)
        for shown, every in zip(segmenter.video(clip), raw.video(clip), strict=True):
            counts.update(of_frame(every.findings, shown.findings))
            largest += [region.peak for region in every.findings.regions[:1]]
            frames += 1
        point = segmenter.point.to_dict()
    return {
        "frames": frames,
        "operating_point": point,
        **counts,
        "highest_peak": highest_peak(largest, int(MOST_LOST * frames)),
    }


def highest_peak(largest: Sequence[float], lost: int) -> float | None:
    """The highest peak, to two decimals, that at most ``lost`` of the largest regions' peaks are below.

    None where no peak takes away more.
    """
    return None if len(largest) <= lost else math.floor(100 * sorted(largest)[lost]) / 100


def main(arguments: Sequence[str]) -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--peak", type=float)
    parser.add_argument("--min-fraction", type=float)
    args = parser.parse_args(arguments)
    try:
        overrides = PointOverrides(args.threshold, args.peak, args.min_fraction)
        print(json.dumps(count(args.model, args.clip, overrides), indent=2))
    except VmklaError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
