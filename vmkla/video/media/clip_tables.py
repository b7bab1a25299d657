"""Build the wall of the rendered colon as tables over (z, theta): radius, slopes, polyps, colour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LENGTH = 12.0
"""Period of the tube along z, in tube radii."""
ROWS, COLUMNS = 768, 384
"""Size of the tables of the shape, along z and theta."""
FINE = 2
"""Factor of rows and columns of the colour table."""
OUTSIDE = 4.0
"""Value of the polyps' field rho far from any polyp; inside a polyp rho is below 1."""


@dataclass(frozen=True)
class Tables:
    """Tables of the wall.

    Attributes:
        radius: (ROWS, COLUMNS) float32, distance of the wall from the axis, tube radii.
        shape: (ROWS, COLUMNS, 3) float32: dR/dtheta, dR/dz, rho.
        bump: (256, 256, 2) float32, small slopes around and along, tiled.
        colour: (FINE * ROWS, FINE * COLUMNS, 3) uint8, RGB reflectance times 255.
        tint: strength of the reddish light between the walls, 0.3 to 1.
        owner: (ROWS, COLUMNS) uint8, number of the nearest polyp, from 1; 0 far from any.
        polyps_z: position of each polyp's centre along the tube, tube radii.
    """

    radius: Floats
    shape: Floats
    bump: Floats
    colour: npt.NDArray[np.uint8]
    tint: float
    owner: npt.NDArray[np.uint8]
    polyps_z: tuple[float, ...]


@dataclass(frozen=True)
class Polyp:
    """One polyp on the wall.

    Attributes:
        z, theta: position of the centre, tube radii and radians.
        size: radius of the base, tube radii.
        height: height above the wall, tube radii.
        aspect, angle: aspect ratio and rotation of the outline, the angle in radians.
        lobes: amplitudes and phases of the outline's irregularity, (k, 2).
        power: exponent of the profile; small is a plateau, large a peak.
        colour: RGB factors on the mucosa's colour.
        pits: contrast of the surface pattern.
    """

    z: float
    theta: float
    size: float
    height: float
    aspect: float
    angle: float
    lobes: npt.NDArray[np.float64]
    power: float
    colour: npt.NDArray[np.float64]
    pits: float


def make_tables(rng: np.random.Generator) -> Tables:
    """Build the tables of a random wall."""
    radius = _wall(rng)
    colour, finish = _mucosa(rng)
    rho: Floats = np.full((ROWS, COLUMNS), OUTSIDE, np.float32)
    owner = np.zeros((ROWS, COLUMNS), np.uint8)
    polyps = _polyps(rng)
    for number, polyp in enumerate(polyps, start=1):
        before = rho.copy()
        _add_polyp(polyp, radius, rho, colour, rng)
        owner[rho < before] = number
    np.maximum(radius, 0.25, out=radius)
    d_theta = (np.roll(radius, -1, 1) - np.roll(radius, 1, 1)) * np.float32(COLUMNS / (4 * math.pi))
    d_z = (np.roll(radius, -1, 0) - np.roll(radius, 1, 0)) * np.float32(ROWS / (2 * LENGTH))
    shape = np.stack([d_theta, d_z, rho], axis=-1)
    roughness = rng.uniform(0.04, 0.16)
    relief = noise(rng, (256, 256), 24) + 0.5 * noise(rng, (256, 256), 64)
    bump = roughness * np.stack(
        [np.roll(relief, -1, 1) - np.roll(relief, 1, 1), np.roll(relief, -1, 0) - np.roll(relief, 1, 0)],
        axis=-1,
    )
    colour8 = np.clip(colour * 255 + 0.5, 0, 255).astype(np.uint8)
    centres = tuple(polyp.z for polyp in polyps)
    return Tables(radius, shape, np.ascontiguousarray(bump, np.float32), colour8, finish, owner, centres)


def noise(rng: np.random.Generator, size: tuple[int, int], cells: int | tuple[int, int]) -> Floats:
    """Generate smooth noise of about unit deviation that wraps at both edges.

    Args:
        rng: random generator.
        size: number of rows and columns.
        cells: number of random values down and across; more is finer.
    """
    down, across = (cells, cells) if isinstance(cells, int) else cells
    grid = np.pad(rng.standard_normal((down, across)).astype(np.float32), 2, mode="wrap")
    rows, columns = (math.ceil(side / n) for side, n in zip(size, (down, across), strict=True))
    large = cv2.resize(grid, (grid.shape[1] * columns, grid.shape[0] * rows), interpolation=cv2.INTER_CUBIC)
    tile = np.asarray(large[2 * rows : (2 + down) * rows, 2 * columns : (2 + across) * columns])
    if tile.shape != size:
        tile = np.asarray(cv2.resize(tile, size[::-1], interpolation=cv2.INTER_LINEAR))
    return np.asarray(tile * 1.3, np.float32)


