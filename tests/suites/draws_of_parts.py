"""Strategies for signals, corruptions, losses, steps, optimizers and solvers with random settings."""

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from dop_lightning.engine.convex import AcceleratedProximalGradient, InexactALM
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.steps import GradientDescent, Refinement, SemiImplicit
from dop_lightning.model.corruption import HadamardCorruption, HyperbolicCorruption
from dop_lightning.model.losses import AbsoluteLoss, SquaredLoss
from dop_lightning.model.signals import (
    Coordinates,
    Factor,
    FourierMLP,
    HadamardSignal,
    NetworkSignal,
    SkipUNet,
    SymmetricFactor,
    UniformInput,
)
from tests.suites.draws import NO_COUNT, RANK, SCALE, Part, count, of, parts, positive, usually, word


class Free(nn.Module):
    """A network without structure: its output is its parameter."""

    def __init__(self, shape: Sequence[int], beyond: int = 0) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.rand(*shape, *[1] * beyond))

    def forward(self, *_: Tensor) -> Tensor:
        return torch.sigmoid(self.output)


LOW_RANK = [
    parts(SymmetricFactor, rank=RANK, scale=SCALE, start=word("gaussian", "identity"), growing=of(False, True)),
    parts(Factor, rank=RANK, scale=SCALE, growing=of(False, True)),
]
CLOSED_FORM = [
    parts(HadamardSignal, scale=SCALE, start=word("gaussian", "constant")),
    parts(Coordinates, rates=usually(positive(0.5, 1.0), of([1.0, 1.0], [])), scale=usually(of(0.0, 1.0), of(-1.0))),
]
ANY_NETWORK = [
    parts(
        NetworkSignal,
        {"network": parts(Free, beyond=usually(of(0), of(1)))},
        input=of(Part(UniformInput, {"shape": [2, 2]})()),
    ),
]
IMAGE_NETWORKS = [
    parts(
        SkipUNet,
        {"width": count(1, 4), "scales": count(1, 2), "input_channels": count(1, 3), "skip_width": count(1, 2)},
        perturbation=usually(of(0.0, 0.03), of(-1.0)),
        precision=word("auto", "fp32", "bf16"),
        bias=of(True, False),
        fused=of(True, False),
        fast_noise=of(True, False),
    ),
    parts(
        NetworkSignal,
        {
            "network": parts(
                FourierMLP, {"width": count(1, 8), "depth": count(1, 2), "frequencies": count(1, 4)}, sigma=SCALE
            )
        },
    ),
]
CORRUPTIONS = [
    st.none(),
    parts(HadamardCorruption, scale=SCALE, tied=of(True, False), start=word("gaussian", "gaussian", "constant")),
    parts(HyperbolicCorruption, scale=SCALE),
]
SQUARED = parts(SquaredLoss, {"reduction": word("quarter", "quarter", "half", "sum", "mean")})
ABSOLUTE = parts(AbsoluteLoss, {"reduction": word("sum", "mean")})
GRADIENT = parts(GradientDescent, decay=usually(of(1.0, 0.9), of(0, 2.0)), horizon=positive(1e-6, 0.01, 1e6))
AVERAGED = parts(GradientDescent, average=usually(of(0.0, 0.9), of(1.0, -1.0)))
REFINEMENT = parts(
    Refinement,
    {"every": count(1, 5)},
    revealed=positive(1e-3, 0.25, 10.0),
    held_out=usually(of(0.05, 0.5), of(0.0, 1.0)),
    average=usually(of(0.0, 0.9), of(1.0)),
    patience=usually(of(None, 5, 50), NO_COUNT),
)
SEMI_IMPLICIT = parts(
    SemiImplicit,
    growth=usually(of(1.1, 10.0), of(1.0)),
    trust=positive(0.1, 10.0),
    longest=usually(of(0.5, 2.0), of(3.0)),
)
OPTIMIZERS = [
    parts(torch.optim.Adam, {"lr": of(0.0, 1e-3, 0.1, 1e30)}, amsgrad=of(True)),
    parts(torch.optim.SGD, {"lr": of(1e-3, 0.1)}, momentum=of(0.9), nesterov=of(False)),
    parts(Muon, lr=positive(0.02, 1.0), momentum=usually(of(0.0, 0.9), of(1.0))),
    usually(parts(torch.optim.RMSprop, {"lr": of(1e-3)}, centered=of(True)), parts(torch.optim.LBFGS), 10),
]
SOLVER = {
    "positive": of(False, True),
    "svd": word("full", "partial"),
    "tolerance": positive(1e-7, 0.5),
    "mu": positive(0.1, 0.9),
    "precision": word("float64", "float32"),
}
SOLVERS = [
    parts(InexactALM, rho=usually(of(1.5), of(0.5)), **SOLVER),
    parts(AcceleratedProximalGradient, rho=usually(of(0.8), of(1.5)), **SOLVER),
]
