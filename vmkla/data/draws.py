"""Which training images make up each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, UsageError

Rows = npt.NDArray[np.int64]

MOST_REPEATS = 4
"""An epoch shows a quiet image so many times at most, on average over the quiet images."""
HARD_WEIGHT = 4.0
"""An image in which the network marked something when it was last shown is drawn so many times as often."""
NOT_SHOWN, NOTHING_MARKED, MARKED = -1, 0, 1


class Draws:
    """The batches of each epoch, in a random order that depends on seed and epoch.

    Without a quiet share an epoch shows every image once. With one it shows every image with a lesion once
    and draws the rest of each batch from the quiet images, which show none. How often each of them is drawn
    follows its weight: ``HARD_WEIGHT`` when the network marked at least one pixel of it in the last earlier
    epoch that showed it, or when no epoch has shown it; otherwise 1. The last images of an epoch's order, too
    few for a batch, are left out.

    Args:
        quiet: (n,) bool, the images without a lesion.
        batch_size: images per batch.
        seed: of the order.
        share: of every batch, the quiet images; 0 makes no difference between images.
        windows: how many of the quiet images are windows of others, for messages.
    Raises:
        UsageError: the share is less than one image of a batch, or all of it.
        BadInputError: there are too few images for a batch, or too few quiet ones for the share.
    """

    def __init__(
        self,
        quiet: npt.NDArray[np.bool_],
        *,
        batch_size: int,
        seed: int,
        share: float = 0.0,
        windows: int = 0,
    ) -> None:
        self.count, self.seed = len(quiet), seed
        if self.count < batch_size:
            raise BadInputError(
                f"the training set has {self.count} images, fewer than one batch of {batch_size}",
                hint="Use a smaller batch, or more images.",
            )
        self.quiet = np.flatnonzero(quiet) if share else np.empty(0, np.int64)
        self.others = np.setdiff1d(np.arange(self.count), self.quiet)
        self.quiet_per_batch = round(share * batch_size)
        self.others_per_batch = batch_size - self.quiet_per_batch
        if share and not 0 < self.quiet_per_batch < batch_size:
            raise UsageError(
                f"a quiet share of {share} is {self.quiet_per_batch} of the {batch_size} images of a batch, "
                f"expected 1 to {batch_size - 1}",
                hint="Change --quiet-share or --batch.",
            )
        self.steps = len(self.others) // self.others_per_batch
        if not self.steps:
            raise BadInputError(
                f"the training set has {len(self.others)} images with a lesion, and a batch takes "
                f"{self.others_per_batch} of them",
                hint="Use a smaller batch, or more images.",
            )
        self.quiet_per_epoch = self.steps * self.quiet_per_batch
        if self.quiet_per_epoch > MOST_REPEATS * len(self.quiet):
            raise BadInputError(
                f"a quiet share of {share} takes {self.quiet_per_epoch} quiet images an epoch, each at most "
                f"{MOST_REPEATS} times; the training set has {len(self.quiet)}: {windows} polyp-free windows "
                f"of images with lesions, and {len(self.quiet) - windows} images without a lesion",
                hint="Lower --quiet-share, or add images of healthy bowel with empty masks.",
            )
        self.marked = np.ones(self.count, bool)
        self.noted = np.full(self.count, NOT_SHOWN, np.int8)

    def batches(self, epoch: int) -> list[Rows]:
        """Rows of the training set, one array per batch.

        A row from ``count`` on is another copy of an image, which is augmented differently: ``count + 3`` is
        the second copy of row 3.
        """
        rng = np.random.default_rng((self.seed, epoch))
        others = _in_parts(rng.permutation(self.others), self.steps, self.others_per_batch)
        if not self.quiet_per_batch:
            return others
        quiet = _in_parts(self._drawn(rng), self.steps, self.quiet_per_batch)
        # Mixed, so that each of several processes gets some of both.
        return [rng.permutation(np.concatenate(parts)) for parts in zip(others, quiet, strict=True)]

    def note(self, rows: Rows, marked: Sequence[float]) -> None:
        """Take note of what the network marked in a step.

        Args:
            rows: of the images, as ``batches`` gave them.
            marked: of each, the share of pixels that was marked.
        """
        for row, share in zip(rows % self.count, marked, strict=True):
            self.noted[row] = max(self.noted[row], MARKED if share > 0 else NOTHING_MARKED)

    def end_epoch(self, noted: Sequence[npt.NDArray[np.int8]]) -> None:
        """Take the notes of all processes into account from the next epoch on.

        Args:
            noted: the attribute ``noted`` of each process.
        """
        all_noted = np.maximum.reduce(noted)
        self.marked = np.where(all_noted == NOT_SHOWN, self.marked, all_noted == MARKED)
        self.noted = np.full(self.count, NOT_SHOWN, np.int8)

    def state(self, noted: Sequence[npt.NDArray[np.int8]]) -> dict[str, Any]:
        """Return plain values to resume from in the middle of an epoch; ``noted`` as in ``end_epoch``."""
        return {"marked": self.marked.tolist(), "noted": np.maximum.reduce(noted).tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``."""
        self.marked, self.noted = np.array(state["marked"], bool), np.array(state["noted"], np.int8)

    def _drawn(self, rng: np.random.Generator) -> Rows:
        """The quiet rows of an epoch; no image comes a third time before all that are due came twice."""
        order = rng.permutation(self.quiet)
        weights = np.where(self.marked[order], HARD_WEIGHT, 1.0)
        # Systematic sampling: equal steps along the running sum of the weights.
        ends = np.cumsum(weights) * (self.quiet_per_epoch / weights.sum()) + rng.random()
        ends[-1] = self.quiet_per_epoch  # exactly, whatever the rounding
        counts = np.diff(np.floor(ends), prepend=0).astype(np.int64)
        copies = range(int(counts.max()))
        return np.concatenate([rng.permutation(order[counts > copy]) + copy * self.count for copy in copies])


def _in_parts(rows: Rows, parts: int, size: int) -> list[Rows]:
    return [rows[part * size :][:size] for part in range(parts)]
