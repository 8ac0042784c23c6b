"""Figure 2b and c: fraction of trials that the convex program and DOP recover, by rank and corruption."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from dop_lightning.paper.figures.base import FittedFigure, Row, mark, seconds_of

SUCCESS = 0.1
"""Maximum relative error of a recovered trial (section 4.1)."""

AGREEMENT = 0.97
"""Required fraction of trials in which automatic and constant steps agree."""

MAX_LISTED = 12
"""Maximum number of cells that are listed individually."""


class Figure2bc(FittedFigure):
    """Maps over rank r and ratio p at n = 50: fraction of trials with a relative error below 0.1."""

    name = "2bc"
    size = (11.6, 5.9)
    methods: ClassVar = {
        "dop": "DOP",
        "dop_auto": "DOP, automatic steps",
        "dop_limit": "DOP, at its limit",
        "convex": "convex",
        "convex_psd": "convex, X ⪰ 0",
    }
    columns: ClassVar = [
        ("rank", "rank", "d"),
        ("ratio", "p", ".2f"),
        ("trials", "trials", "d"),
        ("dop", "DOP", ".2f"),
        ("dop_auto", "DOP, automatic", ".2f"),
        ("auto_as_dop", "agree", ".2f"),
        ("dop_limit", "DOP, limit", ".2f"),
        ("convex", "convex", ".2f"),
        ("convex_psd", "convex, X ⪰ 0", ".2f"),
    ]

    def table(self, out: Path) -> list[Row]:
        """Return one row per cell: fractions of recovered trials, and of trials where both kinds of steps agree.

        Raises:
            ValueError: the runs have different trials.
        """
        won = {method: self._recovered_trials(out, method) for method in self.methods}
        trials = won["dop"].keys()
        for method, own in won.items():
            if own.keys() != trials:
                raise ValueError(f"{out}: runs must have equal problems, but {method} differs from dop")
        rows = []
        for rank, ratio in sorted({(rank, ratio) for rank, ratio, _ in trials}):
            cell = [trial for trial in trials if trial[:2] == (rank, ratio)]
            row: Row = {"rank": rank, "ratio": ratio, "trials": len(cell)}
            row |= {method: sum(own[trial] for trial in cell) / len(cell) for method, own in won.items()}
            row["auto_as_dop"] = sum(won["dop"][trial] == won["dop_auto"][trial] for trial in cell) / len(cell)
            rows.append(row)
        return rows

    def _recovered_trials(self, out: Path, method: str) -> dict[tuple[int, float, int], bool]:
        """Return whether each trial, (rank, ratio, seed), is recovered; diverged trials are not."""
        return {
            (result["true_rank"], result["ratio"], result["seed"]): result["relative_error"] < SUCCESS
            for result in self.results(out, method)
        }

    def summary(self, rows: Sequence[Row]) -> str:
        """Return one map per method with one digit per cell: tenths that are recovered, ``#`` for all."""
        ratios = sorted({row["ratio"] for row in rows})
        maps = [
            [
                self.methods[method],
                *(
                    f"r={rank:>3}  " + "".join(_digit(row[method]) for row in rows if row["rank"] == rank)
                    for rank in sorted({row["rank"] for row in rows}, reverse=True)
                ),
            ]
            for method in self.methods
        ]
        width = max(len(line) for lines in maps for line in lines) + 3
        text = ["".join(line.ljust(width) for line in each).rstrip() for each in zip(*maps, strict=True)]
        shares = ", ".join(f"{ratio:g}" for ratio in ratios)
        return "\n".join([*text, f"columns: p = {shares}; tenths of {rows[0]['trials']} trials, # all, . none"])

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Compare DOP with the convex programs cell by cell, and both kinds of steps with each other."""
        lines = []
        for own, rival in (
            ("dop", "convex"),
            ("dop", "convex_psd"),
            ("dop_limit", "convex"),
            ("dop_limit", "convex_psd"),
        ):
            below = [row for row in rows if row[own] < row[rival]]
            above = sum(row[own] > row[rival] for row in rows)
            text = f"{self.methods[own]} against {self.methods[rival]}: below in {len(below)} cells, equal in "
            text += f"{len(rows) - len(below) - above}, above in {above}"
            lines.append(f"{mark(not below) if rival == 'convex' else '   '}  {text}")
            lines += [
                f"       below at r = {row['rank']}, p = {row['ratio']:g}: {row[own]:.2f} against {row[rival]:.2f}"
                for row in below[:MAX_LISTED]
            ]
            if len(below) > MAX_LISTED:
                lines.append(f"       and {len(below) - MAX_LISTED} more, see {out / self.name}.csv")
        total = sum(row["trials"] for row in rows)
        agreement = sum(row["auto_as_dop"] * row["trials"] for row in rows) / total
        lines.append(
            f"{mark(agreement >= AGREEMENT)}  automatic and constant steps agree in {agreement:.1%} of {total} trials; "
            f"at least {AGREEMENT:.0%} required"
        )
        times = [f"{title} {seconds_of(self.results(out, run)):.0f}" for run, title in self.methods.items()]
        lines.append(f"     seconds of the iterations: {'; '.join(times)}")
        return lines

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Plot four grey maps, and the differences between both kinds of DOP and both convex programs."""
        panels = drawing.subplots(2, 4, sharex=True, sharey=True)
        titles = {
            "convex": "(b) convex, without X ⪰ 0",
            "convex_psd": "convex, X ⪰ 0",
            "dop": "(c) DOP, 20 000 iterations",
            "dop_limit": "DOP, at its limit",
        }
        for axes, (method, title) in zip(panels[0], titles.items(), strict=True):
            grey = _plot_map(axes, rows, lambda row, m=method: row[m], "gray", (0, 1))
            axes.set_title(title, loc="left")
        differences = {
            "DOP − convex": ("dop", "convex"),
            "DOP − convex, X ⪰ 0": ("dop", "convex_psd"),
            "DOP's limit − convex": ("dop_limit", "convex"),
            "DOP's limit − convex, X ⪰ 0": ("dop_limit", "convex_psd"),
        }
        for axes, (title, (own, rival)) in zip(panels[1], differences.items(), strict=True):
            change = _plot_map(axes, rows, lambda row, a=own, b=rival: row[a] - row[b], "PuOr", (-1, 1))
            axes.set_title(title, loc="left")
        for axes in panels[1]:
            axes.set_xlabel("fraction p of corrupted entries")
        for axes in panels[:, 0]:
            axes.set_ylabel("rank r")
        drawing.colorbar(grey, ax=panels[0], label="fraction of trials recovered", aspect=16, pad=0.015)
        drawing.colorbar(change, ax=panels[1], label="difference of fractions", aspect=16, pad=0.015)


