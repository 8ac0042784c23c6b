"""How fast optimizers are, for the default α of images."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from dop_lightning.engine.alpha import default_alphas
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.optim.pace import ADAM, GRADIENT_DESCENT, pace
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.problems.problem import Problem, ProblemBatch


class Slow(torch.optim.RMSprop):
    """An optimizer of a user."""


def made(optimizer: Any) -> torch.optim.Optimizer:
    return optimizer([nn.Parameter(torch.zeros(2, 2))], lr=0.1)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (torch.optim.Adam, ADAM),
        (torch.optim.AdamW, ADAM),
        (torch.optim.NAdam, ADAM),
        (torch.optim.RAdam, ADAM),
        (torch.optim.SGD, GRADIENT_DESCENT),
        (Muon, 1.5),
    ],
)
def test_measured_paces(optimizer: Any, expected: float) -> None:
    assert pace(made(optimizer)) == expected


def test_an_optimizer_without_a_pace_is_refused_until_it_is_registered() -> None:
    problems = ProblemBatch([Problem("a", torch.rand(1, 8, 8), data_range=1.0)])
    arguments = (problems, SquaredLoss("mean"), [1.0], HadamardCorruption(problems), partial(Slow, lr=0.1))
    with pytest.raises(ValueError, match=r"^alpha has no default for the theta_optimizer Slow, .*specify alpha"):
        default_alphas(*arguments)
    pace.register(Slow, lambda _: 2.0)
    (alpha,) = default_alphas(*arguments)
    assert alpha > 0
