"""What step rules share.

Shapes: K problems.
"""

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState

GROW_EVERY = 5
"""Iterations between two looks at whether the rank of a growing factor should grow."""


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
    growth = None if iteration % GROW_EVERY else state.signal.growth
    return growth is not None and growth.grow_(lambda: _pulled_dual(state, iteration), state.memory.get("settled"))


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


def over(values: Tensor, like: Tensor) -> Tensor:
    """``(K,)`` as ``(K, 1, …)``, to be multiplied with a tensor of that many dimensions."""
    return values.view(-1, *[1] * (like.dim() - 1))


def alphas(state: BatchState) -> Tensor:
    """α of each problem, ``(K,)``."""
    return torch.tensor(state.alpha, dtype=state.problems.dtype, device=state.problems.device)
