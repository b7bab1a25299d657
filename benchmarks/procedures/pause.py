"""Measure what --pause-on-poor costs in sensitivity, and saves in false alarms, on labelled images.

    python benchmarks/procedures/pause.py --data kvasir-seg cvc-clinicdb polypgen:val_PolypGen.txt
    python benchmarks/procedures/pause.py --data mine/ --model mine.onnx --every 10

A lesion counts as found when a finding shares a pixel with it, as in ``vmkla eval``; with the pause, findings
on poor pictures do not count. Single images cannot be frozen, so that reason is not measured.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

from benchmarks.common import Table
from vmkla.data import DataSource, iter_samples
from vmkla.engines import load_runner
from vmkla.evaluation.evaluate import evaluate
from vmkla.evaluation.judge import ImageResult, LabelledImage, Mask
from vmkla.procedures.quality import measure, small_view
from vmkla.runner import Runner
from vmkla.segment.preprocess import field_of_view


class Cost:
    """Lesions and false alarms with and without the findings on poor pictures."""

    def __init__(self, runner: Runner) -> None:
        self._roi = runner.spec.metadata.preprocess.roi
        self.reasons: Counter[str] = Counter()
        self.images = self.lesions = self.found = self.found_without = self.false = self.false_without = 0

    def add(self, result: ImageResult, sample: LabelledImage, _: Mask) -> None:
        """Count one image."""
        poor = measure(small_view(sample.image_rgb, field_of_view(sample.image_rgb, self._roi))).poor
        if poor is not None:
            self.reasons[poor] += 1
        match = result.lesions
        self.images += 1
        self.lesions += len(match.lesions)
        self.found += match.found
        self.false += len(match.false_findings)
        self.found_without += match.found if poor is None else 0
        self.false_without += len(match.false_findings) if poor is None else 0

    def cells(self) -> tuple[object, ...]:
        """Return a row of the table."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common()) or "none"
        shares = [f"{found / max(1, self.lesions):.4f}" for found in (self.found, self.found_without)]
        return self.images, self.lesions, reasons, *shares, self.false, self.false_without


COLUMNS = (
    *("data", "images", "lesions", "poor pictures", "sensitivity", "with the pause"),
    *("false findings", "with the pause"),
)


def main() -> None:
    """Measure each data set, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="Folders of images with masks, or DIR:LIST.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--every", type=int, default=1, help="Take only every Nth image.")
    chosen = parser.parse_args()
    table = Table("Cost of pausing markers on poor pictures", COLUMNS)
    with load_runner(chosen.model, threads=chosen.threads) as runner:
        for text in chosen.data:
            cost, samples = Cost(runner), iter_samples([DataSource.parse(text)])
            chosen_samples = itertools.islice(samples, 0, None, chosen.every)
            document = evaluate(runner, chosen_samples, on_image=cost.add)
            table.add(text, *cost.cells())
    table.notes.append(f"{chosen.model} at its operating point: {document['operating_point']}.")
    print(table.markdown())


if __name__ == "__main__":
    main()
