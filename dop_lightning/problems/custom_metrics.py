"""User-defined metrics: torchmetrics, functions and callable objects, computed for one problem at a time.

Shapes: ``*n`` is the shape of a signal, ``*m`` that of an observation.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from dop_lightning.problems.metric_calls import Call, MetricCall, TorchmetricsCall, name_of
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.tags import RESERVED


class CustomMetrics:
    """User-defined metrics by tag. Each is computed for one problem at a time and keeps no state between problems.

    A ``torchmetrics.Metric`` is reset before each problem, and updated once with X̂ and, if its ``update`` takes two
    tensors, X*. Both have a leading dimension of 1: ``(1, C, H, W)`` for an image, ``(1, n, m)`` for a matrix. Metrics
    of ``torchmetrics.regression`` treat entries as samples, and receive vectors of all entries.

    A function or an object with ``__call__`` receives its arguments by name:

    ===================  =====================================================================================
    ``signal``           X̂, ``(*n)``
    ``truth``            X*, ``(*n)``
    ``corruption``       ŝ, ``(*m)``; unknown if the method has no s
    ``true_corruption``  s*, ``(*m)``
    ``observation``      y, ``(*m)``, 0 where it was not observed
    ``mask``             boolean, ``(*m)``, true where y was observed
    ``problem``          the :class:`~dop_lightning.problems.problem.Problem`, with tensors on the CPU
    ``preds, target``    X̂ and X* with a leading dimension of 1, for functions of torchmetrics
    ===================  =====================================================================================

    It returns a number or a tensor with one entry, ``None`` if the score is unknown, or a dictionary of these, whose
    keys are appended to the tag. Tensors are copies on the device of the run, without gradients.

    A metric is skipped if a required argument is unknown, such as the truth. Optional arguments keep their default
    then. Unknown and non-finite scores are omitted.

    Tables mark the best score according to the attribute ``higher_is_better`` of a metric (true or false), if any.

    Args:
        metrics: metrics by tag, or a list of metrics, whose tags are the names of their classes or functions in
            snake_case. A ``torchmetrics.MetricCollection`` is expanded to its members. Modules are copied.

    Raises:
        ValueError: a tag is not an identifier, reserved or used twice, or a metric takes other arguments.

    >>> metrics = CustomMetrics({"largest": lambda signal: signal.abs().max()})
    >>> problem = Problem("small", torch.zeros(2))
    >>> metrics.scores(problem, {"signal": torch.tensor([1.0, -3.0])})
    {'largest': 3.0}
    """

    def __init__(self, metrics: Mapping[str, Callable[..., Any]] | Sequence[Callable[..., Any]] | None = None) -> None:
        self._metrics: dict[str, MetricCall] = {}
        for tag, metric in _named_metrics(metrics):
            _check_tag(tag, self._metrics)
            self._metrics[tag] = TorchmetricsCall(tag, metric) if isinstance(metric, Metric) else Call(tag, metric)

    def __len__(self) -> int:
        return len(self._metrics)

    @torch.no_grad()
    def scores(self, problem: Problem, known: Mapping[str, Tensor | None]) -> dict[str, float]:
        """Return the known scores of one problem by tag.

        Args:
            problem: the problem.
            known: tensors by the names in :data:`~dop_lightning.problems.metric_calls.KNOWN`; ``None`` or missing if
                unknown.

        Raises:
            ValueError: a metric fails, or returns anything other than numbers.
        """
        scores: dict[str, float] = {}
        for tag, metric in self._metrics.items():
            try:
                value = metric.value(problem, known)
            except Exception as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"metrics: {tag!r} ({metric.name}) failed on problem {problem.name!r}, whose signal has shape "
                    f"{problem.signal_shape}: {type(error).__name__}: {reason}"
                ) from error
            for key, number in _numbers(tag, value, f"{tag!r} ({metric.name})"):
                _check_tag(key, scores)
                if key in problem.attributes:
                    raise ValueError(f"metrics: {key!r} is an attribute of problem {problem.name!r}; use another tag")
                if math.isfinite(number):
                    scores[key] = number
        return scores

    def higher_is_better(self, scores: Mapping[str, float]) -> dict[str, bool]:
        """Return whether higher is better, for all scores whose metric defines it."""
        found: dict[str, bool] = {}
        for tag, metric in self._metrics.items():
            if metric.higher_is_better is not None:
                of_metric = (
                    key for key in scores if key == tag or (key not in self._metrics and key.startswith(f"{tag}_"))
                )
                found.update(dict.fromkeys(of_metric, metric.higher_is_better))
        return found


def _named_metrics(metrics: object) -> Iterator[tuple[str, Any]]:
    """Yield the tag and the metric of each entry."""
    if metrics is None:
        return
    if isinstance(metrics, Mapping):
        given = list(metrics.items())
    elif isinstance(metrics, Sequence) and not isinstance(metrics, str):
        given = [("", metric) for metric in metrics]
    else:
        raise ValueError(f"metrics must be a dictionary by tag, or a list, got {metrics!r:.60}")
    for tag, metric in given:
        if isinstance(metric, MetricCollection):
            start = f"{tag}_" if tag else ""
            yield from ((start + _snake_case(name), member) for name, member in metric.items(keep_base=False))
        else:
            yield tag or _snake_case(name_of(metric)), metric


def _snake_case(name: str) -> str:
    """Convert the name of a class to a tag.

    >>> _snake_case("PeakSignalNoiseRatio"), _snake_case("SSIMOfEdges"), _snake_case("R2Score")
    ('peak_signal_noise_ratio', 'ssim_of_edges', 'r2_score')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_tag(tag: object, taken: Mapping[str, object]) -> None:
    """Check that a tag is an identifier and not yet in use.

    Raises:
        ValueError: the tag is invalid, reserved or used twice.
    """
    if not isinstance(tag, str) or not tag.isidentifier():
        raise ValueError(f"metrics: a tag must consist of letters, digits and underscores, got {tag!r}")
    if tag in RESERVED:
        raise ValueError(f"metrics: the tag {tag!r} is reserved; use another one")
    if tag in taken:
        raise ValueError(f"metrics: the tag {tag!r} occurs twice; use another one")


def _numbers(tag: str, value: Any, what: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers in the result of a metric, by tag.

    Raises:
        ValueError: the result contains anything other than numbers.
    """
    if value is None:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{tag}_{key}", inner, what)
        return
    if isinstance(value, int | float):
        yield tag, float(value)
        return
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.numel() != 1 or tensor.is_complex():
        got = type(value).__name__ if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        raise ValueError(f"metrics: {what} must return a number, None, or a dictionary of these, got {got}")
    yield tag, float(tensor)
