"""Labelled images on disk, rendered frames, augmentation and batches. Nothing here imports torch."""

from vmkla.data.augment import AugmentConfig
from vmkla.data.folder import iter_samples, list_pairs
from vmkla.data.layouts import DataSet
from vmkla.data.recipes import open_dataset
from vmkla.data.sources import DataSource, Sample

__all__ = [
    "AugmentConfig",
    "DataSet",
    "DataSource",
    "Sample",
    "iter_samples",
    "list_pairs",
    "open_dataset",
]
