"""Fused operations of a skip U-Net for CPUs, compiled on the machine on which they run."""

from dop_lightning.foundation.native.compiled import library
from dop_lightning.model.signals.unet.kernels.convolution import convolve
from dop_lightning.model.signals.unet.kernels.functions import activate, join, pad
from dop_lightning.model.signals.unet.kernels.noise import add_normal

__all__ = ["activate", "add_normal", "convolve", "join", "library", "pad"]
