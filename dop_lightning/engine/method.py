"""A gradient descent method, composed of exchangeable parts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from dop_lightning.engine.descent import BatchState, CorruptionFactory, OperatorFactory, SignalFactory, StepRule
from dop_lightning.engine.optim.factory import ThetaOptimizer
from dop_lightning.engine.steps import GradientDescent
from dop_lightning.foundation.signatures import require_arguments, require_part
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import Loss, SquaredLoss
from dop_lightning.model.operators import operator_of
from dop_lightning.problems.problem import ProblemBatch


@dataclass
class Method:
    """Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + s − y)`` with exchangeable parts.

    Other methods are the convex program (Eq. 8), :class:`~dop_lightning.engine.convex.ConvexMethod`, and classical
    image filters, :class:`~dop_lightning.engine.rivals.FilterMethod`.

    Args:
        signal: creates φ(θ) of a batch.
        corruption: creates s of a batch; ``None`` for s = 0 (DIP, factorisation).
        operator: creates A of a batch; by default the sensing of the problems, or the identity if they have none, with
            their mask, if any.
        loss: ℓ.
        theta_optimizer: creates the optimizer of θ, for example ``functools.partial(torch.optim.Adam, lr=0.005)``;
            ``None`` for gradient descent at τ. g and h always use gradient descent at α·τ.
        steps: step rule of θ, g and h.
        graphs: whether iterations of networks that support it are replayed as a CUDA graph on a GPU, see
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
        """Check the signatures of the parts, which users may write.

        Raises:
            ValueError: a part does not accept the arguments that it is called with.
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
        """Blocks also end at multiples of this, if the step rule checks problems only there."""
        return self.steps.grid

    @property
    def first(self) -> int | None:
        """The first block ends at this iteration, if problems may be finished then."""
        return self.steps.first

    def begin(
        self,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"],
        alpha: float | Sequence[float] | None = None,
    ) -> BatchState:
        """Return the initial state of a batch, see :class:`~dop_lightning.engine.state.Procedure`."""
        # without a corruption, alpha is unused
        return BatchState(self, problems, tau, 1.0 if self.corruption is None else alpha)
