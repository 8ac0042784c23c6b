"""Over-parameterised signals ``X = φ(θ)``."""

from dop_lightning.model.signals.base import Signal
from dop_lightning.model.signals.factor import Factor, SymmetricFactor
from dop_lightning.model.signals.fourier_mlp import FourierMLP
from dop_lightning.model.signals.linear import Coordinates
from dop_lightning.model.signals.network import NetworkSignal, UniformInput
from dop_lightning.model.signals.sparse import HadamardSignal
from dop_lightning.model.signals.unet.skip_unet import SkipUNet

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
