"""Gather a procedure's report from the files of its run; memory does not grow with its length."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vmkla.errors import BadInputError
from vmkla.files import unfinished_path
from vmkla.procedures.files import (
    EVENTS,
    LESIONS,
    OVERLAY_VIDEO,
    REPORT,
    RESULTS,
    ROWS,
    STILLS,
    still_names,
)
from vmkla.procedures.lesions import LesionRecords
from vmkla.procedures.report.live_events import read_log
from vmkla.procedures.report.recording import Recording
from vmkla.procedures.report.spans import Lanes, Span
from vmkla.procedures.report.stored import (
    Lines,
    Row,
    StoredLesion,
    StoredStill,
    read_document,
    to_lesion,
    to_row,
)
from vmkla.procedures.report.times import clock, link

CARDS, LISTED = 40, 1000
"""Lesions that are shown with their stills, and further ones that are listed in a table."""
TIMELINE_POINTS = 2000
"""Largest number of points in the time line; a span has two."""
LASTING_S = 1.0
"""Time from which a lesion is counted apart: most false findings are shorter."""
OTHERS, FINDINGS, CUTS, JUMPS = "other lesions", "findings", "cuts", "time jumps"
PICTURE = {"black": "black", "frozen": "frozen"}
"""Reason of a poor picture -> its lane; all other reasons have the lane ``POOR_PICTURE``."""
POOR_PICTURE = "poor picture"

_Ranked = tuple[tuple[float, float, int], int, StoredLesion]
"""A lesion's rank and its place in the file, which differs where two lines have one number."""
_SPANS_KEPT = 20_000
_PAUSE_S = 1.0
"""Longest time that a segmented frame stands for, until the next one, seconds; times the stride."""
_LATE_BEGIN_S = 5.0
"""Begin of a recording's clock from which its links are not reliable: a browser limits a link's time to the
length of the video. MPEG transport streams begin at 1.4 s."""
_LANE_OF_EVENT = {"cut": CUTS, "returned": CUTS, "jump": JUMPS}


@dataclass
class Procedure:
    """What the report shows.

    Attributes:
        folder: folder of the run.
        document: content of ``report.json``; empty where it is missing.
        first_s, last_s: time of the first and of the last frame, seconds.
        frames, segmented, with_finding: numbers of frames.
        lanes: what was seen when; lesions that are shown are in lanes of their own.
        poor_s: reason of a poor picture -> time, seconds; None where the run did not rate pictures.
        cuts: number of scene changes.
        shown: lesions with stills, best rank first.
        listed: further ones, in the order of time.
        lesions: number of all lesions; None where lesions are not known.
        lasting: number of these that were seen for at least ``LASTING_S``.
        live: whether the run was live: ``frames`` are those that the network saw.
        live_end_s: end of a live run by its log, seconds from its begin; None for others.
        recording: files of a live run's recording; None for a video, and where their times are not known.
        missing: what the report lacks, and why; whole sentences.
    """

    folder: Path
    document: dict[str, Any]
    first_s: float = 0.0
    last_s: float = 0.0
    frames: int = 0
    segmented: int = 0
    with_finding: int = 0
    lanes: Lanes = field(default_factory=lambda: Lanes(_SPANS_KEPT))
    poor_s: dict[str, float] | None = None
    cuts: int = 0
    shown: list[StoredLesion] = field(default_factory=list)
    listed: list[StoredLesion] = field(default_factory=list)
    lesions: int | None = None
    lasting: int = 0
    live: bool = False
    live_end_s: float | None = None
    recording: Recording | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def has_video(self) -> bool:
        """Whether a video with markers lies beside the page."""
        return bool(self.recording) or (not self.live and (self.folder / OVERLAY_VIDEO).is_file())

    def link(self, time_s: float, text: str) -> str:
        """Link HTML to a time of the video, or return it as it is where there is none."""
        if self.recording is None:
            return link(time_s, text, video=self.has_video)
        place = self.recording.place(time_s)
        return text if place is None else f'<a href="{place}">{text}</a>'


