"""Call a user-defined metric with the arguments that it takes.

Shapes: ``*n`` is the shape of a signal, ``*m`` that of an observation.
"""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from dop_lightning.problems.problem import Problem

KNOWN = ("signal", "truth", "corruption", "true_corruption", "observation", "mask")
"""Tensors of one problem that a function can take as arguments."""

ARGUMENTS = (*KNOWN, "problem", "preds", "target")
"""Names of all arguments that a function can take."""


class MetricCall(ABC):
    """Base class of calls of one metric.

    Args:
        tag: name of the metric in tables.
        metric: the metric. Modules are copied, since they are moved between devices.
    """

    def __init__(self, tag: str, metric: Any) -> None:
        self.name = name_of(metric)
        self.higher_is_better: bool | None = getattr(metric, "higher_is_better", None)
        self.metric: Any = deepcopy(metric) if isinstance(metric, nn.Module) else metric

    @abstractmethod
    def value(self, problem: Problem, known: Mapping[str, Tensor | None]) -> Any:
        """Compute the metric of one problem; ``None`` if a required argument is unknown."""


class TorchmetricsCall(MetricCall):
    """Call of a ``torchmetrics.Metric``."""

    def __init__(self, tag: str, metric: Metric) -> None:
        super().__init__(tag, metric)
        self.metric.sync_on_compute = False  # each problem is on one process only
        parameters = inspect.signature(metric.update).parameters.values()
        required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        takes_any = any(p.kind is p.VAR_POSITIONAL for p in required)
        if any(p.kind is p.KEYWORD_ONLY for p in required) or not (takes_any or 1 <= len(required) <= 2):
            raise ValueError(
                f"metrics: update of {tag!r} ({self.name}) must require one or two tensors, the recovered signal and "
                f"the truth, got {', '.join(p.name for p in required) or 'none'}"
            )
        self._names = ("preds",) if len(required) == 1 and not takes_any else ("preds", "target")
        self._takes_vectors = any(base.__module__.startswith("torchmetrics.regression") for base in type(metric).mro())

    def value(self, problem: Problem, known: Mapping[str, Tensor | None]) -> Any:
        """Reset the metric, update it once and compute it."""
        tensors = [_argument(name, problem, known) for name in self._names]
        if any(tensor is None for tensor in tensors):
            return None
        if self._takes_vectors:
            tensors = [tensor.flatten() for tensor in tensors]
        if self.metric.device != tensors[0].device:
            self.metric.to(tensors[0].device)
        self.metric.reset()
        try:
            self.metric.update(*tensors)
            return self.metric.compute()
        finally:
            self.metric.reset()


class Call(MetricCall):
    """Call of a function, an object with ``__call__``, or a module."""

    def __init__(self, tag: str, metric: Callable[..., Any]) -> None:
        super().__init__(tag, metric)
        if not callable(metric) or isinstance(metric, type):
            raise ValueError(
                f"metrics: {tag!r} must be a torchmetrics.Metric, a function or another callable object, "
                f"got {metric!r:.60}"
            )
        try:
            signature = inspect.signature(metric.forward if isinstance(metric, nn.Module) else metric)
        except ValueError as error:
            raise ValueError(f"metrics: {tag!r} ({self.name}) has no signature; wrap it in a function") from error
        named = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self._required = {p.name: p.default is p.empty for p in named if p.name in ARGUMENTS}
        wrong = [p.name for p in named if p.default is p.empty and p.name not in ARGUMENTS]
        wrong += [f"{p.name} by position" for p in named if p.kind is p.POSITIONAL_ONLY]
        if wrong or not self._required:
            raise ValueError(
                f"metrics: {tag!r} ({self.name}) must take arguments named {', '.join(ARGUMENTS)}, "
                f"got {', '.join(wrong) or 'none of them'}"
            )

    def value(self, problem: Problem, known: Mapping[str, Tensor | None]) -> Any:
        """Call the metric with the arguments that it takes."""
        given = {name: _argument(name, problem, known) for name in self._required}
        unknown = [name for name, value in given.items() if value is None]
        if any(self._required[name] for name in unknown):
            return None
        for name in unknown:
            del given[name]
        if isinstance(self.metric, nn.Module):
            self.metric.to(next(tensor for tensor in known.values() if tensor is not None).device)
        return self.metric(**given)


def _argument(name: str, problem: Problem, known: Mapping[str, Tensor | None]) -> Any:
    """Return an argument by name. Tensors are copied, so that in-place operations do not change the recovery."""
    if name == "problem":
        return problem
    tensor = known.get({"preds": "signal", "target": "truth"}.get(name, name))
    if tensor is None:
        return None
    return tensor.detach().clone()[None] if name in ("preds", "target") else tensor.detach().clone()


def name_of(metric: Any) -> str:
    """Return the name of a function, or of the class of an object."""
    while isinstance(metric, functools.partial):
        metric = metric.func
    return str(getattr(metric, "__name__", type(metric).__name__))
