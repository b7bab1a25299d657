"""The training and validation images of a run, in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection

from vmkla.data.arrays import LabelledArrays, cache_spec, joined, stack
from vmkla.data.folder import iter_samples, list_pairs
from vmkla.data.pixels import available
from vmkla.data.sources import Sample
from vmkla.data.teacher import as_soft, read_teacher, with_teacher
from vmkla.data.windows import with_windows
from vmkla.errors import BadInputError, UsageError
from vmkla.segment.preprocess import PreprocessSpec
from vmkla.training.config import TrainConfig


def load_sets(
    config: TrainConfig, on_message: Callable[[str], None]
) -> tuple[LabelledArrays, LabelledArrays]:
    """Read, render and prepare everything that the run looks at.

    Args:
        config: says which images, and their size.
        on_message: told in a sentence what is done.
    Returns:
        Training set, with the margin that augmentation wants, and validation set.
    Raises:
        UsageError: there is nothing to train or to validate on.
        BadInputError: images are missing or wrong, or are in both sets.
    """
    if not config.data and not config.rendered:
        raise UsageError("there is nothing to train on", hint="Give --data DIR, or --rendered N.")
    if not config.val:
        raise UsageError("there is nothing to validate on", hint="Give --val DIR or --val DIR:SPLITFILE.")
    spec = cache_spec(config.image_size_hw, config.roi, config.augment)
    teacher: dict[str, Sample] | None = None
    if config.teacher is not None:
        on_message("reading the teacher's masks")
        teacher = read_teacher(config.teacher, class_names=config.names_of_classes, spec=spec)
    _refuse_overlap(config, teacher or {})
    if available().name != "OpenCV":
        on_message(f"OpenCV is not installed: {available().name} augments the images, three times as slowly")
    cut = with_windows if config.quiet_share else iter
    parts = []
    if config.data:
        on_message("reading the training images")
        part = stack(cut(iter_samples(config.data)), spec)
        parts.append(part if teacher is None else with_teacher(part, teacher, weight=config.teacher_weight))
    if config.rendered:
        from vmkla.data.rendered import rendered_samples  # draws with OpenCV; packed sets do without

        on_message(f"rendering {config.rendered} frames")
        part = stack(cut(rendered_samples(config.rendered, seed=config.seed)), spec)
        parts.append(part if teacher is None else as_soft(part))
    on_message("reading the validation images")
    val_set = stack(iter_samples(config.val), PreprocessSpec(*config.image_size_hw, config.roi))
    train_set = joined(parts)
    windows = f", {train_set.windows} of them polyp-free windows of others" if config.quiet_share else ""
    on_message(f"{len(train_set)} training images{windows}, {len(val_set)} validation images")
    return train_set, val_set


def _refuse_overlap(config: TrainConfig, teacher: Collection[str]) -> None:
    """An image on both sides makes the validation worthless; one that is taught is known by its name."""
    train_images = {pair.identity for pair in list_pairs(config.data)}
    both = [
        pair.name for pair in list_pairs(config.val) if pair.identity in train_images or pair.name in teacher
    ]
    if both:
        some = ", ".join(both[:5]) + (" ..." if len(both) > 5 else "")
        raise BadInputError(
            f"{len(both)} images are in the training and in the validation set: {some}",
            hint="Give split files that share no stem.",
        )
