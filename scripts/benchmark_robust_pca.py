"""Compare DOP with convex solvers for robust PCA with unknown rank: seconds until X̂ is within 1e-3 of the truth.

    python scripts/benchmark_robust_pca.py [--sizes 500 1000 2000] [--rounds 3] [--device cuda]

Problems are as in section 4.1: ``X* = U*U*ᵀ`` of rank n/50 with 10 % outliers of N(0, 10²), one problem at a time.
Every method gets the observation only, in float32. DOP computes in float32. Convex solvers with full SVDs compute in
float32, too; partial SVDs and errors down to 1e-6 need float64. Methods take turns in each round. The time for
computing errors is not counted.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.convex import AcceleratedProximalGradient, ConvexState, InexactALM
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import GradientDescent, Nesterov, SemiImplicit, StepRule
from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import SymmetricFactor
from dop_lightning.problems.noise import GrossOutliers
from dop_lightning.problems.problem import Problem, ProblemBatch

TARGETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FINAL = {
    "IALM, full SVD": 9e-5,
    "DOP, Nesterov": 9e-4,
    "DOP, gradient descent": 9e-4,
    "TensorLy": 9e-4,
    "APG, full SVD": 9e-4,
}
"""Relative error at which a method is stopped; 9e-7 for methods that are not listed."""

Estimates = Iterator[Tensor]


def dop(steps: StepRule, scale: float, stride: int, most: int, problems: ProblemBatch) -> Estimates:
    """Yield X̂ after every ``stride`` iterations, up to ``most`` iterations; the rank grows from 8."""
    method = Method(
        partial(SymmetricFactor, growing=True, scale=scale), partial(HadamardCorruption, scale=scale), steps=steps
    )
    state = BatchState(method, problems, "auto")
    while state.iteration < most:
        state.advance(stride)
        yield state.signal(0).detach()[0]


def convex(solver: Callable, problems: ProblemBatch) -> Estimates:
    """Yield X̂ after every iteration."""
    state = ConvexState(solver, problems)
    while True:
        state.advance(1)
        yield state.evaluate().signal[0]


def tensorly(problems: ProblemBatch) -> Estimates:
    """Yield X̂ after every iteration of TensorLy's robust_pca with its default settings and the weights of Eq. 8.

    Its loop has no callback. We compute X from the argument of its norm, ``Y − X − S``, and the S that it has just
    thresholded.
    """
    import queue
    import threading

    from tensorly.decomposition import robust_decomposition as module

    Y = problems.observation[0].numpy()
    answers: queue.Queue = queue.Queue()
    go_on = threading.Semaphore(0)
    sparse = []

    class Backend:
        def __getattr__(self, name: str):
            return getattr(backend, name)

        def norm(self, array, order):
            if sparse:
                answers.put(torch.from_numpy(Y - sparse.pop() - array))
                go_on.acquire()
            return backend.norm(array, order)

    def soft_thresholding(*arguments):
        sparse.append(threshold(*arguments))
        return sparse[-1]

    backend, threshold = module.T, module.soft_thresholding
    module.T, module.soft_thresholding = Backend(), soft_thresholding
    work = partial(module.robust_pca, Y, reg_E=len(Y) ** -0.5, tol=0.0, n_iter_max=10_000)
    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            yield answers.get()
            go_on.release()
    finally:
        module.T, module.soft_thresholding = backend, threshold


def methods(size: int, device: str) -> dict[str, Callable[[ProblemBatch], Estimates]]:
    """Return the methods that are feasible at this size, by name."""
    chosen: dict[str, Callable[[ProblemBatch], Estimates]] = {
        "DOP, semi-implicit": partial(dop, SemiImplicit(), 1e-5, 5, 400),
        "DOP, Nesterov": partial(dop, Nesterov(), 1e-4, 10, 5000),
        "DOP, gradient descent": partial(dop, GradientDescent(), 1e-4, 20, 5000),
        "IALM, partial SVD, float64": partial(convex, partial(InexactALM, svd="partial")),
        "IALM, full SVD": partial(convex, partial(InexactALM, precision="float32")),
        "IALM, full SVD, float64": partial(convex, InexactALM),
        "APG, full SVD": partial(convex, partial(AcceleratedProximalGradient, precision="float32")),
        "TensorLy": tensorly,
    }
    if device != "cpu":
        del chosen["TensorLy"]  # runs with NumPy here
    if size > 1000:
        del chosen["DOP, gradient descent"]
    return chosen


def measure(make: Callable[[ProblemBatch], Estimates], problem: Problem, device: str, end: float, limit: float) -> dict:
    """Measure the seconds until each target is reached, from the observation on the device to X̂."""
    problems = ProblemBatch([problem], device)
    assert problem.truth is not None
    truth = problem.truth.to(device)
    size = torch.linalg.vector_norm(truth)
    reached: dict[float, float] = {}
    seconds, count, errors = 0.0, 0, []
    _wait(device)
    begin = time.perf_counter()
    estimates = make(problems)
    for estimate in estimates:
        _wait(device)
        seconds += time.perf_counter() - begin
        count += 1
        error = float(torch.linalg.vector_norm(estimate - truth) / size)
        errors.append((seconds, error))
        for target in TARGETS:
            if error < target:
                reached.setdefault(target, seconds)
        if error < end or seconds > limit or not error < 1e6:
            break
        begin = time.perf_counter()
    del estimates
    return {"reached": reached, "estimates": count, "errors": errors}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; default: %(default)s")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=float, default=120.0, help="maximum seconds per method; default: %(default)s")
    parser.add_argument("--only", nargs="+", help="run only methods whose names contain one of these")
    parser.add_argument("--json", type=Path, help="write all measurements to this file")
    options = parser.parse_args()
    prepare()
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    print(f"torch {torch.__version__}, {threads}, {options.device}, {options.rounds} rounds, medians")
    everything = []
    for size in options.sizes:
        data = MatrixDataModule(n=size, rank=max(1, size // 50), noise=GrossOutliers(0.1), seeds=options.rounds + 1)
        data.setup()
        found: dict[str, list[dict]] = {}
        chosen = methods(size, options.device)
        if options.only:
            chosen = {name: make for name, make in chosen.items() if any(part in name for part in options.only)}
        for round_number, problem in enumerate(data.problems):
            for name, make in chosen.items():
                end = FINAL.get(name, 9e-7) if round_number else 9e-4
                run = measure(make, problem, options.device, end, options.limit)
                if round_number:  # the first round is a warm-up
                    found.setdefault(name, []).append(run)
                    everything.append({"n": size, "method": name, "seed": problem.seed, **run})
        _print(size, found)
    if options.json:
        options.json.write_text(json.dumps(everything))
    return 0


def _print(size: int, found: dict[str, list[dict]]) -> None:
    ours = _median(found.get("DOP, semi-implicit", []), 1e-3)
    print(f"\nn = {size}, r = {max(1, size // 50)}, p = 0.1: seconds until the relative error is below")
    print(
        f"{'method':<28}"
        + "".join(f"{target:>9.0e}" for target in TARGETS)
        + "   time to 1e-3 relative to semi-implicit DOP"
    )
    for name, runs in found.items():
        times = [_median(runs, target) for target in TARGETS]
        cells = "".join(f"{'–':>9}" if t is None else f"{t:>9.3f}" for t in times)
        ratios = sorted(
            run["reached"][1e-3] / other["reached"][1e-3]
            for run, other in zip(runs, found.get("DOP, semi-implicit", []), strict=False)
            if 1e-3 in run["reached"] and 1e-3 in other["reached"]
        )
        ratio = f"{statistics.median(ratios):.2f}  ({' '.join(f'{r:.2f}' for r in ratios)})" if ratios and ours else "–"
        print(f"{name:<28}{cells}   {ratio}", flush=True)
    exact = [run["reached"].get(1e-6) for run in found.get("IALM, full SVD, float64", [])]
    for name, runs in found.items():
        if name.startswith("DOP") and exact and None not in exact:
            best = [
                min((e for s, e in run["errors"] if s <= limit), default=1.0)
                for run, limit in zip(runs, exact, strict=True)
            ]
            print(f"{name}: error {statistics.median(best):.1e} when IALM with full SVDs reaches 1e-6")


def _median(runs: list[dict], target: float) -> float | None:
    times = [run["reached"].get(target) for run in runs]
    return None if not times or None in times else statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
