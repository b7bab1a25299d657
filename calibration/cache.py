"""Cache the results of a calibration between runs, keyed by everything that they depend on."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla import __version__
from vmkla.bounded import DAMAGED, parse_names, read_file
from vmkla.calibration.equalise import Divisors
from vmkla.calibration.insertion import Range
from vmkla.files import write_whole

FORMAT = 2
"""Version of the files' format; files of another version are not read."""
_FILE_MAX_BYTES = 64 << 20

CACHED = ("collected-*.npz", "ranges-*.json", "divisors-*.npz")
"""Patterns of the files."""


@dataclass(frozen=True)
class CalibrationCache:
    """Files in a folder, named after the hash of the facts that their content depends on.

    Attributes:
        folder: folder of the files.
        facts: the model's sha256, the frames' sha256, the method and its settings.
    """

    folder: Path
    facts: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Hash of the facts."""
        text = json.dumps({**self.facts, "format": FORMAT, "vmkla": __version__}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def state(self) -> Path:
        """File with what an unfinished measurement has collected."""
        return self.folder / f"collected-{self.key}.npz"

    @property
    def ranges(self) -> Path:
        """File with finished ranges."""
        return self.folder / f"ranges-{self.key}.json"

    @property
    def divisors(self) -> Path:
        """File with the divisors of activations' channels."""
        return self.folder / f"divisors-{self.key}.npz"

    def load_divisors(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """Load the divisors; None when the file is missing or damaged."""
        try:
            with np.load(self.divisors, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except DAMAGED:
            return None

    def save_divisors(self, divisors: Divisors) -> None:
        """Save the divisors."""
        data, arrays = io.BytesIO(), dict[str, Any](divisors)
        np.savez(data, **arrays)
        write_whole(self.divisors, data.getvalue())

    def load_ranges(self) -> dict[str, Range] | None:
        """Load the ranges; None when the file is missing, damaged, or has other facts."""
        try:
            kept = parse_names(read_file(self.ranges, _FILE_MAX_BYTES), _FILE_MAX_BYTES)
            if kept["facts"] != json.loads(json.dumps(dict(self.facts))):
                return None
            return {name: (float(low), float(high)) for name, (low, high) in kept["ranges"].items()}
        except DAMAGED:
            return None

    def save_ranges(self, ranges: Mapping[str, Range]) -> None:
        """Save the ranges, and remove what was collected for them."""
        text = json.dumps({"facts": dict(self.facts), "ranges": ranges}, indent=1)
        write_whole(self.ranges, text.encode())
        self.state.unlink(missing_ok=True)
