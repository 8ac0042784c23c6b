"""Signals ``X = φ(θ)``: what is recovered, over-parameterised."""

from dop_lightning.signals.base import Signal
from dop_lightning.signals.factor import Factor, SymmetricFactor
from dop_lightning.signals.skip_unet import SkipUNet

__all__ = ["Factor", "Signal", "SkipUNet", "SymmetricFactor"]
