"""Which images belong together: frames of one examination, as far as file names tell."""

from __future__ import annotations

import re
from bisect import bisect_right

CLINICDB = "clinicdb"
"""The rule for CVC-ClinicDB, whose frames are called by their numbers alone."""

_CLINICDB_FIRST_FRAMES = (
    1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298,
    318, 343, 364, 384, 409, 429, 448, 467, 479, 504, 529, 547, 572, 592,
)  # fmt: skip
_CLINICDB_LAST_FRAME = 612
_NAMED = (
    re.compile(r"(\d+)_endocv2021_(?:positive|negative)"),  # PolypGen, sequences
    re.compile(r"(\d+OLCV\d+)_"),  # PolypGen, one examination
    re.compile(r"(case\d+)_slice\d+$"),  # Synapse, one patient
)


def sequence_of(stem: str, rule: str = "") -> str:
    """Name of the sequence that an image is from; empty when the name does not tell.

    Args:
        stem: the image's file name without suffix.
        rule: ``CLINICDB`` takes numbers for frames of CVC-ClinicDB, which has 29 sequences.
    Source: Bernal et al., Computerized Medical Imaging and Graphics 43, 2015, and the table published with
        CVC-ClinicDB; Ali et al., PolypGen, Scientific Data 10, 2023.
    """
    if rule == CLINICDB and stem.isascii() and stem.isdigit() and 1 <= int(stem) <= _CLINICDB_LAST_FRAME:
        return f"clinicdb-{bisect_right(_CLINICDB_FIRST_FRAMES, int(stem)):02d}"
    for pattern in _NAMED:
        if match := pattern.match(stem):
            return match[1]
    return ""


def rule_for(name: str) -> str:
    """The rule that a folder's name calls for. PraNet's ``TrainDataset`` is Kvasir-SEG and CVC-ClinicDB."""
    plain = re.sub("[^a-z0-9]", "", name.lower())
    return CLINICDB if "clinicdb" in plain or plain == "traindataset" else ""
