"""Monitoring of an automatic τ, see :mod:`dop_lightning.engine.automatic`.

Shapes: K problems.
"""

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState

WATCH_EVERY = 10
"""Iterations between two checks of the loss."""

TOLERANCE = 1e-4
"""Relative increase of the loss that is attributed to rounding."""


class Monitor:
    """Keeps an automatic τ stable: τ is halved if the loss has increased since the last check.

    ``state.memory`` holds ``tau`` and ``watched_loss``, ``(K,)``. The checks are at multiples of :data:`WATCH_EVERY`
    iterations, independent of the blocks, and need no host synchronisation.
    """

    @staticmethod
    def start(state: BatchState) -> dict[str, Tensor]:
        """Return the initial rates, and an infinite loss."""
        return {
            "tau": state.tau_tensor().clone(),
            "watched_loss": torch.full_like(state.problems.observation.flatten(1)[:, 0], torch.inf),
        }

    @staticmethod
    def watch(state: BatchState, residual: Tensor, iteration: int) -> None:
        """Check the loss of a residual, and halve τ if it has increased, every :data:`WATCH_EVERY` iterations."""
        if iteration % WATCH_EVERY:
            return
        loss = state.loss.value(residual)
        before = state.memory["watched_loss"]
        tau = state.memory["tau"]
        tau.copy_(torch.where(loss > before * (1 + TOLERANCE), tau / 2, tau))
        before.copy_(loss)