def _wall(rng: np.random.Generator) -> Floats:
    """Return the radius of the bare wall, three-cornered, with folds across it."""
    theta = np.linspace(0, 2 * math.pi, COLUMNS, endpoint=False, dtype=np.float32)
    z = np.linspace(0, LENGTH, ROWS, endpoint=False, dtype=np.float32)[:, None]
    twist = rng.uniform(0, 2 * math.pi) + 0.5 * np.sin(2 * math.pi * z / LENGTH + rng.uniform(0, 6))
    radius = 1 + rng.uniform(0.02, 0.1) * np.cos(3 * (theta - twist))
    radius = radius + rng.uniform(0.02, 0.06) * noise(rng, (ROWS, COLUMNS), (14, 8))
    spacing = rng.uniform(0.55, 1.3)
    count = max(6, round(LENGTH / spacing))
    depth = rng.uniform(0.12, 0.42)
    for number in range(count):
        centre = (number + rng.uniform(-0.3, 0.3)) * LENGTH / count
        height = depth * rng.uniform(0.35, 1.15)
        width = rng.uniform(0.05, 0.14)
        tilt, lean = rng.uniform(-0.25, 0.25), rng.uniform(0, 2 * math.pi)
        middle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.0)
        extent = np.clip(reach + (1 - reach) * 0.5 + 0.8 * np.cos(theta - middle), 0, 1)
        extent = extent * extent * (3 - 2 * extent)
        ridge = centre + tilt * np.cos(theta - lean) + 0.03 * np.sin(5 * theta + lean)
        away = (z - ridge + LENGTH / 2) % LENGTH - LENGTH / 2
        away = away / np.where(away > 0, width, 1.7 * width)
        radius = radius - height * extent / (1 + away * away) ** 1.5
    return np.ascontiguousarray(radius, np.float32)


def _mucosa(rng: np.random.Generator) -> tuple[Floats, float]:
    """Return the reflectance of the wall, (rows, columns, 3), 0 to 1, and the tint of the light."""
    size = (FINE * ROWS, FINE * COLUMNS)
    pink, pale, tan = np.array([[0.90, 0.36, 0.30], [0.95, 0.58, 0.46], [0.88, 0.50, 0.28]])
    weights = rng.dirichlet((1.2, 0.8, 0.7))
    base = weights @ np.stack([pink, pale, tan])
    base = base * rng.uniform(0.92, 1.06, 3)
    patches = noise(rng, size, (40, 22)) * 0.6 + noise(rng, size, (160, 84)) * 0.4
    grain = noise(rng, size, (512, 256))
    brightness = 1 + rng.uniform(0.02, 0.07) * patches + rng.uniform(0.01, 0.04) * grain
    vessels = _vessels(rng, size)
    strength = rng.uniform(0.05, 0.4)
    colour = np.empty((*size, 3), np.float32)
    for channel, (own, loss) in enumerate(zip(base, (0.25, 1.0, 0.85), strict=True)):
        drift = rng.uniform(-0.03, 0.03)
        colour[..., channel] = own * (brightness + drift * patches) * (1 - loss * strength * vessels)
    if rng.random() < 0.5:
        _add_residue(colour, rng)
    return colour, float(rng.uniform(0.3, 1.0))


