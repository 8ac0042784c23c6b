"""Classical filters for images with outliers, as baselines in the same runs, files and tables."""

from dop_lightning.engine.rivals.adaptive_median import AdaptiveMedian
from dop_lightning.engine.rivals.base import Detector, Filler, ImageFilter
from dop_lightning.engine.rivals.bm3d_after_fill import BM3DAfterFill, noise_of_known
from dop_lightning.engine.rivals.detect_and_fill import DetectAndFill
from dop_lightning.engine.rivals.detectors import ExtremeValues, RobustThreshold
from dop_lightning.engine.rivals.interpolation import Biharmonic, CubicScattered, NormalisedConvolution
from dop_lightning.engine.rivals.method import FilterMethod
from dop_lightning.engine.rivals.namf import NAMF
from dop_lightning.engine.rivals.opencv import FrequencySelective, Telea
from dop_lightning.engine.rivals.state import FilterState

__all__ = [
    "NAMF",
    "AdaptiveMedian",
    "BM3DAfterFill",
    "Biharmonic",
    "CubicScattered",
    "DetectAndFill",
    "Detector",
    "ExtremeValues",
    "Filler",
    "FilterMethod",
    "FilterState",
    "FrequencySelective",
    "ImageFilter",
    "NormalisedConvolution",
    "RobustThreshold",
    "Telea",
    "noise_of_known",
]
