"""Labelled images on disk, rendered frames, augmentation and batches. Nothing here imports torch."""

from vmkla.data.augment import AugmentConfig
from vmkla.data.folder import DataSource, Sample, iter_samples, list_pairs

__all__ = ["AugmentConfig", "DataSource", "Sample", "iter_samples", "list_pairs"]
