"""Which of several processes this is, from torchrun's variables."""

from __future__ import annotations

import pytest

from vmkla.errors import UsageError
from vmkla.training import Ranks

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}


def test_torchruns_variables() -> None:
    assert Ranks.of(TORCHRUN) == Ranks(rank=5, local_rank=1, world=8)
    assert Ranks.of({}) == Ranks() == Ranks(rank=0, local_rank=0, world=1)
    # Another launcher's variables without anyone to talk to would make a run wait for ever.
    assert Ranks.of({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == Ranks()


@pytest.mark.parametrize("change", [{"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": "6"}, {"WORLD_SIZE": "0"}])
def test_variables_without_sense(change: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="make no sense") as caught:
        Ranks.of({**TORCHRUN, **change})
    assert "--no-python vmkla train" in str(
        caught.value.hint
    )  # the command that the guide names and a test runs


def test_shares_are_the_whole_without_overlap() -> None:
    rows = list(range(12))
    shares = [rows[Ranks(rank, rank, 4).share(len(rows))] for rank in range(4)]
    assert sum(shares, []) == rows and {len(share) for share in shares} == {3}
    assert rows[Ranks().share(12)] == rows
