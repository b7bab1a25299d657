"""Measure a network on scripted procedures and on recordings, and show the frames around each of its alarms.

    python benchmarks/procedures/network.py --out runs/alarms
    python benchmarks/procedures/network.py --out runs/alarms --recordings DIR --one-lesion withdrawal.mp4

Figures are those of ``vmkla eval --procedures``; recordings come in any of its layouts. Scripted procedures
are rendered as by ``vmkla sample --minutes``, into ``--scripted``, unless they are there already.
A clip after ``--one-lesion`` has no boxes: it shows one lesion throughout, so any finding detects it, and
findings with another number than the most frequent one count as alarms, to be looked at.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.common import Table
from vmkla.cpu_features import cpu_name
from vmkla.engines import load_runner
from vmkla.evaluation.alarms import DURATIONS_S, Alarms
from vmkla.evaluation.identities import IdentityTally
from vmkla.evaluation.procedure_run import JudgedNetwork
from vmkla.evaluation.procedures import RecordingResult, SeenFrame, count_recording, summarise_procedures
from vmkla.evaluation.recordings import observe
from vmkla.evaluation.truth.layouts import open_annotated
from vmkla.evaluation.truth.records import AnnotatedRecording, Mark
from vmkla.metrics import Bootstrap
from vmkla.runner import Runner
from vmkla.segment.preprocess import Rect
from vmkla.video.file.contact_sheet import ContactSheet
from vmkla.video.media.clip_script import write_procedure
from vmkla.video.media.sources import open_source

SEEDS_FROM = 19_200
AROUND = 15
"""Frames from an alarm to the frames before and after it that its sheet shows."""
SIDE_COLOURS_RGB = ((255, 255, 255), (255, 64, 64))
COLUMNS = (
    *("", "min", "lesions found", "first detection, median s", "fragments per lesion"),
    *("frames with a lesion, found", "alarms a minute"),
    *(f"of at least {limit_s:g} s" for limit_s in DURATIONS_S),
)


@dataclass(frozen=True)
class Seen:
    """What was found in one recording.

    Attributes:
        recording: the recording.
        frames: its frames, with false findings where there is an alarm.
        truth, given: boxes of the lesions and of the findings, frame by frame.
        numbers: number of fragments where the truth has no place; None where the tally counts them.
    """

    recording: AnnotatedRecording
    frames: Sequence[SeenFrame]
    truth: Sequence[Sequence[Rect]]
    given: Sequence[dict[int, Rect]]
    numbers: int | None = None

    def _alarmed(self, place: int) -> bool:
        return self.frames[place].false_findings > 0

    def alarms(self) -> Iterator[range]:
        """Yield the frames of each alarm."""
        for alarmed, group in itertools.groupby(range(len(self.frames)), self._alarmed):
            if alarmed:
                places = list(group)
                yield range(places[0], places[-1] + 1)


class _Everywhere:
    """The truth of a frame that shows a lesion somewhere."""

    def marks(self, frame_hw: tuple[int, int]) -> tuple[Mark, ...]:
        """Return one lesion that fills the frame."""
        return (Mark("1", Rect(0, 0, frame_hw[1], frame_hw[0]), np.ones(frame_hw, np.bool_)),)


def one_lesion(runner: Runner, path: Path, tally: IdentityTally) -> Seen:
    """Observe a clip that shows one lesion throughout."""
    count = sum(1 for _ in open_source(path).frames())
    truth = dict.fromkeys(range(count), _Everywhere())
    clip = AnnotatedRecording(path.stem, path.stem, open_source(path), truth)
    seen = see(runner, clip, tally)
    frames_of = Counter(number for given in seen.given for number in given)
    main = max(frames_of, key=frames_of.__getitem__, default=None)
    others = [sum(number != main for number in given) for given in seen.given]
    frames = [replace(frame, false_findings=other) for frame, other in zip(seen.frames, others, strict=True)]
    return replace(seen, frames=frames, truth=[()] * len(frames), numbers=len(frames_of))


def see(runner: Runner, recording: AnnotatedRecording, tally: IdentityTally) -> Seen:
    """Observe one recording, and count the identities in it."""
    print(recording.name, file=sys.stderr, flush=True)
    seen = observe(JudgedNetwork(runner).finder(recording), recording)
    tally.add(recording.name, seen.identities)
    truth = [tuple(boxes.values()) for boxes in seen.identities.truth]
    return Seen(recording, seen.frames, truth, seen.identities.given)


def row(name: str, group: Sequence[Seen], tally: IdentityTally) -> tuple[object, ...]:
    """Return the figures of a group of recordings."""
    results: list[RecordingResult] = [
        count_recording(seen.recording.name, seen.recording.procedure, seen.frames, seen.recording.frame_s)
        for seen in group
    ]
    figures = summarise_procedures(results, Bootstrap())
    followed = tally.agreement([seen.recording.name for seen in group])
    numbers, lesions = followed.numbers, followed.lesions
    if group[0].numbers is not None:
        numbers, lesions = sum(seen.numbers or 0 for seen in group), len(group)
    alarms = sum((result.alarms for result in results), Alarms())
    return (
        name,
        f"{figures['recorded_s'] / 60:.2f}",
        f"{figures['lesions']['found']} of {figures['lesions']['lesions']}",
        f"{figures['first_detection']['median_s']:.2f}",
        f"{numbers / max(1, lesions):.2f} ({lesions})",
        f"{figures['per_frame']['sensitivity']:.3f}",
        *(f"{alarms.per_minute(limit_s):.2f}" for limit_s in (0.0, *DURATIONS_S)),
    )


def write_sheets(seen: Seen, folder: Path) -> Iterator[str]:
    """Write a contact sheet for each alarm, and describe each in a line."""
    last = len(seen.frames) - 1
    open_sheets: list[tuple[range, set[int], ContactSheet]] = []
    for alarm in seen.alarms():
        first, end = alarm[0], alarm[-1]
        shown = {max(0, first - AROUND), first, (first + end) // 2, end, min(last, end + AROUND)}
        open_sheets.append((alarm, shown, ContactSheet()))
    for place, frame in enumerate(seen.recording.source.frames() if open_sheets else ()):
        for alarm, shown, sheet in open_sheets:
            if place in shown:
                caption = f"{seen.frames[place].time_s:.2f} s{', alarm' if place in alarm else ''}"
                sheet.offer(_drawn(frame.rgb, seen.truth[place], seen.given[place]), caption)
    for alarm, _, sheet in open_sheets:
        start_s = seen.frames[alarm[0]].time_s
        image = sheet.image()
        assert image is not None  # its own frames were offered
        path = folder / f"{seen.recording.name}-{start_s:07.2f}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        yield f"{seen.recording.name}: {start_s:.2f} s, {len(alarm)} frames, {path.name}"


def _drawn(
    rgb: npt.NDArray[np.uint8], truth: Sequence[Rect], given: dict[int, Rect]
) -> npt.NDArray[np.uint8]:
    """Draw the lesions in white, and the findings in red with their numbers."""
    drawn = rgb.copy()
    for boxes, colour in zip((truth, given.values()), SIDE_COLOURS_RGB, strict=True):
        for x, y, w, h in boxes:
            cv2.rectangle(drawn, (x, y), (x + w - 1, y + h - 1), colour, 2)
    for number, box in given.items():
        cv2.putText(drawn, f"#{number}", (box.x, max(14, box.y - 4)), 0, 0.5, SIDE_COLOURS_RGB[1], 1)
    return drawn


def render(folders: Sequence[Path], minutes: float) -> None:
    """Render the scripted procedures that are not there."""
    for seed, folder in enumerate(folders, SEEDS_FROM):
        video = folder / "clip.mp4"
        if not video.exists():
            print(f"rendering {video}", file=sys.stderr, flush=True)
            write_procedure(video, minutes, seed, folder / "masks")


def main() -> None:
    """Measure, write the sheets, and print the table and the alarms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Folder of the contact sheets.")
    parser.add_argument("--scripted", type=Path, help="Folder of scripted procedures; default OUT/scripted.")
    parser.add_argument("--procedures", type=int, default=6, help="Scripted procedures; 0 leaves them out.")
    parser.add_argument("--minutes", type=float, default=2.0, help="Length of each.")
    parser.add_argument("--recordings", type=Path, help="Recordings for vmkla eval --procedures.")
    parser.add_argument("--one-lesion", type=Path, nargs="+", default=[], help="Clips of one lesion.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    scripted = chosen.scripted or chosen.out / "scripted"
    (sheets := chosen.out / "sheets").mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    table, tally, alarms = Table("The network on procedures", COLUMNS), IdentityTally(), list[str]()
    folders = {
        "scripted": [scripted / f"p{SEEDS_FROM + place}" for place in range(chosen.procedures)],
        "recordings": [chosen.recordings] if chosen.recordings else [],
    }
    render(folders["scripted"], chosen.minutes)
    groups: dict[str, list[Seen]] = {}
    with load_runner(chosen.model, threads=chosen.threads) as runner:
        for name in (name for name, given in folders.items() if given):
            recordings = [each for folder in folders[name] for each in open_annotated(folder).recordings]
            groups[name] = [see(runner, each, tally) for each in recordings]
        if chosen.one_lesion:
            groups["clips of one lesion"] = [one_lesion(runner, path, tally) for path in chosen.one_lesion]
        for name, group in groups.items():
            table.add(*row(name, group, tally))
            for seen in group:
                alarms += write_sheets(seen, sheets)
        metadata = runner.spec.metadata
        table.notes.append(
            f"{chosen.model} at its operating point {JudgedNetwork(runner).describe()['operating_point']}, "
            f"weights {metadata.weights_sha256[:12]}, {cpu_name()}. In brackets: lesions that are followed."
        )
    text = "\n".join([table.markdown(), "", *alarms]) + "\n"
    (chosen.out / "figures.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
