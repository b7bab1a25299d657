"""The plan of a run in file mode: what is decided before the first frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vmkla import __version__
from vmkla.errors import UsageError
from vmkla.procedures.annotations.formats import check_fits
from vmkla.procedures.annotations.records import label_names
from vmkla.runner import Runner, model_warnings
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import PreprocessSpec, Rect
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.view import Views
from vmkla.video.hiding import HIDE_EXAMPLE, Hidden, not_inside
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.frames import Source
from vmkla.video.media.naming import NamedSource
from vmkla.video.media.sources import ImageSource


@dataclass(frozen=True)
class Plan:
    """What is decided before the first frame.

    Attributes:
        options: options of the run.
        named: the source, with the names that may be shown.
        spec: preprocessing of a frame.
        point: rule by which a region counts as a finding.
        multi_class: whether the model has several classes, so that findings carry theirs.
        labels: name of each class that a finding can have.
        views: fields of view of the source's frames.
        hidden: rectangles that no output shows.
        settings: everything that decides the content of the outputs, as plain values.
        warnings: what the user should know of the model and the source.
    """

    options: SegmentOptions
    named: NamedSource
    spec: PreprocessSpec
    point: OperatingPoint
    multi_class: bool
    labels: dict[int, str]
    views: Views
    hidden: Hidden
    settings: dict[str, Any]
    warnings: tuple[str, ...]


def make_plan(runner: Runner, named: NamedSource, options: SegmentOptions) -> Plan:
    """Decide everything that the options leave to the model and the source.

    Args:
        runner: the network.
        named: the source, which is searched for its field of view where that is ``"auto"``.
        options: options of the run.
    Raises:
        UsageError: the operating point does not suit the model, or a rectangle to hide is not in the frame.
        BadInputError: the source cannot be read, or an annotation format cannot hold its names.
    """
    source = named.source
    metadata = runner.spec.metadata
    labels = label_names(metadata.class_names)
    images = [item.name for item in source.items] if isinstance(source, ImageSource) else []
    check_fits(options.export, [named.label, *images], labels)
    roi = metadata.preprocess.roi if options.roi is None else options.roi
    point = runner.spec.point_at(options.point)
    warnings = model_warnings(runner)
    views = Views.of_source(source, roi)
    if views.searched_in_vain:
        warnings.append(
            f"the first {views.searched_in_vain} frames show no field of view; whole frames are used"
        )
        roi = "none"
    if options.label == "lesion" and images:
        warnings.append("images have no lesions over time: --label lesion writes nothing beside findings")
    hidden = _hidden(source, options.hide)
    settings = run_settings(runner, options) | {"roi": roi if isinstance(roi, str) else list(roi)}
    if options.export:
        settings |= {"export": list(options.export), "export_frames": options.export_frames}
    if isinstance(source, VideoSource):
        settings |= {"track": source.track.number, "deinterlace": options.deinterlace}
    spec = PreprocessSpec(runner.spec.height, runner.spec.width, roi)
    multi_class = runner.spec.num_classes > 1
    return Plan(options, named, spec, point, multi_class, labels, views, hidden, settings, tuple(warnings))


def run_settings(runner: Runner, options: SegmentOptions) -> dict[str, Any]:
    """Return what decides the content of the outputs, whatever the source, as plain values.

    Raises:
        UsageError: the operating point does not suit the model.
    """
    roi = runner.spec.metadata.preprocess.roi if options.roi is None else options.roi
    settings: dict[str, Any] = {
        "vmkla_version": __version__,
        "model_sha256": runner.spec.sha256,
        **runner.spec.point_at(options.point).to_dict(),
        "overlay": options.overlay,
        "alpha": options.alpha,
        "label": options.label,
        "save_masks": options.save_masks,
        "save_probability": options.save_probability,
        "stride": options.stride,
        "image_format": options.image_format,
        "roi": roi if isinstance(roi, str) else list(roi),
        "anonymous": options.anonymous,
    }
    if options.hide:
        settings["hide"] = [list(rect) for rect in options.hide]
    if options.pause_on_poor:
        settings["pause_on_poor"] = True
    return settings


def _hidden(source: Source, rects: tuple[Rect, ...]) -> Hidden:
    """Return the rectangles to black out, with the size of the first frame that can be read."""
    if not rects:
        return Hidden()
    frames = source.frames()
    first = next(frames)  # a source without a frame raises
    frames.close()
    reference_hw = (first.rgb.shape[0], first.rgb.shape[1])
    if outside := not_inside(rects, reference_hw):
        raise UsageError(f"--hide: {outside}", hint=f"{HIDE_EXAMPLE}, in pixels of the first frame")
    return Hidden(rects, reference_hw)
