"""vmkla.data.masks: no lesion becomes background in silence, and no honest mask is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.video.media.small_images import KINDS, tagged
from vmkla.data.masks import StoredMask, placed, read_mask
from vmkla.data.rules import MaskValues, ReadRules
from vmkla.errors import BadInputError, UsageError
from vmkla.video.media.headers import Header
from vmkla.video.media.images import oriented

Array = npt.NDArray[np.uint8]


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside: npt.NDArray[np.bool_] = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    return inside


def two_lesions(first: int | tuple[int, ...], second: int | tuple[int, ...]) -> Array:
    """200x240: a disc of 1257 px at one level and one of 709 px at another."""
    shape = (200, 240) if isinstance(first, int) else (200, 240, 3)
    mask = np.zeros(shape, np.uint8)
    mask[disc((200, 240), (60, 70), 20)] = first
    mask[disc((200, 240), (140, 160), 15)] = second
    return mask


def written(path: Path, mask: npt.NDArray[np.generic], *options: int) -> StoredMask:
    bgr = mask if mask.ndim == 2 else mask[..., ::-1]
    assert cv2.imwrite(str(path), np.ascontiguousarray(bgr), list(options))
    return read_mask(path, ReadRules())


def labels_of(mask: StoredMask, text: str | None) -> Array:
    return mask.labels(None if text is None else MaskValues.parse(text))


RED, GREEN, YELLOW = (255, 0, 0), (0, 255, 0), (255, 255, 0)


@pytest.mark.parametrize(
    ("first", "second", "levels"),
    [
        (255, 100, "100,255"),
        (255, 40, "40,255"),
        (255, 215, "215,255"),
        (255, 1, "1,255"),  # the middle is far away, and a label is exact
        (255, 254, "254,255"),
        (1, 2, "1,2"),
        (1, 1, "1"),
        (128, 128, "128"),
        (222, 222, "222"),
        (RED, GREEN, "ff0000,00ff00"),
        (RED, RED, "ff0000"),
        ((255, 255, 255), YELLOW, "ffff00,ffffff"),
        ((128, 0, 0), (0, 128, 0), "800000,008000"),  # the first colours of VOC's palette
    ],
)
def test_other_levels_are_an_error_that_names_them_and_declared_they_are_lesions(
    tmp_path: Path, first: int, second: int, levels: str
) -> None:
    values = two_lesions(first, second)
    mask = written(tmp_path / "m.png", values)
    with pytest.raises(BadInputError) as caught:
        mask.labels(None)
    message = str(caught.value)
    assert "m.png" in message and f"--mask-values {levels}" in message
    if first != second:
        assert "(709 px)" in message
    lesion = values.reshape(*values.shape[:2], -1).any(axis=2)
    np.testing.assert_array_equal(labels_of(mask, levels), lesion)
    alone = labels_of(mask, levels.split(",")[0])
    assert alone.sum() in (709, 1257, 1966) and (alone <= lesion).all()


def test_a_level_is_named_by_its_stored_value_at_any_depth(tmp_path: Path) -> None:
    deep = two_lesions(255, 100).astype(np.uint16) * np.uint16(257)
    mask = written(tmp_path / "m.png", deep)
    with pytest.raises(BadInputError, match=r"65535: 25700 \(709 px\).*--mask-values 25700,65535"):
        mask.labels(None)
    assert labels_of(mask, "25700,65535").sum() == 1966 and labels_of(mask, "65535").sum() == 1257
    mask = written(tmp_path / "m.tif", two_lesions(1, 2).astype(np.uint16))
    assert labels_of(mask, "2").sum() == 709


def test_a_palette_is_known_by_its_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(two_lesions(1, 2), mode="P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", ReadRules())
    with pytest.raises(BadInputError, match=r"800000 \(1257 px\), 008000 \(709 px\)"):
        mask.labels(None)
    assert labels_of(mask, "008000").sum() == 709
    picture.putpalette([0, 0, 0, 255, 255, 255, 0, 0, 0])  # the second label is black, so it is background
    picture.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", ReadRules()).labels(None).sum() == 1257


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_empty_and_full_masks_are_masks(tmp_path: Path, suffix: str, value: int) -> None:
    mask = written(tmp_path / f"m{suffix}", np.full((40, 60), value, np.uint8))
    assert (mask.labels(None) == (value > 0)).all()


def test_an_area_below_the_share_is_noise_and_one_above_is_a_level(tmp_path: Path) -> None:
    """0.1 % of 200x300 is 60 pixels."""
    for width, refused in ((9, False), (10, True)):
        mask = np.zeros((200, 300), np.uint8)
        mask[50:150, 50:150] = 255
        mask[10:16, 200 : 200 + width] = 90
        message = written(tmp_path / "m.png", mask).level_problem()
        assert bool(message) is refused
        assert not refused or f"90 ({6 * width} px)" in message


def test_a_soft_edge_along_the_border_is_an_edge(tmp_path: Path) -> None:
    """Halved, a lesion that ends one row before the border leaves a row of 128 there."""
    mask = np.zeros((200, 300), np.uint8)
    mask[1:121, 41:281], mask[61:, 299] = 255, 255
    half = np.asarray(cv2.resize(mask, (150, 100), interpolation=cv2.INTER_LINEAR), np.uint8)
    assert (half[0] == 128).sum() > 100
    assert written(tmp_path / "m.png", half).level_problem() == ""
    half[:3, 130:150] = 128
    assert "128" in written(tmp_path / "m.png", half).level_problem()


def test_areas_of_one_level_need_not_touch_but_one_must_be_large_enough(tmp_path: Path) -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[100:150, 100:150] = 255
    for corner in range(0, 300, 20):
        mask[5:10, corner : corner + 11] = 90  # 55 px each
    assert written(tmp_path / "m.png", mask).level_problem() == ""
    mask[20:30, 20:30] = 90
    assert "90 (925 px)" in written(tmp_path / "m.png", mask).level_problem()


shapes = st.lists(
    st.tuples(st.integers(30, 170), st.integers(30, 210), st.integers(8, 28)), min_size=1, max_size=3
)


@st.composite
def binary_masks(draw: st.DrawFn) -> Array:
    mask = np.zeros((200, 240), np.uint8)
    for y, x, radius in draw(shapes):
        kind = draw(st.sampled_from(["disc", "box", "diamond"]))
        if kind == "disc":
            cv2.circle(mask, (x, y), radius, 255, -1)
        elif kind == "box":
            mask[y - radius : y + radius, x - radius : x + radius] = 255
        else:
            corners = [(x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)]
            cv2.fillPoly(mask, [np.array(corners)], 255)
    return mask


@settings(max_examples=40, deadline=None)
@given(mask=binary_masks(), data=st.data())
def test_jpeg_noise_and_soft_edges_stay_accepted(
    tmp_path_factory: pytest.TempPathFactory, mask: Array, data: st.DataObject
) -> None:
    """And what is read is the binary mask, but for the edge."""
    folder = tmp_path_factory.mktemp("m")
    way = data.draw(
        st.sampled_from(
            ["jpeg", "jpeg as png", "colour jpeg", "webp", "blurred", "enlarged", "reduced", "drawn soft"]
        )
    )
    path, options, wanted = folder / "m.png", [], mask
    if way in ("jpeg", "jpeg as png", "colour jpeg"):
        path, options = folder / "m.jpg", [cv2.IMWRITE_JPEG_QUALITY, data.draw(st.integers(30, 100))]
    elif way == "webp":
        path, options = folder / "m.webp", [cv2.IMWRITE_WEBP_QUALITY, data.draw(st.integers(30, 100))]
    elif way == "blurred":
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), data.draw(st.floats(0.3, 3.0))), np.uint8)
    elif way in ("enlarged", "reduced"):
        factor = data.draw(st.sampled_from([1.5, 2, 3, 4, 8])) if way == "enlarged" else 0.5
        filters = [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA]
        size = (round(240 * factor), round(200 * factor))
        mask = np.asarray(cv2.resize(mask, size, interpolation=data.draw(st.sampled_from(filters))), np.uint8)
        wanted = np.asarray(cv2.resize(wanted, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    elif way == "drawn soft":
        mask = np.zeros((200, 240), np.uint8)
        cv2.circle(mask, (100, 90), 40, 255, -1, cv2.LINE_AA)
        cv2.circle(mask, (190, 150), 25, 255, -1, cv2.LINE_AA)
        wanted = np.where(mask > 127, 255, 0).astype(np.uint8)
    stored = written(path, mask if way != "colour jpeg" else np.dstack([mask] * 3), *options)
    if way == "jpeg as png":
        stored = written(folder / "again.png", stored.values)
    assert stored.level_problem() == ""
    found = stored.labels(None)
    ring = cv2.morphologyEx(wanted, cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0
    np.testing.assert_array_equal(found[~ring], (wanted > 0)[~ring])


@settings(max_examples=40, deadline=None)
@given(
    mask=binary_masks(),
    level=st.integers(45, 210),
    radius=st.integers(9, 25),
    way=st.sampled_from([".png", ".jpg", ".webp", "soft", "noise"]),
    quality=st.integers(60, 100),
)
def test_a_third_level_is_found_through_noise(
    tmp_path_factory: pytest.TempPathFactory, mask: Array, level: int, radius: int, way: str, quality: int
) -> None:
    """A disc of 0.5 % of the image and more, apart from the other lesions."""
    folder = tmp_path_factory.mktemp("m")
    mask = np.hstack([mask, np.zeros((200, 80), np.uint8)])
    cv2.circle(mask, (275, 100), radius, level, -1, cv2.LINE_AA if way == "soft" else cv2.LINE_8)
    if way == "noise":
        noise = np.random.default_rng(level).normal(0, 4, mask.shape)
        mask = np.clip(np.rint(mask + noise), 0, 255).astype(np.uint8)
    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality], ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality]}
    path = folder / f"m{way if way in options else '.png'}"
    stored = written(path, mask, *options.get(way, []))
    third = stored._third_levels()
    assert any(abs(found[0] - level) <= 12 for found, _ in third), (third, level)
    assert "--mask-values" in stored.level_problem()
    declared = labels_of(stored, f"{level},255")
    assert declared[100, 275] == 1 and declared[:, 310:].sum() == 0
    assert labels_of(stored, "255")[100, 275] == 0


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.integers(0, 255), min_size=1, max_size=6, unique=True),
    chosen=st.data(),
    seed=st.integers(0, 99),
)
def test_labels_are_compared_exactly(
    tmp_path_factory: pytest.TempPathFactory, values: list[int], chosen: st.DataObject, seed: int
) -> None:
    """Any map of a few labels, single pixels too: those declared are the lesion, and nothing else is."""
    path = tmp_path_factory.mktemp("m") / "m.png"
    label_map = np.random.default_rng(seed).choice(np.array(values, np.uint8), (20, 30))
    wanted = chosen.draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
    stored = written(path, label_map)
    np.testing.assert_array_equal(labels_of(stored, ",".join(map(str, wanted))), np.isin(label_map, wanted))
    low, high = min(wanted), max(wanted)
    np.testing.assert_array_equal(
        labels_of(stored, f"{low}-{high}"), (label_map >= low) & (label_map <= high)
    )


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([0, 3]),
    deep=st.booleans(),
    lossy=st.booleans(),
    values=st.lists(st.integers(0, 255) | st.sampled_from([0, 255]), min_size=1, max_size=40),
    seed=st.integers(0, 99),
)
def test_any_array_is_a_mask_or_a_message(
    height: int, width: int, channels: int, deep: bool, lossy: bool, values: list[int], seed: int
) -> None:
    """Never another error; a mask of 0 and 255 is never refused, and one that is not keeps its pixels."""
    shape = (height, width, 3) if channels else (height, width)
    array = np.random.default_rng(seed).choice(np.array(values, np.uint8), shape)
    stored = array.astype(np.uint16) * np.uint16(257) if deep else array
    mask = StoredMask(Path("m"), Header(height, width), stored, lossy)
    unit = 257 if deep else 1
    try:
        labels = mask.labels(None)
    except BadInputError as error:
        assert "--mask-values" in str(error)
        assert channels or not set(values) <= {0, 255}  # of colours, red is of 0 and 255 too
    else:
        assert labels.shape == (height, width) and set(np.unique(labels)) <= {0, 1}
        if not channels:
            np.testing.assert_array_equal(labels, array > 127)
    if not channels:
        every = mask.labels(MaskValues(((0, 65535),)))
        assert every.all()
        chosen = mask.labels(MaskValues(((values[0] * unit, values[0] * unit),)))
        assert chosen[array == values[0]].all()


def test_a_map_of_many_labels_is_exact_too(tmp_path: Path) -> None:
    label_map = np.repeat(np.repeat(np.arange(40, dtype=np.uint8).reshape(5, 8), 6, axis=0), 6, axis=1)
    stored = written(tmp_path / "m.png", label_map)
    np.testing.assert_array_equal(labels_of(stored, "1,3,39"), np.isin(label_map, (1, 3, 39)))


def test_soft_edges_of_declared_levels_go_to_the_nearest(tmp_path: Path) -> None:
    """Declaring 100 and 255 does not eat the lesions' edges, as comparing exactly would."""
    hard = np.zeros((200, 240), np.uint8)
    cv2.circle(hard, (70, 60), 30, 255, -1)
    cv2.circle(hard, (160, 140), 25, 100, -1)
    soft = np.asarray(cv2.GaussianBlur(hard, (0, 0), 1.0), np.uint8)
    stored = written(tmp_path / "m.png", soft)
    both = labels_of(stored, "100,255")
    assert abs(int(both.sum()) - np.count_nonzero(hard)) < 0.06 * np.count_nonzero(hard)
    one = labels_of(stored, "255")
    assert abs(int(one.sum()) - np.count_nonzero(hard == 255)) < 0.04 * np.count_nonzero(hard == 255)


