"""The network. Importing this package imports torch."""

from vmkla.models.vmamba import LoadReport, load_vmamba_encoder
from vmkla.models.vmkla_unet import VMKLAUNet, build_model, parameter_count

__all__ = ["LoadReport", "VMKLAUNet", "build_model", "load_vmamba_encoder", "parameter_count"]
