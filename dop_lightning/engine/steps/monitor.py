"""The watch over an automatic τ, see :mod:`dop_lightning.engine.automatic`.

Shapes: K problems.
"""

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState

WATCH_EVERY = 10
"""Iterations between two looks at the loss."""

TOLERANCE = 1e-4
"""What a loss may rise, relative to what it was: rounding."""


class Monitor:
    """Keeps an automatic τ stable: it is halved where the loss has risen since the last look.

    ``state.memory`` holds ``tau`` and ``watched_loss``, ``(K,)``. Looks are at multiples of :data:`WATCH_EVERY`
    iterations, wherever blocks end, and need no host synchronisation.
    """

    @staticmethod
    def start(state: BatchState) -> dict[str, Tensor]:
        """The rates, and a loss that everything is below."""
        return {
            "tau": state.tau_tensor().clone(),
            "watched_loss": torch.full_like(state.problems.observation.flatten(1)[:, 0], torch.inf),
        }

    @staticmethod
    def watch(state: BatchState, residual: Tensor, iteration: int) -> None:
        """Look at the residual of an iteration, if it is time."""
        if iteration % WATCH_EVERY:
            return
        loss = state.loss.value(residual)
        before = state.memory["watched_loss"]
        tau = state.memory["tau"]
        tau.copy_(torch.where(loss > before * (1 + TOLERANCE), tau / 2, tau))
        before.copy_(loss)
