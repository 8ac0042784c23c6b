"""Error of an estimate at the entries that it was not fitted to.

Shapes: ``*m`` any observation.
"""

import math

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.sorting import ascending

SAMPLE = 20_000
"""Approximate number of entries that an error is measured at."""


def mean_errors(y: Tensor, expected: Tensor, weights: Tensor) -> tuple[float, float]:
    """Return the mean error of an estimate, and that of the mean value; nan without positive weights."""
    at = weights > 0
    values, errors, counted = (tensor[at].cpu().double() for tensor in (y, (y - expected).abs(), weights))
    total = float(counted.sum())  # on the CPU: Apple's GPUs have no float64
    if total == 0:
        return math.nan, math.nan
    apart = (values - (counted * values).sum() / total).abs()
    return float((counted * errors).sum() / total), float((counted * apart).sum() / total)


def trimmed_error(y: Tensor, expected: Tensor, at: Tensor, share: float) -> float:
    """Return the mean of the least errors of an estimate; nan without entries.

    It compares two estimates without a support, which would favour the estimate that it was found with.

    Args:
        y: the observation.
        expected: the estimate.
        at: bool, the entries.
        share: of them, those with the least errors, in [0, 1].
    """
    errors = ascending((y - expected).abs()[at].cpu().double())
    if errors.numel() == 0:
        return math.nan
    return float(errors[: max(1, math.ceil(share * errors.numel()))].mean())


def sample_of(clean: Tensor, certain: float) -> Tensor:
    """Draw entries that are clean with more than a probability, with a fixed seed: bool ``(*m)``."""
    drawn = torch.rand(clean.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    return (drawn < SAMPLE / clean.numel()).to(clean.device) & (clean > certain)
