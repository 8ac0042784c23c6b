"""Operations of a skip U-Net in one pass each, for processors; compiled on the machine where they run."""

from dop_lightning.kernels.compiled import library
from dop_lightning.kernels.convolution import convolve
from dop_lightning.kernels.functions import activate, join, pad

__all__ = ["activate", "convolve", "join", "library", "pad"]
