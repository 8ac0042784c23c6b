"""Error of an estimate at entries to which it was not fitted.

Shapes: ``*m`` any observation.
"""

import math

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.sorting import ascending

SAMPLE = 20_000
"""Approximate number of entries at which an error is measured."""


def mean_errors(y: Tensor, expected: Tensor, weights: Tensor) -> tuple[float, float]:
    """Return the weighted mean absolute errors of an estimate and of a constant, the weighted mean of y.

    Both are nan if no weight is positive.
    """
    at = weights > 0
    values, errors, counted = (tensor[at].cpu().double() for tensor in (y, (y - expected).abs(), weights))
    total = float(counted.sum())  # on the CPU because Apple GPUs do not support float64
    if total == 0:
        return math.nan, math.nan
    apart = (values - (counted * values).sum() / total).abs()
    return float((counted * errors).sum() / total), float((counted * apart).sum() / total)


def trimmed_error(y: Tensor, expected: Tensor, at: Tensor, share: float) -> float:
    """Return the trimmed mean absolute error of an estimate; nan without entries.

    Use it to compare two estimates without a support. A support would favour the estimate from which it was computed.

    Args:
        y: observation, ``(*m)``.
        expected: estimate, ``(*m)``.
        at: bool, the entries to evaluate, ``(*m)``.
        share: fraction of these entries to average, those with the smallest errors, in [0, 1].
    """
    errors = ascending((y - expected).abs()[at].cpu().double())
    if errors.numel() == 0:
        return math.nan
    return float(errors[: max(1, math.ceil(share * errors.numel()))].mean())


def sample_of(clean: Tensor, certain: float) -> Tensor:
    """Return a random sample of the entries whose probability of being clean is above ``certain``; bool, ``(*m)``.

    The seed is fixed. The sample is taken from about :data:`SAMPLE` drawn entries.
    """
    drawn = torch.rand(clean.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    return (drawn < SAMPLE / clean.numel()).to(clean.device) & (clean > certain)
