"""How to recover: the exchangeable parts of gradient descent."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from dop_lightning.engine.descent import BatchState, CorruptionFactory, OperatorFactory, SignalFactory, StepRule
from dop_lightning.engine.optim.of_batch import ThetaOptimizer
from dop_lightning.engine.steps import GradientDescent
from dop_lightning.foundation.signatures import require_arguments, require_part
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import Loss, SquaredLoss
from dop_lightning.model.operators import operator_of
from dop_lightning.problems.problem import ProblemBatch


@dataclass
class Method:
    """Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + s − y)``, by its exchangeable parts.

    Its siblings are the convex program (Eq. 8), :class:`~dop_lightning.engine.convex.ConvexMethod`, and classical
    filters of images, :class:`~dop_lightning.engine.rivals.FilterMethod`.

    Args:
        signal: makes φ(θ) of a batch.
        corruption: makes s of a batch; ``None`` is s = 0 (DIP, factorisation).
        operator: makes A of a batch; by default as the problems say: what they were measured by, their mask, or the
            identity.
        loss: ℓ.
        theta_optimizer: makes another optimizer of θ (``functools.partial(torch.optim.Adam, lr=0.005)``); g, h go on
            by gradient descent at α·τ. ``None`` is gradient descent at τ.
        steps: how θ, g and h move along the gradient.
        graphs: whether iterations of networks that allow it are replayed as a CUDA graph on a GPU, see
            :mod:`dop_lightning.engine.graphs`.

    >>> import torch
    >>> from dop_lightning.model.signals import SymmetricFactor
    >>> from dop_lightning.problems.problem import Problem
    >>> state = Method(SymmetricFactor).begin(ProblemBatch([Problem("mine", torch.eye(3))]), tau=1e-2)
    >>> state.advance(10), state.iteration
    ([], 10)
    """

    signal: SignalFactory
    corruption: CorruptionFactory | None = HadamardCorruption
    operator: OperatorFactory = operator_of
    loss: Loss = field(default_factory=SquaredLoss)
    theta_optimizer: ThetaOptimizer | None = None
    steps: StepRule = field(default_factory=GradientDescent)
    graphs: bool = True

    def __post_init__(self) -> None:
        """Check the arguments of functions and methods that users write.

        Raises:
            ValueError: one takes other arguments than it is called with.
        """
        require_arguments("signal", self.signal, ["problems"], "a Signal")
        if self.corruption is not None:
            require_arguments("corruption", self.corruption, ["problems"], "a Corruption")
        require_arguments("operator", self.operator, ["problems"], "an Operator")
        if self.theta_optimizer is not None:
            require_arguments("theta_optimizer", self.theta_optimizer, ["parameters"], "an Optimizer")
        require_part("loss", self.loss, Loss)
        require_part("steps", self.steps, StepRule)

    @property
    def grid(self) -> int | None:
        """Blocks end at multiples of it, if the steps look at a problem only there."""
        return self.steps.grid

    @property
    def first(self) -> int | None:
        """The first block ends at this iteration, if problems may have nothing left to do then."""
        return self.steps.first

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"],
        alpha: float | Sequence[float] | None = None,
    ) -> BatchState:
        """Return a batch at its start, see :class:`~dop_lightning.engine.state.Procedure`."""
        # without a corruption there is no ratio: any number will do
        return BatchState(self, problems, tau, 1.0 if self.corruption is None else alpha)
