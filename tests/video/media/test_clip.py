"""The procedural clip: exact masks, determinism, the files that ``sample`` writes."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import av
import cv2
import numpy as np
import pytest

from vmkla.errors import UsageError
from vmkla.video.media import clip
from vmkla.video.media.clip import Scene, render_clip, write_clip
from vmkla.video.media.clip_tables import LENGTH


def seeds_with_polyps(count: int, height: int, width: int) -> list[tuple[Scene, int]]:
    """Scenes and frames that show a polyp of a fair size."""
    found: list[tuple[Scene, int]] = []
    for seed in range(100):
        scene = Scene(seed, height, width)
        for index in (0, 150, 300):
            if (scene.frame(index)[1] > 0).mean() > 0.02:
                found.append((scene, index))
                break
        if len(found) == count:
            return found
    raise AssertionError("no polyps")


def test_shapes_types_and_determinism_in_any_order() -> None:
    frames = list(render_clip(5, 72, 96, 4))
    assert len(frames) == 4
    for rgb, mask in frames:
        assert rgb.shape == (72, 96, 3) and rgb.dtype == np.uint8
        assert mask.shape == (72, 96) and mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
    scene = Scene(5, 72, 96)
    for index in (3, 0, 2):
        rgb, mask = scene.frame(index)
        np.testing.assert_array_equal(rgb, frames[index][0])
        np.testing.assert_array_equal(mask, frames[index][1])


def test_the_mask_is_where_the_polyps_are_painted() -> None:
    """With polyps painted green all over, the greenish pixels of the same scene are those of the mask."""
    for scene, index in seeds_with_polyps(4, 120, 160):
        _, mask = scene.frame(index)
        tables = scene.tables
        rho = cv2.resize(tables.shape[..., 2], tables.colour.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        painted = np.full_like(tables.colour, (150, 90, 80))
        painted[rho < 1] = (0, 200, 0)
        scene.tables = dataclasses.replace(tables, bump=np.zeros_like(tables.bump), colour=painted)
        scene.shine, scene.softness_px = 0.0, 0.3
        scene.grain = np.zeros_like(scene.grain)
        scene.mask_far = clip.FAR  # polyps in the dark are in this mask too
        rgb, whole = scene.frame(index)
        lit = rgb.max(axis=2) > 25
        green = lit & (rgb[..., 1] > rgb[..., 0])
        truth = lit & (whole > 0)
        dice = 2 * (green & truth).sum() / (green.sum() + truth.sum())
        assert dice > 0.93, (scene.seed, index, dice)
        assert not ((mask > 0) & (whole == 0)).any()


def test_each_polyp_has_an_identity_that_lasts_until_the_camera_has_passed() -> None:
    """The tube is 12 radii long: a lap later the same polyps are other lesions, on the same pixels."""
    for scene, index in seeds_with_polyps(3, 96, 128):
        rgb, lesions = scene.frame_with_lesions(index)
        plain_rgb, mask = scene.frame(index)
        np.testing.assert_array_equal(rgb, plain_rgb)
        np.testing.assert_array_equal(lesions > 0, mask > 0)
        _, later = scene.frame_with_lesions(index + 2)
        both = (lesions > 0) & (later > 0)
        assert both.any() and (lesions[both] == later[both]).mean() > 0.98
        # Every lesion is one polyp of the tables.
        polyps = len(scene.tables.polyps_z)
        assert 1 <= len(np.unique(lesions[lesions > 0])) <= 2 * polyps

        camera = scene._camera

        def a_lap_on(time_s: float, camera: Any = camera) -> Any:
            eye, turn, bend = camera(time_s)
            return eye + np.array([0, 0, LENGTH], np.float32), turn, bend

        with mock.patch.object(scene, "_camera", a_lap_on):
            _, other = scene.frame_with_lesions(index)
        same = (lesions > 0) & (other > 0)
        assert same.sum() > 0.98 * (lesions > 0).sum()
        assert not set(np.unique(other[other > 0])) & set(np.unique(lesions[lesions > 0]))
        assert set(np.unique((other[same] - lesions[same]) % polyps)) == {0}


def test_places_beyond_a_table_are_brought_into_it_exactly() -> None:
    """OpenCV wraps them too, slowly: both must read the same values."""
    rng = np.random.default_rng(0)
    table = rng.random((96, 64, 2), np.float32)
    column, row = (rng.uniform(-300, 900, (40, 50)).astype(np.float32) for _ in range(2))
    slow = cv2.remap(table, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    inside = clip._wrapped(column, 64), clip._wrapped(row, 96)
    fast = cv2.remap(table, *inside, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    assert np.array_equal(slow, fast)
    assert max(abs(inside[0]).max() / 64, abs(inside[1]).max() / 96) <= 1 + 1e-5


def test_frames_with_and_without_polyps_and_no_polyp_outside_the_field() -> None:
    areas = []
    for seed in range(12):
        scene = Scene(seed, 60, 80)
        for index in range(0, 600, 120):
            rgb, mask = scene.frame(index)
            areas.append((mask > 0).mean())
            assert rgb[mask > 0].size == 0 or rgb[mask > 0].mean() > 7
            assert not (mask[scene.field == 0]).any()
    shown = np.array(areas) > 0.005
    assert 0.2 < shown.mean() < 0.9


def test_it_looks_like_endoscopy_in_numbers() -> None:
    """Black outside the field; red above green above blue inside it; no frame all dark or all white."""
    means = []
    for seed in range(10):
        scene = Scene(seed, 90, 120)
        rgb, _ = scene.frame(30 * seed)
        assert rgb[scene.field == 0].max(initial=0) < 12
        inside = rgb[scene.field > 0.5].astype(float)
        red, green, blue = inside.mean(0)
        assert red > green > 0.75 * blue
        assert 30 < inside.mean() < 210
        means.append(inside.mean(0))
    assert np.std(means, axis=0).max() > 8  # seeds differ


def test_motion_is_smooth_and_there_is_some() -> None:
    scene = Scene(1, 90, 120)
    scene.grain = np.zeros_like(scene.grain)
    first, second, later = (scene.frame(index)[0].astype(float) for index in (40, 41, 100))
    assert 0 < np.abs(first - second).mean() < 0.5 * np.abs(first - later).mean()


def test_write_clip_is_playable_and_whole(tmp_path: Path) -> None:
    path, masks = tmp_path / "out" / "clip é.mp4", tmp_path / "masks"
    write_clip(path, 7, 3, height=72, width=96, fps=Fraction(30000, 1001), masks_dir=masks)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    rendered = list(render_clip(3, 72, 96, 7))
    assert len(decoded) == 7
    for got, (rgb, _) in zip(decoded, rendered, strict=True):
        assert np.abs(got.astype(int) - rgb).mean() < 4
    names = sorted(file.name for file in masks.iterdir())
    assert names == [f"{index:06d}.png" for index in range(7)]
    for name, (_, mask) in zip(names, rendered, strict=True):
        np.testing.assert_array_equal(cv2.imread(str(masks / name), cv2.IMREAD_UNCHANGED), mask)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"

    whole = Scene.frame

    def broken(self: Scene, index: int) -> Any:
        if index == 2:
            raise KeyboardInterrupt
        return whole(self, index)

    with mock.patch.object(Scene, "frame", broken), pytest.raises(KeyboardInterrupt):
        write_clip(path, 3, 0, height=64, width=64)
    assert list(tmp_path.iterdir()) == []


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="least is 32x32"):
        render_clip(0, 16, 64, 1)
    with pytest.raises(UsageError, match="at least 1 frame"):
        render_clip(0, 64, 64, 0)
    with pytest.raises(UsageError, match="even sides"):
        write_clip(tmp_path / "x.mp4", 1, 0, height=65, width=64)
    with pytest.raises(UsageError, match="fps"):
        write_clip(tmp_path / "x.mp4", 1, 0, height=64, width=64, fps=0)
    with pytest.raises(UsageError, match="seed"):
        Scene(-1, 64, 64)
