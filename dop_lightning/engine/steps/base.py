"""Functions shared by the step rules.

Shapes: K problems.
"""

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState

GROW_EVERY = 5
"""Iterations between two checks whether the rank of a growing factor should grow."""


def require_closed_form(state: BatchState, what: str) -> None:
    """Check that θ is updated without autograd.

    Args:
        state: the batch.
        what: setting that requires this, for the message.

    Raises:
        ValueError: the signal has no gradient in closed form, or θ has a custom optimizer.
    """
    if not state.closed_form:
        if state.signal.closed_form:
            raise ValueError(f"{what} requires gradient descent on θ, got a theta_optimizer")
        name = type(state.signal).__name__
        raise ValueError(f"{what} requires a signal with a closed-form gradient, such as SymmetricFactor, got {name}")


def grow_if_due(state: BatchState, iteration: int) -> bool:
    """Increase the rank of a growing factor if necessary, and return whether it grew.

    The check is at iterations that do not depend on the blocks.
    """
    growth = None if iteration % GROW_EVERY else state.signal.growth
    return growth is not None and growth.grow_(lambda: _pulled_dual(state, iteration), state.memory.get("settled"))


def _pulled_dual(state: BatchState, iteration: int) -> Tensor:
    """Return ``A*(ξ)``, ``(K, n, m)``, with ``ξ = log(g/h)/(2α)``, for equal initial values of g and h.

    Without a corruption, return ``−A*(r)``: nothing competes with X, so the history of a direction does not matter,
    only whether it grows now.
    """
    ratio = state.corruption.log_ratio()
    if ratio is None:
        residual = state.residual(torch.empty_like(state.problems.observation), iteration)
        return state.operator.adjoint(residual.neg_())
    return state.operator.adjoint(ratio / over(alphas(state), ratio))


def over(values: Tensor, like: Tensor) -> Tensor:
    """Reshape ``(K,)`` to ``(K, 1, …)``, to broadcast against the tensor ``like``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def alphas(state: BatchState) -> Tensor:
    """Return α of each problem, ``(K,)``."""
    return torch.tensor(state.alpha, dtype=state.problems.dtype, device=state.problems.device)
