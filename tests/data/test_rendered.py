"""Rendered training frames."""

from __future__ import annotations

import numpy as np

from vmkla.data.rendered import rendered_samples


def test_equal_seeds_agree_and_frames_differ() -> None:
    first, again = (list(rendered_samples(4, seed=2)) for _ in range(2))
    assert len({sample.name for sample in first}) == 4
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.image_rgb, b.image_rgb)
        np.testing.assert_array_equal(a.mask, b.mask)
    for a, b in zip(first, first[1:], strict=False):
        assert np.abs(a.image_rgb.astype(int) - b.image_rgb).mean() > 3
    other = next(rendered_samples(1, seed=3))
    assert np.abs(first[0].image_rgb.astype(int) - other.image_rgb).mean() > 3
