"""Augmentation: one warp for the geometry, then light, colour, blur and what an endoscope adds."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.data.pixels import Ellipse, Image, Pixels, available
from vmkla.errors import UsageError

BEYOND_THE_PAPER = ("stretch", "colour", "blur", "noise", "glare", "border", "patch")
"""Kinds of change that the paper's recipe does not have."""


@dataclass(frozen=True)
class AugmentConfig:
    """How strongly, and how often, training images are changed.

    Attributes:
        flip: chance of a horizontal flip, and of a vertical one.
        rotate_deg: largest rotation either way, degrees.
        scale: the image is scaled by a factor from ``1 / (1 + scale)`` to ``1 + scale``; what leaves
            the frame is cropped.
        shift: largest shift, as a fraction of the side.
        stretch: largest change of the aspect ratio, as a fraction.
        colour: strength of the changes of brightness, contrast, gamma, saturation and hue; 1 is usual.
        blur: chance of blur (focus or motion).
        noise: chance of sensor noise.
        glare: chance of specular highlights.
        border: chance of an endoscope's black border with its rounded or cut corners.
        patch: chance of a display's patch (picture in picture, text) on the border's side.
    """

    flip: float = 0.5
    rotate_deg: float = 45.0
    scale: float = 0.3
    shift: float = 0.1
    stretch: float = 0.15
    colour: float = 1.0
    blur: float = 0.15
    noise: float = 0.15
    glare: float = 0.15
    border: float = 0.2
    patch: float = 0.1

    def __post_init__(self) -> None:
        for name in ("flip", "blur", "noise", "glare", "border", "patch"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"augmentation {name} is a chance, 0 to 1, got {getattr(self, name)}")
        for name in ("rotate_deg", "scale", "shift", "stretch", "colour"):
            if not 0 <= getattr(self, name) <= 180:
                raise UsageError(f"augmentation {name} must lie between 0 and 180, got {getattr(self, name)}")

    @property
    def geometric(self) -> bool:
        """Pixels move, so that a source larger than the crop keeps detail."""
        return max(self.rotate_deg, self.scale, self.shift, self.stretch) > 0

    @classmethod
    def paper(cls) -> AugmentConfig:
        """The paper's: flips, rotation and crop; light, colour and the endoscope stay as they are."""
        return dataclasses.replace(cls(), **dict.fromkeys(BEYOND_THE_PAPER, 0.0))

    @classmethod
    def off(cls) -> AugmentConfig:
        """No change at all."""
        return cls(**dict.fromkeys(cls.__dataclass_fields__, 0.0))


def augment(
    image_rgb: Image,
    mask: Image,
    size_hw: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
    pixels: Pixels | None = None,
    *,
    soft: bool = False,
) -> tuple[Image, Image]:
    """Change an image and its mask alike, at random.

    Args:
        image_rgb: (H, W, 3) uint8; H and W at least those of ``size_hw``.
        mask: (H, W) uint8, class indices; 0 is the background.
        size_hw: size of the result, px.
        config: strengths.
        rng: source of every random number, so that equal generators give equal results.
        pixels: what does the work; None takes what is installed.
        soft: the mask holds probabilities of one class instead, 0 to 255.
    Returns:
        (h, w, 3) uint8 and (h, w) uint8, as the mask.
    """
    pixels = pixels or available()
    image, warped = _warp(image_rgb, mask, size_hw, config, rng, pixels, soft=soft)
    if config.border and rng.random() < config.border:
        inside = _field_of_view(size_hw, rng, pixels)
        image = _on_border(image, inside, rng)
        warped = warped & inside
    if config.colour:
        image = _change_colour(image, config.colour, rng, pixels)
    if config.glare and rng.random() < config.glare:
        image = _add_glare(image, rng, pixels)
    if config.blur and rng.random() < config.blur:
        image = _blur(image, rng, pixels)
    if config.noise and rng.random() < config.noise:
        image = _add_noise(image, rng)
    if config.patch and rng.random() < config.patch:
        image, warped = _add_patch(image, warped, rng)
    return image, warped


