"""Render a procedural endoscopic clip: a lit, folded tunnel with polyps, and an exact mask for each frame.

The wall is a tube of radius R(theta, z), stored as a table; folds and polyps project inwards. Each pixel's
ray is marched to the wall, lit by a lamp beside the camera, and coloured by a second table. The mask is read
from the same table at the same point, so it is exact. The clip serves demos, tests and extra training data;
it is not evidence of accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.video.media.clip_files import write_frames
from vmkla.video.media.clip_tables import LENGTH, Tables, make_tables

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MARCH_STEPS = 22
MAX_SLOPE = 1.5
"""Assumed largest slope of the wall along z, which limits a marching step."""
FAR = 9.0
"""Length of a ray, tube radii; the light ends long before."""
LEAST_LIGHT = 0.08
"""Smallest share of the lamp's light at which a polyp is in the mask; below, it is too dark to be seen."""
_NEAR, _FALL = 0.55, 0.6  # light over distance: 1 / (NEAR + FALL distance^2)
FPS = 30.0
"""Frame rate of ``Scene.frame``, frames a second."""


@dataclass(frozen=True, eq=False)
class _View:
    """A frame, and where its pixels lie on the wall.

    Attributes:
        rgb: (H, W, 3).
        mask: (H, W), 255 on polyps and 0 elsewhere.
        column, row: (H, W), place in the tables; rows continue beyond the table's end.
        lap: number of times that the tube has repeated itself at row 0.
    """

    rgb: Image
    mask: Image
    column: Floats
    row: Floats
    lap: int


