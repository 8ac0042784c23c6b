"""Short trial of the method: a small matrix, and a few iterations of a network."""

import importlib
import time
from collections.abc import Iterator
from functools import partial

from dop_lightning.cli.doctor.finding import Finding, State, attempt

ITERATIONS = 4000
"""Iterations for the matrix, which take a fraction of a second."""

LARGEST_ERROR = 1e-3
"""Maximum relative error of the matrix."""


def check_trial() -> Iterator[Finding]:
    """Recover a 30×30 matrix of rank 2 with a tenth of its entries corrupted; fit a network to 32×32 pixels."""
    yield attempt("trial", "matrix", _matrix, essential=True)
    yield attempt("trial", "network, fp32", partial(_network, "fp32"), essential=True)
    yield attempt("trial", "network, bf16", partial(_network, "bf16"))


def _matrix() -> tuple[State, str]:
    torch = importlib.import_module("torch")
    from dop_lightning.engine.method import Method
    from dop_lightning.model.signals import SymmetricFactor
    from dop_lightning.problems.problem import Problem, ProblemBatch

    generator = torch.Generator().manual_seed(0)
    U = torch.randn(30, 2, generator=generator)
    where = torch.rand(30, 30, generator=generator) < 0.1
    outliers = 10 * torch.randn(30, 30, generator=generator) * where
    truth = U @ U.T
    problem = Problem("trial", observation=truth + outliers, truth=truth)
    begin = time.perf_counter()
    state = Method(SymmetricFactor).begin(ProblemBatch([problem]), tau=2e-3)
    state.advance(ITERATIONS)
    seconds = time.perf_counter() - begin
    error = float(torch.linalg.norm(state.evaluate().signal[0] - truth) / torch.linalg.norm(truth))
    text = f"30×30, rank 2, 10 % corrupted: relative error {error:.1g} in {seconds:.2g} s"
    return ("ok", text) if error <= LARGEST_ERROR else ("problem", f"{text}; expected at most {LARGEST_ERROR:g}")


def _network(precision: str) -> tuple[State, str]:
    torch = importlib.import_module("torch")
    from dop_lightning.foundation.machine import has_bfloat16_units
    from dop_lightning.images.presets import PRESETS, TAU
    from dop_lightning.problems.problem import Problem, ProblemBatch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "bf16" and not has_bfloat16_units(device):
        return "missing", "no bf16 units: fp32 is faster and is used"
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    method = PRESETS["default"].method(width=16, precision=precision)  # type: ignore[arg-type]
    state = method.begin(ProblemBatch([Problem("trial", image)], device), TAU)
    state.advance(1)
    begin = time.perf_counter()
    diverged = state.advance(3)
    finite = bool(torch.isfinite(state.evaluate().signal).all())
    seconds = (time.perf_counter() - begin) / 3
    if diverged or not finite:
        return "problem", f"diverged on {device} within 4 iterations"
    return "ok", f"32×32 pixels, width 16 on {device}: {1000 * seconds:.0f} ms per iteration"
