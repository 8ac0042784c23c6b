"""Numerical check of Theorem 1: as γ → 0, DOP approaches the solution of the convex program with λ = 1/α.

Shapes: K problems, one per seed; n eigenvalues, m measurements; X ``(K, n, n)``, y, s, g, h, ξ ``(K, m)``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.foundation.plotting import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.operators import CommutingMeasurements, CommutingSensing
from dop_lightning.model.signals import SymmetricFactor
from dop_lightning.paper.figures.base import ComputedFigure, Row, mark
from dop_lightning.paper.theory import (
    commuting_limit,
    commuting_optimum,
    dual_certificate,
    dual_variable,
    gradient_flow,
    in_basis,
    kkt_residuals,
)
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream

METHODS = {"limit": "limit of the flow", "descent": "gradient descent", "flow": "integrated flow"}

RESIDUALS = {
    "feasibility": (BLACK, "A(X) + s = y"),
    "dual": (BLUE, "A*(ν) ⪯ I"),
    "slackness": (RED, "(I − A*(ν))X = 0"),
    "sign": (GREEN, "ν ∈ λ·sign(s)"),
    "product": (PURPLE, "g∘h = 0"),
}
"""Colour and condition of each residual of Lemma 1."""

AGREEMENT = 0.02
"""Maximum median distance between the three computations of X."""

MIN_DRAWN_RESIDUAL = 1e-16
"""Value at which residuals of 0 are drawn."""


@dataclass(frozen=True)
class Recovered:
    """Result of a method for K problems: X, g, h and ξ."""

    signal: Tensor
    g: Tensor
    h: Tensor
    xi: Tensor


class Theorem1(ComputedFigure):
    """Distances to the optimum and residuals of Lemma 1 by γ, for several α: medians over seeds."""

    name = "theorem-1"
    size = (8.6, 3.7)
    columns: ClassVar = [
        ("method", "method", ""),
        ("alpha", "α", "g"),
        ("gamma", "γ", ".0e"),
        ("distance", "to the optimum", ".1e"),
        ("to_limit", "to the limit", ".1e"),
        ("to_flow", "to the flow", ".1e"),
        *((name, name, ".1e") for name in RESIDUALS),
    ]

    def rows(self, settings: Mapping[str, Any]) -> list[Row]:
        """Return one row per method, α and γ: medians of relative distances and residuals."""
        problems = commuting_problems(settings)
        operator = CommutingSensing(problems)
        descent = settings["descent"]
        truth = torch.stack([problem.truth for problem in problems if problem.truth is not None])
        rows = []
        for alpha in settings["alphas"]:
            optimum = _optimum(operator, problems, alpha)
            exact = int((_distances(optimum, truth) < 1e-9).sum())
            for gamma in settings["gammas"]:
                limit = _flow_limit(operator, problems, alpha, gamma)
                found = {"limit": limit}
                if gamma in descent["gammas"]:
                    found["descent"] = _descent(problems, alpha, gamma, descent["tau"], descent["time"])
                    found["flow"] = _flow(operator, problems, alpha, gamma, descent["time"])
                for method, recovered in found.items():
                    distances = _distances(recovered.signal, optimum)
                    row: Row = {
                        "method": method,
                        "alpha": alpha,
                        "gamma": gamma,
                        "seeds": len(problems),
                        "optimum_is_truth": exact,
                        "distance": median(distances.tolist()),
                        "distance_least": float(distances.min()),
                        "distance_largest": float(distances.max()),
                    }
                    if method != "limit":
                        row["to_limit"] = median(_distances(recovered.signal, limit.signal).tolist())
                    if method == "descent":
                        row["to_flow"] = median(_distances(recovered.signal, found["flow"].signal).tolist())
                    rows.append(row | _residuals(operator, problems, recovered, alpha, gamma))
        return rows

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Check that distances decrease with γ, and that the three computations of X agree."""
        limits = [row for row in rows if row["method"] == "limit"]
        lines = []
        for alpha in dict.fromkeys(row["alpha"] for row in limits):
            own = [row for row in limits if row["alpha"] == alpha]
            first, last = own[0], own[-1]
            falls = all(near["distance"] < far["distance"] for far, near in pairwise(own))
            lines.append(
                f"{mark(falls)}  α = {alpha:g}: X̂ approaches the optimum of λ = 1/α (the truth for "
                f"{first['optimum_is_truth']} of {first['seeds']} seeds) as γ decreases: median distance "
                f"{first['distance']:.1e} at γ = {first['gamma']:.0e}, {last['distance']:.1e} at {last['gamma']:.0e}"
            )
        for method, goal, text in (
            ("flow", "to_limit", "the integrated flow ends near its limit"),
            ("descent", "to_flow", "gradient descent ends near the flow at the same time"),
        ):
            furthest = max(row[goal] for row in rows if row["method"] == method)
            lines.append(f"{mark(furthest < AGREEMENT)}  {text}: median distance at most {furthest:.1e}")
        return lines

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Plot distances on the left, and residuals for the middle α on the right."""
        left, right = drawing.subplots(1, 2)
        alphas = list(dict.fromkeys(row["alpha"] for row in rows))
        markers = {"descent": ("x", 6), "flow": ("o", 7)}
        for alpha, colour in zip(alphas, _colours(len(alphas)), strict=True):
            own = [row for row in rows if row["alpha"] == alpha and row["method"] == "limit"]
            gammas = [row["gamma"] for row in own]
            least, largest = [row["distance_least"] for row in own], [row["distance_largest"] for row in own]
            left.fill_between(gammas, least, largest, color=colour, alpha=0.15, linewidth=0)
            left.plot(gammas, [row["distance"] for row in own], color=colour, label=f"limit, α = {alpha:g}")
            for method, (marker, size) in markers.items():
                points = [row for row in rows if row["alpha"] == alpha and row["method"] == method]
                left.plot(
                    [row["gamma"] for row in points],
                    [row["distance"] for row in points],
                    marker,
                    color=colour,
                    markersize=size,
                    markerfacecolor="none",
                )
        for method, (marker, size) in markers.items():
            left.plot([], [], marker, color=BLACK, markersize=size, markerfacecolor="none", label=METHODS[method])
        left.set_title("distance to the convex optimum, λ = 1/α", loc="left")
        left.set_ylabel(r"$\|\hat X - \hat X_\mathrm{convex}\| \,/\, \|\hat X_\mathrm{convex}\|$")
        middle = alphas[len(alphas) // 2]
        own = [row for row in rows if row["alpha"] == middle and row["method"] == "limit"]
        for name, (colour, condition) in RESIDUALS.items():
            values = [max(row[name], MIN_DRAWN_RESIDUAL) for row in own]
            condition += "  (0)" if not any(row[name] for row in own) else ""
            right.plot([row["gamma"] for row in own], values, "o-", markersize=3, color=colour, label=condition)
        right.set_title(f"residuals of Lemma 1, α = {middle:g}", loc="left")
        right.set_ylabel("residual")
        for axes, place in ((left, "lower left"), (right, "center right")):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.invert_xaxis()
            axes.set_xlabel("initialization scale γ")
            axes.legend(loc=place)


def _colours(count: int) -> list[str]:
    return [(BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)[k % 7] for k in range(count)]


def commuting_problems(settings: Mapping[str, Any]) -> ProblemBatch:
    """Return one problem per seed, ``y = A(X*) + s*``, in float64, where X* commutes with all Aᵢ.

    Args:
        settings: ``n``, ``measurements``, ``rank``, ``outliers``, ``seeds``.
    """
    n, m = settings["n"], settings["measurements"]
    sensing = CommutingMeasurements(m)
    problems = []
    for seed in range(settings["seeds"]):
        empty = Problem("empty", torch.zeros(m, dtype=torch.float64), seed=seed, signal_shape=(n, n), sensing=sensing)
        operator = CommutingSensing(ProblemBatch([empty]))
        x, s = torch.zeros(n, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
        rank, outliers = settings["rank"], settings["outliers"]
        x[:rank] = 0.5 + torch.rand(rank, generator=stream(seed, "truth"), dtype=torch.float64)
        drawn = torch.randn(2, outliers, generator=stream(seed, "corruption"), dtype=torch.float64)
        s[:outliers] = drawn[0].sign() * (2 + 0.3 * drawn[1])
        X = in_basis(x, operator.basis[0])
        y = operator(X[None])[0] + s
        problems.append(Problem(f"seed{seed}", y, X, s, seed=seed, signal_shape=(n, n), sensing=sensing))
    return ProblemBatch(problems)


def _each_problem(operator: CommutingSensing, problems: ProblemBatch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Iterate over Ω, B and y of each problem."""
    return zip(operator.basis, operator.weights, problems.observation, strict=True)


