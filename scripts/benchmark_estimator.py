"""Compare the processor time of RobustPCA with that of its solver, alternating projections, on the same matrix.

    python scripts/benchmark_estimator.py [--sizes 300 1000] [--noise 0 0.01] [--dtype float64]

The rank is n/50, but at least 5. 10 % of the entries are outliers. Dense noise is given as a fraction of the standard
deviation of L. The table contains medians over three seeds, on one thread.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from dop_lightning import RobustPCA
from dop_lightning.engine.projections import ProjectionsMethod
from dop_lightning.foundation.machine import set_threads
from dop_lightning.problems.problem import Problem, ProblemBatch


def matrix(n: int, noise: float, seed: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a low-rank matrix, and the same matrix with outliers and noise."""
    draw = np.random.default_rng(seed)
    r = max(5, n // 50)
    L = draw.standard_normal((n, r)) @ draw.standard_normal((r, n))
    outliers = (draw.random((n, n)) < 0.1) * draw.normal(0, 10 * r**0.5, (n, n))
    return L, (L + outliers + noise * r**0.5 * draw.standard_normal((n, n))).astype(dtype)


def solve(X: np.ndarray) -> None:
    """Separate the matrix with the solver alone."""
    state = ProjectionsMethod().begin(ProblemBatch([Problem("X", torch.from_numpy(X))]))
    while not state.finished():
        state.advance(1)


def seconds(of: Callable[[], object]) -> float:
    """Return the processor time of the faster of two calls."""
    times = []
    for _ in range(2):
        start = time.process_time()
        of()
        times.append(time.process_time() - start)
    return min(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.01])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    options = parser.parse_args()
    set_threads(1)
    print("| n | dense noise | solver | `fit` | ratio | relative error |\n| --- | --- | --- | --- | --- | --- |")
    for n in options.sizes:
        for noise in options.noise:
            rows = []
            for seed in range(3):
                L, X = matrix(n, noise, seed, options.dtype)
                pca = RobustPCA()
                own, whole = seconds(lambda X=X: solve(X)), seconds(lambda X=X, pca=pca: pca.fit(X))
                error = float(np.linalg.norm(pca.low_rank_ - L) / np.linalg.norm(L))
                rows.append((own, whole, whole / own, error))
            own, whole, ratio, error = (median(column) for column in zip(*rows, strict=True))
            print(f"| {n} | {noise:g} | {own:.3f} | {whole:.3f} | {ratio:.2f} | {error:.0e} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
