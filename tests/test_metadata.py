"""vmkla.metadata: what an ONNX file says of itself survives the way through text, and damage is named."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.config import PRESETS
from vmkla.errors import ArtefactMismatchError
from vmkla.metadata import FORMAT, ArtefactMetadata
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec, Rect

sides = st.integers(1, 4096)
rois = st.one_of(st.sampled_from(["auto", "none"]), st.builds(Rect, sides, sides, sides, sides))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
facts = st.dictionaries(st.text(), json_values, max_size=4)
artefacts = st.builds(
    ArtefactMetadata,
    model_config=st.sampled_from([preset.to_dict() for preset in PRESETS.values()]),
    class_names=st.lists(st.text(), min_size=1, max_size=4).map(tuple),
    threshold=st.floats(0, 1, exclude_min=True, exclude_max=True),
    preprocess=st.builds(PreprocessSpec, sides, sides, rois),
    weights_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    training=facts,
    random_weights=st.booleans(),
    gates=facts,
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    input_type=st.sampled_from(["uint8", "float32"]),
    profile=st.none() | st.lists(st.integers(1, 64), min_size=3, max_size=3).map(sorted).map(tuple),
    self_test=st.none() | facts,
    tuning=st.lists(facts, max_size=2).map(tuple),
)


YOUNGER = {
    "vmkla.input_type",
    "vmkla.profile",
    "vmkla.calibration",
    "vmkla.self_test",
    "vmkla.operating_point",
    "vmkla.tuning",
}
"""Keys that older files lack."""


def example(**changes: Any) -> ArtefactMetadata:
    """Metadata of a file that passed its check."""
    return dataclasses.replace(
        ArtefactMetadata(
            model_config=PRESETS["nano"].to_dict(),
            class_names=("polyp",),
            threshold=0.45,
            preprocess=PreprocessSpec(192, 256, Rect(3, 5, 640, 480)),
            weights_sha256="ab" * 32,
            gates={"passed": True, "dice_worst": 0.999},
        ),
        **changes,
    )


@given(artefacts)
def test_round_trip(metadata: ArtefactMetadata) -> None:
    props = metadata.to_props()
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in props.items())
    back = ArtefactMetadata.from_props(props, path="model.onnx")
    # JSON has lists only: compare what both sides write.
    assert back.to_props() == props
    for name in ("threshold", "preprocess", "class_names", "precision", "input_type", "profile", "self_test"):
        assert getattr(back, name) == getattr(metadata, name), name


@pytest.mark.parametrize(
    ("gates", "verified"),
    [({}, False), ({"passed": False}, False), ({"passed": True}, True), ({"passed": "no"}, False)],
)
def test_only_a_passed_check_counts_as_verified(gates: dict[str, Any], verified: bool) -> None:
    assert example(gates=gates).verified is verified


def test_the_operating_point_travels() -> None:
    point = OperatingPoint(0.45, peak=0.98, min_fraction=0.001)
    props = example(operating_point=point).to_props()
    assert ArtefactMetadata.from_props(props, path="model.onnx").operating_point == point
    old = {key: text for key, text in props.items() if key not in YOUNGER}
    assert ArtefactMetadata.from_props(old, path="model.onnx").operating_point is None


def test_a_foreign_file_is_told_from_ours() -> None:
    with pytest.raises(ArtefactMismatchError, match="resnet.onnx carries no vmkla metadata") as caught:
        ArtefactMetadata.from_props({"author": "someone"}, path="resnet.onnx")
    assert caught.value.hint is not None and "vmkla export" in caught.value.hint


def test_another_layout_is_refused() -> None:
    props = {**example().to_props(), "vmkla.format": "99"}
    with pytest.raises(ArtefactMismatchError, match=f"'99'.*'{FORMAT}'"):
        ArtefactMetadata.from_props(props, path="model.onnx")


def test_a_file_of_before_there_was_a_choice_of_input() -> None:
    props = example(input_type="float32", profile=(1, 2, 4), calibration={"frames": 8}).to_props()
    for key in YOUNGER:
        del props[key]
    old = ArtefactMetadata.from_props(props, path="model.onnx")
    assert (old.input_type, old.profile, old.calibration) == ("uint8", None, {})


@pytest.mark.parametrize("key", sorted(set(example().to_props()) - {"vmkla.format", *YOUNGER}))
def test_each_missing_key_is_named(key: str) -> None:
    props = example().to_props()
    del props[key]
    with pytest.raises(ArtefactMismatchError, match=key):
        ArtefactMetadata.from_props(props, path="model.onnx")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("vmkla.model_config", "{"),
        ("vmkla.threshold", '"half"'),
        ("vmkla.threshold", "null"),
        ("vmkla.threshold", "NaN"),
        ("vmkla.threshold", "0"),
        ("vmkla.threshold", "-3"),
        ("vmkla.threshold", "1"),
        ("vmkla.threshold", "7"),
        ("vmkla.threshold", "true"),
        ("vmkla.threshold", "1e400"),
        ("vmkla.threshold", '"0.5"'),
        ("vmkla.threshold", "9" * 5000),
        ("vmkla.threshold", "[" * 100_000),
        ("vmkla.operating_point", "0.98"),
        ("vmkla.operating_point", '{"threshold": 0.45, "peak": 0.98}'),
        ("vmkla.operating_point", '{"threshold": 0.45, "peak": 0.4, "min_fraction": 0}'),
        ("vmkla.operating_point", '{"threshold": 0.5, "peak": 0.98, "min_fraction": 0}'),
        ("vmkla.operating_point", '{"threshold": 0.45, "peak": 0.98, "min_fraction": 0, "colour": 1}'),
        ("vmkla.tuning", "{}"),
        ("vmkla.tuning", "[1]"),
        ("vmkla.gates", '{"a":' * 100_000),
        ("vmkla.gates", '{"passed": NaN}'),
        ("vmkla.gates", '{"a": "' + "x" * (5 << 20) + '"}'),
        ("vmkla.class_names", "[]"),
        ("vmkla.class_names", "[1]"),
        ("vmkla.class_names", '"polyp"'),
        ("vmkla.preprocess", '{"height": 1e400, "width": 4, "roi": "none"}'),
        ("vmkla.preprocess", '{"height": 4.5, "width": 4, "roi": "none"}'),
        ("vmkla.preprocess", '{"height": 0, "width": 4, "roi": "none"}'),
        ("vmkla.preprocess", '{"height": 1000000, "width": 4, "roi": "none"}'),
        ("vmkla.preprocess", '{"height": 4, "width": 4, "roi": "middle"}'),
        ("vmkla.preprocess", '{"height": 4, "width": 4, "roi": [0, 0, 1.5, 2]}'),
        ("vmkla.preprocess", '{"height": 4, "width": 4, "roi": [0, 0, 1]}'),
        ("vmkla.self_test", "[1]"),
        ("vmkla.self_test", '{"picture": 1, "grids": [[1], [2, 3]]}'),
        ("vmkla.self_test", '{"picture": 1, "grids": ["a"]}'),
        ("vmkla.profile", "[1, 2.5, 4]"),
        ("vmkla.profile", "[1, 2, 1e400]"),
        ("vmkla.class_names", "3"),
        ("vmkla.preprocess", '{"height": 4}'),
        ("vmkla.preprocess", "[]"),
        ("vmkla.gates", ""),
        ("vmkla.gates", "[]"),
        ("vmkla.training", "null"),
        ("vmkla.model_config", '"nano"'),
        ("vmkla.input_type", "float"),
        ("vmkla.profile", "[1, 2]"),
        ("vmkla.profile", "[4, 2, 1]"),
        ("vmkla.profile", "8"),
    ],
)
def test_damage_is_an_artefact_error_and_no_traceback(key: str, text: str) -> None:
    props = {**example().to_props(), key: text}
    with pytest.raises(ArtefactMismatchError, match="damaged") as caught:
        ArtefactMetadata.from_props(props, path="model.onnx")
    assert len(str(caught.value)) < 600
