"""Compare accelerated steps with small steps: errors with respect to truth, small steps and the convex program.

    python scripts/compare_steps.py [--seeds 10] [--time 50]

The problem is robust PCA of section 4.1 (n = 50, float32, r' = n), with 10 seeds per cell. “Small steps” is gradient
descent with τ = 5e-4 until time t = 50 of the flow. The convex program has X ⪰ 0 and λ = 1/√n.
"""

import argparse
import sys
import time
from functools import partial

import torch
from torch import Tensor

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.convex import InexactALM, solve
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import GradientDescent, Nesterov, SemiImplicit, StepRule
from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import SymmetricFactor
from dop_lightning.problems.metrics import relative_error
from dop_lightning.problems.noise import GrossOutliers
from dop_lightning.problems.problem import ProblemBatch

SMALL = 5e-4
CELLS = [(2, 0.1), (5, 0.1), (10, 0.1), (5, 0.2), (5, 0.3)]
RULES: list[tuple[str, StepRule, int]] = [
    ("gradient descent, tau auto", GradientDescent(), 10_000),
    ("Nesterov, tau auto", Nesterov(), 2_000),
    ("semi-implicit", SemiImplicit(), 300),
    ("semi-implicit, trust 0.1, longest 0.3", SemiImplicit(trust=0.1, longest=0.3), 2_000),
]


def run(problems: ProblemBatch, rule: StepRule, tau: float | str, iterations: int) -> tuple[Tensor, float]:
    method = Method(partial(SymmetricFactor, scale=1e-4), partial(HadamardCorruption, scale=1e-4), steps=rule)
    begin = time.perf_counter()
    state = BatchState(method, problems, tau)  # type: ignore[arg-type]
    state.advance(iterations)
    return state.signal(0).detach(), time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--time", type=float, default=50.0, help="final time of the flow of small steps; default: %(default)s"
    )
    options = parser.parse_args()
    prepare()
    rows = [f"{'mean relative error to':<40}" + "".join(f"{f'r={r}, p={p}':>16}" for r, p in CELLS)]
    columns = []
    for rank, ratio in CELLS:
        data = MatrixDataModule(n=50, rank=rank, noise=GrossOutliers(ratio), seeds=options.seeds)
        data.setup()
        problems = data.batches[0]
        truth = torch.stack([problem.truth for problem in problems if problem.truth is not None])
        small, seconds = run(problems, GradientDescent(), SMALL, round(options.time / SMALL))
        optimum = solve(problems, partial(InexactALM, positive=True), max_iterations=10_000).signal
        cells = {
            "truth: convex program": relative_error(optimum, truth),
            f"truth: small steps ({seconds:.0f} s)": relative_error(small, truth),
        }
        for name, rule, iterations in RULES:
            X, seconds = run(problems, rule, "auto", iterations)
            cells[f"truth: {name}"] = relative_error(X, truth)
            cells[f"small steps: {name}"] = relative_error(X, small)
        columns.append([float(value.mean()) for value in cells.values()])
        names = list(cells)
    for name, *values in zip(names, *columns, strict=True):
        rows.append(f"{name:<40}" + "".join(f"{value:>16.4f}" for value in values))
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
