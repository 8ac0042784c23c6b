"""Scores as ``torchmetrics.Metric``: the mean over all problems on all processes.

Shapes: K problems; ``*n`` is the shape of a signal, ``*m`` that of an observation.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from dop_lightning.foundation.checks import not_negative, share
from dop_lightning.problems.metrics.functional import corruption_density, numerical_rank, relative_error


class _ProblemMean(Metric):
    """Mean of a score over problems. The mean is NaN if any score is, so that failed recoveries are not ignored."""

    is_differentiable = False
    full_state_update = False
    plot_lower_bound = 0.0

    score_sum: Tensor
    problems: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("score_sum", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("problems", torch.tensor(0.0), dist_reduce_fx="sum")

    def _distinguish(self, setting: str, value: float) -> None:
        # a MetricCollection merges metrics whose states have equal names and values after the first update: metrics
        # with two thresholds that both give 0 at first would share their sums from then on
        self.add_state(f"state_{setting}", torch.tensor(value), dist_reduce_fx="max")

    def _add(self, scores: Tensor) -> None:
        self.score_sum += scores.sum().to(self.score_sum)
        self.problems += len(scores)

    def compute(self) -> Tensor:
        """Return the mean over all problems, a scalar."""
        return self.score_sum / self.problems

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot one value, or a list of values as a curve. Requires matplotlib."""
        return self._plot(val, ax)


class RelativeError(_ProblemMean):
    """Mean of ``‖X̂ − X*‖_F / ‖X*‖_F``, see :func:`~dop_lightning.problems.metrics.functional.relative_error`.

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    >>> metric = RelativeError()
    >>> metric.update(torch.tensor([[1.0, 1.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    >>> metric.compute()
    tensor(0.5000)
    """

    higher_is_better = False

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add K problems: ``preds`` X̂ and ``target`` X*, both ``(K, *n)``."""
        self._add(relative_error(preds, target))


class CorruptionDensity(_ProblemMean):
    """Mean fraction of observed entries with ``|ŝ| > threshold``.

    Args:
        threshold: number ≥ 0.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: ``threshold`` is negative.

    >>> metric = CorruptionDensity(threshold=0.1)
    >>> metric.update(torch.tensor([[0.0, 0.5, -2.0, 0.01]]))
    >>> metric.compute()
    tensor(0.5000)
    """

    higher_is_better = None
    plot_upper_bound = 1.0

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = not_negative("threshold", threshold)
        self._distinguish("threshold", threshold)

    # a MetricCollection passes the same arguments to all of its members
    def update(self, preds: Tensor, target: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Add K problems: ``preds`` ŝ and the boolean ``mask``, both ``(K, *m)``; ``target`` is not used."""
        self._add(corruption_density(preds, self.threshold, mask))


class NumericalRank(_ProblemMean):
    """Mean number of singular values above ``tolerance`` times the largest.

    Args:
        tolerance: relative tolerance, in [0, 1].
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: ``tolerance`` is out of range.

    >>> metric = NumericalRank()
    >>> metric.update(torch.stack([torch.eye(3), torch.ones(3, 3)]))
    >>> metric.compute()
    tensor(2.)
    """

    higher_is_better = None

    def __init__(self, tolerance: float = 1e-2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tolerance = share("tolerance", tolerance)
        self._distinguish("tolerance", tolerance)

    # a MetricCollection passes the same arguments to all of its members
    def update(self, preds: Tensor, target: Tensor | None = None) -> None:
        """Add K problems: ``preds`` X̂, ``(K, n, m)``; ``target`` is not used."""
        self._add(numerical_rank(preds, self.tolerance))
