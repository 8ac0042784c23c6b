"""The interface of a signal ``X = φ(θ)``.

Shapes: K problems, ``*n`` the shape of one signal.
"""

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor, nn

from dop_lightning.model.part import Part, Rate
from dop_lightning.problems.problem import ProblemBatch


class Signal(Part):
    """K signals ``X = φ(θ)``, batched. A new one writes :meth:`forward`; autograd does the rest.

    A signal whose gradient is known in closed form sets :attr:`closed_form` and overrides :meth:`pull_back` and
    :meth:`descend_`: no graph is built then and the step is done in place.

    Attributes:
        rate_scale: θ descends at ``rate_scale·τ``, such that gradient descent on X has the same scale for every signal
            (and λ = 1/α in Eq. 8).
        closed_form: whether gradients need no autograd.
        capturable: whether :meth:`forward` does the same work on the device at every iteration, once :meth:`prepare`
            has been called for it, so that a CUDA graph may stand for it, see :mod:`dop_lightning.engine.graphs`.
        prepared: arrays that :meth:`prepare` fills, which stay where they are until :meth:`release`.
    """

    rate_scale: float = 1.0
    closed_form: bool = False
    capturable: bool = False
    prepared: tuple[Tensor, ...] = ()

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__()
        self.size = len(problems)
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

    def calm_by(self, factors: Tensor) -> None:
        """Let what is random at an iteration be as much smaller as an array says, ``(K,)`` on the CPU.

        It is looked into at every iteration, and may change in between. Nothing here is random by default.
        """

    def prepare(self, iteration: int) -> None:
        """Put what is random at an iteration into :attr:`prepared`, from where :meth:`forward` takes it then.

        To be called outside of graphs. It changes no result: what is not prepared, :meth:`forward` draws by itself.
        """

    def evaluate(self, iteration: int) -> Tensor:
        """``φ(θ)`` without a graph, and what :meth:`pull_back` needs of it remembered."""
        if self.closed_form:
            return self.forward(iteration)
        self._graph = None  # of an iteration that was broken off
        with torch.enable_grad():
            self._graph = self.forward(iteration)
        return self._graph.detach()

    @property
    def output(self) -> Tensor:
        """``φ(θ)`` as :meth:`evaluate` last gave it, ``(K, *n)``; of a network, until :meth:`pull_back`."""
        assert self._graph is not None, "evaluate comes before output"
        return self._graph.detach()

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
        assert self._graph is not None, "evaluate comes before pull_back"
        for p in self._own_parameters:
            p.grad = None
        torch.autograd.backward(self._graph, derivative * factor)
        self._graph = None

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """One gradient step in place, given ``rate·∂f/∂X = rate·derivative``; for signals in closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient in closed form")
