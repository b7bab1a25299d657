"""Draw heat maps of decoder blocks side by side. Torch is imported when a panel is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import ArtefactMismatchError, UsageError
from vmkla.folders import is_empty, locked_folder
from vmkla.imports import require
from vmkla.segment.findings import Findings, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.overlay import draw
from vmkla.segment.preprocess import restore
from vmkla.segment.steps import view
from vmkla.video.file.outputs import OVERLAY_FOLDER, check_image_names
from vmkla.video.media.images import write_png
from vmkla.video.media.sources import ImageSource

_OPACITY = 0.5
_TITLE_PER_WIDTH = 1 / 16
_TITLE_MIN_PX = 20
_GAP_PX = 6


@dataclass(frozen=True)
class BlockName:
    """A decoder block.

    Attributes:
        stage: stage of the decoder, 0 (the deepest) to 3.
        block: index of the block in its stage; None is the last one.
    """

    stage: int
    block: int | None = None

    @classmethod
    def parse(cls, text: str) -> BlockName:
        """Read ``STAGE`` or ``STAGE.BLOCK``.

        Raises:
            UsageError: the text is neither.
        """
        match = re.fullmatch(r"(\d+)(?:\.(\d+))?", text.strip())
        if match is None:
            raise UsageError(
                f"the block {text!r} makes no sense",
                hint="Give STAGE or STAGE.BLOCK, for instance 3.0: stage 0 is the deepest, 3 the shallowest.",
            )
        return cls(int(match[1]), None if match[2] is None else int(match[2]))


@dataclass(frozen=True)
class PanelHeat:
    """Heat map and findings of one panel for one image.

    Attributes:
        title: name of the decoder block.
        heat: (H, W) float32 at the image's own size, 0 to 1; divided by its largest value.
        findings: what the panel's network finds in the image.
    """

    title: str
    heat: npt.NDArray[np.float32]
    findings: Findings

    @property
    def heat_in_mark(self) -> float | None:
        """Share of the heat inside the findings, 0 to 1; None without heat or findings."""
        total = float(self.heat.sum())
        if not self.findings.any or total <= 0:
            return None
        return float(self.heat[self.findings.mask > 0].sum()) / total


class Panel:
    """A decoder block of a trained network that explains images.

    Args:
        weights: a ``.safetensors`` file that ``vmkla train`` wrote.
        block: the block to explain.
        device: ``"cpu"`` or ``"cuda:0"``.
    Raises:
        ArtefactMismatchError: the file does not state the size of its training.
        UsageError: there is no such block.
        MissingDependencyError: torch, captum or the device is missing.
    """

    def __init__(self, weights: Path, block: BlockName, *, device: str = "cpu") -> None:
        self._torch = require("torch", extra="train", purpose="vmkla explain")
        from vmkla.models import checkpoints, gradcam, serving

        serving.check_device(device)
        loaded = checkpoints.load_weights(weights)
        if loaded.preprocess is None:
            raise ArtefactMismatchError(f"{weights} does not state the size of its training")
        depths = loaded.config.decoder_depths
        number = block.block
        if number is None:
            number = depths[block.stage] - 1 if block.stage < len(depths) else 0
        self.title = f"{loaded.config.decoder_block} {block.stage}.{number}"
        self.point = loaded.operating_point or OperatingPoint(loaded.threshold)
        self.spec = loaded.preprocess
        self._device = device
        self._cam = gradcam.DecoderGradCam(loaded.model.to(device), block.stage, number)
        self._served: Any = serving.FramesToProbability(loaded.model, loaded.config.num_classes).to(device)

    def __call__(self, image_rgb: npt.NDArray[np.uint8]) -> PanelHeat:
        """Explain one image.

        Args:
            image_rgb: (H, W, 3) uint8.
        """
        seen = view(image_rgb, self.spec)
        frame = self._torch.from_numpy(seen.pixels_rgb[None]).to(self._device)
        found = self._cam(self._served.normalised(frame))
        probability = self._served.probability(found.logits)[0].cpu().numpy()  # (classes, h, w)
        size_hw = image_rgb.shape[:2]
        heat = restore(found.heat.cpu().numpy(), seen.rect, size_hw)[0]
        top = float(heat.max())
        return PanelHeat(
            self.title, heat / top if top > 0 else heat, find(probability, seen.rect, size_hw, self.point)
        )


@dataclass(frozen=True)
class Explained:
    """One image that was explained.

    Attributes:
        image: name of the image, relative to the source.
        picture: the file that was written.
        panels: block and ``heat_in_mark`` of each panel.
    """

    image: str
    picture: Path
    panels: tuple[dict[str, Any], ...]


def explain(
    panels: Sequence[Panel],
    images: ImageSource,
    out_dir: Path,
    on_image: Callable[[int, int | None, str], None] | None = None,
    *,
    exist_ok: bool = False,
) -> list[Explained]:
    """Write a picture for every readable image; ``images.problems`` then names the others.

    Args:
        panels: at least one block.
        images: what to explain.
        out_dir: folder for ``overlay/`` with the pictures, which keep the images' relative names.
        exist_ok: write into a folder that is not empty.
        on_image: called with the number of images done, the number of all images, and the image's name.
    Raises:
        UsageError: another run is active in ``out_dir``, or it is not empty and ``exist_ok`` is not set.
        BadInputError: no image can be read, two would share a picture, or a picture cannot be written.
    """
    check_image_names(images.items, out_dir)
    done: list[Explained] = []
    with locked_folder(out_dir, (OVERLAY_FOLDER,)):
        if not exist_ok and not is_empty(out_dir):
            raise UsageError(f"{out_dir} is not empty", hint="Add --exist-ok, or choose another folder.")
        for frame in images.frames():
            views = [panel(frame.rgb) for panel in panels]
            picture = (out_dir / OVERLAY_FOLDER / frame.name).with_suffix(".png")
            write_png(picture, side_by_side(frame.rgb, views))
            facts = tuple({"block": view.title, "heat_in_mark": view.heat_in_mark} for view in views)
            done.append(Explained(frame.name, picture, facts))
            if on_image is not None:
                on_image(len(done), images.total, frame.name)
    return done


def side_by_side(image_rgb: npt.NDArray[np.uint8], panels: Sequence[PanelHeat]) -> npt.NDArray[np.uint8]:
    """Draw an image and, beside it, each panel's heat map and findings over the image.

    Args:
        image_rgb: (H, W, 3) uint8.
        panels: at least one result for this image.
    Returns:
        (H + title, W (1 + panels) + gaps, 3) uint8.
    """
    pictures = [_titled(image_rgb, "image")]
    for panel in panels:
        bgr = cv2.applyColorMap((255 * panel.heat).round().astype(np.uint8), cv2.COLORMAP_JET)
        heat_rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        mixed = np.asarray(cv2.addWeighted(image_rgb, 1 - _OPACITY, heat_rgb, _OPACITY, 0), np.uint8)
        pictures.append(_titled(draw(mixed, panel.findings), panel.title))
    gap = np.full((pictures[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _titled(image_rgb: npt.NDArray[np.uint8], title: str) -> npt.NDArray[np.uint8]:
    width_px = image_rgb.shape[1]
    height_px = max(_TITLE_MIN_PX, round(width_px * _TITLE_PER_WIDTH))
    strip: npt.NDArray[np.uint8] = np.full((height_px, width_px, 3), 255, np.uint8)
    left_bottom = (height_px // 4, round(0.7 * height_px))
    thickness = max(1, height_px // 20)
    cv2.putText(
        strip, title, left_bottom, cv2.FONT_HERSHEY_SIMPLEX, height_px / 50, (0, 0, 0), thickness, cv2.LINE_AA
    )
    return np.concatenate([strip, image_rgb])