def test_a_soft_map_is_declared_by_a_range(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 400).astype(np.uint8), (100, 1))
    stored = written(tmp_path / "m.png", ramp)
    assert "--mask-values" in stored.level_problem()
    np.testing.assert_array_equal(labels_of(stored, "128-255"), ramp >= 128)


def test_declared_values_of_another_kind_are_refused(tmp_path: Path) -> None:
    grey = written(tmp_path / "grey.png", two_lesions(1, 2))
    with pytest.raises(BadInputError, match="ff0000 names no grey values; the mask holds 0 .*1 .1257 px"):
        labels_of(grey, "ff0000")
    assert labels_of(grey, "010101").sum() == 1257
    colour = written(tmp_path / "colour.png", two_lesions(RED, GREEN))
    with pytest.raises(BadInputError, match=r"1-255 names no colours; .*ff0000 \(1257 px\)"):
        labels_of(colour, "1-255")


@pytest.mark.parametrize(
    "text", ["", "a", "1,", "300000000", "70000", "9-3", "-1", "1-2-3", "ff00", "#12345g"]
)
def test_values_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not a value of a mask") as caught:
        MaskValues.parse(text)
    assert "--mask-values 100,255" in str(caught.value.hint)


@given(
    greys=st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted), max_size=4),
    colours=st.lists(st.tuples(*[st.integers(0, 255)] * 3), max_size=4),
)
def test_declared_values_are_written_as_they_are_read(
    greys: list[list[int]], colours: list[tuple[int, int, int]]
) -> None:
    values = MaskValues(tuple((low, high) for low, high in greys), tuple(colours))
    if greys or colours:
        assert MaskValues.parse(str(values)) == values


