"""Problems of any way to measure."""

from collections.abc import Sequence

import torch

from dop_lightning.model.operators import Sensing
from dop_lightning.problems.problem import Problem
from tests.suites.part import draw


def measured(
    sensing: Sensing, shape: Sequence[int], seed: int = 1, name: str = "a", dtype: torch.dtype = torch.float64
) -> Problem:
    """Random numbers of the shape that signals of that shape are measured as."""
    observation = draw(seed, sensing.observation_shape(shape), dtype)
    return Problem(name, observation, seed=seed, signal_shape=tuple(shape), sensing=sensing)
