"""The interface of a step rule.

Shapes: K problems.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from dop_lightning.engine.optim.discrepant_sgd import DiscrepantSGD
from dop_lightning.engine.outcome import Status
from dop_lightning.engine.steps.automatic import automatic_tau
from dop_lightning.model.part import Rate
from dop_lightning.model.signals.growing import LowRank

if TYPE_CHECKING:
    from dop_lightning.engine.state import BatchState, Evaluation

GROW_EVERY = 5
"""Iterations between two looks at whether the rank of a growing factor should grow."""


class StepRule(ABC):
    """How θ, g and h of a batch move.

    A rule holds settings alone. What it remembers of a batch lies in ``state.memory``: tensors with a leading dimension
    of K, saved and restored problem by problem like the parameters.

    Attributes:
        ends_as: the status of a problem that has nothing left to do.
        grid: blocks end at multiples of it, for a rule that looks at a problem only there.
    """

    ends_as: ClassVar[Status] = "done"
    grid: int | None = None

    def check(self, state: BatchState) -> None:  # noqa: B027 — most rules are for all methods
        """Refuse a method that this rule is not for.

        Raises:
            ValueError: with the name of the part and what is possible instead.
        """

    def automatic_tau(self, state: BatchState) -> list[float]:
        """What ``tau: auto`` is of each problem."""
        return automatic_tau(state)

    def start(self, state: BatchState) -> dict[str, Tensor]:
        """What is remembered of each problem, at its start: ``(K, …)``."""
        return {}

    @abstractmethod
    def descend(self, state: BatchState, iterations: int) -> Tensor:
        """Do iterations in place, without a host synchronisation; in one call or in several, bit for bit the same.

        (To see whether a growing factor should grow, the host has to look at it.)

        Returns:
            The loss before the last of them, ``(K,)``.
        """

    def weigh_(self, state: BatchState, residual: Tensor) -> Tensor:
        """Multiply the residual ``(K, *m)`` of a network by the weights of its entries, in place, where it has some.

        The weights lie in ``state.memory`` and are changed in place alone: a CUDA graph knows them by where they are.
        """
        return residual

    def recovered(self, state: BatchState, evaluation: Evaluation) -> Evaluation:
        """What a network has recovered, given its present output."""
        return evaluation

    def finished(self, state: BatchState) -> list[int]:
        """Positions of problems that have nothing left to do, however many iterations a run allows."""
        return []


def require_closed_form(state: BatchState, what: str) -> None:
    """Refuse signals whose gradient comes from autograd.

    Raises:
        ValueError: naming the setting ``what`` and the signal.
    """
    if not state.closed_form:
        if state.signal.closed_form:
            raise ValueError(f"{what} needs gradient descent on θ, got a theta_optimizer")
        name = type(state.signal).__name__
        raise ValueError(f"{what} needs a signal with its gradient in closed form, such as SymmetricFactor, got {name}")


def grow_if_due(state: BatchState, iteration: int) -> bool:
    """Let the rank of a growing factor grow, at iterations that do not depend on the blocks."""
    if iteration % GROW_EVERY or not (isinstance(state.signal, LowRank) and state.signal.growing):
        return False
    return state.signal.grow_(lambda: _pulled_dual(state, iteration))


def _pulled_dual(state: BatchState, iteration: int) -> Tensor:
    """``A*(ξ)``, ``(K, n, m)``, with ``ξ = log(g/h)/(2α)``, which supposes that g and h started alike.

    Without a corruption nothing competes with X, and it does not matter how long a direction has been growing:
    ``−A*(r)``, which tells where it will.
    """
    ratio = state.corruption.log_ratio()
    if ratio is None:
        residual = state.residual(torch.empty_like(state.problems.observation), iteration)
        return state.operator.adjoint(residual.neg_())
    return state.operator.adjoint(ratio / over(alphas(state), ratio))


def nominal_rates(state: BatchState) -> tuple[Rate, Rate]:
    """The rates of θ (in closed form) and of the corruption that the optimizers hold."""
    sgd = state.optimizers[-1] if state.optimizers else None
    theta: Rate = sgd.rate("theta") if state.closed_form and isinstance(sgd, DiscrepantSGD) else 0.0
    if state.own_corruption and isinstance(sgd, DiscrepantSGD):
        return theta, sgd.rate("corruption")
    return theta, 0.0


def over(values: Tensor, like: Tensor) -> Tensor:
    """``(K,)`` as ``(K, 1, …)``, to be multiplied with a tensor of that many dimensions."""
    return values.view(-1, *[1] * (like.dim() - 1))


def alphas(state: BatchState) -> Tensor:
    """α of each problem, ``(K,)``."""
    return torch.tensor(state.alpha, dtype=state.problems.dtype, device=state.problems.device)
