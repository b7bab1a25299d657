"""Make docs/images/overlay.jpg: rendered frames with the overlay that ``vmkla infer`` draws.

Run: make picture
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import vmkla
from vmkla.video.media.clip import Scene
from vmkla.video.media.images import write_jpeg

FRAMES = ((2, 45), (6, 30), (2, 150))
"""Seeds of rendered clips, and frames of them that show a polyp. No pixel comes from a patient."""
HEIGHT, WIDTH = 360, 480
MAX_BYTES = 200_000


def main(path: Path) -> None:
    """Render, segment, draw, and write the frames side by side."""
    tiles = []
    with vmkla.open("nano") as segmenter:
        for seed, index in FRAMES:
            frame_rgb, truth = Scene(seed, HEIGHT, WIDTH).frame(index)
            findings = segmenter(frame_rgb)
            found = (findings.mask > 0) & (truth > 0)
            if 2 * found.sum() < 0.8 * (findings.area_px + (truth > 0).sum()):
                sys.exit(f"frame {index} of seed {seed}: the polyp is not outlined; choose another frame")
            tiles.append(vmkla.draw(frame_rgb, findings, "contour", None, "probability"))
    path.parent.mkdir(exist_ok=True)
    write_jpeg(path, np.ascontiguousarray(np.hstack(tiles)))
    path.chmod(0o644)  # rendered, so it may be read by all
    if path.stat().st_size > MAX_BYTES:
        sys.exit(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
    print(f"picture: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images" / "overlay.jpg")
