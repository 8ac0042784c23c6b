"""Synthetic corruptions of a clean signal: what the studies of the paper, and of a user, recover from.

A noise never decides what is recovered: it turns a clean signal into an observation, and says which part of the
difference a corruption ŝ is scored against. Every one can be built from YAML::

    class_path: dop_lightning.noise.SaltAndPepper
    init_args: {ratio: 0.5}
"""

from dop_lightning.noise.base import Corrupted, Noise, NoNoise
from dop_lightning.noise.draws import Per
from dop_lightning.noise.gaussian import GaussianNoise
from dop_lightning.noise.impulse import RandomValuedImpulse, SaltAndPepper
from dop_lightning.noise.missing import MissingEntries
from dop_lightning.noise.mixture import Mixture
from dop_lightning.noise.occlusion import Occlusion
from dop_lightning.noise.outliers import GrossOutliers

__all__ = [
    "Corrupted",
    "GaussianNoise",
    "GrossOutliers",
    "MissingEntries",
    "Mixture",
    "NoNoise",
    "Noise",
    "Occlusion",
    "Per",
    "RandomValuedImpulse",
    "SaltAndPepper",
]
