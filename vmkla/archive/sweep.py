"""What killed owners have left in a batch's folder."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

from vmkla.archive.layout import BatchFolder, remove_private
from vmkla.archive.records import Records


def sweep(folder: BatchFolder, records: Records, settled: AbstractSet[str]) -> None:
    """Remove private folders, claims and parts that nobody needs any more.

    Args:
        folder: folder of the batch.
        records: its records.
        settled: keys that this driver has settled, of pieces and of the hashing of their sources.
    """
    for left in folder.work.iterdir():
        if records.is_done(re.split("[.-]", left.name)[0]):
            remove_private(left)
    for claim in folder.claims.iterdir():
        if _is_ended(claim.name, records, settled):
            claim.unlink(missing_ok=True)
    for left in folder.parts.iterdir() if folder.parts.exists() else ():
        if records.is_done(left.name):
            remove_private(left)


def _is_ended(claim: str, records: Records, settled: AbstractSet[str]) -> bool:
    """Check whether nobody needs a claim: PIECE.N, PIECE-FIRST-END.N of a part, or source-DIGEST.N."""
    key, _, attempt = claim.rpartition(".")
    if records.is_done(key.partition("-")[0]):
        return True
    failure = records.failure(key)
    if failure is None:
        return key in settled
    return attempt.isdecimal() and int(attempt) <= failure.attempts  # a later one tries again
