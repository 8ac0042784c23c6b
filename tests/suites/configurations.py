"""Random configurations of a run, for Hypothesis.

Each setting is independently invalid with a small probability, and some parts are incompatible. A good fraction of the
configurations runs; the others are refused for one or several reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hypothesis import strategies as st

from dop_lightning.engine.steps import Nesterov
from dop_lightning.lightning.callbacks import (
    ProblemTensorBoard,
    RecoveredFiles,
    StableOutput,
    VarianceStopping,
    standard_callbacks,
)
from dop_lightning.lightning.data import RecoveryDataModule
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.corruption import PixelCorruption
from dop_lightning.model.operators import EntryMask, Identity
from tests.suites.draws import (
    NO_NUMBER,
    RARELY,
    SCALE,
    Drawn,
    Part,
    arguments,
    count,
    of,
    parts,
    sometimes,
    usually,
    word,
)
from tests.suites.draws_of_data import ALL_FILES, IMAGES, MATRIX_FILES, SYNTHETIC, VECTORS
from tests.suites.draws_of_parts import (
    ABSOLUTE,
    ANY_NETWORK,
    AVERAGED,
    CLOSED_FORM,
    CORRUPTIONS,
    GRADIENT,
    IMAGE_NETWORKS,
    LOW_RANK,
    OPTIMIZERS,
    REFINEMENT,
    SEMI_IMPLICIT,
    SOLVERS,
    SQUARED,
)

TAU = usually(of(1e-6, 1e-3, 0.05, 1.0, 1e20), NO_NUMBER)
ALPHA = usually(of(1e-3, 1.0, 7.0, 1e20), NO_NUMBER)


@dataclass(frozen=True)
class Listed:
    """A list with one number per problem, or with ``more`` additional numbers."""

    number: float
    more: int

    def of_length(self, problems: int) -> list[float]:
        return [self.number * (1 + k) for k in range(problems + self.more)]


def rates(numbers: Drawn, word: str | None, rarely: int) -> Drawn:
    """Draw one number or a list, or the word for the automatic choice once in ``rarely`` draws."""
    listed = st.builds(Listed, numbers, usually(of(0), of(1, -1), 12))
    return usually(st.one_of(numbers, listed), of(word), rarely)


def methods(
    signals: Sequence[Drawn],
    misfits: Sequence[Drawn],
    steps: Drawn,
    *,
    corruptions: Sequence[Drawn] = CORRUPTIONS,
    auto_tau: int = RARELY,
    optimizer: int = 12,
    solver: int = RARELY,
) -> Drawn:
    """Draw arguments of DoubleOverparameterization.

    Args:
        signals: signals that fit the data and the steps.
        misfits: other signals.
        steps: step rules that fit the signals.
        corruptions: corruptions that fit the data.
        auto_tau: draw an automatic τ once in this number of draws.
        optimizer: likewise for another optimizer of θ.
        solver: likewise for a solver.
    """
    return arguments(
        {
            "signal": usually(st.one_of(*signals), st.one_of(*misfits), 15),
            "corruption": usually(st.one_of(*corruptions), st.none() | parts(PixelCorruption, scale=SCALE), 12),
            "block": count(1, 15),
            "evaluate_every": count(1, 15),
            "alpha": rates(ALPHA, None, 8),
        },
        {
            "loss": usually(SQUARED, ABSOLUTE, 8),
            "operator": sometimes(of(Part(Identity, {}), Part(EntryMask, {})), 12),
            "steps": usually(steps, st.one_of(parts(Nesterov), AVERAGED, SEMI_IMPLICIT, REFINEMENT), 12),
            "theta_optimizer": sometimes(st.one_of(*OPTIMIZERS), optimizer),
            "solver": sometimes(st.one_of(*SOLVERS), solver),
            "tau": rates(TAU, "auto", auto_tau),
        },
    )


FLOWS = st.one_of(GRADIENT, parts(Nesterov))
MATRICES = st.one_of(SYNTHETIC, MATRIX_FILES)
WITH_PIXELS = [*CORRUPTIONS, parts(PixelCorruption, scale=SCALE)]
KINDS = [
    (MATRICES, methods(LOW_RANK, IMAGE_NETWORKS, st.one_of(FLOWS, SEMI_IMPLICIT), auto_tau=3)),
    (MATRICES, methods(CLOSED_FORM, IMAGE_NETWORKS, FLOWS, auto_tau=3)),
    (MATRICES, methods(ANY_NETWORK, IMAGE_NETWORKS, AVERAGED, optimizer=2)),
    (MATRICES, methods(LOW_RANK, CLOSED_FORM, FLOWS, solver=2)),
    (VECTORS, methods(CLOSED_FORM, LOW_RANK, FLOWS)),
    (VECTORS, methods(ANY_NETWORK, LOW_RANK, AVERAGED, optimizer=2)),
    (IMAGES, methods(CLOSED_FORM, LOW_RANK, FLOWS, corruptions=WITH_PIXELS)),
    (IMAGES, methods(ANY_NETWORK, LOW_RANK, AVERAGED, corruptions=WITH_PIXELS, optimizer=2)),
    (IMAGES, methods(IMAGE_NETWORKS, LOW_RANK, AVERAGED, corruptions=WITH_PIXELS, optimizer=2)),
    (IMAGES, methods(IMAGE_NETWORKS, LOW_RANK, REFINEMENT, corruptions=WITH_PIXELS[1:], optimizer=2)),
]


@dataclass(frozen=True)
class Configuration:
    """All settings of a run."""

    data: Part
    method: Mapping[str, Any]
    max_steps: int
    stable: Part = field(default_factory=lambda: Part(StableOutput, {}))
    early_stop: Part = field(default_factory=lambda: Part(VarianceStopping, {}))
    with_tensorboard: bool = False

    def names(self) -> set[str]:
        """Return the names that an error message may mention."""
        names = {"max_steps", "problems", "signal", *(Path(file).stem for file in ALL_FILES)}
        for part in (self.data, Part(DoubleOverparameterization, self.method), self.stable, self.early_stop):
            names |= set(part.names())
        return names

    def data_module(self, files: Path) -> RecoveryDataModule:
        """Return the data module after setup; ``files`` is the folder of :func:`write_files`."""
        arguments = {key: _made(value) for key, value in self.data.arguments.items()}
        for key, kind in (("files", "arrays"), ("images", "pixels")):
            if key in arguments:
                arguments[key] = [str(files / kind / name) for name in arguments[key]]
        data: RecoveryDataModule = self.data.kind(**arguments)
        data.setup()
        return data

    def module(self, problems: int) -> DoubleOverparameterization:
        """Return the module, for this number of problems."""
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
        """Return the standard callbacks, with less output unless requested."""
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
    {"variance": sometimes(word("windowed", "exponential"), 12)},
    window=usually(of(2, 3), of(1)),
    patience=count(1, 4),
)


def configurations() -> Drawn:
    """Draw runs of all kinds."""
    return st.one_of(
        *[
            st.builds(
                Configuration,
                data,
                method,
                usually(of(*range(1, 13)), of(0, -1)),
                stable=STABLE,
                early_stop=EARLY_STOP,
                with_tensorboard=usually(st.just(False), st.just(True), 10),
            )
            for data, method in KINDS
        ]
    )
