"""Running average of the outputs of a network, to reduce their fluctuations.

Shapes: K problems, X ``(K, *n)``.
"""

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState


class RunningAverage:
    """``X̄ ← d·X̄ + (1 − d)·φ(θ)`` in ``state.memory["average"]``, initialized with the first output."""

    @staticmethod
    def start(state: BatchState) -> Tensor:
        """Return a tensor of zeros for the average, ``(K, *n)``."""
        shape = (len(state), *state.problems.signal_shape)
        return torch.zeros(shape, dtype=state.problems.dtype, device=state.problems.device)

    @staticmethod
    def update_(state: BatchState, iteration: int, decay: float) -> None:
        """Update the average with the last output of the signal."""
        average, output = state.memory["average"], state.signal.output
        if iteration == 0:
            average.copy_(output)
        else:
            average.lerp_(output, 1 - decay)
