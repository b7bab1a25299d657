"""Segment one image and save it with the overlay: python segment_image.py IMAGE OVERLAY.png"""

from __future__ import annotations

import sys

import cv2

import vmkla


def main(image: str, overlay: str) -> None:
    """Segment ``image`` and write ``overlay``."""
    frame_bgr = cv2.imread(image)
    if frame_bgr is None:
        sys.exit(f"{image} is not an image")
    frame_rgb = cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)
    with vmkla.open("nano") as segmenter:
        findings = segmenter(frame_rgb)
    for region in findings.regions:
        print(f"{region.area_px} px at {tuple(region.box)}, probability {region.probability:.2f}")
    drawn_rgb = vmkla.draw(frame_rgb, findings)
    cv2.imwrite(overlay, cv2.cvtColor(drawn_rgb, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
