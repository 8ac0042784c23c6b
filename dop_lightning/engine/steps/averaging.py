"""A running average of the outputs of a network, which fluctuate about their path.

Shapes: K problems, X ``(K, *n)``.
"""

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState


class RunningAverage:
    """``X̄ ← d·X̄ + (1 − d)·φ(θ)``, from the first output on, in ``state.memory["average"]``."""

    @staticmethod
    def start(state: BatchState) -> Tensor:
        """Room for it, ``(K, *n)``."""
        shape = (len(state), *state.problems.signal_shape)
        return torch.zeros(shape, dtype=state.problems.dtype, device=state.problems.device)

    @staticmethod
    def update_(state: BatchState, iteration: int, decay: float) -> None:
        """Take in the output that the signal was last evaluated at."""
        average, output = state.memory["average"], state.signal.output
        if iteration == 0:
            average.copy_(output)
        else:
            average.lerp_(output, 1 - decay)
