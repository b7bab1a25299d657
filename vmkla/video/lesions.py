"""Write the lesions of a run whose rows are complete: ``lesions.jsonl``, and final numbers in the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vmkla.bounded import MalformedError, parse_json
from vmkla.files import output_errors, write_whole, written_whole
from vmkla.procedures.files import LESIONS, ROW_MAX_BYTES
from vmkla.procedures.lesions import LesionRecords
from vmkla.procedures.stills import Stills
from vmkla.video.media.sinks import to_json


def renumber(
    rows: Path, joined: Mapping[int, int], marked: Callable[[Mapping[str, Any]], bool]
) -> LesionRecords:
    """Write final numbers into the boxes of the rows; events keep the numbers of their time.

    Args:
        rows: the file of rows. Damaged lines, as a full disk leaves them, stay as they are.
        joined: number of a lesion -> that of the earlier one that it was joined to.
        marked: returns whether the findings of a row were drawn.
    Returns:
        The lesions under their final numbers.
    Raises:
        BadInputError: the file cannot be read or written.
    """
    records = LesionRecords()
    with output_errors(rows), open(rows, "rb") as before, written_whole(rows) as after:
        for line in before:
            try:
                row = parse_json(line, ROW_MAX_BYTES)
            except MalformedError:
                after.write(line)
                continue
            if row["box_lesions"]:
                row["box_lesions"] = [joined.get(number, number) for number in row["box_lesions"]]
            records.add(row, marked=marked(row))
            after.write(to_json(row) + b"\n")
    return records


def write_lesions(
    folder: Path, records: LesionRecords, joined: Mapping[int, int], stills: Stills | None
) -> int:
    """Write ``lesions.jsonl``, and give stills their final names.

    Args:
        folder: folder of the run.
        records: the lesions under their final numbers.
        joined: as for ``renumber``.
        stills: their stills; None without any.
    Returns:
        The number of lesions.
    Raises:
        BadInputError: a file cannot be written. A lesion whose still cannot be written has none.
    """
    for number, final in joined.items():
        record = records.by_number[final]
        record.joined = (*record.joined, number)
    found = records.by_number.values()
    try:
        if stills is not None:
            stills.finish(joined)
    finally:
        for record in found:
            record.still = None if stills is None else stills.of(record.number)
        write_whole(folder / LESIONS, b"".join(to_json(record.to_dict()) + b"\n" for record in found))
    return len(found)
