r"""Early stopping without truth, by the moving variance of the outputs. Plain torch.

A network that is fitted to a corrupted observation first approaches the truth, changes slowly there, and then fits the
corruption. Near the truth, the moving variance of its outputs is smallest [Wang, Li, Zhuang, Chen, Liang, Sun: *Early
Stopping for Deep Image Prior*, arXiv:2112.06074, 2021 to 2023]:

.. math:: \mathrm{VAR}_W(t) = \frac1W \sum_{w<W} \left\| x_{t-w} - \frac1W \sum_{i<W} x_{t-i} \right\|_F^2

The run stops when the variance has not reached a new minimum for a number of iterations, and the output at the minimum
is returned.

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
    """Variance of the last outputs of one problem.

    Args:
        window: number of outputs W, at least 2.

    Raises:
        ValueError: the window is less than 2.
    """

    def __init__(self, window: int) -> None:
        self.window = at_least("window", window, 2)

    @abstractmethod
    def update(self, output: Tensor) -> float | None:
        """Add an output ``(*n)``, and return the variance; ``None`` for the first W − 1 outputs."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return a copy of the state: tensors on the CPU and plain numbers."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load a result of :meth:`state`."""


class WindowedVariance(MovingVariance):
    """ES-WMV: ``VAR_W(t)`` of the last W outputs, which are all stored.

    >>> variance = WindowedVariance(2)
    >>> [variance.update(torch.tensor([x])) for x in (1.0, 3.0, 4.0)]
    [None, 1.0, 0.25]
    """

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self._outputs: list[Tensor] = []

    def update(self, output: Tensor) -> float | None:
        """Add an output; compute the variance from all W outputs, since errors of running sums would accumulate."""
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
        """Return the outputs, the oldest first."""
        return {"outputs": [kept.cpu().clone() for kept in self._outputs]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load the outputs."""
        self._outputs = list(state["outputs"])


class ExponentialVariance(MovingVariance):
    r"""ES-EMV: exponentially weighted variance, which stores one output instead of W.

    ``m ← m + a·(x − m)``, ``v ← (1 − a)·(v + a·‖x − m‖²)`` with the old m on the right-hand side. With
    ``a = 2/(W + 1)``, the mean age of the outputs is that of a window of length W. v is divided by the sum of the
    weights, to correct the bias of the first iterations.
    """

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self.rate = 2 / (window + 1)
        self._mean: Tensor | None = None
        self._variance, self._count = 0.0, 0

    def update(self, output: Tensor) -> float | None:
        """Update mean and variance with an output, and return the variance."""
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
        """Return the mean, the variance and the number of outputs."""
        mean = None if self._mean is None else self._mean.cpu().clone()
        return {"mean": mean, "variance": self._variance, "count": self._count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load the mean, the variance and the number of outputs."""
        self._mean = None if state["mean"] is None else state["mean"].clone()
        self._variance, self._count = state["variance"], state["count"]


VARIANCES: dict[str, type[MovingVariance]] = {"windowed": WindowedVariance, "exponential": ExponentialVariance}
"""The variances by their names in settings."""


class LeastVariance:
    """Finds the minimum of the variance of the outputs of one problem, and when to stop.

    Args:
        variance: the variance of the outputs.
        patience: number of iterations without a new minimum before stopping, at least 1.

    Attributes:
        least: the smallest variance so far; ``None`` before the first one.
        iteration: iteration of the newest output in the smallest variance, which is the output to return.

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
        """Add the output ``(*n)`` of an iteration, and return whether the variance has a new minimum."""
        value = self.variance.update(output)
        if value is None or not value < (math.inf if self.least is None else self.least):  # also rejects nan
            return False
        self.least, self.iteration = value, iteration
        return True

    def is_due(self, iteration: int) -> bool:
        """Return whether to stop at this iteration: no new minimum for ``patience`` iterations."""
        return self.least is not None and iteration - self.iteration >= self.patience

    def state(self) -> dict[str, Any]:
        """Return a copy of the state: tensors on the CPU and plain numbers."""
        return {"least": self.least, "iteration": self.iteration, "variance": self.variance.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load a result of :meth:`state`."""
        self.least, self.iteration = state["least"], state["iteration"]
        self.variance.load_state(state["variance"])