def warp_matrix(
    source_hw: tuple[int, int], size_hw: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """A random affine map from source pixels to result pixels, (2, 3), pixel centres at integers."""
    (source_h, source_w), (height, width) = source_hw, size_hw
    angle = math.radians(rng.uniform(-config.rotate_deg, config.rotate_deg))
    scale = (1 + config.scale) ** rng.uniform(-1, 1)
    stretch = math.sqrt((1 + config.stretch) ** rng.uniform(-1, 1))
    flip_x = -1.0 if rng.random() < config.flip else 1.0
    flip_y = -1.0 if rng.random() < config.flip else 1.0
    shift = rng.uniform(-config.shift, config.shift, 2) * (width, height)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    # Centred source pixels -> unit square of the result's size -> rotate, scale, flip -> shift.
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag(
        [flip_x * stretch * width / source_w, flip_y / stretch * height / source_h]
    )
    centre = np.array([(source_w - 1) / 2, (source_h - 1) / 2])
    offset = np.array([(width - 1) / 2, (height - 1) / 2]) + shift - linear @ centre
    return np.column_stack([linear, offset])


def _warp(
    image: Image,
    mask: Image,
    size_hw: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
    pixels: Pixels,
    *,
    soft: bool,
) -> tuple[Image, Image]:
    if not config.geometric:
        if image.shape[:2] != size_hw:
            raise UsageError(f"an image of {image.shape[:2]} needs a warp to become {size_hw}, and it is off")
        axes = tuple(axis for axis in (0, 1) if config.flip and rng.random() < config.flip)
        return np.ascontiguousarray(np.flip(image, axes)), np.ascontiguousarray(np.flip(mask, axes))
    matrix = warp_matrix(image.shape[:2], size_hw, config, rng)
    # A reflected polyp is a polyp with its mask; black corners are the endoscope's own. Either is fine.
    warp = functools.partial(pixels.warp, matrix=matrix, size_hw=size_hw, reflect=bool(rng.random() < 0.5))
    # One class: linear, cut at one half. Several: the nearest, since nothing lies between two organs.
    if soft:
        return warp(image, nearest=False), warp(mask, nearest=False)
    if mask.max() > 1:
        return warp(image, nearest=False), warp(mask, nearest=True)
    share = warp(mask * np.uint8(255), nearest=False)
    return warp(image, nearest=False), (share > 127).astype(np.uint8)


def _field_of_view(size_hw: tuple[int, int], rng: np.random.Generator, pixels: Pixels) -> Image:
    """An endoscope's field of view as 255 on 0: a cut-cornered rectangle or a disc, a little off-centre."""
    height, width = size_hw
    left, right = rng.uniform(0, 0.15, 2) * width
    top, bottom = rng.uniform(0, 0.08, 2) * height
    if rng.random() < 0.3:
        centre = (int((left + width - right) / 2), int((top + height - bottom) / 2))
        radius = int(0.5 * max(width, height) * rng.uniform(0.95, 1.25))
        return pixels.disc(size_hw, centre, radius)
    cut = rng.uniform(0.05, 0.25) * min(height, width)
    x0, x1, y0, y1 = left, width - 1 - right, top, height - 1 - bottom
    corners = np.array(
        [(x0 + cut, y0), (x1 - cut, y0), (x1, y0 + cut), (x1, y1 - cut),
         (x1 - cut, y1), (x0 + cut, y1), (x0, y1 - cut), (x0, y0 + cut)]
    )  # fmt: skip
    return pixels.polygon(size_hw, corners.round().astype(np.int32))


def _on_border(image: Image, inside: Image, rng: np.random.Generator) -> Image:
    dark = int(rng.integers(0, 20))
    return np.where(inside[..., None] > 0, image, np.uint8(dark))


def _change_colour(image: Image, strength: float, rng: np.random.Generator, pixels: Pixels) -> Image:
    """Gamma, contrast, brightness and white balance by one table a channel; then saturation and hue."""
    gamma = math.exp(strength * rng.uniform(-0.3, 0.3))
    contrast = 1 + strength * rng.uniform(-0.25, 0.25)
    brightness = strength * rng.uniform(-0.12, 0.12)
    gains = 1 + strength * rng.uniform(-0.1, 0.1, 3)
    levels = (np.arange(256) / 255.0) ** gamma
    table = ((levels - 0.4) * contrast + 0.4 + brightness * np.minimum(1.0, 8 * levels))[:, None] * gains
    changed = pixels.look_up(image, np.clip(255 * table + 0.5, 0, 255).astype(np.uint8))
    if strength and rng.random() < 0.5:
        turn = int(round(strength * rng.uniform(-8, 8)))
        return pixels.recolour(changed, 2 * turn, 1 + strength * rng.uniform(-0.3, 0.3))
    return changed


def _add_glare(image: Image, rng: np.random.Generator, pixels: Pixels) -> Image:
    """A few bright, soft-edged blobs, as wet mucosa shows them."""
    height, width = image.shape[:2]
    blobs = []
    for _ in range(int(rng.integers(1, 9))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        across, down = (int(1 + a) for a in rng.uniform(0.003, 0.03, 2) * max(height, width))
        blobs.append(Ellipse(centre, (across, down), float(rng.uniform(0, 180)), int(rng.integers(120, 256))))
    return pixels.glare(image, blobs)


def _blur(image: Image, rng: np.random.Generator, pixels: Pixels) -> Image:
    if rng.random() < 0.5:
        return pixels.blur(image, rng.uniform(0.4, 1.8))
    length = int(rng.integers(3, 10))
    angle, half = rng.uniform(0, math.pi), (length - 1) / 2
    ends = [
        (round(half + s * half * math.cos(angle)), round(half + s * half * math.sin(angle))) for s in (-1, 1)
    ]
    return pixels.smear(image, length, ends)


def _add_noise(image: Image, rng: np.random.Generator) -> Image:
    noise = rng.normal(0.0, rng.uniform(2.0, 9.0), image.shape[:2]).astype(np.float32)
    noisy: Image = np.clip(image.astype(np.float32) + noise[..., None], 0, 255).astype(np.uint8)
    return noisy


def _add_patch(image: Image, mask: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """A flat rectangle in a corner, as processors draw for a position display or patient data."""
    height, width = mask.shape
    tall, wide = (int(f * side) for f, side in zip(rng.uniform(0.1, 0.4, 2), (height, width), strict=True))
    y = 0 if rng.random() < 0.5 else height - tall
    x = 0 if rng.random() < 0.5 else width - wide
    image, mask = image.copy(), mask.copy()
    colour = rng.integers(0, 256, 3) if rng.random() < 0.5 else rng.integers(0, 16, 3)
    image[y : y + tall, x : x + wide] = colour
    mask[y : y + tall, x : x + wide] = 0
    return image, mask
