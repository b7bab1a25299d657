"""Ranges against numpy, in shards, and after a run that was cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.calibration.small_graphs import SIDE, small_weights
from tests.export.exported_models import frames
from vmkla.calibration.artefact import Artefact, open_artefact
from vmkla.calibration.cache import CalibrationCache
from vmkla.calibration.insertion import Range
from vmkla.calibration.ranges import METHODS, SHARD_FRAMES, Method, measure_ranges
from vmkla.errors import BadInputError

FRAMES = 2 * SHARD_FRAMES + 3


@pytest.fixture
def artefact(small: Path) -> Artefact:
    return open_artefact(small, "cpu", "fp32")


def ranges(artefact: Artefact, method: Method, count: int = FRAMES, **options: object) -> dict[str, Range]:
    shown = frames(FRAMES, SIDE, SIDE)[:count]
    return measure_ranges(
        artefact.path,
        artefact.layers,
        shown,
        method,
        input_type="uint8",
        batch=None,
        **options,  # type: ignore[arg-type]
    )


def first_activation(count: int) -> npt.NDArray[np.float64]:
    """What the first product multiplies, by numpy."""
    scaled = (frames(FRAMES, SIDE, SIDE)[:count].astype(np.float64) - 127.5) / 127.5
    patches = scaled.reshape(count, SIDE // 2, 2, SIDE // 2, 6).transpose(0, 1, 3, 2, 4)
    return np.tanh(patches.reshape(count, -1, 12) @ small_weights()["first.w"])


def test_min_max(artefact: Artefact) -> None:
    low, high = ranges(artefact, "min-max")["one.w"]
    values = first_activation(FRAMES)
    assert high == -low == pytest.approx(np.abs(values).max(), rel=1e-6)


def test_percentile(artefact: Artefact) -> None:
    """A tenth is cut off, up to a bin of the histogram: 1 of 2048."""
    low, high = ranges(artefact, "percentile", percentile=90.0)["one.w"]
    values = np.abs(first_activation(FRAMES))
    assert high == -low == pytest.approx(np.percentile(values, 90.0), abs=2 * values.max() / 2048)
    assert high < 0.95 * values.max()


def test_entropy(artefact: Artefact) -> None:
    low, high = ranges(artefact, "entropy")["one.w"]
    largest = np.abs(first_activation(FRAMES)).max()
    assert 0.3 * largest < max(-low, high) <= 1.01 * largest


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_cut_off_goes_on(artefact: Artefact, method: Method, tmp_path: Path) -> None:
    """Interrupted after the first shard, then to the end: the same ranges, no frame run twice."""
    state, calls = tmp_path / "state.npz", list[int]()

    def interrupt(done: int, total: int | None, note: str = "") -> None:
        calls.append(done)
        if len(calls) == 1:
            raise KeyboardInterrupt

    whole = ranges(artefact, method)
    with pytest.raises(KeyboardInterrupt):
        ranges(artefact, method, state=state, progress=interrupt)
    assert state.is_file()
    resumed = ranges(artefact, method, state=state, progress=interrupt)
    assert calls == [8, 16, 19]
    assert resumed == whole


@pytest.mark.parametrize("content", [b"no arrays", b"", b"PK\x03\x04 and nothing behind it"])
def test_what_was_collected_of_something_else_is_refused(
    artefact: Artefact, tmp_path: Path, content: bytes
) -> None:
    state = tmp_path / "state.npz"
    state.write_bytes(content)
    with pytest.raises(BadInputError, match="rm "):
        ranges(artefact, "min-max", state=state)


def test_nothing_is_printed(artefact: Artefact, capfd: pytest.CaptureFixture[str]) -> None:
    ranges(artefact, "percentile")
    assert capfd.readouterr().out == ""


def test_a_fixed_batch_is_filled(artefact: Artefact) -> None:
    shown = frames(4, SIDE, SIDE)
    one, many = (
        measure_ranges(artefact.path, artefact.layers, shown, "min-max", input_type="uint8", batch=batch)
        for batch in (None, 3)
    )
    assert one["two.w"] == pytest.approx(many["two.w"], rel=1e-5)


def test_the_cache_belongs_to_what_it_follows_from(tmp_path: Path) -> None:
    facts = {"model": "a", "data": "b", "method": "min-max", "percentile": None}
    cache = CalibrationCache(tmp_path, facts)
    assert cache.load_ranges() is None
    cache.save_ranges({"one.w": (-1.5, 2.0)})
    assert CalibrationCache(tmp_path, dict(facts)).load_ranges() == {"one.w": (-1.5, 2.0)}
    for name in facts:
        assert CalibrationCache(tmp_path, {**facts, name: "other"}).load_ranges() is None
    cache.ranges.write_text("{", encoding="utf-8")
    assert cache.load_ranges() is None
