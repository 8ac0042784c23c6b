"""Base class of signals ``X = φ(θ)``.

Shapes: K problems; ``*n`` is the shape of one signal.
"""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dop_lightning.foundation.renamed import rename_overrides
from dop_lightning.foundation.signatures import require_result
from dop_lightning.model.part import Part, Rate
from dop_lightning.model.signals.capabilities import Factors, Growth, Guided, Perturbed
from dop_lightning.problems.problem import Problem, ProblemBatch


class Signal(Part):
    """K signals ``X = φ(θ)``, batched. Subclasses implement :meth:`forward`; gradients come from autograd.

    A signal with a gradient in closed form sets :attr:`closed_form` and overrides :meth:`pull_back` and
    :meth:`descend_`. No graph is built then, and steps are taken in place.

    Attributes:
        rate_scale: the learning rate of θ is ``rate_scale·τ``. It is chosen so that gradient descent on X has the same
            scale for all signals (and λ = 1/α in Eq. 8).
        closed_form: whether gradients are computed without autograd.
        capturable: whether :meth:`forward` performs the same device operations at every iteration once its random
            numbers are prepared, so that a CUDA graph can replay it.
    """

    rate_scale: float = 1.0
    closed_form: bool = False
    capturable: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Accept old names of methods, until version 0.3."""
        super().__init_subclass__(**kwargs)
        rename_overrides(cls, {"calm_by": "scale_perturbation"})

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__()
        self.size = len(problems)
        self._output_shape = (len(problems), *problems.signal_shape)
        self._graph: Tensor | None = None

    @cached_property
    def _own_parameters(self) -> list[nn.Parameter]:
        """All parameters, cached since collecting them from the modules takes as long as a small convolution."""
        return list(self.parameters())

    @abstractmethod
    def forward(self, iteration: int = 0) -> Tensor:
        """Return ``φ(θ)``, ``(K, *n)``, at gradient iteration ``iteration``.

        Calls with the same θ and iteration give identical results: random numbers come from the stream
        (seed, purpose, iteration).
        """

    @property
    def factors(self) -> Factors | None:
        """The signal as a product of two factors, or ``None``."""
        return None

    @property
    def growth(self) -> Growth | None:
        """The signal as one with a growing number of parameters, or ``None``."""
        return None

    @property
    def guided(self) -> Guided | None:
        """The signal as one whose input can contain an estimate, or ``None``."""
        return None

    @property
    def perturbed(self) -> Perturbed | None:
        """The signal as one with random numbers at each iteration, or ``None``."""
        return None

    def hint(self, problem: Problem) -> str | None:
        """Return one line of advice if this signal is unsuitable for a problem, otherwise ``None``."""
        return None

    def evaluate(self, iteration: int) -> Tensor:
        """Return ``φ(θ)`` detached, and keep the graph for :meth:`pull_back`.

        Raises:
            ValueError: :meth:`forward` did not return K signals.
        """
        if self.closed_form:
            return self.forward(iteration)
        self._graph = None  # left over from an interrupted iteration
        with torch.enable_grad():
            output = require_result(self.forward(iteration), Tensor, self.forward)
        if output.shape != self._output_shape:
            raise ValueError(
                f"{type(self).__name__}.forward must return φ(θ) of shape {self._output_shape}, got shape "
                f"{tuple(output.shape)}"
            )
        self._graph = output
        return output.detach()

    @property
    def output(self) -> Tensor:
        """Last result ``φ(θ)`` of :meth:`evaluate`, ``(K, *n)``; for networks, available until :meth:`pull_back`."""
        return self._evaluated().detach()

    def add_to_(self, r: Tensor, iteration: int) -> None:
        """Add in place, ``r += φ(θ)``."""
        r.add_(self.evaluate(iteration))

    def release(self) -> None:
        """Free everything that can be recomputed, between blocks or after an error. ``pull_back`` must not follow."""
        self._graph = None
        for p in self.parameters():
            p.grad = None

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set the gradient of θ, given ``∂f/∂X = factor·derivative`` at the last evaluated X."""
        graph = self._evaluated()
        for p in self._own_parameters:
            p.grad = None
        torch.autograd.backward(graph, derivative * factor)
        self._graph = None

    def _evaluated(self) -> Tensor:
        if self._graph is None:
            raise RuntimeError(f"{type(self).__name__}: call evaluate before output and pull_back")
        return self._graph

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Take a gradient step in place, given ``rate·∂f/∂X = rate·derivative``; for signals in closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient in closed form")
