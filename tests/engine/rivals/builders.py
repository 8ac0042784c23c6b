"""Small images with holes, and every rival."""

from collections.abc import Callable

import numpy as np

from dop_lightning.engine.rivals import (
    NAMF,
    AdaptiveMedian,
    Biharmonic,
    BM3DAfterFill,
    CubicScattered,
    DetectAndFill,
    ExtremeValues,
    Filler,
    FrequencySelective,
    ImageFilter,
    NormalisedConvolution,
    Telea,
)
from dop_lightning.engine.rivals.base import Flags, Image

FILLERS: dict[str, Callable[[], Filler]] = {
    "biharmonic": Biharmonic,
    "normalised_convolution": NormalisedConvolution,
    "cubic": CubicScattered,
    "telea": Telea,
    "fsr": FrequencySelective,
}

FILTERS: dict[str, Callable[[], ImageFilter]] = {
    **{name: lambda make=make: DetectAndFill(ExtremeValues(), make()) for name, make in FILLERS.items()},  # type: ignore[misc]
    "adaptive_median": AdaptiveMedian,
    "namf": NAMF,
    "bm3d": lambda: BM3DAfterFill(DetectAndFill(ExtremeValues(), CubicScattered())),
}


def smooth(channels: int = 2, height: int = 20, width: int = 24) -> Image:
    """Waves between 0.2 and 0.8, ``(C, H, W)``."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([0.5 + 0.3 * np.sin(rows / 5 + c) * np.cos(columns / 6) for c in range(channels)])


def holes(image: Image, share: float, seed: int = 0) -> Flags:
    """Missing entries at random."""
    flags: Flags = np.random.default_rng(seed).random(image.shape) < share
    return flags


def salted(image: Image, share: float, seed: int = 0) -> Image:
    """Salt and pepper on a share of the entries."""
    random = np.random.default_rng(seed)
    return np.where(random.random(image.shape) < share, random.integers(0, 2, image.shape), image)