class Scene:
    """A rendered colon with one camera path through it.

    Args:
        seed: seed of the scene; equal seeds give equal frames on one machine.
        height, width: size of the frames, px; both at least 32.
    Raises:
        UsageError: a size is too small.
    """

    def __init__(self, seed: int, height: int, width: int) -> None:
        if height < 32 or width < 32:
            raise UsageError(f"a clip of {width}x{height} (width x height) is too small, the least is 32x32")
        if seed < 0:
            raise UsageError(f"the seed must not be negative, got {seed}")
        self.seed, self.height, self.width = seed, height, width
        rng = np.random.default_rng((seed, 1))
        self.tables: Tables = make_tables(np.random.default_rng((seed, 2)))
        self.field = _field_of_view(height, width, rng)  # (H, W) 0 to 1
        self.speed = float(rng.uniform(0.25, 0.55)) * (1 if rng.random() < 0.5 else -1)  # radii per second
        self.start = float(rng.uniform(0, LENGTH))
        self.phases = rng.uniform(0, 2 * math.pi, 12)
        self.rates = rng.uniform(0.15, 0.7, 12)  # radians per second
        self.swing = float(rng.uniform(0.25, 0.8))  # how far the camera turns, radians
        self.offset = float(rng.uniform(0.1, 0.42))  # how far it leaves the axis, radii
        self.bend = float(rng.uniform(0.02, 0.09))
        self.gain = float(rng.uniform(1.0, 2.0))
        self.mask_far = math.sqrt((self.gain / LEAST_LIGHT - _NEAR) / _FALL)  # radii
        self.lamp = rng.uniform(-0.5, 0.5, 2)
        self.shine = float(rng.uniform(0.5, 1.6))
        self.white = (1 + rng.uniform(-0.05, 0.05, 3)).astype(np.float32)
        self.softness_px = float(rng.uniform(0.3, 0.9)) * max(height, width) / 480
        half_view = float(rng.uniform(0.85, 1.15))  # angle from the axis to the longer side's edge, radians
        self.grain = np.random.default_rng((seed, 3)).normal(0, rng.uniform(1.0, 3.5), (height, width, 1))
        self.grain = np.repeat(self.grain, 3, axis=2).astype(np.float32)
        side_px = max(3, 2 * (width // 140) + 1)
        self.disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side_px, side_px))
        self.rays = _fisheye(height, width, half_view)  # (H, W, 3)
        self.coarse_rays = _fisheye((height + 1) // 2, (width + 1) // 2, half_view)

    def frame(self, index: int) -> tuple[Image, Image]:
        """Render a frame.

        Args:
            index: number of the frame, from 0, at 30 frames per second; in any order.
        Returns:
            (H, W, 3) uint8 RGB and (H, W) uint8, 255 on polyps and 0 elsewhere.
        """
        view = self._view(index)
        return view.rgb, view.mask

    def frame_with_lesions(self, index: int) -> tuple[Image, npt.NDArray[np.int32]]:
        """Render a frame, and the identity of each polyp in it.

        The tube repeats itself, so the camera passes the same polyps again after a while. Each time they are
        other lesions, as in a colon that is as long as the camera's path.

        Args:
            index: as for ``frame``.
        Returns:
            (H, W, 3) uint8 RGB and (H, W) int32: the number of the lesion, from 1; 0 where the mask is 0.
        """
        view = self._view(index)
        lesions = np.zeros(view.mask.shape, np.int32)
        seen = np.nonzero(view.mask)
        if not len(seen[0]):
            return view.rgb, lesions
        tables = self.tables
        rows, columns = tables.owner.shape
        row, column = view.row[seen], view.column[seen]
        nearest = np.zeros(view.mask.shape, np.uint8)
        nearest[seen] = tables.owner[
            np.floor(row + 0.5).astype(np.int64) % rows, np.floor(column + 0.5).astype(np.int64) % columns
        ]
        owner = nearest[seen]
        filled = np.asarray(cv2.dilate(nearest, self.disc))[seen]  # where the mask was closed over a sliver
        owner = np.where(owner == 0, filled, owner)
        centres = np.array([0.0, *tables.polyps_z])[owner]
        z = view.lap * LENGTH + row * (LENGTH / rows)
        lap = np.round((z - centres) / LENGTH).astype(np.int64)
        pass_number = np.where(lap >= 0, 2 * lap, -2 * lap - 1)
        lesions[seen] = np.where(owner > 0, owner + len(tables.polyps_z) * pass_number, 0)
        return view.rgb, lesions

    def _view(self, index: int) -> _View:
        time_s = index / FPS
        eye, turn, bend = self._camera(time_s)
        coarse = self.coarse_rays @ turn
        distance = _enlarge(self._march(coarse, eye, bend), self.height, self.width)
        rays = self.rays @ turn
        rgb, rho, column, row = self._shade(rays, distance, eye, bend)
        seen = (rho < 1) & (distance < self.mask_far)
        # A steep side that is barely visible breaks into slivers of a few pixels; close them.
        closed = cv2.morphologyEx(seen.astype(np.uint8) * 255, cv2.MORPH_CLOSE, self.disc)
        mask = np.asarray(cv2.medianBlur(closed, 5 if self.width > 240 else 3), np.uint8)
        mask[self.field <= 0.3] = 0
        return _View(self._develop(rgb, index, time_s), mask, column, row, math.floor(eye[2] / LENGTH))

    def _wave(self, number: int, time_s: float) -> float:
        return math.sin(self.phases[number] + self.rates[number] * time_s)

    def _camera(self, time_s: float) -> tuple[Floats, Floats, Floats]:
        """Return position (3,), rotation (3, 3) for row vectors, and bend of the tube's axis ahead (2,)."""
        wave = self._wave
        z = self.start + self.speed * time_s + 0.25 * wave(0, 2 * time_s)
        eye = np.array([self.offset * wave(1, time_s), self.offset * wave(2, time_s), z], np.float32)
        yaw = self.swing * 0.5 * (wave(3, time_s) + wave(4, 2.3 * time_s))
        pitch = self.swing * 0.5 * (wave(5, time_s) + wave(6, 2.1 * time_s))
        roll = 0.6 * wave(7, 0.5 * time_s)
        turn = _rotation(0, pitch) @ _rotation(1, yaw) @ _rotation(2, roll)
        bend = self.bend * np.array([wave(8, time_s), wave(9, time_s)])
        return eye, turn.astype(np.float32), bend.astype(np.float32)

    def _march(self, rays: Floats, eye: Floats, bend: Floats) -> Floats:
        """Return the distance along each ray to the wall, (h, w), radii."""
        dx, dy, dz = (np.ascontiguousarray(rays[..., axis]) for axis in range(3))
        pace = 1 / (np.sqrt(dx * dx + dy * dy) + MAX_SLOPE * np.abs(dz))
        distance = np.zeros_like(dx)
        for _ in range(MARCH_STEPS):
            along = distance * dz
            radius, column, row = self._on_wall(distance, along, dx, dy, eye, bend)
            inside = _wrapped(row, self.tables.radius.shape[0])
            wall = cv2.remap(self.tables.radius, column, inside, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
            distance += (wall - radius) * pace
            np.clip(distance, 0.0, FAR, out=distance)
        return distance

    def _on_wall(
        self, distance: Floats, along: Floats, dx: Floats, dy: Floats, eye: Floats, bend: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return the distance from the tube's axis, and column and row in the tables, of points on rays."""
        squared = along * along
        x = eye[0] + distance * dx - bend[0] * squared
        y = eye[1] + distance * dy - bend[1] * squared
        radius, theta = cv2.cartToPolar(x, y)
        rows, columns = self.tables.radius.shape
        column = np.asarray(theta, np.float32) * np.float32(columns / (2 * math.pi))
        row = (along + np.float32(eye[2] % LENGTH)) * np.float32(rows / LENGTH)
        return np.asarray(radius, np.float32), column, row

    def _shade(
        self, rays: Floats, distance: Floats, eye: Floats, bend: Floats
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Return the light along the rays, (H, W, 3), the polyps' field rho, and column and row, (H, W)."""
        tables = self.tables
        dx, dy, dz = (np.ascontiguousarray(rays[..., axis]) for axis in range(3))
        along = distance * dz
        radius, column, row = self._on_wall(distance, along, dx, dy, eye, bend)
        inside = _wrapped(row, tables.radius.shape[0])
        wall = cv2.remap(tables.shape, column, inside, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        slope_theta, slope_z, rho = (np.ascontiguousarray(wall[..., channel]) for channel in range(3))
        across, along_tube = (_wrapped(places * 3, tables.bump.shape[0]) for places in (column, row))
        bump = cv2.remap(tables.bump, across, along_tube, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        fine = np.float32(tables.colour.shape[1] / tables.radius.shape[1])
        colour = cv2.remap(
            tables.colour, column * fine, inside * fine, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        # The inward normal in the wall's own axes (radial, around, along), and the ray in the same.
        around = slope_theta / np.maximum(radius, 0.2) + bump[..., 0]
        ahead = slope_z + bump[..., 1]
        length = np.sqrt(1 + around * around + ahead * ahead)
        theta = column * np.float32(2 * math.pi / tables.radius.shape[1])
        cos, sin = np.asarray(cv2.polarToCart(np.ones_like(theta), theta))
        ray_radial = dx * cos + dy * sin
        ray_around = dy * cos - dx * sin
        facing = (ray_radial - around * ray_around - ahead * dz) / length
        # The lamp is a little beside the lens, so highlights lie off the places that face the camera.
        lamp_x, lamp_y = (np.float32(0.5 * side) / np.maximum(distance, 0.4) for side in self.lamp)
        toward = (lamp_y * cos - lamp_x * sin) * around - (lamp_x * cos + lamp_y * sin)
        half = np.sqrt(1 - 2 * (lamp_x * dx + lamp_y * dy) + lamp_x * lamp_x + lamp_y * lamp_y)
        gloss = np.clip((facing + toward / length) / half, 0, 1)
        falloff = np.float32(self.gain) / (_NEAR + _FALL * distance * distance)
        diffuse = (0.35 + 0.65 * np.clip(facing, 0, 1)) * falloff
        for _ in range(8):  # power 256
            gloss *= gloss
        gloss *= np.float32(self.shine) * np.minimum(falloff, 1.0)
        light = colour.astype(np.float32) * (diffuse * np.float32(1 / 255))[..., None]
        # What bounces about between red walls comes back redder.
        light[..., 0] += 0.02 * falloff * self.tables.tint
        light += gloss[..., None]
        return light, np.asarray(rho, np.float32), column, row

    def _develop(self, light: Floats, index: int, time_s: float) -> Image:
        """Turn light into a frame: exposure, softness, motion blur, grain and the field of view."""
        exposed = 1 - np.exp(-1.6 * light * self.white)
        image = np.asarray(cv2.GaussianBlur(exposed, (0, 0), self.softness_px), np.float32)
        image = self._motion_blur(image, time_s)
        image *= 255
        rng = np.random.default_rng((self.seed, 4, index))
        down, right = int(rng.integers(self.height)), int(rng.integers(self.width))
        image += np.roll(self.grain, (down, right), (0, 1))
        image *= self.field[..., None]
        image += 3.5  # a display's black is not quite 0
        return np.clip(image, 0, 255).astype(np.uint8)

    def _motion_blur(self, image: Floats, time_s: float) -> Floats:
        """Blur along the motion of the view in half a frame's time."""
        step_s = 0.5 / FPS
        before, after = self._camera(time_s)[1], self._camera(time_s + step_s)[1]
        move = (after - before)[:2, 2] * self.width * 0.5  # px, of the centre
        length = float(np.hypot(*move))
        if length < 1.0:
            return image
        size = int(length) | 1
        kernel = np.zeros((size, size), np.float32)
        half = size // 2
        reach = move / length * half
        ends = [(round(half + s * reach[0]), round(half + s * reach[1])) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.float32)


def render_clip(seed: int, height: int, width: int, frames: int) -> Iterator[tuple[Image, Image]]:
    """Render the frames of a procedural endoscopic clip and their masks.

    Args:
        seed: seed of the scene; equal seeds give equal clips on one machine.
        height, width: size of the frames, px.
        frames: number of frames, at 30 per second.
    Returns:
        Pairs of (H, W, 3) uint8 RGB and (H, W) uint8, 255 on polyps; some frames show none.
    Raises:
        UsageError: a size is below 32, or the count is below 1.
    """
    if frames < 1:
        raise UsageError(f"a clip needs at least 1 frame, got {frames}")
    scene = Scene(seed, height, width)
    return (scene.frame(index) for index in range(frames))


def _wrapped(places: Floats, period: int) -> Floats:
    """Subtract whole periods of a table from places in it: OpenCV is slow beyond its edge.

    The difference is exact, since its magnitude is not larger; places below 0 stay there.

    Args:
        places, period: px of the table.
    """
    return np.asarray(places - np.trunc(places * np.float32(1 / period)) * np.float32(period), np.float32)


def _enlarge(distance: Floats, height: int, width: int) -> Floats:
    """Interpolate distances; at the edge of a fold a point takes one side, not a value between."""
    kernel = np.ones((3, 3), np.uint8)
    near, between, far = (
        np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        for plane in (cv2.erode(distance, kernel), distance, cv2.dilate(distance, kernel))
    )
    edge = far - near > 0.1 + 0.15 * near
    return np.where(edge, np.where(between < (near + far) / 2, near, far), between)


def _rotation(axis: int, angle: float) -> npt.NDArray[np.float64]:
    first, second = (a for a in range(3) if a != axis)
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = math.sin(angle), -math.sin(angle)
    return matrix


def _fisheye(height: int, width: int, half_view: float) -> Floats:
    """Return unit directions of the pixels, (H, W, 3), at angles in proportion to the radius."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    scale = 2 * half_view / max(height, width)
    x, y = (x - (width - 1) / 2) * scale, (y - (height - 1) / 2) * scale
    angle = np.maximum(np.hypot(x, y), 1e-6)
    sine = np.sin(angle) / angle
    return np.stack([x * sine, y * sine, np.cos(angle)], axis=-1).astype(np.float32)


def _field_of_view(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Return the brightness over the frame, (H, W): 0 outside a rounded octagon or disc, less at its edge."""
    scale = 4  # drawn larger, for a smooth edge
    field = np.zeros((height, width), np.uint8)
    side = min(height, width)
    margin_x, margin_y = rng.uniform(0.0, 0.1) * width, rng.uniform(0.0, 0.05) * height
    x0, x1, y0, y1 = margin_x, width - 1 - margin_x, margin_y, height - 1 - margin_y
    if rng.random() < 0.25:
        centre = (round((width - 1) / 2 * scale), round((height - 1) / 2 * scale))
        radius = round(rng.uniform(0.5, 0.62) * max(side, 0.9 * width) * scale)
        cv2.circle(field, centre, radius, 255, -1, cv2.LINE_AA, shift=2)
    else:
        cut = rng.uniform(0.12, 0.28) * side
        corners = np.array(
            [(x0 + cut, y0), (x1 - cut, y0), (x1, y0 + cut), (x1, y1 - cut),
             (x1 - cut, y1), (x0 + cut, y1), (x0, y1 - cut), (x0, y0 + cut)]
        )  # fmt: skip
        cv2.fillPoly(field, [(corners * scale).round().astype(np.int32)], 255, cv2.LINE_AA, shift=2)
        rounding = rng.uniform(0.01, 0.03) * side
        field = np.asarray(cv2.GaussianBlur(field, (0, 0), rounding, borderType=cv2.BORDER_CONSTANT))
        field = np.clip((field.astype(np.float32) - 127) * rounding * 0.5 + 127, 0, 255).astype(np.uint8)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 1 - rng.uniform(0.1, 0.45) * np.clip((x * x + y * y) / 2, 0, 1)
    return np.asarray(field / 255 * vignette, np.float32)


def write_clip(
    path: Path | str,
    frames: int,
    seed: int,
    *,
    height: int = 360,
    width: int = 480,
    fps: int | Fraction = 30,
    masks_dir: Path | str | None = None,
) -> None:
    """Render a clip into a video file, completely or not at all.

    Args:
        path: the video, an MP4 with H.264.
        frames: number of frames.
        seed: seed of the scene; equal seeds give equal frames on one machine.
        height, width: size of the frames, px; both even, as H.264 requires.
        fps: frame rate of the file; the camera moves at 30 frames per second.
        masks_dir: folder for one PNG of 0 and 255 per frame, ``000000.png`` and on.
    Raises:
        UsageError: a size or count is out of range.
        BadInputError: the files cannot be written.
    """
    rate = Fraction(fps)
    if rate <= 0:
        raise UsageError(f"fps must be above 0, got {fps}")
    clip = render_clip(seed, height, width, frames)
    write_frames(path, clip, (height, width), rate=rate, masks_dir=masks_dir)
