"""Large files in small pieces, for places that take no large ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rows import write_json

from vmkla.errors import BadInputError
from vmkla.files import written_whole

PIECE_BYTES = 15_000_000
"""Under the 16 MB that many a store takes for one file."""
SUFFIX = ".pieces.json"


def split_file(path: Path, folder: Path, name: str, *, piece_bytes: int = PIECE_BYTES) -> list[Path]:
    """Write a file's pieces and a list of them. ``cat name.* > name`` joins them too.

    Args:
        path: the file.
        folder: where the pieces go; those of an earlier file of that name are replaced.
        name: of the file to be, ``<name>.000``, ``<name>.001`` and on, beside ``<name>.pieces.json``.
        piece_bytes: largest size of a piece.
    Returns:
        The pieces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}.[0-9][0-9][0-9]"):
        old.unlink()
    digest, pieces = hashlib.sha256(), []
    with path.open("rb") as file:
        while data := file.read(piece_bytes):
            digest.update(data)
            pieces.append(folder / f"{name}.{len(pieces):03d}")
            pieces[-1].write_bytes(data)
    facts = {
        "file": name,
        "bytes": path.stat().st_size,
        "sha256": digest.hexdigest(),
        "pieces": [piece.name for piece in pieces],
    }
    write_json(folder / f"{name}{SUFFIX}", facts)
    return pieces


def join_file(listing: Path) -> Path:
    """Put the pieces of a list together, beside them.

    Args:
        listing: a ``.pieces.json``.
    Raises:
        BadInputError: the list cannot be read, a piece is missing, or the whole is not the file that was
            split.
    """
    try:
        facts = json.loads(listing.read_text(encoding="utf-8"))
        missing = [name for name in facts["pieces"] if not (listing.parent / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{listing} cannot be read as a list of pieces: {error}") from error
    if missing:
        raise BadInputError(f"{listing}: pieces are missing: {', '.join(missing)}")
    whole = listing.parent / facts["file"]
    digest = hashlib.sha256()
    with written_whole(whole) as file:
        for name in facts["pieces"]:
            data = (listing.parent / name).read_bytes()
            digest.update(data)
            file.write(data)
        if digest.hexdigest() != facts["sha256"]:
            raise BadInputError(f"{listing}: the pieces do not make the file that was split; fetch them anew")
    return whole
