"""Appendix A: gradient descent with one rate per coordinate converges to a weighted least-norm solution.

Shapes: K problems, one per seed; W ``(K, n1, n2)``, b ``(K, n1)``, θ ``(K, n2)``, diagonal of Λ ``(n2,)``.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.foundation.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from dop_lightning.lightning.data import VectorDataModule
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.operators import GaussianMeasurements, GaussianSensing
from dop_lightning.model.signals import Coordinates
from dop_lightning.paper.figures.base import ComputedFigure, Row, mark
from dop_lightning.paper.theory import largest_rate, least_norm_solution
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.randomness import stream
from dop_lightning.runs.results import render_table

MAX_DISTANCE = 1e-8
"""Distance below which the closed form is considered reached."""

POINTS = 80
"""Number of points of a curve after its start."""


class AppendixA(ComputedFigure):
    """Distances to the weighted and to the plain least-norm solution by iteration: medians over seeds."""

    name = "appendix-a"
    size = (5.8, 3.8)
    columns: ClassVar = [
        ("rates", "Λ", ""),
        ("iteration", "iterations", "d"),
        ("to_weighted", "to argmin ‖Λ^(−1/2)θ‖", ".1e"),
        ("to_plain", "to argmin ‖θ‖", ".1e"),
        ("residual", "‖Wθ − b‖ / ‖b‖", ".1e"),
    ]

    def rows(self, settings: Mapping[str, Any]) -> list[Row]:
        """Return one row per Λ and iteration: medians of relative distances."""
        n2, n1, seeds = settings["columns"], settings["rows"], settings["seeds"]
        data = VectorDataModule(n2, n2, seeds=seeds, sensing=GaussianMeasurements(n1), dtype="float64")
        data.setup()
        (problems,) = data.batches
        W = GaussianSensing(problems).matrix()
        plain = least_norm_solution(W, problems.observation)
        rows = []
        for number in range(settings["rates"] + 1):
            name = f"random {number}" if number else "I"
            noise = torch.randn(n2, generator=stream(number, "init"), dtype=torch.float64)
            rates = (settings["spread"] * noise).exp() if number else torch.ones(n2, dtype=torch.float64)
            weighted = least_norm_solution(W, problems.observation, rates)
            state = _descent(problems, W, rates)
            for iteration in _iterations(settings["iterations"]):
                state.advance(iteration - state.iteration)
                theta = state.evaluate().signal
                residual = state.operator(theta) - problems.observation
                rows.append(
                    {
                        "rates": name,
                        "iteration": iteration,
                        "seeds": len(problems),
                        "to_weighted": _distance(theta - weighted, weighted),
                        "to_plain": _distance(theta - plain, plain),
                        "residual": _distance(residual, problems.observation),
                    }
                )
        return rows

    def summary(self, rows: Sequence[Row]) -> str:
        """Return a table of the ends of the curves."""
        return render_table(_ends(rows), self.columns)

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Check that each Λ leads to its weighted solution, and not to the plain one."""
        lines = []
        for row in _ends(rows):
            good = row["to_weighted"] < MAX_DISTANCE and (row["rates"] == "I" or row["to_plain"] > 1e4 * MAX_DISTANCE)
            lines.append(
                f"{mark(good)}  Λ = {row['rates']}: distance {row['to_weighted']:.0e} to the least ‖Λ^(−1/2)θ‖, "
                f"{row['to_plain']:.0e} to the least ‖θ‖"
            )
        return lines

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Plot distances to the weighted solution as solid lines, and to that of Λ = I as dashed lines."""
        axes = drawing.subplots()
        colours = (BLACK, BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
        for number, name in enumerate(dict.fromkeys(row["rates"] for row in rows)):
            own = [row for row in rows if row["rates"] == name]
            iterations = [row["iteration"] for row in own]
            colour = colours[number % len(colours)]
            label = "Λ = I" if name == "I" else f"Λ {name}"
            axes.plot(iterations, [row["to_weighted"] for row in own], color=colour, label=label)
            if name != "I":
                axes.plot(iterations, [row["to_plain"] for row in own], color=colour, linestyle="--")
        axes.plot([], [], color=GREY, linestyle="-", label=r"to argmin $\|\Lambda^{-1/2}\,\theta\|$")
        axes.plot([], [], color=GREY, linestyle="--", label=r"to argmin $\|\theta\|$")
        axes.set_yscale("log")
        axes.set_xlabel("iteration")
        axes.set_ylabel("relative distance, median")
        axes.set_title("Limit of gradient descent on ½‖Wθ − b‖² for different rates Λ of θ", loc="left")
        axes.set_xlim(0, max(row["iteration"] for row in rows))
        axes.legend(loc="center right")


def _descent(problems: ProblemBatch, W: Tensor, rates: Tensor) -> BatchState:
    """Return Eq. 18 started from 0, at half of the largest stable rate of each problem."""
    method = Method(partial(Coordinates, rates=rates.tolist()), None, loss=SquaredLoss("half"))
    tau = [0.5 * float(rate) for rate in largest_rate(W, rates)]
    return BatchState(method, problems, tau, [1.0] * len(problems))


def _iterations(most: int) -> list[int]:
    """Return evenly spaced iterations from 0 to ``most``.

    >>> _iterations(3)
    [0, 1, 2, 3]
    """
    return sorted({round(k * most / POINTS) for k in range(POINTS + 1)})


def _distance(difference: Tensor, other: Tensor) -> float:
    """Return the median over problems of ``‖difference‖/‖other‖``."""
    return median((difference.norm(dim=1) / other.norm(dim=1)).tolist())


def _ends(rows: Sequence[Row]) -> list[Row]:
    return list({row["rates"]: row for row in rows}.values())
