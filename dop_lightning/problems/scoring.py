"""The scores of a batch: which metric is known for which problem, and their values by tag."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dop_lightning.problems.custom_metrics import CustomMetrics
from dop_lightning.problems.metrics import (
    corruption_density,
    numerical_rank,
    psnr,
    relative_error,
    ssim,
    support_scores,
)
from dop_lightning.problems.problem import Problem, ProblemBatch, scale
from dop_lightning.problems.tags import CURVES as CURVES  # defined here in version 0.1
from dop_lightning.problems.tags import RESERVED

DENSITY_THRESHOLD = 0.1
"""An entry counts as corrupted where |ŝ| is above this share of the scale of the observation."""

NOTICED = 5.0
"""In a frame that noise limits, an entry counts as corrupted where |ŝ| is above so many standard deviations of it."""

RANK_TOLERANCE = 0.05
"""Singular values above this share of the largest count; directions that still die out, at a few per cent, do not."""

NEGLIGIBLE = 1e-8
"""A matrix whose entries are all below this share of the scale of the observation has rank 0."""


def least_corruption(problem: Problem) -> float:
    """The |ŝ| above which an entry counts as corrupted, in units of y."""
    threshold = DENSITY_THRESHOLD * scale(problem)
    return threshold if problem.noise is None else min(threshold, NOTICED * problem.noise)


class Scorer:
    """Scores the recoveries of one batch against what is known of its problems.

    Args:
        problems: the batch; truths are stacked once, on its device.
        corruption: whether s is modelled; without it nothing is known of the corruption, and its scores are left out.
        metrics: metrics of the user, computed at each evaluation and at the end.
    """

    def __init__(self, problems: ProblemBatch, corruption: bool = True, metrics: CustomMetrics | None = None) -> None:
        self.problems = problems
        self._corruption = corruption
        self._metrics = metrics
        self._threshold = torch.tensor([least_corruption(p) for p in problems], device=problems.device)
        self._truth = _known([p.truth for p in problems], problems.device)
        self._true_corruption = _known([p.true_corruption for p in problems], problems.device)
        self._range = problems[0].data_range
        self._image = len(problems.signal_shape) == 3 and self._range is not None

    def curves(
        self, signal: Tensor, corruption: Tensor, loss: Tensor, average: Tensor | None = None
    ) -> list[dict[str, float]]:
        """The scores of curves, one dictionary a problem; what is not known is left out.

        Their tags are :data:`~dop_lightning.problems.tags.CURVES` and those of the user's metrics.

        Args:
            signal: X̂ ``(K, *n)``.
            corruption: ŝ ``(K, *m)``.
            loss: ``(K,)``.
            average: the running average of the outputs, where one is kept; its score is ``psnr_average``.

        Raises:
            ValueError: a metric of the user fails.
        """
        scores = self._built_in(signal, corruption, loss, average)
        if self._metrics:
            self._add_custom(self._metrics, scores, signal, corruption, range(len(scores)))
        return scores

    def _built_in(
        self, signal: Tensor, corruption: Tensor, loss: Tensor, average: Tensor | None = None
    ) -> list[dict[str, float]]:
        scores: list[dict[str, float]] = [{} for _ in self.problems]
        _put(scores, "loss", loss)
        if self._corruption:
            density = corruption_density(corruption, self._threshold, self.problems.mask)
            _put(scores, "corruption_density", density)
        self._compare(scores, "relative_error", relative_error, signal, self._truth)
        if self._image and (data_range := self._range) is not None:
            self._compare(scores, "psnr", lambda x, t: psnr(x, t, data_range), signal, self._truth)
            self._compare(scores, "ssim", lambda x, t: ssim(x, t, data_range), signal, self._truth)
            if average is not None:
                self._compare(scores, "psnr_average", lambda x, t: psnr(x, t, data_range), average, self._truth)
        return scores

    def final(
        self,
        signal: Tensor,
        corruption: Tensor,
        loss: Tensor,
        ends: Iterable[int] | None = None,
        curves: Sequence[Mapping[str, float]] | None = None,
    ) -> list[dict[str, float]]:
        """The curves' scores, and those that are too slow or too plain for a curve.

        ``relative_error_corruption``, ``true_density``, ``support_precision`` and ``support_recall`` of the entries
        that count as corrupted, ``rank`` (matrices), ``input_psnr`` (images).

        Args:
            signal: X̂ ``(K, *n)``.
            corruption: ŝ ``(K, *m)``.
            loss: ``(K,)``.
            ends: positions for which the user's metrics are computed, which may be slow; by default all.
            curves: what :meth:`curves` returned for the same recoveries, so that they are not computed again.

        Raises:
            ValueError: a metric of the user fails.
        """
        scores = self._built_in(signal, corruption, loss)
        if self._corruption:
            self._compare(scores, "relative_error_corruption", relative_error, corruption, self._true_corruption)
        if self._true_corruption is not None:
            which, true_corruption = self._true_corruption
            mask = None if self.problems.mask is None else self.problems.mask[which]
            _put(scores, "true_density", corruption_density(true_corruption, 0.0, mask), which)
            if self._corruption:
                found, thresholds = corruption[which], self._threshold[which]
                precision, recall = support_scores(found, true_corruption, thresholds, mask)
                _put(scores, "support_precision", precision, which)
                _put(scores, "support_recall", recall, which)
        if len(self.problems.signal_shape) == 2:
            _put(scores, "rank", numerical_rank(self._without_start(signal), RANK_TOLERANCE))
        measured = self.problems.observation.shape[1:] == self.problems.signal_shape
        if self._image and measured and (data_range := self._range) is not None:
            self._compare(
                scores, "input_psnr", lambda x, t: psnr(x, t, data_range), self.problems.observation, self._truth
            )
        if self._metrics and curves is None:
            self._add_custom(self._metrics, scores, signal, corruption, range(len(scores)) if ends is None else ends)
        elif self._metrics and curves is not None:
            for of_problem, on_curves in zip(scores, curves, strict=True):
                of_problem.update({tag: value for tag, value in on_curves.items() if tag not in RESERVED})
        return scores

    def _without_start(self, signal: Tensor) -> Tensor:
        """The signals, 0 where all entries are negligible: what is left of the start, of a matrix of zeros."""
        largest = signal.abs().flatten(1).amax(1)  # (K,)
        least = torch.tensor([NEGLIGIBLE * scale(p) for p in self.problems]).to(largest)
        is_zero = largest < least
        return signal.masked_fill(is_zero[:, None, None], 0) if is_zero.any() else signal

    def _add_custom(
        self,
        metrics: CustomMetrics,
        scores: list[dict[str, float]],
        signal: Tensor,
        corruption: Tensor,
        which: Iterable[int],
    ) -> None:
        """Compute the user's metrics of the problems at some positions."""
        problems = self.problems
        for k in which:
            known = {
                "signal": signal[k],
                "truth": _of(self._truth, k, signal),
                "corruption": corruption[k] if self._corruption else None,
                "true_corruption": _of(self._true_corruption, k, corruption),
                "observation": problems.observation[k],
                "mask": torch.ones_like(problems.observation[k], dtype=torch.bool)
                if problems.mask is None
                else problems.mask[k],
            }
            scores[k].update(metrics.scores(problems[k], known))

    def _compare(
        self,
        scores: list[dict[str, float]],
        tag: str,
        metric: Callable[[Tensor, Tensor], Tensor],
        estimate: Tensor,
        known: tuple[list[int], Tensor] | None,
    ) -> None:
        if known is not None:
            which, target = known
            whole = len(which) == len(self.problems)
            _put(scores, tag, metric(estimate if whole else estimate[which], target), which)


def _known(tensors: Sequence[Tensor | None], device: torch.device) -> tuple[list[int], Tensor] | None:
    """Positions where something is known, and what, stacked."""
    which = [k for k, tensor in enumerate(tensors) if tensor is not None]
    if not which:
        return None
    return which, torch.stack([tensor for tensor in tensors if tensor is not None]).to(device)


def _of(known: tuple[list[int], Tensor] | None, k: int, like: Tensor) -> Tensor | None:
    """What is known of problem k, in the type of an estimate."""
    return known[1][known[0].index(k)].to(like) if known is not None and k in known[0] else None


def _put(scores: list[dict[str, float]], tag: str, values: Tensor, which: Sequence[int] | None = None) -> None:
    """Write values into the dictionaries; NaN is «not known» and is left out."""
    for k, value in zip(range(len(scores)) if which is None else which, values.tolist(), strict=True):
        if not math.isnan(value):
            scores[k][tag] = value
