"""Compare two artefacts on the same frames, and check what a clinical user would lose."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from vmkla.engines.verify.figures import ErrorHistogram, check_gates, figures
from vmkla.engines.verify.frame import (
    FrameMasks,
    FrameResult,
    Probability,
    Rgb,
    VerifyFrame,
    answer,
    judge_frame,
)
from vmkla.engines.verify.gates import ClinicalGates, GateCheck
from vmkla.errors import BadInputError, ShapeError
from vmkla.runner import Runner, RunnerSpec, describe_model, describe_runtime

ReadableFrame = Any
"""A ``VerifyFrame``, a ``vmkla.data.Sample`` or similar object, or an (H, W, 3) uint8 image."""


class Reference(Protocol):
    """The side that is right: a runner, or results that were saved."""

    @property
    def identity(self) -> dict[str, Any]:
        """Model and runtime, for reports."""

    @property
    def spec(self) -> RunnerSpec:
        """Input, output and identity of the model."""

    def answers(self) -> Generator[tuple[VerifyFrame, Probability], None, None]:
        """Yield frames and their probability, (classes, height, width)."""


@dataclass(frozen=True, eq=False)
class ShownFrame:
    """A frame for the page.

    Attributes:
        result: the measured figures.
        frame: the frame itself.
        masks: the masks of reference and candidate.
    """

    result: FrameResult
    frame: VerifyFrame
    masks: FrameMasks


@dataclass(frozen=True, eq=False)
class VerifyReport:
    """Result of a verification.

    Attributes:
        reference, candidate: model and runtime of the two sides, see ``identify``.
        gates: the limits for this pair.
        figures: the measured figures, see ``figures.figures``.
        checks: result of each gate.
        each: result of each frame.
        shown: the frames that differ most, worst first.
        largest_error_input: the reference's input, (height, width, 3), of the frame with the largest
            probability error.
    """

    reference: dict[str, Any]
    candidate: dict[str, Any]
    gates: ClinicalGates
    figures: dict[str, Any]
    checks: tuple[GateCheck, ...]
    each: tuple[FrameResult, ...]
    shown: tuple[ShownFrame, ...]
    largest_error_input: Rgb

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each gate that failed."""
        return tuple(check.text for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values without the single frames, for JSON and metadata."""
        return {
            "passed": self.passed,
            "failures": list(self.failures),
            "reference": self.reference,
            "candidate": self.candidate,
            "gates": self.gates.to_dict(),
            "checks": [asdict(check) for check in self.checks],
            "measured": self.figures,
        }


class LiveReference:
    """A reference that runs each frame.

    Args:
        runner: the loaded reference.
        samples: the frames, see ``verify_runners``.
    """

    def __init__(self, runner: Runner, samples: Iterable[ReadableFrame]) -> None:
        self._runner = runner
        self._samples = samples
        self.identity = identify(runner)
        self.spec = runner.spec

    def answers(self) -> Generator[tuple[VerifyFrame, Probability], None, None]:
        """Yield frames and the runner's probability."""
        for frame in as_frames(self._samples):
            yield frame, answer(self._runner, frame)


def verify_runners(
    reference: Runner,
    candidate: Runner,
    samples: Iterable[ReadableFrame],
    gates: ClinicalGates | None = None,
    *,
    show: int = 0,
    progress: Callable[[int], None] | None = None,
) -> VerifyReport:
    """Compare two runners on the same frames.

    Args:
        reference: the runner that is right.
        candidate: the runner to check.
        samples: labelled samples (``vmkla.data.Sample``), ``VerifyFrame``, or (H, W, 3) uint8 RGB images; all
            with truth or all without. An (n, H, W, 3) array is n images.
        gates: the limits; None takes the defaults. ``ClinicalGates.for_pair`` adapts them to the pair.
        show: number of frames to keep for a page, those that differ most.
        progress: called with the number of frames done.
    Returns:
        The report. A gate that fails raises nothing.
    Raises:
        BadInputError: there is no frame, or some frames have a truth and others none.
        ShapeError: the two differ in the number of classes.
    """
    return verify_reference(LiveReference(reference, samples), candidate, gates, show=show, progress=progress)


def verify_reference(
    reference: Reference,
    candidate: Runner,
    gates: ClinicalGates | None = None,
    *,
    show: int = 0,
    progress: Callable[[int], None] | None = None,
) -> VerifyReport:
    """Compare a runner with a reference that may have been saved, as ``verify_runners`` does."""
    a, b = reference.spec, candidate.spec
    if a.num_classes != b.num_classes:
        raise ShapeError(f"the reference has {a.num_classes} classes, the candidate has {b.num_classes}")
    limits = (gates or ClinicalGates()).for_pair(
        (a.metadata.precision, b.metadata.precision),
        same_weights=bool(a.metadata.weights_sha256)
        and a.metadata.weights_sha256 == b.metadata.weights_sha256,
        random_weights=a.metadata.random_weights or b.metadata.random_weights,
    )
    errors, results = ErrorHistogram(), list[FrameResult]()
    worst = _Worst(show)
    largest: tuple[float, Rgb] | None = None
    labelled: bool | None = None
    # Closed at once on an error, so that no half-written file of results stays.
    with contextlib.closing(reference.answers()) as answers:
        for frame, expected in answers:
            if labelled is None:
                labelled = frame.mask is not None
            elif labelled != (frame.mask is not None):
                raise BadInputError(
                    f"{frame.name} has {'no' if labelled else 'a'} mask, unlike the frames before it",
                    hint="Give frames that all have masks, or none.",
                )
            actual = answer(candidate, frame)
            result, masks, error = judge_frame(frame, (a, expected), (b, actual))
            errors.add(error)
            results.append(result)
            worst.add(ShownFrame(result, frame, masks))
            rank = result.max_error if result.finite_reference and result.finite_candidate else 2.0
            if largest is None or rank > largest[0]:
                largest = rank, frame.view(a).pixels_rgb
            if progress is not None:
                progress(len(results))
    if largest is None:
        raise BadInputError("there is no frame to compare on", hint="Give some with --data or --source.")
    seen = figures(results, errors, labelled=bool(labelled))
    return VerifyReport(
        reference=reference.identity,
        candidate=identify(candidate),
        gates=limits,
        figures=seen,
        checks=check_gates(seen, limits),
        each=tuple(results),
        shown=worst.frames(),
        largest_error_input=largest[1],
    )


def identify(runner: Runner) -> dict[str, Any]:
    """Identify a runner's model and runtime: plain values for a report."""
    return {"model": describe_model(runner), "runtime": describe_runtime(runner)}


def as_frames(samples: Iterable[ReadableFrame]) -> Iterator[VerifyFrame]:
    """Convert samples or images to ``VerifyFrame``."""
    for index, sample in enumerate(samples):
        if isinstance(sample, VerifyFrame):
            yield sample
        elif isinstance(sample, np.ndarray):
            yield VerifyFrame(f"frame {index}", sample)
        else:
            yield VerifyFrame(sample.name, sample.image_rgb, sample.mask, sample.prepared)


class _Worst:
    """Keep the frames that differ most: by the Dice of their masks, then by probability."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[tuple[float, float, int], ShownFrame]] = []
        self._seen = 0

    def add(self, shown: ShownFrame) -> None:
        self._seen += 1
        result = shown.result
        finite = result.finite_reference and result.finite_candidate
        key = (1.0 - result.agreement if finite else 2.0, result.max_error, -self._seen)
        if self._count:
            heapq.heappush(self._heap, (key, shown))
            if len(self._heap) > self._count:
                heapq.heappop(self._heap)

    def frames(self) -> tuple[ShownFrame, ...]:
        return tuple(shown for _, shown in sorted(self._heap, key=lambda entry: entry[0], reverse=True))
