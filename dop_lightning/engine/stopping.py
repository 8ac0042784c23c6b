r"""When to stop without truth: the variance of the outputs on their way. Plain torch.

A network that is fitted to a corrupted observation passes near the truth, lingers there, and goes on to the corruption.
Where it lingers its outputs change least, so that their moving variance is smallest [Wang, Li, Zhuang, Chen, Liang,
Sun: *Early Stopping for Deep Image Prior*, arXiv:2112.06074, 2021 to 2023]:

.. math:: \mathrm{VAR}_W(t) = \frac1W \sum_{w<W} \left\| x_{t-w} - \frac1W \sum_{i<W} x_{t-i} \right\|_F^2

One stops when no smaller one has come for a number of iterations, and takes the output of the smallest.

Shapes: ``*n`` the shape of a signal.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least


class MovingVariance(ABC):
    """The variance of the last outputs of one problem.

    Args:
        window: outputs that it looks back at, at least 2.

    Raises:
        ValueError: the window is shorter.
    """

    def __init__(self, window: int) -> None:
        self.window = at_least("window", window, 2)

    @abstractmethod
    def update(self, output: Tensor) -> float | None:
        """Take in an output, ``(*n)``; the variance, ``None`` before a window of outputs has been seen."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """A copy of what it remembers: tensors on the CPU and plain numbers."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""


class WindowedVariance(MovingVariance):
    """ES-WMV: ``VAR_W(t)`` of the last W outputs, all of which are kept.

    >>> variance = WindowedVariance(2)
    >>> [variance.update(torch.tensor([x])) for x in (1.0, 3.0, 4.0)]
    [None, 1.0, 0.25]
    """

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self._outputs: list[Tensor] = []

    def update(self, output: Tensor) -> float | None:
        """From the outputs themselves, not from running sums, whose rounding would grow."""
        self._outputs = [*self._outputs, output.detach().clone()][-self.window :]
        if len(self._outputs) < self.window:
            return None
        mean = torch.zeros_like(output)
        for kept in self._outputs:
            mean += kept.to(output.device)
        mean /= self.window
        squares = [(kept.to(output.device) - mean).square().sum() for kept in self._outputs]
        return float(torch.stack(squares).mean())

    def state(self) -> dict[str, Any]:
        """The outputs, the oldest first."""
        return {"outputs": [kept.cpu().clone() for kept in self._outputs]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The outputs, the oldest first."""
        self._outputs = list(state["outputs"])


class ExponentialVariance(MovingVariance):
    r"""ES-EMV: exponential weights in the place of a window, so that one output is kept instead of W.

    ``m ← m + a·(x − m)``, ``v ← (1 − a)·(v + a·‖x − m‖²)`` with the old m on the right, and ``a = 2/(W + 1)``, where
    the mean age of what is remembered is that of a window of W. The first outputs count as if they had all the weight:
    v is divided by the sum of the weights.
    """

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self.rate = 2 / (window + 1)
        self._mean: Tensor | None = None
        self._variance, self._count = 0.0, 0

    def update(self, output: Tensor) -> float | None:
        """Move mean and variance by an output."""
        x = output.detach()
        self._count += 1
        if self._mean is None:
            self._mean = x.clone()
        else:
            self._mean = self._mean.to(x.device)
            change = x - self._mean
            self._variance = (1 - self.rate) * (self._variance + self.rate * float(change.square().sum()))
            self._mean.add_(change, alpha=self.rate)
        if self._count < self.window:
            return None
        return self._variance / (1 - (1 - self.rate) ** (self._count - 1))

    def state(self) -> dict[str, Any]:
        """Mean, variance, and how many outputs there were."""
        mean = None if self._mean is None else self._mean.cpu().clone()
        return {"mean": mean, "variance": self._variance, "count": self._count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Mean, variance, and how many outputs there were."""
        self._mean = None if state["mean"] is None else state["mean"].clone()
        self._variance, self._count = state["variance"], state["count"]


VARIANCES: dict[str, type[MovingVariance]] = {"windowed": WindowedVariance, "exponential": ExponentialVariance}
"""By the names that they have in settings."""


class LeastVariance:
    """Follows the outputs of one problem, and tells where their variance was least and when to stop.

    Args:
        variance: of its outputs.
        patience: iterations without a smaller variance after which to stop, at least 1.

    Attributes:
        least: the smallest variance so far, ``None`` before there is one.
        iteration: where it was: that of the newest output in it, which is the one to take.

    Raises:
        ValueError: the patience is less than 1.

    >>> stop = LeastVariance(WindowedVariance(2), patience=20)
    >>> for iteration, x in enumerate([9.0, 5.0, 4.0, 3.5, 1.0, -3.0]):
    ...     smaller = stop.update(torch.tensor([x]), 10 * iteration)
    ...     print(smaller, stop.iteration, stop.is_due(10 * iteration))
    False -1 False
    True 10 False
    True 20 False
    True 30 False
    False 30 False
    False 30 True
    """

    def __init__(self, variance: MovingVariance, patience: int) -> None:
        self.variance = variance
        self.patience = at_least("patience", patience, 1)
        self.least: float | None = None
        self.iteration = -1

    def update(self, output: Tensor, iteration: int) -> bool:
        """Take in the output of an iteration, ``(*n)``; whether the variance is smaller than ever before."""
        value = self.variance.update(output)
        if value is None or not value < (math.inf if self.least is None else self.least):  # nan is not the least
            return False
        self.least, self.iteration = value, iteration
        return True

    def is_due(self, iteration: int) -> bool:
        """Whether the patience has come to its end at this iteration."""
        return self.least is not None and iteration - self.iteration >= self.patience

    def state(self) -> dict[str, Any]:
        """A copy of all that it remembers: tensors on the CPU and plain numbers."""
        return {"least": self.least, "iteration": self.iteration, "variance": self.variance.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        self.least, self.iteration = state["least"], state["iteration"]
        self.variance.load_state(state["variance"])