def _optimum(operator: CommutingSensing, problems: ProblemBatch, alpha: float) -> Tensor:
    """Return X of Eq. 8 with λ = 1/α, ``(K, n, n)``."""
    found = [in_basis(commuting_optimum(B, y, 1 / alpha).x, basis) for basis, B, y in _each_problem(operator, problems)]
    return torch.stack(found)


def _flow_limit(operator: CommutingSensing, problems: ProblemBatch, alpha: float, gamma: float) -> Recovered:
    """Return the flow at t = ∞."""
    limits = [(basis, commuting_limit(B, y, alpha, gamma)) for basis, B, y in _each_problem(operator, problems)]
    return Recovered(
        torch.stack([in_basis(limit.x, basis) for basis, limit in limits]),
        torch.stack([limit.g for _, limit in limits]),
        torch.stack([limit.h for _, limit in limits]),
        torch.stack([limit.xi for _, limit in limits]),
    )


def _initial_state(problems: ProblemBatch, alpha: float, gamma: float, tau: float) -> BatchState:
    """Return gradient descent, initialized as in Eq. 11."""
    method = Method(
        partial(SymmetricFactor, scale=gamma, start="identity"),
        partial(HadamardCorruption, scale=gamma, start="constant"),
    )
    return BatchState(method, problems, tau, alpha)


