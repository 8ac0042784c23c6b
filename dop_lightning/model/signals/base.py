"""The interface of a signal ``X = φ(θ)``.

Shapes: K problems, ``*n`` the shape of one signal.
"""

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor, nn

from dop_lightning.foundation.signatures import require_result
from dop_lightning.model.part import Part, Rate
from dop_lightning.model.signals.abilities import Factors, Growth, Guided, Perturbed
from dop_lightning.problems.problem import Problem, ProblemBatch


class Signal(Part):
    """K signals ``X = φ(θ)``, batched. A new one writes :meth:`forward`; autograd does the rest.

    A signal whose gradient is known in closed form sets :attr:`closed_form` and overrides :meth:`pull_back` and
    :meth:`descend_`: no graph is built then and the step is done in place.

    Attributes:
        rate_scale: θ descends at ``rate_scale·τ``, such that gradient descent on X has the same scale for every signal
            (and λ = 1/α in Eq. 8).
        closed_form: whether gradients need no autograd.
        capturable: whether :meth:`forward` does the same work on the device at every iteration, once what is random at
            it is prepared, so that a CUDA graph may replay it.
    """

    rate_scale: float = 1.0
    closed_form: bool = False
    capturable: bool = False

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__()
        self.size = len(problems)
        self._output_shape = (len(problems), *problems.signal_shape)
        self._graph: Tensor | None = None

    @cached_property
    def _own_parameters(self) -> list[nn.Parameter]:
        """To walk through the modules at every iteration would take as long as a small convolution."""
        return list(self.parameters())

    @abstractmethod
    def forward(self, iteration: int = 0) -> Tensor:
        """``φ(θ)``, ``(K, *n)``, as gradient iteration number ``iteration`` sees it.

        Two calls with the same θ and iteration give the same bits: whatever is random comes from a stream named by
        (seed, purpose, iteration).
        """

    @property
    def factors(self) -> Factors | None:
        """The signal as a product of two factors, if it is one."""
        return None

    @property
    def growth(self) -> Growth | None:
        """The signal as one whose parameters become more, if they do."""
        return None

    @property
    def guided(self) -> Guided | None:
        """The signal as one whose input can hold an estimate, if it can."""
        return None

    @property
    def perturbed(self) -> Perturbed | None:
        """The signal as one that is random at each iteration, if it is."""
        return None

    def hint(self, problem: Problem) -> str | None:
        """Return a line of advice if this signal can hardly fit a problem."""
        return None

    def evaluate(self, iteration: int) -> Tensor:
        """``φ(θ)`` without a graph, and what :meth:`pull_back` needs of it remembered.

        Raises:
            ValueError: :meth:`forward` returned something else than K signals.
        """
        if self.closed_form:
            return self.forward(iteration)
        self._graph = None  # of an iteration that was broken off
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
        """``φ(θ)`` as :meth:`evaluate` last gave it, ``(K, *n)``; of a network, until :meth:`pull_back`."""
        return self._evaluated().detach()

    def add_to_(self, r: Tensor, iteration: int) -> None:
        """``r += φ(θ)`` in place."""
        r.add_(self.evaluate(iteration))

    def release(self) -> None:
        """Let go of what can be made anew, where no :meth:`pull_back` is to come: between blocks, after an error."""
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
        """One gradient step in place, given ``rate·∂f/∂X = rate·derivative``; for signals in closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient in closed form")
