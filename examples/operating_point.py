"""Count regions at several operating points: python operating_point.py IMAGE_OR_FOLDER

A higher peak keeps fewer regions, and may lose lesions: choose it on labelled images, see docs/guide.md.
"""

from __future__ import annotations

import sys

import vmkla

PEAKS = (0.5, 0.8, 0.95, 0.98)


def main(source: str) -> None:
    """Print the number of regions for each peak probability that a region must reach."""
    for peak in PEAKS:
        point = vmkla.OperatingPoint(threshold=0.5, peak=peak)
        with vmkla.open("nano", point=point) as segmenter:
            counts = [len(frame.findings.regions) for frame in segmenter.video(source)]
        print(f"peak {peak:.2f}: {sum(counts)} regions in {len(counts)} images")


if __name__ == "__main__":
    main(sys.argv[1])
