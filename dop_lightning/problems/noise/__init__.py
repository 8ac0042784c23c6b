"""Synthetic corruptions of clean signals, for the experiments of the paper and of users.

A noise does not influence the recovery. It turns a clean signal into an observation, and defines which part of the
difference is the true corruption s* for scores. Each noise can be specified in YAML::

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
