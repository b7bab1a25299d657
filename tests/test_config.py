"""vmkla.config: presets, the sizes a network takes, and its way through JSON."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.config import DECODER_BLOCKS, PRESETS, DecoderBlock, ModelConfig, get_preset
from vmkla.errors import ShapeError, UsageError

depths = st.tuples(*[st.integers(1, 30)] * 4)
configs = st.builds(
    ModelConfig,
    name=st.text(max_size=10),
    dim=st.integers(1, 256),
    encoder_depths=depths,
    decoder_depths=depths,
    decoder_block=st.sampled_from(DECODER_BLOCKS),
    num_classes=st.integers(1, 9),
    patch=st.integers(1, 8),
)


def test_presets_are_those_of_the_design() -> None:
    shapes = {n: (c.dim, c.encoder_depths, c.decoder_depths, c.d_state, c.expand) for n, c in PRESETS.items()}
    assert shapes == {
        "small": (96, (2, 2, 9, 2), (2, 2, 2, 1), 16, 2),
        "tiny": (96, (2, 2, 2, 2), (2, 2, 2, 1), 16, 2),
        "large": (96, (2, 2, 27, 2), (2, 2, 2, 1), 16, 2),
        "nano": (32, (2, 2, 2, 2), (1, 1, 1, 1), 16, 2),
    }
    assert (
        set(DECODER_BLOCKS)
        == set(get_args(DecoderBlock))
        == {"mkcsa", "mkla", "csa", "mlla", "mlcsa", "ss2d"}
    )


def test_get_preset_changes_only_what_it_is_told() -> None:
    changed = get_preset("nano", num_classes=9, decoder_block="ss2d")
    assert (changed.num_classes, changed.decoder_block, changed.dim) == (9, "ss2d", 32)
    assert PRESETS["nano"].num_classes == 1


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'huge'") as caught:
        get_preset("huge")
    assert caught.value.hint is not None and all(name in caught.value.hint for name in PRESETS)


@given(configs)
def test_json_round_trip(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_from_dict_names_an_unknown_field() -> None:
    values = {**PRESETS["nano"].to_dict(), "rope_base": 10}
    with pytest.raises(UsageError, match="rope_base"):
        ModelConfig.from_dict(values)


@given(configs, st.integers(-5, 2000), st.integers(-5, 2000))
def test_check_input_takes_multiples_and_names_the_padding(
    config: ModelConfig, height: int, width: int
) -> None:
    multiple = 8 * config.patch
    fits = height > 0 and width > 0 and height % multiple == 0 and width % multiple == 0
    if fits:
        config.check_input(height, width)
        return
    with pytest.raises(ShapeError, match=f"{height}x{width}") as caught:
        config.check_input(height, width)
    assert caught.value.hint is not None
    padded = [int(part) for part in caught.value.hint.rstrip(".").split()[-1].split("x")]
    config.check_input(*padded)  # what it proposes is taken
    for given_px, padded_px in zip((height, width), padded, strict=True):
        assert 0 <= padded_px - max(given_px, 1) < multiple  # and it is the smallest such size


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("num_classes", 0),
        ("d_state", -1),
        ("patch", 0),
        ("encoder_depths", (2, 2, 2)),
        ("decoder_depths", (1, 1, 0, 1)),
        ("decoder_block", "transformer"),
    ],
)
def test_senseless_values_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        ModelConfig(**{field: value})
