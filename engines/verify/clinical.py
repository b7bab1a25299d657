"""Two artefacts on the same frames, judged by what a clinical user would lose."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

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
"""A ``VerifyFrame``, a ``vmkla.data.Sample`` or like it, or an (H, W, 3) uint8 image."""


class Reference(Protocol):
    """What a candidate is held against: a runner that answers now, or answers that were saved."""

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, for reports."""

    @property
    def spec(self) -> RunnerSpec:
        """What it takes and gives."""

    def answers(self) -> Generator[tuple[VerifyFrame, Probability], None, None]:
        """Frames and what it says to them, (classes, height, width)."""


@dataclass(frozen=True, eq=False)
class ShownFrame:
    """A frame for the page.

    Attributes:
        result: what was measured.
        frame: what it looks like.
        masks: what the two mark.
    """

    result: FrameResult
    frame: VerifyFrame
    masks: FrameMasks


@dataclass(frozen=True, eq=False)
class VerifyReport:
    """Outcome of a comparison.

    Attributes:
        reference, candidate: what was compared (``identify``).
        gates: the limits that held for this pair.
        figures: what was measured, see ``verify_figures.figures``.
        checks: one for each gate.
        each: one for each frame.
        shown: the frames that differ most, worst first, as many as were asked for.
        loudest_input: what the reference saw, (height, width, 3), of the frame with the largest probability
            error.
    """

    reference: dict[str, Any]
    candidate: dict[str, Any]
    gates: ClinicalGates
    figures: dict[str, Any]
    checks: tuple[GateCheck, ...]
    each: tuple[FrameResult, ...]
    shown: tuple[ShownFrame, ...]
    loudest_input: Rgb

    @property
    def passed(self) -> bool:
        """Every gate held."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each gate that did not."""
        return tuple(check.text for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and metadata; without the single frames."""
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
    """A runner that answers as the frames come.

    Args:
        runner: loaded.
        samples: the frames, see ``verify_runners``.
    """

    def __init__(self, runner: Runner, samples: Iterable[ReadableFrame]) -> None:
        self._runner = runner
        self._samples = samples
        self.identity = identify(runner)
        self.spec = runner.spec

    def answers(self) -> Generator[tuple[VerifyFrame, Probability], None, None]:
        """Frames and what the runner says to them."""
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
        reference: what is right.
        candidate: what is to be checked.
        samples: labelled samples (``vmkla.data.Sample``), ``VerifyFrame``, or (H, W, 3) uint8 RGB images; all
            with truth or all without. An (n, H, W, 3) array is n images.
        gates: None takes the defaults. ``ClinicalGates.for_pair`` says what holds for this pair.
        show: how many of the frames that differ most to keep for a page.
        progress: told the number of frames done.
    Returns:
        The report; nothing is raised when a gate does not hold.
    Raises:
        BadInputError: there is no frame, or some frames have a truth and some have none.
        ShapeError: the two do not have the same number of classes.
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
    """As ``verify_runners``, with a reference that may have been saved."""
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
    loudest: tuple[float, Rgb] | None = None
    labelled: bool | None = None
    # Closed at once when something fails, so that a half-written file of answers does not stay.
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
            if loudest is None or rank > loudest[0]:
                loudest = rank, frame.view(a).pixels_rgb
            if progress is not None:
                progress(len(results))
    if loudest is None:
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
        loudest_input=loudest[1],
    )


def identify(runner: Runner) -> dict[str, Any]:
    """What a runner is: its model and what runs it."""
    return {"model": describe_model(runner), "runtime": describe_runtime(runner)}


def as_frames(samples: Iterable[ReadableFrame]) -> Iterator[VerifyFrame]:
    """Whatever is compared on, in one form.

    Raises:
        ShapeError: an array is no image.
    """
    for index, sample in enumerate(samples):
        if isinstance(sample, VerifyFrame):
            yield sample
        elif isinstance(sample, np.ndarray):
            yield VerifyFrame(f"frame {index}", _checked_image(sample))
        else:
            yield VerifyFrame(sample.name, sample.image_rgb, sample.mask, sample.prepared)


def _checked_image(image: npt.NDArray[Any]) -> Rgb:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"an image is {image.shape} {image.dtype}, expected (H, W, 3) uint8")
    return image


class _Worst:
    """Keeps the frames that differ most: by what the masks share, then by probability."""

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
