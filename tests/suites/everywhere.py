"""Every kind of method on small problems, for tests on any device."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from dop_lightning.engine.convex import AcceleratedProximalGradient, ConvexMethod, InexactALM
from dop_lightning.engine.instant import Interpolation
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.projections import ProjectionsMethod
from dop_lightning.engine.rivals.method import FilterMethod
from dop_lightning.engine.state import Procedure, State
from dop_lightning.engine.steps import GradientDescent, Nesterov, Refinement, SemiImplicit
from dop_lightning.matrices.robust_separation import RobustSeparation
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import AbsoluteLoss, SquaredLoss
from dop_lightning.model.operators import GaussianBlur, operator_of
from dop_lightning.model.signals import Factor, FourierMLP, HadamardSignal, NetworkSignal, SkipUNet, SymmetricFactor
from dop_lightning.problems.noise import GrossOutliers, SaltAndPepper
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream

ADAM = partial(torch.optim.Adam, lr=0.01)
HADAMARD = partial(HadamardCorruption, scale=1e-3, tied=False)
GROWING = partial(Factor, growing=True)
COORDINATES = partial(NetworkSignal, network=FourierMLP)
UNET = partial(SkipUNet, width=4, scales=2, input_channels=3, precision="fp32")


def low_rank(k: int, n: int = 40, m: int = 30, rank: int = 2, missing: bool = False) -> Problem:
    """Return a low-rank matrix with outliers in a tenth of its entries."""
    generator = torch.Generator(device="cpu").manual_seed(k)
    draw = partial(torch.randn, generator=generator, device="cpu", dtype=torch.float64)
    X = draw(n, rank) @ draw(rank, m)
    found = GrossOutliers(0.1).corrupt(X, stream(k, "corruption"))
    mask = draw(n, m) < 1 if missing else None
    return Problem(f"matrix{k}", found.observation, seed=k, mask=mask)


def picture(k: int, side: int = 12, channels: int = 3, missing: bool = False, blurred: bool = False) -> Problem:
    """Return smooth waves with salt-and-pepper noise."""
    generator = torch.Generator(device="cpu").manual_seed(k)
    at = torch.linspace(0, 3, side, device="cpu")
    clean = 0.5 + 0.3 * torch.sin(at[:, None] + at * torch.arange(1, channels + 1, device="cpu").view(-1, 1, 1))
    sensing = GaussianBlur(1.0) if blurred else None
    found = SaltAndPepper(0.3).corrupt(clean, stream(k, "corruption"))
    mask = torch.rand(clean.shape, generator=generator, device="cpu") < 0.9 if missing else None
    return Problem(
        f"picture{k}", found.observation, seed=k, data_range=1.0, mask=mask, sensing=sensing, signal_shape=clean.shape
    )


@dataclass
class Case:
    """A method and its test problems.

    Attributes:
        make: creates the method.
        problems: creates a batch on the CPU.
        tau: learning rate.
        alpha: ratio of the learning rates.
        captured: whether its iterations become a CUDA graph.
        launches: maximum number of kernels per iteration without a graph.
        waits: maximum number of waits of the host for the device per iteration.
    """

    make: Callable[[], Procedure]
    problems: Callable[[], list[Problem]]
    tau: float | str = "auto"
    alpha: float | None = None
    captured: bool = False
    launches: int = 0
    waits: int = 0

    def begin(self, device: str = "cpu", problems: list[Problem] | None = None) -> State:
        """Return the initial state."""
        batch = ProblemBatch(problems or self.problems(), torch.device(device))
        return self.make().begin(batch, self.tau, self.alpha)


def matrices(size: int = 2, **more: object) -> Callable[[], list[Problem]]:
    return lambda: [low_rank(k, **more) for k in range(size)]  # type: ignore[arg-type]


def pictures(size: int = 2, **more: object) -> Callable[[], list[Problem]]:
    return lambda: [picture(k, **more) for k in range(size)]  # type: ignore[arg-type]


def factors(steps: Callable[[], object], signal: object = Factor, **more: object) -> Callable[[], Procedure]:
    return lambda: Method(signal, HADAMARD, operator=operator_of, steps=steps(), **more)  # type: ignore[arg-type]


def network(steps: Callable[[], object], signal: object = UNET, optimizer: object = ADAM, **more: object):
    corruption = more.pop("corruption", HADAMARD)
    loss = more.pop("loss", SquaredLoss("mean"))
    settings = {"operator": operator_of, "loss": loss, "theta_optimizer": optimizer, "steps": steps(), **more}
    return lambda: Method(signal, corruption, **settings)  # type: ignore[arg-type]


def column(k: int) -> Problem:
    generator = torch.Generator(device="cpu").manual_seed(k)
    return Problem(f"vector{k}", torch.randn(20, generator=generator, device="cpu"), seed=k)


MATRICES, LARGER = matrices(), matrices(1, n=120, m=110)
OBSERVED = matrices(missing=True)
RATES = (0.5, 20.0)

CASES: dict[str, Case] = {
    "factor": Case(factors(GradientDescent), MATRICES, 1e-3, 5.0, launches=12),
    "factor, automatic": Case(factors(GradientDescent), OBSERVED, launches=24),
    "symmetric factor": Case(factors(GradientDescent, SymmetricFactor), matrices(n=30), 1e-3, 5.0, launches=12),
    "growing factor": Case(factors(GradientDescent, GROWING), MATRICES, 1e-3, 5.0, launches=18, waits=1),
    "Nesterov": Case(factors(Nesterov), OBSERVED, launches=60),
    "semi-implicit": Case(factors(SemiImplicit, partial(Factor, rank=3)), OBSERVED, launches=86),
    "semi-implicit, growing": Case(factors(SemiImplicit, GROWING), LARGER, "auto", 5.0, launches=94, waits=2),
    "sparse": Case(lambda: Method(HadamardSignal, None), lambda: [column(0), column(1)], 1e-3, launches=6),
    "network": Case(network(GradientDescent), pictures(), *RATES, captured=True, launches=230),
    "network, average, gaps": Case(
        network(partial(GradientDescent, average=0.9)), pictures(missing=True), *RATES, captured=True, launches=233
    ),
    "network, Muon": Case(network(GradientDescent, optimizer=Muon), pictures(), *RATES, captured=True, launches=425),
    "network, ℓ1": Case(
        network(GradientDescent, corruption=None, loss=AbsoluteLoss()), pictures(), 0.5, captured=True, launches=228
    ),
    "network, blur": Case(network(GradientDescent), pictures(blurred=True), *RATES, captured=True, launches=252),
    "coordinates": Case(network(GradientDescent, COORDINATES), pictures(), *RATES, launches=65),
    "refinement": Case(network(Refinement, optimizer=Muon), pictures(1), 0.5, captured=True, launches=315),
    "exact ALM": Case(lambda: ConvexMethod(InexactALM), MATRICES, launches=76, waits=4),
    "partial ALM": Case(lambda: ConvexMethod(partial(InexactALM, svd="partial")), LARGER, launches=112, waits=14),
    "proximal": Case(lambda: ConvexMethod(AcceleratedProximalGradient), OBSERVED, launches=105, waits=4),
    "projections": Case(ProjectionsMethod, LARGER, launches=75, waits=11),
    "separation": Case(RobustSeparation, matrices(1, n=60, m=50), launches=100, waits=2),
    "instant": Case(lambda: FilterMethod(Interpolation()), pictures(missing=True)),
}
"""The budgets are measured numbers plus 5 %."""
