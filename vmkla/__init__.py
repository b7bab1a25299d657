"""VMKLA-UNet for medical image segmentation, from training to real time."""

__version__ = "0.1.0"
