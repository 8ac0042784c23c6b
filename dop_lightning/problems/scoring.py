"""Compute the scores of a batch by tag, for each problem with the metrics that are known."""

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
"""An entry counts as corrupted if |ŝ| exceeds this fraction of the scale of the observation."""

MIN_DEVIATION = 5.0
"""In a noise-limited frame, an entry counts as corrupted if |ŝ| exceeds this many standard deviations of the noise."""

RANK_TOLERANCE = 0.05
"""The rank counts singular values above this fraction of the largest, which excludes decaying ones of a few percent."""

NEGLIGIBLE = 1e-8
"""A matrix whose entries are all below this fraction of the scale of the observation has rank 0."""


def least_corruption(problem: Problem) -> float:
    """Return the threshold of |ŝ| above which an entry counts as corrupted, in units of y."""
    threshold = DENSITY_THRESHOLD * scale(problem)
    return threshold if problem.noise is None else min(threshold, MIN_DEVIATION * problem.noise)


class Scorer:
    """Scores of the recoveries of one batch.

    Args:
        problems: the batch. Truths are stacked once, on its device.
        corruption: whether s is modelled. Otherwise the scores of the corruption are omitted.
        metrics: user-defined metrics, computed at each evaluation and at the end.
    """

    def __init__(self, problems: ProblemBatch, corruption: bool = True, metrics: CustomMetrics | None = None) -> None:
        self.problems = problems
        self._corruption = corruption
        self._metrics = metrics
        self._threshold = torch.tensor([least_corruption(p) for p in problems], device=problems.device)
        self._truth = _stack_known([p.truth for p in problems], problems.device)
        self._true_corruption = _stack_known([p.true_corruption for p in problems], problems.device)
        self._range = problems[0].data_range
        self._image = len(problems.signal_shape) == 3 and self._range is not None

    def curves(
        self, signal: Tensor, corruption: Tensor, loss: Tensor, average: Tensor | None = None
    ) -> list[dict[str, float]]:
        """Return the scores of curves, one dictionary per problem. Unknown scores are omitted.

        The tags are :data:`~dop_lightning.problems.tags.CURVES` and those of the user-defined metrics.

        Args:
            signal: X̂ ``(K, *n)``.
            corruption: ŝ ``(K, *m)``.
            loss: ``(K,)``.
            average: running average of the outputs, if any; its score is ``psnr_average``.

        Raises:
            ValueError: a user-defined metric fails.
        """
        scores = self._built_in_scores(signal, corruption, loss, average)
        if self._metrics:
            self._add_custom(self._metrics, scores, signal, corruption, range(len(scores)))
        return scores

    def _built_in_scores(
        self, signal: Tensor, corruption: Tensor, loss: Tensor, average: Tensor | None = None
    ) -> list[dict[str, float]]:
        scores: list[dict[str, float]] = [{} for _ in self.problems]
        _add_scores(scores, "loss", loss)
        if self._corruption:
            density = corruption_density(corruption, self._threshold, self.problems.mask)
            _add_scores(scores, "corruption_density", density)
        self._add_comparison(scores, "relative_error", relative_error, signal, self._truth)
        if self._image and (data_range := self._range) is not None:
            self._add_comparison(scores, "psnr", lambda x, t: psnr(x, t, data_range), signal, self._truth)
            self._add_comparison(scores, "ssim", lambda x, t: ssim(x, t, data_range), signal, self._truth)
            if average is not None:
                self._add_comparison(scores, "psnr_average", lambda x, t: psnr(x, t, data_range), average, self._truth)
        return scores

    def final(
        self,
        signal: Tensor,
        corruption: Tensor,
        loss: Tensor,
        ends: Iterable[int] | None = None,
        curves: Sequence[Mapping[str, float]] | None = None,
    ) -> list[dict[str, float]]:
        """Return the scores of curves, and those that are computed only at the end.

        These are ``relative_error_corruption``, ``true_density``, ``support_precision`` and ``support_recall`` of the
        entries that count as corrupted, ``rank`` (matrices) and ``input_psnr`` (images).

        Args:
            signal: X̂ ``(K, *n)``.
            corruption: ŝ ``(K, *m)``.
            loss: ``(K,)``.
            ends: positions of the problems for which user-defined metrics are computed, since these may be slow; by
                default, all.
            curves: result of :meth:`curves` for the same recoveries, so that user-defined metrics are not computed
                again.

        Raises:
            ValueError: a user-defined metric fails.
        """
        scores = self._built_in_scores(signal, corruption, loss)
        if self._corruption:
            self._add_comparison(scores, "relative_error_corruption", relative_error, corruption, self._true_corruption)
        if self._true_corruption is not None:
            which, true_corruption = self._true_corruption
            mask = None if self.problems.mask is None else self.problems.mask[which]
            _add_scores(scores, "true_density", corruption_density(true_corruption, 0.0, mask), which)
            if self._corruption:
                found, thresholds = corruption[which], self._threshold[which]
                precision, recall = support_scores(found, true_corruption, thresholds, mask)
                _add_scores(scores, "support_precision", precision, which)
                _add_scores(scores, "support_recall", recall, which)
        if len(self.problems.signal_shape) == 2:
            _add_scores(scores, "rank", numerical_rank(self._without_start(signal), RANK_TOLERANCE))
        measured = self.problems.observation.shape[1:] == self.problems.signal_shape
        if self._image and measured and (data_range := self._range) is not None:
            self._add_comparison(
                scores, "input_psnr", lambda x, t: psnr(x, t, data_range), self.problems.observation, self._truth
            )
        if self._metrics and curves is None:
            self._add_custom(self._metrics, scores, signal, corruption, range(len(scores)) if ends is None else ends)
        elif self._metrics and curves is not None:
            for of_problem, on_curves in zip(scores, curves, strict=True):
                of_problem.update({tag: value for tag, value in on_curves.items() if tag not in RESERVED})
        return scores

    def _without_start(self, signal: Tensor) -> Tensor:
        """Return the signals, with 0 for negligible ones: the remainder of the initial point if the truth is 0."""
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
        """Add the user-defined metrics of the problems at the given positions."""
        problems = self.problems
        for k in which:
            known = {
                "signal": signal[k],
                "truth": _tensor_of(self._truth, k, signal),
                "corruption": corruption[k] if self._corruption else None,
                "true_corruption": _tensor_of(self._true_corruption, k, corruption),
                "observation": problems.observation[k],
                "mask": torch.ones_like(problems.observation[k], dtype=torch.bool)
                if problems.mask is None
                else problems.mask[k],
            }
            scores[k].update(metrics.scores(problems[k], known))

    def _add_comparison(
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
            _add_scores(scores, tag, metric(estimate if whole else estimate[which], target), which)


def _stack_known(tensors: Sequence[Tensor | None], device: torch.device) -> tuple[list[int], Tensor] | None:
    """Return the positions of the known tensors, and these tensors stacked; ``None`` if there are none."""
    which = [k for k, tensor in enumerate(tensors) if tensor is not None]
    if not which:
        return None
    return which, torch.stack([tensor for tensor in tensors if tensor is not None]).to(device)


def _tensor_of(known: tuple[list[int], Tensor] | None, k: int, like: Tensor) -> Tensor | None:
    """Return the known tensor of problem k, if any, with the dtype and device of an estimate."""
    return known[1][known[0].index(k)].to(like) if known is not None and k in known[0] else None


def _add_scores(scores: list[dict[str, float]], tag: str, values: Tensor, which: Sequence[int] | None = None) -> None:
    """Write values into the dictionaries. NaN means unknown and is omitted."""
    for k, value in zip(range(len(scores)) if which is None else which, values.tolist(), strict=True):
        if not math.isnan(value):
            scores[k][tag] = value
