"""Synthetic corruptions of a clean signal: what the studies of the paper, and of a user, recover from.

A noise never decides what is recovered: it turns a clean signal into an observation, and says which part of the
difference a corruption ŝ is scored against. Every one can be built from YAML::

    class_path: dop_lightning.problems.noise.SaltAndPepper
    init_args: {ratio: 0.5}
"""

from dop_lightning.problems.noise.base import Corrupted, Noise, NoNoise
from dop_lightning.problems.noise.dead_lines import DeadLines
from dop_lightning.problems.noise.draws import Per
from dop_lightning.problems.noise.gaussian import GaussianNoise
from dop_lightning.problems.noise.impulse import RandomValuedImpulse, SaltAndPepper
from dop_lightning.problems.noise.missing import MissingEntries
from dop_lightning.problems.noise.mixture import Mixture
from dop_lightning.problems.noise.occlusion import Occlusion
from dop_lightning.problems.noise.outliers import GrossOutliers
from dop_lightning.problems.noise.scratches import Scratches

__all__ = [
    "Corrupted",
    "DeadLines",
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
    "Scratches",
]
