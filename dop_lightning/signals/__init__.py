"""Signals ``X = φ(θ)``: what is recovered, over-parameterised."""

from dop_lightning.signals.base import Signal
from dop_lightning.signals.factor import Factor, SymmetricFactor
from dop_lightning.signals.fourier_mlp import FourierMLP
from dop_lightning.signals.linear import Coordinates
from dop_lightning.signals.network import NetworkSignal, UniformInput
from dop_lightning.signals.skip_unet import SkipUNet
from dop_lightning.signals.sparse import HadamardSignal

__all__ = [
    "Coordinates",
    "Factor",
    "FourierMLP",
    "HadamardSignal",
    "NetworkSignal",
    "Signal",
    "SkipUNet",
    "SymmetricFactor",
    "UniformInput",
]