def _descent(problems: ProblemBatch, alpha: float, gamma: float, tau: float, time: float) -> Recovered:
    """Run gradient descent to ``τ·k = time``.

    Raises:
        ValueError: gradient descent diverges.
    """
    state = _initial_state(problems, alpha, gamma, tau)
    if state.advance(round(time / tau)):
        raise ValueError(f"tau must be smaller, because gradient descent diverges at gamma = {gamma:g}; got {tau}")
    g, h = (array.detach() for array in state.corruption.parameters())
    return Recovered(state.evaluate().signal, g, h, dual_variable(g, h, alpha))


def _flow(operator: CommutingSensing, problems: ProblemBatch, alpha: float, gamma: float, time: float) -> Recovered:
    """Integrate the flow."""
    state = _initial_state(problems, alpha, gamma, 1.0)
    (U,), (g, h) = state.signal.parameters(), state.corruption.parameters()
    flow = gradient_flow(operator, problems.observation, U, g, h, alpha, torch.tensor([time]), tolerance=1e-7)
    return Recovered(flow.signal[0], flow.g[0], flow.h[0], flow.xi[0])


def _distances(X: Tensor, other: Tensor) -> Tensor:
    """Return ``‖X − X'‖/‖X'‖``, ``(K,)``, or ``‖X‖`` if X' = 0, the optimum for large α."""
    norms = torch.linalg.matrix_norm(other)
    return torch.linalg.matrix_norm(X - other) / torch.where(norms > 0, norms, 1.0)


def _residuals(
    operator: CommutingSensing, problems: ProblemBatch, found: Recovered, alpha: float, gamma: float
) -> dict[str, float]:
    """Return medians of the residuals of Lemma 1."""
    nu = dual_certificate(found.xi, gamma)
    y = problems.observation
    residuals = kkt_residuals(operator, y, found.signal, found.g, found.h, nu, 1 / alpha)
    return {name: median(value.tolist()) for name, value in residuals.by_name().items()}
