"""vmkla.video.media.options: options of reading that are out of range are rejected."""

from __future__ import annotations

from typing import Any

import pytest

from vmkla.errors import UsageError
from vmkla.video.media.options import ReadOptions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deinterlace": "perhaps"}, "perhaps"),
        ({"max_megapixels": 0}, "0"),
        ({"max_megapixels": float("nan")}, "nan"),
    ],
)
def test_values_out_of_range_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ReadOptions(**changes)
