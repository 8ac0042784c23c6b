"""Scores of recoveries: functions that return one number per problem, and torchmetrics that average over problems."""

from dop_lightning.problems.metrics.functional import (
    corruption_density,
    numerical_rank,
    psnr,
    relative_error,
    ssim,
    support_scores,
)
from dop_lightning.problems.metrics.recovery import CorruptionDensity, NumericalRank, RelativeError

__all__ = [
    "CorruptionDensity",
    "NumericalRank",
    "RelativeError",
    "corruption_density",
    "numerical_rank",
    "psnr",
    "relative_error",
    "ssim",
    "support_scores",
]
