"""Evaluate a runner on labelled images: one call for tests, benchmarks and ``vmkla eval``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from vmkla.errors import BadInputError
from vmkla.evaluation.judge import ImageResult, LabelledImage, Mask, judge
from vmkla.evaluation.summary import summarise
from vmkla.evaluation.volumes import VolumeScores
from vmkla.metrics import Bootstrap
from vmkla.runner import Runner, RunnerSpec
from vmkla.segment.operating_point import CLINICAL_MIN_FRACTION, OWN_POINT, OperatingPoint, PointOverrides
from vmkla.segment.preprocess import PreprocessSpec, Rect

OnImage = Callable[[ImageResult, LabelledImage, Mask], None]


def evaluate(
    runner: Runner,
    samples: Iterable[LabelledImage] | Mapping[str, Iterable[LabelledImage]],
    *,
    point: PointOverrides = OWN_POINT,
    at_native: bool = True,
    volumes: bool = False,
    roi: str | Rect | None = None,
    bootstrap: Bootstrap | None = None,
    on_image: OnImage | None = None,
) -> dict[str, Any]:
    """Segment labelled images exactly as ``infer`` does, and compare the results with the truths.

    Args:
        runner: a model of one class (polyp), or of several with the background as class 0.
        samples: images with truths; or several sets by name.
        point: values of the operating point in the place of the model's own. Masks are made with its
            threshold alone; its peak and smallest area decide which regions count as findings. A model of
            several classes has no threshold: a pixel belongs to its most probable class.
        at_native: resolution of the top level and the strata: the images' own (PraNet's protocol), or the
            network's, where the truth is shrunk by area and the class with the largest share is taken.
        volumes: samples of one group are the slices of one volume, in order and one after the other.
        roi: field of view; None takes the model's own.
        bootstrap: draws of the intervals; None takes the defaults.
        on_image: called for each image with its result, the image, and the prediction (H, W), class indices.
    Returns:
        Plain values: ``images``, ``threshold``, ``operating_point`` and where it comes from
        (``operating_point_from``), ``class_names`` (without the background), ``resolution``, ``per_image``
        (mean, std and 95 % interval of each measure over images; an image with neither truth nor prediction
        scores 1), ``global`` (one confusion matrix over all pixels, and intervals), ``without_polyp`` (images
        without one; ``false_alarms``: there is a finding; ``any_mark``: the raw mask marks a pixel;
        ``region_fraction``: the point's smallest area), ``with_polyp`` (images with one; ``missed``: the raw
        mask marks no pixel of it), ``resolutions`` (all of these at ``native`` and at ``model`` resolution),
        ``lesions`` (at native resolution, by findings: ``sensitivity`` per lesion, ``image_sensitivity``,
        ``false_regions_per_image``, ``alarm_rate`` on images without a lesion, with counts and 95 %
        intervals; ``by_size``; ``by_class``; the columns of the ``froc`` curve), ``by_size``,
        ``by_sequence`` (None where frames form none), ``by_class`` (several classes), ``by_set`` (several
        sets), ``volumes`` (when requested), ``each``.
        With several classes every measure is the mean over the classes that are not background.
    Raises:
        BadInputError: there is no image, or a truth does not fit its image or the model.
        UsageError: the operating point does not suit the model.
    """
    spec = runner.spec
    bootstrap = bootstrap or Bootstrap()
    in_force = clinical_point(spec, point)
    sets = samples if isinstance(samples, Mapping) else {"": samples}
    preprocess = spec.metadata.preprocess
    if roi is not None:
        preprocess = PreprocessSpec(preprocess.height, preprocess.width, roi)
    class_names = finding_names(spec)
    scores = VolumeScores(class_names) if volumes else None
    results: list[ImageResult] = []
    for set_name, images in sets.items():
        for sample in images:
            result, prediction = judge(runner, sample, in_force, preprocess=preprocess, set_name=set_name)
            results.append(result)
            if scores is not None:
                scores.add(sample, prediction, set_name)
            if on_image is not None:
                on_image(result, sample, prediction)
    if not results:
        raise BadInputError("there is no labelled image", hint="Give a folder with images/ and masks/.")

    def summary(chosen: list[ImageResult]) -> dict[str, Any]:
        return summarise(
            chosen,
            class_names=class_names,
            point=in_force,
            model_hw=(spec.height, spec.width),
            at_native=at_native,
            bootstrap=bootstrap,
        )

    report = {
        "threshold": in_force.threshold if spec.num_classes == 1 else None,
        "operating_point": in_force.to_dict(),
        "operating_point_from": point_origin(spec, point),
        "class_names": list(class_names),
        **summary(results),
    }
    if len(sets) > 1:
        report["by_set"] = {}
        for name in sets:
            chosen = [result for result in results if result.set_name == name]
            if chosen:
                report["by_set"][name] = {k: v for k, v in summary(chosen).items() if k != "each"}
    if scores is not None:
        report["volumes"] = scores.summary(bootstrap)
    return report


def clinical_point(spec: RunnerSpec, overrides: PointOverrides = OWN_POINT) -> OperatingPoint:
    """Return the operating point at which regions count as alarms and lesions.

    It is the model's own. For a model that states none the smallest area is ``CLINICAL_MIN_FRACTION``, since
    every speck would count otherwise.

    Args:
        spec: the model's spec.
        overrides: values in the place of the model's own.
    Raises:
        UsageError: they do not suit the model.
    """
    point = spec.point_at(overrides)
    if spec.metadata.operating_point is None and overrides.min_fraction is None:
        return replace(point, min_fraction=CLINICAL_MIN_FRACTION)
    return point


def point_origin(spec: RunnerSpec, overrides: PointOverrides) -> str:
    """Return where the values of ``clinical_point`` come from, for the report."""
    stated = spec.metadata.operating_point is not None
    origin = "the model's own" if stated else "eval's default, since the model states none"
    given = [name for name, value in asdict(overrides).items() if value is not None]
    return f"{' and '.join(given)} as given, the rest {origin}" if given else origin


def finding_names(spec: RunnerSpec) -> tuple[str, ...]:
    """Return the names of the classes that are not background."""
    names = tuple(spec.metadata.class_names)
    if len(names) != spec.num_classes:
        names = tuple(f"class {index}" for index in range(spec.num_classes))
    return names if spec.num_classes == 1 else names[1:]