def _plot_map(axes: Any, rows: Sequence[Row], value: Any, colours: str, limits: tuple[float, float]) -> Any:
    """Plot cells over p and r, each extending halfway to its neighbours."""
    ratios, ranks = sorted({row["ratio"] for row in rows}), sorted({row["rank"] for row in rows})
    cells = {(row["rank"], row["ratio"]): value(row) for row in rows}
    grid = [[cells[rank, ratio] for ratio in ratios] for rank in ranks]
    axes.grid(False)
    axes.set_xticks(ratios[1::2] if len(ratios) > 6 else ratios)
    axes.set_yticks(ranks)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    low, high = limits
    return axes.pcolormesh(_cell_borders(ratios), _cell_borders(ranks), grid, cmap=colours, vmin=low, vmax=high)


def _cell_borders(centres: Sequence[float]) -> list[float]:
    """Return the borders of cells.

    >>> _cell_borders([1, 3, 5])
    [0.0, 2.0, 4.0, 6.0]
    """
    if len(centres) == 1:
        return [centres[0] - 0.5, centres[0] + 0.5]
    inner = [(a + b) / 2 for a, b in pairwise(centres)]
    return [2 * centres[0] - inner[0], *inner, 2 * centres[-1] - inner[-1]]


def _digit(share: float) -> str:
    return "#" if share == 1 else "." if share == 0 else str(min(9, max(1, round(10 * share))))
