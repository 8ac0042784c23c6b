"""Random configurations of a run for Hypothesis: parts and their arguments, most of them sensible, some of them wrong.

Each setting is wrong with a small probability by itself, and parts are drawn that do not go together, so that a good
share of the configurations runs, and the others are refused for one reason each or for several.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from dop_lightning.callbacks import ProblemTensorBoard, RecoveredFiles, StableOutput, VarianceStopping
from dop_lightning.commands.runner import standard_callbacks
from dop_lightning.convex import AcceleratedProximalGradient, InexactALM
from dop_lightning.corruption import HadamardCorruption, HyperbolicCorruption, PixelCorruption
from dop_lightning.data import ImageDataModule, MatrixDataModule, RecoveryDataModule, VectorDataModule
from dop_lightning.files.images import write_pixels
from dop_lightning.module import DoubleOverparameterization
from dop_lightning.muon import Muon
from dop_lightning.noise import (
    GaussianNoise,
    GrossOutliers,
    MissingEntries,
    Mixture,
    Occlusion,
    RandomValuedImpulse,
    SaltAndPepper,
)
from dop_lightning.objective import AbsoluteLoss, SquaredLoss
from dop_lightning.operators import (
    BoxBlur,
    CommutingMeasurements,
    Downsampling,
    EntryMask,
    GaussianBlur,
    GaussianMeasurements,
    Identity,
    MotionBlur,
)
from dop_lightning.signals import (
    Coordinates,
    Factor,
    FourierMLP,
    HadamardSignal,
    NetworkSignal,
    SkipUNet,
    SymmetricFactor,
    UniformInput,
)
from dop_lightning.steps import GradientDescent, Nesterov, Refinement, SemiImplicit

Drawn = st.SearchStrategy[Any]

RARELY = 30
"""One in so many settings is wrong, or of a part that is meant for something else."""


@dataclass(frozen=True)
class Part:
    """What YAML calls ``class_path`` and ``init_args``: makes the part, given what is known only later."""

    kind: Callable[..., Any]
    arguments: Mapping[str, Any]

    def __call__(self, *given: Any) -> Any:
        return self.kind(*given, **self.arguments)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.kind.__name__}({arguments})"

    def names(self) -> Iterator[str]:
        """What an error may name: the part, its arguments, and those of its parts."""
        yield self.kind.__name__
        for key, value in self.arguments.items():
            yield key
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Part):
                    yield from part.names()


def parts(kind: Callable[..., Any], must: Mapping[str, Drawn] | None = None, **may: Drawn) -> Drawn:
    """A part with the arguments of ``must``, and some of ``may``."""
    return st.fixed_dictionaries(dict(must or {}), optional=may).map(partial(Part, kind))


def usually(sensible: Drawn, wrong: Drawn, rarely: int = RARELY) -> Drawn:
    """Now and then something wrong."""
    return st.integers(1, rarely).flatmap(lambda number: wrong if number == rarely // 2 else sensible)


def of(*values: Any) -> Drawn:
    """One of these."""
    return st.sampled_from(values)


def one_or_several(strategy: Drawn) -> Drawn:
    """One, or a list of a few, possibly of none."""
    return usually(strategy, st.lists(strategy, max_size=2), 8)


# ------------------------------------------------------------------------------------------------------------- settings

NO_NUMBER = of(0, -1, math.nan, math.inf, True, "many")
NO_COUNT = of(0, -1, 1.5, True, "many")


def positive(*values: float) -> Drawn:
    """One of these numbers."""
    return usually(of(*values), NO_NUMBER)


def count(least: int, most: int) -> Drawn:
    """A whole number."""
    return usually(st.integers(least, most), NO_COUNT)


def word(*values: Any) -> Drawn:
    """One of these words."""
    return usually(of(*values), of("other", ""))


SCALE = positive(1e-10, 1e-4, 1e-2, 1.0)
RATIO = usually(of(0.0, 0.1, 0.3, 0.9), of(1.0, -0.1, 1.5, math.nan))
RANK = usually(of(None, 1, 2, 5), of(0, -1, 100, 1.5), 8)
SIDE = usually(of(1, 2, 3, 5, 8, 12), NO_COUNT)


class Free(nn.Module):
    """A network without any structure: its output is its parameter."""

    def __init__(self, shape: Sequence[int], beyond: int = 0) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.rand(*shape, *[1] * beyond))

    def forward(self, *_: Tensor) -> Tensor:
        return torch.sigmoid(self.output)


LOW_RANK = [
    parts(SymmetricFactor, rank=RANK, scale=SCALE, start=word("gaussian", "identity"), growing=of(False, True)),
    parts(Factor, rank=RANK, scale=SCALE, growing=of(False, True)),
]
ANY_SHAPE = [
    parts(HadamardSignal, scale=SCALE, start=word("gaussian", "constant")),
    parts(Coordinates, rates=usually(positive(0.5, 1.0), of([1.0, 1.0], [])), scale=usually(of(0.0, 1.0), of(-1.0))),
    parts(
        NetworkSignal,
        {"network": parts(Free, beyond=usually(of(0), of(1)))},
        input=of(Part(UniformInput, {"shape": [2, 2]})()),
    ),
]
NETWORKS = [
    parts(
        SkipUNet,
        {"width": count(1, 4), "scales": count(1, 2), "input_channels": count(1, 3), "skip_width": count(1, 2)},
        perturbation=usually(of(0.0, 0.03), of(-1.0)),
        precision=word("auto", "fp32", "bf16"),
        bias=of(True, False),
        fused=of(True, False),
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
LOSSES = [
    st.none(),
    parts(SquaredLoss, {"reduction": word("quarter", "half", "sum", "mean")}),
    parts(AbsoluteLoss, {"reduction": word("sum", "mean")}),
]
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
    parts(torch.optim.LBFGS),
    parts(torch.optim.RMSprop, {"lr": of(1e-3)}, centered=of(True)),
]
SOLVER = {
    "positive": of(False, True),
    "svd": word("full", "partial"),
    "tolerance": positive(1e-7, 0.5),
    "mu": positive(0.1, 0.9),
    "rho": positive(0.5, 1.5),
    "precision": word("float64", "float32"),
}
SOLVERS = [parts(InexactALM, **SOLVER), parts(AcceleratedProximalGradient, **SOLVER)]

ADDED = [parts(GrossOutliers, {"ratio": RATIO}, std=positive(1.0, 10.0)), parts(GaussianNoise, {"std": positive(0.1)})]
MISSING = parts(MissingEntries, {"ratio": RATIO})
PER = word("entry", "pixel")
REPLACED = [
    parts(SaltAndPepper, {"ratio": RATIO}, per=PER, low=of(0.0, 2.0)),
    parts(RandomValuedImpulse, {"ratio": RATIO}, per=PER),
    parts(Occlusion, {"ratio": RATIO}, value=usually(of(0.5), of(math.nan))),
    parts(MissingEntries, {"ratio": RATIO}, per=PER),
]


def noises(*kinds: Drawn) -> Drawn:
    """One, a mixture, several in turn, or none."""
    one = st.one_of(*kinds)
    mixed = st.lists(one, min_size=1, max_size=2).map(lambda both: Part(_mixture, {"parts": both}))
    return st.one_of(st.none(), one, one, one_or_several(one), mixed)


def _mixture(parts: Sequence[Part]) -> Mixture:
    return Mixture([part() for part in parts])


# --------------------------------------------------------------------------------------------------------------- data

ARRAYS: dict[str, Callable[[np.random.Generator], Any]] = {
    "whole.npy": lambda random: random.standard_normal((6, 6)),
    "again.npy": lambda random: random.standard_normal((6, 6)),
    "wide.npy": lambda random: random.standard_normal((3, 9)).astype(np.float32),
    "one.npy": lambda random: np.ones((1, 1)),
    "zero.npy": lambda random: np.zeros((5, 4)),
    "gaps.npy": lambda random: np.where(random.random((7, 7)) < 0.3, np.nan, random.standard_normal((7, 7))),
    "huge.npy": lambda random: 1e30 * random.standard_normal((4, 4)).astype(np.float32),
    "larger.npy": lambda random: 1e300 * random.standard_normal((4, 4)),
    "tiny.npy": lambda random: 1e-40 * random.standard_normal((4, 4)),
    "counts.npy": lambda random: random.integers(0, 9, (5, 5)),
    "none.npy": lambda random: np.full((3, 3), np.nan),
    "infinite.npy": lambda random: np.full((3, 3), np.inf),
    "cube.npy": lambda random: np.zeros((2, 3, 4)),
    "empty.npy": lambda random: np.zeros((0, 3)),
}
PIXELS: dict[str, Callable[[np.random.Generator], Any]] = {
    "grey.png": lambda random: random.integers(0, 256, (8, 8, 1)).astype(np.uint8),
    "colour.png": lambda random: random.integers(0, 256, (16, 12, 3)).astype(np.uint8),
    "second.png": lambda random: random.integers(0, 256, (16, 12, 3)).astype(np.uint8),
    "black.png": lambda random: np.zeros((9, 8, 1), np.uint8),
    "dot.png": lambda random: np.full((1, 1, 1), 200, np.uint8),
    "thin.png": lambda random: random.integers(0, 256, (1, 16, 3)).astype(np.uint8),
    "floats.npy": lambda random: random.random((8, 9)).astype(np.float32),
    "doubles.npy": lambda random: random.random((8, 8, 3)),
    "bands.npy": lambda random: random.random((10, 11, 5)).astype(np.float32),
    "holes.npy": lambda random: np.where(random.random((10, 8)) < 0.3, np.nan, random.random((10, 8))),
    "beyond.npy": lambda random: 1e30 * random.random((8, 8)).astype(np.float32),
    "lost.npy": lambda random: np.full((8, 8), np.nan),
}


def write_files(folder: Path) -> None:
    """The files that configurations read: ``arrays`` and ``pixels`` in ``folder``."""
    random = np.random.default_rng(0)
    for kind, files in (("arrays", ARRAYS), ("pixels", PIXELS)):
        (folder / kind).mkdir(parents=True)
        for name, make in files.items():
            if name.endswith(".npy"):
                np.save(folder / kind / name, make(random))
            else:
                write_pixels(folder / kind / name, make(random).squeeze())


SEEDS = usually(of(1, 1, 2, 3), of(0, [5, 5], [], [7, 2**40]), 8)
BATCH = usually(of(None, 1, 2), NO_COUNT)
GAUSSIAN = parts(
    GaussianMeasurements, {"measurements": count(1, 20)}, symmetric=of(False, True), storage=of("auto", "seeds")
)
FOR_MATRICES = st.one_of(GAUSSIAN, parts(CommutingMeasurements, {"measurements": count(1, 20)}))
BOUNDARY = word("reflect", "circular", "valid")
FOR_IMAGES = st.one_of(
    GAUSSIAN,
    parts(GaussianBlur, {"std": positive(0.5, 3.0)}, boundary=BOUNDARY),
    parts(BoxBlur, {"width": usually(of(1, 3, 9), of(2, 0))}, boundary=BOUNDARY),
    parts(MotionBlur, {"length": positive(1, 4.5)}, angle=of(30.0), boundary=BOUNDARY),
    parts(Downsampling, {"factor": usually(of(2, 4), of(1, 3))}, filter=word("bicubic", "gaussian", "box")),
)


def sometimes(strategy: Drawn, rarely: int = 4) -> Drawn:
    """Mostly None."""
    return usually(st.none(), strategy, rarely)


SYNTHETIC = parts(
    MatrixDataModule,
    {"n": one_or_several(SIDE), "rank": usually(of(1, 1, 2), of(0, 13, 5)), "dtype": word("float32", "float64")},
    columns=sometimes(SIDE),
    noise=noises(*ADDED, MISSING),
    seeds=SEEDS,
    batch_size=BATCH,
    sensing=sometimes(one_or_several(FOR_MATRICES)),
    alphas=sometimes(usually(of(1.0, [0.5, 2.0]), of([], [1.0, 1.0], 0.0))),
)
MATRIX_FILES = parts(
    MatrixDataModule,
    {"files": st.lists(of(*ARRAYS), min_size=1, max_size=2)},
    noise=noises(*ADDED, MISSING),
    seeds=SEEDS,
    batch_size=BATCH,
    key=sometimes(of("x"), RARELY),
    sensing=sometimes(FOR_MATRICES, RARELY),
)
VECTORS = parts(
    VectorDataModule,
    {"n": SIDE, "nonzeros": usually(of(1), of(0, 13, 5)), "dtype": word("float32", "float64")},
    noise=noises(*ADDED, MISSING),
    seeds=SEEDS,
    batch_size=BATCH,
    sensing=sometimes(GAUSSIAN),
)
IMAGES = parts(
    ImageDataModule,
    {"images": st.lists(of(*PIXELS), min_size=1, max_size=2)},
    noise=noises(*REPLACED, *ADDED),
    seeds=SEEDS,
    batch_size=BATCH,
    resize=sometimes(usually(of(8, 13, [8, 10]), of(0, -1, [8]))),
    crop=sometimes(usually(of(8, [7, 9]), of(0, 100, [8, 9, 10]))),
    channels=word("as_is", "grey", "rgb"),
    tile=sometimes(usually(of(8), of(4, 1.5))),
    overlap=sometimes(of(0, 2, 8), 8),
    sensing=sometimes(FOR_IMAGES),
    value_range=sometimes(usually(of((0.0, 1.0), (0, 255)), of((1.0, 0.0), (0.0, math.nan))), 8),
)


# ------------------------------------------------------------------------------------------------------------- methods

TAU = usually(of(1e-6, 1e-3, 0.05, 1.0, 1e20), NO_NUMBER)
ALPHA = usually(of(1e-3, 1.0, 7.0, 1e20), NO_NUMBER)


@dataclass(frozen=True)
class Listed:
    """A list of one number a problem, or of as many more."""

    number: float
    more: int

    def of_length(self, problems: int) -> list[float]:
        return [self.number * (1 + k) for k in range(problems + self.more)]


def rates(numbers: Drawn, word: str | None, rarely: int = 4) -> Drawn:
    """One number, or a list; the word for what follows from the data once in so many."""
    listed = st.builds(Listed, numbers, usually(of(0), of(1, -1), 5))
    return usually(st.one_of(numbers, listed), of(word), rarely)


def methods(
    signals: Sequence[Drawn], misfits: Sequence[Drawn], corruptions: Sequence[Drawn], steps: Drawn, tau: Drawn
) -> Drawn:
    """Arguments of DoubleOverparameterization."""
    return st.fixed_dictionaries(
        {
            "signal": usually(st.one_of(*signals), st.one_of(*misfits), 15),
            "corruption": usually(st.one_of(*corruptions), parts(PixelCorruption, scale=SCALE), 15),
            "block": count(1, 15),
            "evaluate_every": count(1, 15),
            "alpha": rates(ALPHA, None),
        },
        optional={
            "loss": st.one_of(*LOSSES),
            "operator": usually(st.none(), of(Part(Identity, {}), Part(EntryMask, {})), 8),
            "steps": steps,
            "theta_optimizer": usually(st.none(), st.one_of(*OPTIMIZERS), 4),
            "solver": usually(st.none(), st.one_of(*SOLVERS), 6),
            "tau": tau,
        },
    )


AUTO_TAU, TAU_GIVEN = rates(TAU, "auto"), rates(TAU, "auto", RARELY)
LOW_RANK_STEPS = st.one_of(st.none(), GRADIENT, parts(Nesterov), SEMI_IMPLICIT, usually(GRADIENT, REFINEMENT))
VECTOR_STEPS = st.one_of(st.none(), GRADIENT, parts(Nesterov), usually(GRADIENT, SEMI_IMPLICIT))
NETWORK_STEPS = st.one_of(st.none(), AVERAGED, REFINEMENT, usually(AVERAGED, GRADIENT))
WITH_PIXELS = [*CORRUPTIONS, parts(PixelCorruption, scale=SCALE)]


@dataclass(frozen=True)
class Configuration:
    """All that makes a run."""

    data: Part
    method: Mapping[str, Any]
    max_steps: int
    stable: Part = field(default_factory=lambda: Part(StableOutput, {}))
    early_stop: Part = field(default_factory=lambda: Part(VarianceStopping, {}))
    with_tensorboard: bool = False

    def names(self) -> set[str]:
        """What an error may name."""
        names = {
            "max_steps",
            "problems",
            "signal",
            "image",
            "matrix",
            *(Path(file).stem for file in [*ARRAYS, *PIXELS]),
        }
        for part in (self.data, Part(DoubleOverparameterization, self.method), self.stable, self.early_stop):
            names |= set(part.names())
        return names

    def data_module(self, files: Path) -> RecoveryDataModule:
        """The problems, listed already; ``files`` as :func:`write_files` made them."""
        arguments = {key: _made(value) for key, value in self.data.arguments.items()}
        for key, kind in (("files", "arrays"), ("images", "pixels")):
            if key in arguments:
                arguments[key] = [str(files / kind / name) for name in arguments[key]]
        data: RecoveryDataModule = self.data.kind(**arguments)
        data.setup()
        return data

    def module(self, problems: int) -> DoubleOverparameterization:
        """The method, for so many problems."""
        arguments = dict(self.method)
        for key in ("loss", "steps"):
            if key in arguments:
                arguments[key] = _made(arguments[key])
        for key, value in arguments.items():
            if isinstance(value, Listed):
                arguments[key] = value.of_length(problems)
        if arguments.get("operator", 0) is None:
            del arguments["operator"]
        return DoubleOverparameterization(**arguments)

    def callbacks(self) -> list[pl.Callback]:
        """Those of every run, writing less unless asked for more."""
        callbacks = standard_callbacks(self.stable(), self.early_stop())
        if self.with_tensorboard:
            return callbacks
        quick = {ProblemTensorBoard: ProblemTensorBoard(most_runs=0), RecoveredFiles: RecoveredFiles(most_pictures=0)}
        return [quick.get(type(callback), callback) for callback in callbacks]


def _made(value: Any) -> Any:
    if isinstance(value, list):
        return [_made(one) for one in value]
    return value() if isinstance(value, Part) else value


STABLE = parts(
    StableOutput, tolerance=usually(of(None, 1e-3, 1e3), NO_NUMBER), window=count(1, 3), patience=count(1, 2)
)
EARLY_STOP = parts(
    VarianceStopping,
    {"variance": word(None, None, "windowed", "exponential")},
    window=usually(of(2, 3), of(1)),
    patience=count(1, 4),
)


def configurations() -> Drawn:
    """Runs of all kinds: matrices, vectors, images."""
    kinds = [
        (
            st.one_of(SYNTHETIC, MATRIX_FILES),
            methods(LOW_RANK * 2 + ANY_SHAPE, NETWORKS, CORRUPTIONS, LOW_RANK_STEPS, AUTO_TAU),
        ),
        (VECTORS, methods(ANY_SHAPE, LOW_RANK + NETWORKS, CORRUPTIONS, VECTOR_STEPS, TAU_GIVEN)),
        (IMAGES, methods(NETWORKS * 2 + ANY_SHAPE, LOW_RANK, WITH_PIXELS, NETWORK_STEPS, TAU_GIVEN)),
    ]
    return st.one_of(
        *[
            st.builds(
                Configuration,
                data,
                method,
                usually(st.integers(1, 12), of(0, -1)),
                stable=STABLE,
                early_stop=EARLY_STOP,
                with_tensorboard=usually(st.just(False), st.just(True), 10),
            )
            for data, method in kinds
        ]
    )