def gather(folder: Path, document: dict[str, Any] | None = None) -> Procedure:
    """Read what a run over a video or a live run has left.

    Args:
        folder: folder of the run.
        document: content of ``report.json``; None reads it.
    Raises:
        BadInputError: the folder is not of such a run, or a file of it cannot be read.
    """
    document = read_document(folder / REPORT) if document is None else document
    live = (folder / RESULTS).is_file()
    _check_kind(folder, document, live=live)
    procedure = Procedure(folder, document or {}, live=live)
    rows_file = folder / (RESULTS if live else ROWS)
    if not rows_file.is_file():
        rows_file = unfinished_path(rows_file)
        if not rows_file.is_file():
            raise BadInputError(
                f"{folder} has no {ROWS}", hint="Give the folder of a run: vmkla infer --video FILE --out DIR"
            )
        procedure.missing.append(f"The run was killed before its end: the page shows {rows_file.name}.")
    elif live and document is None:
        procedure.missing.append(f"The run was killed before its end: the page shows {rows_file.name}.")
    if document is None:
        procedure.missing.append(
            f"There is no {REPORT}: model, operating point, settings and the video's name are not known."
        )
    has_lesions = (folder / LESIONS).is_file()
    rows = Lines(rows_file, to_row)
    if live:
        _add_events(procedure)
    records = _read_rows(procedure, rows, with_records=not has_lesions)
    lesions = Lines(folder / LESIONS, to_lesion)
    if has_lesions:
        _rank(procedure, lesions)
    elif records is not None:
        procedure.missing.append(
            f"There is no {LESIONS}: lesions have the numbers of their time, and none are joined."
        )
        _rank(procedure, _from_records(procedure, records))
    else:
        procedure.missing.append(
            "The run is older than lesions and picture quality: lesions, stills, cuts and poor pictures are "
            "missing. Run vmkla infer again on the video for them."
        )
    for lines, name in ((rows, "rows"), (lesions, "lesions")):
        if lines.skipped:
            procedure.missing.append(f"{lines.skipped} damaged lines of the {name} were left out.")
    if live:
        if procedure.recording is not None and not procedure.recording:
            procedure.missing.append("The run has no recording beside this page: times are not links.")
    elif not procedure.has_video:
        procedure.missing.append(f"There is no {OVERLAY_VIDEO} beside this page: times are not links.")
    elif procedure.first_s >= _LATE_BEGIN_S:
        length_s = procedure.last_s - procedure.first_s
        procedure.missing.append(
            f"The recording's clock begins at {clock(procedure.first_s)}: links to times after "
            f"{clock(length_s)} open the video at a wrong place in Chromium. Go to the time by hand."
        )
    procedure.lanes.limit(TIMELINE_POINTS // 2)
    return procedure


def _check_kind(folder: Path, document: dict[str, Any] | None, *, live: bool) -> None:
    """Reject reports of other kinds of runs."""
    if document is None or (live and "ended_by" in document):
        return
    source = document.get("input")
    kind = source.get("kind") if isinstance(source, dict) else None
    what = {"video": "", "images": "images"}.get(str(kind), "another command")
    if "ended_by" in document:
        what = f"a live source that has left no {RESULTS}"
    if what:
        raise BadInputError(
            f"{folder} is of a run over {what}, expected one over a video file",
            hint="Give the folder of a run: vmkla infer --video FILE --out DIR",
        )


def _add_events(procedure: Procedure) -> None:
    """Add lanes of when the AI was off and there was no signal, and find the recording of a live run."""
    path = procedure.folder / EVENTS
    log = read_log(path) if path.is_file() else None
    if log is None:
        procedure.missing.append(
            f"{EVENTS} is missing or damaged: when the AI was off is not known, and times are not links."
        )
        return
    for lane, spans in log.spans.items():
        procedure.lanes.add(lane, spans)
    procedure.live_end_s = log.end_s
    procedure.recording = Recording(procedure.folder, log.origin_s)


def _read_rows(procedure: Procedure, rows: Lines, *, with_records: bool) -> LesionRecords | None:
    """Add up the rows; return their lesions where they are wanted and the rows have them."""
    settings = procedure.document.get("settings")
    stride = settings.get("stride") if isinstance(settings, dict) else None
    stretches = _Stretches(procedure.lanes, _PAUSE_S * (stride if type(stride) is int and stride > 0 else 1))
    records, numbered = LesionRecords(), False
    first_s, last_s = float("inf"), float("-inf")
    row: Row
    for row in rows:
        procedure.frames += 1
        first_s, last_s = min(first_s, row.time_s), max(last_s, row.time_s)
        for event in row.events:
            if (lane := _LANE_OF_EVENT.get(event)) is not None:
                procedure.lanes.add(lane, [(row.time_s, row.time_s)])
                procedure.cuts += lane == CUTS
        if row.found is None:
            continue
        procedure.segmented += 1
        procedure.with_finding += row.found
        numbered = numbered or "box_lesions" in row.values
        stretches.add(row.time_s, row.poor, found=row.found)
        if with_records:
            records.add(row.values, marked=True)
    if not procedure.frames:
        raise BadInputError(
            f"{procedure.folder} has no row of a video; {rows.skipped} lines are damaged or of images",
            hint="Give the folder of a run: vmkla infer --video FILE --out DIR",
        )
    stretches.finish()
    if procedure.live_end_s is not None:  # the network sees nothing until it is loaded
        first_s, last_s = min(0.0, first_s), max(procedure.live_end_s, last_s)
    procedure.first_s, procedure.last_s = first_s, last_s
    procedure.poor_s = stretches.poor_s if numbered else None
    if numbered:
        del procedure.lanes.spans[FINDINGS]
    return records if numbered and with_records else None


class _Stretches:
    """Turns what single frames show into spans."""

    def __init__(self, lanes: Lanes, pause_s: float) -> None:
        self._lanes, self._pause_s = lanes, pause_s
        self._open: dict[str, Span] = {}
        self._before: tuple[float, str | None] | None = None  # the last segmented frame
        self.poor_s: dict[str, float] = {}
        for lane in (FINDINGS, *PICTURE.values(), POOR_PICTURE):
            lanes.add(lane, ())

    def add(self, time_s: float, poor: str | None, *, found: bool) -> None:
        """Add the next segmented frame."""
        before, self._before = self._before, (time_s, poor)
        follows = before is not None and 0 <= time_s - before[0] <= self._pause_s
        if follows and before is not None and before[1] is not None:
            self.poor_s[before[1]] = self.poor_s.get(before[1], 0.0) + time_s - before[0]
        now = {FINDINGS} if found else set()
        if poor is not None:
            now.add(PICTURE.get(poor, POOR_PICTURE))
        for lane, (start_s, end_s) in list(self._open.items()):
            self._open[lane] = (start_s, time_s if follows else end_s)
            if not follows or lane not in now:
                self._lanes.add(lane, [self._open.pop(lane)])
        for lane in now - self._open.keys():
            self._open[lane] = (time_s, time_s)
        if poor is not None:
            self.poor_s.setdefault(poor, 0.0)

    def finish(self) -> None:
        """End what is open."""
        for lane, span in self._open.items():
            self._lanes.add(lane, [span])


def _from_records(procedure: Procedure, records: LesionRecords) -> Iterator[StoredLesion]:
    """Return the lesions that rows add up to, with the stills that a killed run has left."""
    stills = unfinished_path(procedure.folder / STILLS).name
    damaged = 0
    for record in records.by_number.values():
        try:
            lesion = to_lesion(record.to_dict())
        except (TypeError, ValueError):
            damaged += 1
            continue
        names = [f"{stills}/{Path(name).name}" for name in still_names(lesion.id)]
        if all((procedure.folder / name).is_file() for name in names):
            lesion = replace(lesion, still=StoredStill(None, *names))
        # Whether its findings were drawn is not known.
        yield replace(lesion, first_marker_after_s=None)
    if damaged:
        procedure.missing.append(f"{damaged} lesions whose times are not in order were left out.")


def _rank(procedure: Procedure, lesions: Iterable[StoredLesion]) -> None:
    """Choose the lesions that are shown and listed, and give the shown ones lanes of their own."""
    shown: list[_Ranked] = []
    listed: list[_Ranked] = []
    procedure.lanes.add(OTHERS, ())
    procedure.lesions = 0
    for lesion in lesions:
        procedure.lesions += 1
        procedure.lasting += round(lesion.seen_s, 6) >= LASTING_S
        procedure.first_s = min(procedure.first_s, lesion.first_s)
        procedure.last_s = max(procedure.last_s, lesion.last_s)
        entry = (lesion.rank, procedure.lesions, lesion)
        if len(shown) < CARDS:
            heapq.heappush(shown, entry)
            continue
        rank, place, other = heapq.heappushpop(shown, entry)
        procedure.lanes.add(OTHERS, other.spans)
        # The table has no spans: one gap as long as all keeps the time for which it was seen.
        heapq.heappush(listed, (rank, place, _without_gaps(other)))
        if len(listed) > LISTED:
            heapq.heappop(listed)
    procedure.shown = [lesion for _, _, lesion in sorted(shown, reverse=True)]
    procedure.listed = sorted(
        (lesion for _, _, lesion in listed), key=lambda lesion: (lesion.first_s, lesion.id)
    )
    for lesion in sorted(procedure.shown, key=lambda lesion: (lesion.first_s, lesion.id)):
        procedure.lanes.add(f"lesion {lesion.id}", lesion.spans)
    if not procedure.lanes.spans[OTHERS]:
        del procedure.lanes.spans[OTHERS]


def _without_gaps(lesion: StoredLesion) -> StoredLesion:
    gaps_s = sum(end_s - start_s for start_s, end_s in lesion.gaps)
    gaps = ((lesion.last_s - gaps_s, lesion.last_s),) if gaps_s else ()
    return replace(lesion, gaps=gaps)