def test_rules_that_make_no_sense() -> None:
    for limit in (0.0, -1.0, float("nan"), 5000.0):
        with pytest.raises(UsageError, match="megapixels, expected more than 0"):
            ReadRules(max_megapixels=limit)
    with pytest.raises(UsageError, match="orientation of masks"):
        ReadRules(mask_orientation="turned")  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(
    image=st.integers(1, 8),
    own=st.integers(1, 8),
    square=st.booleans(),
    lies=st.sampled_from(["stored", "upright"]),
    declared=st.booleans(),
)
def test_a_mask_is_never_placed_wrongly(
    image: int, own: int, square: bool, lies: str, declared: bool
) -> None:
    """Whatever the two orientations are: the mask as shown, or None where nothing tells."""
    height, width = (8, 8) if square else (6, 9)
    stored = np.zeros((height, width), np.uint8)
    stored[0, 1:4], stored[2, 2] = 1, 1  # no symmetry
    shown = oriented(stored, image)
    in_file = stored if lies == "stored" else shown
    made = placed(
        in_file,
        Header(*in_file.shape, own),
        Header(height, width, image),
        lies if declared else None,  # type: ignore[arg-type]
    )
    size_tells = image >= 5 and not square and own in (1, image)
    if declared or size_tells or image == 1 == own:
        assert made is not None
        np.testing.assert_array_equal(made, shown)
    elif own == image and lies == "stored":  # both are shown turned by the same tag
        assert made is not None
        np.testing.assert_array_equal(made, shown)
    elif own != image:
        assert made is None
    for empty in (np.zeros_like(in_file), np.ones_like(in_file)):
        if size_tells or square or image < 5:
            whole = placed(empty, Header(*in_file.shape, own), Header(height, width, image), None)
            assert whole is None or (whole == empty.flat[0]).all()


@pytest.mark.parametrize("suffix", KINDS)
def test_a_masks_own_orientation_is_read(tmp_path: Path, suffix: str) -> None:
    stored = np.zeros((64, 96), np.uint8)
    stored[:20, :30] = 255
    (tmp_path / f"m{suffix}").write_bytes(tagged(suffix, stored, 6))
    mask = read_mask(tmp_path / f"m{suffix}", ReadRules())
    assert mask.header.orientation == 6 and mask.values.shape[:2] == (64, 96)
    np.testing.assert_array_equal(mask.labels(None)[:16, :24], 1)