def _vessels(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Return vessels as thin, winding lines of varying strength, 0 to 1: the zero lines of two noises."""
    wide = np.abs(noise(rng, size, (48, 24)) + 0.35 * noise(rng, size, (128, 64)))
    thin = np.abs(noise(rng, size, (110, 58)) + 0.3 * noise(rng, size, (256, 128)))
    lines = np.maximum(np.clip(1 - wide / 0.1, 0, 1), 0.6 * np.clip(1 - thin / 0.16, 0, 1))
    where = np.clip(0.5 + 0.6 * noise(rng, size, (16, 8)), 0, 1)
    return np.asarray(lines * where, np.float32)


def _add_residue(colour: Floats, rng: np.random.Generator) -> None:
    """Add patches of yellowish mucus and stool, the most common thing that is not a polyp."""
    patches = noise(rng, colour.shape[:2], (30, 16)) + 0.5 * noise(rng, colour.shape[:2], (120, 60))
    cover = np.clip((patches - rng.uniform(1.6, 2.6)) / 0.25, 0, 1)[..., None] * rng.uniform(0.5, 0.95)
    colour += cover * (np.array([0.86, 0.62, 0.26], np.float32) * rng.uniform(0.7, 1.1) - colour)


def _polyps(rng: np.random.Generator) -> list[Polyp]:
    """Return random polyps in a part of the tube, so that other parts have none."""
    count = int(rng.integers(1, 6))
    first, share = rng.uniform(0, LENGTH), rng.uniform(0.15, 0.5)
    polyps = []
    for number in range(count):
        size = float(np.exp(rng.uniform(math.log(0.14), math.log(0.5))))
        kind = rng.choice(3, p=(0.25, 0.5, 0.25))  # flat, sessile, tall
        height = size * float(rng.uniform(*((0.15, 0.35), (0.5, 0.9), (0.9, 1.3))[kind]))
        redder = rng.uniform(-0.6, 1.0)
        colour = np.array([1.0, 1 - 0.16 * redder, 1 - 0.12 * redder]) * rng.uniform(0.95, 1.25)
        lobes = np.column_stack([rng.uniform(0, 0.1, 4) / (1 + np.arange(4)), rng.uniform(0, 6.3, 4)])
        polyps.append(
            Polyp(
                z=float(first + (number + rng.uniform(0.1, 0.9)) / count * share * LENGTH) % LENGTH,
                theta=float(rng.uniform(0, 2 * math.pi)),
                size=size,
                height=min(height, 0.4),
                aspect=float(rng.uniform(0.75, 1.35)),
                angle=float(rng.uniform(0, math.pi)),
                lobes=lobes,
                power=float(rng.uniform(0.35, 0.65)),
                colour=colour,
                pits=float(rng.uniform(0.02, 0.14)),
            )
        )
    return polyps


def _rho(
    polyp: Polyp, rows: int, columns: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Return a polyp's field in a window of a table: row and column indices, and rho."""
    reach = polyp.size * max(polyp.aspect, 1 / polyp.aspect) * 2.2
    half_rows = math.ceil(reach / LENGTH * rows)
    half_columns = min(math.ceil(reach / (2 * math.pi) * columns), columns // 2 - 1)
    row, column = polyp.z / LENGTH * rows, polyp.theta / (2 * math.pi) * columns
    i = np.arange(round(row) - half_rows, round(row) + half_rows + 1)
    j = np.arange(round(column) - half_columns, round(column) + half_columns + 1)
    z = ((i - row) * LENGTH / rows)[:, None]
    x = ((j - column) * 2 * math.pi / columns)[None, :]
    cos, sin = math.cos(polyp.angle), math.sin(polyp.angle)
    first = (x * cos + z * sin) / polyp.aspect
    second = (z * cos - x * sin) * polyp.aspect
    angle = np.arctan2(second, first)
    outline = 1 + sum(a * np.sin((k + 2) * angle + phase) for k, (a, phase) in enumerate(polyp.lobes))
    rho = np.hypot(first, second) / (polyp.size * outline)
    return i % rows, j % columns, np.asarray(rho, np.float32)


def _add_polyp(polyp: Polyp, radius: Floats, rho: Floats, colour: Floats, rng: np.random.Generator) -> None:
    """Add a polyp to the shape and the colour of the wall."""
    i, j, own = _rho(polyp, ROWS, COLUMNS)
    window = np.ix_(i, j)
    relief = 1 + 0.1 * noise(rng, own.shape, 6)
    radius[window] -= polyp.height * np.clip(1 - own * own, 0, 1) ** polyp.power * relief
    rho[window] = np.minimum(rho[window], own)
    i, j, own = _rho(polyp, FINE * ROWS, FINE * COLUMNS)
    window = np.ix_(i, j)
    inside = np.clip((1.06 - own) / 0.12, 0, 1)[..., None]
    cells = max(4, min(60, round(max(own.shape) / 6)))
    pits = 1 + polyp.pits * noise(rng, own.shape, cells)
    painted = colour[window] * polyp.colour.astype(np.float32) * pits[..., None]
    mean = colour[window].mean((0, 1)) * polyp.colour.astype(np.float32) * pits[..., None]
    colour[window] += inside * (0.5 * painted + 0.5 * mean - colour[window])
