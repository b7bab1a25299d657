"""The two ops of the network, with one dispatcher over their backends. Importing this imports torch."""

from vmkla.ops.bspline import UniformGrid, bspline_basis
from vmkla.ops.scan import selective_scan2d

__all__ = ["UniformGrid", "bspline_basis", "selective_scan2d"]
