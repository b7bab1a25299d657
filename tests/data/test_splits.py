"""Splits by a seed: shares, whole sequences, and the same choice for ever."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.data.sequences import CLINICDB, rule_for, sequence_of
from vmkla.data.splits import split_off
from vmkla.errors import BadInputError


def test_a_seed_always_chooses_the_same() -> None:
    """Written out, so that another order or another generator shows: published figures rest on it."""
    stems = [f"image{number}" for number in range(20)]
    assert split_off(stems, [""] * 20, share=0.3, seed=0)[1] == CHOSEN_BY_0
    assert split_off(stems, [""] * 20, share=0.3, seed=1)[1] != CHOSEN_BY_0
    mixed = random.Random(3).sample(stems, 20)
    assert sorted(split_off(mixed, [""] * 20, share=0.3, seed=0)[1]) == sorted(CHOSEN_BY_0)


CHOSEN_BY_0 = [f"image{number}" for number in (1, 3, 4, 10, 13, 16)]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=30),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**31),
)
def test_no_sequence_is_on_both_sides_and_the_share_is_kept(
    sizes: list[int], share: float, seed: int
) -> None:
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    stems = [f"s{number}" for number in range(len(groups))]
    of = dict(zip(stems, groups, strict=True))
    kept, aside = split_off(stems, groups, share=share, seed=seed)
    assert sorted(kept + aside) == sorted(stems) and kept and aside
    assert not {of[stem] for stem in kept} & {of[stem] for stem in aside}
    wanted = max(1, round(share * len(stems)))
    if len(aside) > wanted:  # only where no sequence is short enough
        assert len(aside) == min(sizes) and len({of[stem] for stem in aside}) == 1
    elif len(aside) < wanted:  # only where what is left is too long
        left = [size for number, size in enumerate(sizes) if f"g{number}" not in {of[s] for s in aside}]
        assert min(left) > wanted - len(aside)


def test_one_sequence_cannot_be_split() -> None:
    with pytest.raises(BadInputError, match="3 images of one sequence"):
        split_off(["a", "b", "c"], ["x"] * 3, share=0.3, seed=0)
    with pytest.raises(BadInputError, match="a single image"):
        split_off(["a"], [""], share=0.3, seed=0)


@pytest.mark.parametrize(
    ("stem", "rule", "sequence"),
    [
        ("1", CLINICDB, "clinicdb-01"),
        ("25", CLINICDB, "clinicdb-01"),
        ("26", CLINICDB, "clinicdb-02"),
        ("67", CLINICDB, "clinicdb-03"),
        ("68", CLINICDB, "clinicdb-04"),
        ("612", CLINICDB, "clinicdb-29"),
        ("613", CLINICDB, ""),
        ("0", CLINICDB, ""),
        ("25", "", ""),
        ("cju0qkwl35piu0993l0dewei2", CLINICDB, ""),
        ("23_endocv2021_positive_17", "", "23"),
        ("35_endocv2021_negative_1005", "", "35"),
        ("176OLCV1_100H0016", "", "176OLCV1"),
        ("C3_EndoCV2021_0014", "", ""),
        ("case0031_slice007", "", "case0031"),
    ],
)
def test_names_tell_sequences(stem: str, rule: str, sequence: str) -> None:
    assert sequence_of(stem, rule) == sequence


def test_folders_call_for_a_rule() -> None:
    assert rule_for("CVC-ClinicDB") == rule_for("cvc_clinicdb") == rule_for("TrainDataset") == CLINICDB
    assert rule_for("kvasir-seg") == rule_for("CVC-300") == ""


def test_clinicdb_has_29_sequences() -> None:
    found = [sequence_of(str(number), CLINICDB) for number in range(1, 613)]
    assert len(set(found)) == 29 and found == sorted(found)
