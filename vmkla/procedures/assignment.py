"""Pair lesions with findings so that the sum of their scores is largest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vmkla.imports import require


class Assignment:
    """The solver of the linear assignment problem, loaded before the first frame.

    Raises:
        MissingDependencyError: the package ``lap`` is not installed.
    """

    def __init__(self) -> None:
        self._lap = require("lap", extra=None, purpose="numbering lesions")

    def pairs(self, scores: npt.NDArray[np.float64], least: float) -> list[tuple[int, int]]:
        """Choose pairs of different rows and columns with the largest sum of what exceeds ``least``.

        Args:
            scores: (n, m); a pair below ``least`` is never chosen.
            least: smallest score of a pair.
        Returns:
            Pairs (row, column), in the order of the rows.
        Source: Jonker & Volgenant, Computing 38, 1987.
        """
        rows, columns = np.nonzero(scores >= least)
        if len(rows) <= 1:  # most frames
            return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True)]
        costs = np.where(scores >= least, scores.max() - scores, 2 * (scores.max() - least) + 1)
        _, column_of, _ = self._lap.lapjv(costs, extend_cost=True, cost_limit=scores.max() - least + 1e-9)
        return [(row, int(column)) for row, column in enumerate(column_of) if column >= 0]
