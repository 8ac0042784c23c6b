"""The grid: the default of ``dop recover`` against the paper's methods on photographs × levels × seeds."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, ClassVar

from dop_lightning.foundation.plotting import BLACK, BLUE, RED, SKY
from dop_lightning.paper.figures.base import RUNS, FittedFigure, Row, mark
from dop_lightning.paper.figures.image_figures import TAGS
from dop_lightning.runs.results import read_metrics, render_table

LINES = {"default": (RED, "-", "o"), "dop": (BLUE, "--", "s"), "dip_l1": (SKY, "-.", "^"), "dip": (BLACK, ":", "v")}
"""Colour, dashes and marker of each method."""

RIVALS = ("dop", "dip_l1", "dip")

MARGIN = 1.0
"""Decibels above the best oracle, on the mean of each level but the lightest."""

OVER_DOP = 2.0
"""Decibels above plain DOP, on the mean of all."""

WON = 0.9
"""Of the cases."""

LIGHT = 0.2
"""Levels below are light: the default is to be no worse than the oracle of DIP-ℓ1 there."""


class Grid(FittedFigure):
    """PSNR over the level of the corruption: the mean and the standard deviation over photographs and seeds.

    Of the default and of DOP it is the end of the run. The oracles stop a rival where its PSNR, or that of the running
    average of its output, is largest: they know the truth.
    """

    name = "grid"
    size = (5.6, 3.7)
    methods: ClassVar = {
        "default": "default (refined)",
        "dop": "DOP",
        "dip_l1": "DIP-ℓ1, oracle",
        "dip": "DIP, oracle",
    }
    columns: ClassVar = [
        ("level", "corrupted", ""),
        ("cases", "cases", "d"),
        ("default", "default, end", ""),
        ("dop_end", "DOP, end", ""),
        ("dop", "DOP, oracle", ""),
        ("dip_l1", "DIP-ℓ1, oracle", ""),
        ("dip", "DIP, oracle", ""),
        ("margin", "default over best oracle", "+.2f"),
        ("won", "won", ""),
    ]

    def table(self, out: Path) -> list[Row]:
        """A row a method and problem: the PSNR at its end and that of an oracle."""
        rows = []
        for method in self.methods:
            oracles = _oracles(out / RUNS / method)
            for result in self.results(out, method):
                rows.append(
                    {
                        "method": method,
                        "image": result["image"],
                        "level": float(result["ratio"]),
                        "seed": result["seed"],
                        "end": result["psnr"],
                        "oracle": max(result["psnr"], oracles[result["problem"]][0]),
                        "oracle_iteration": oracles[result["problem"]][1],
                        "iterations": result["iterations"],
                        "seconds": result["seconds"],
                        "precision": result.get("support_precision"),
                        "recall": result.get("support_recall"),
                    }
                )
        return rows

    def summary(self, rows: Sequence[Row]) -> str:
        """A line a level: means ± standard deviations."""
        lines = []
        for level in _levels(rows):
            cases = _cases(rows, level)
            line: Row = {"level": f"{level:.0%}", "cases": len(cases)}
            line["default"] = _spread([case["default", "end"] for case in cases])
            line["dop_end"] = _spread([case["dop", "end"] for case in cases])
            line |= {rival: _spread([case[rival, "oracle"] for case in cases]) for rival in RIVALS}
            line["margin"] = _margin(cases)
            line["won"] = f"{sum(map(_is_won, cases))} of {len(cases)}"
            lines.append(line)
        return render_table(lines, self.columns)

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """That the default beats rivals that know when to stop."""
        lines = []
        heavy = [level for level in _levels(rows) if level >= LIGHT]
        for level in _levels(rows):
            cases = _cases(rows, level)
            if level in heavy:
                margin = _margin(cases)
                lines.append(
                    f"{mark(margin >= MARGIN)}  at {level:.0%} the default is {margin:+.2f} dB over the best oracle"
                )
            else:
                margin = mean(case["default", "end"] - case["dip_l1", "oracle"] for case in cases)
                lines.append(f"{mark(margin >= 0)}  at {level:.0%} it is {margin:+.2f} dB over the oracle of DIP-ℓ1")
        cases = [case for level in heavy for case in _cases(rows, level)]
        over = mean(case["default", "end"] - case["dop", "end"] for case in cases)
        won = mean(map(_is_won, cases))
        lines.append(f"{mark(over >= OVER_DOP)}  it is {over:+.2f} dB over DOP, the mean of all from {heavy[0]:.0%} on")
        lines.append(f"{mark(won >= WON)}  it wins {won:.0%} of those {len(cases)} cases against every oracle")
        found = [row for row in rows if row["method"] == "default" and row["precision"] is not None]
        if found:
            missed, false = (1 - mean(row[key] for row in found) for key in ("recall", "precision"))
            said = f"of the corrupted entries it misses {missed:.2%}; of those it names {false:.2%} are clean"
            lines.append(f"     {said}")
        return lines

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Means over levels, bars of one standard deviation."""
        axes = drawing.subplots()
        levels = _levels(rows)
        for place, (method, title) in enumerate(self.methods.items()):
            kind = "end" if method in ("default", "dop") else "oracle"
            values = [[case[method, kind] for case in _cases(rows, level)] for level in levels]
            colour, dashes, marker = LINES[method]
            axes.errorbar(
                [100 * level + 0.5 * (place - 1.5) for level in levels],  # beside each other, to be told apart
                [mean(of_level) for of_level in values],
                yerr=[stdev(of_level) if len(of_level) > 1 else 0.0 for of_level in values],
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=4,
                capsize=2,
                label=title,
            )
        axes.set_xticks([100 * level for level in levels])
        axes.set_xlabel("corrupted entries, %")
        axes.set_ylabel("PSNR, dB")
        cases = len(_cases(rows, levels[0]))
        axes.set_title(f"Salt and pepper, {cases} cases a level: mean and standard deviation", loc="left")
        axes.legend(loc="lower left")


def _oracles(run: Path) -> dict[str, tuple[float, int]]:
    """The best PSNR of a run on the way and its iteration, by problem."""
    best: dict[str, tuple[float, int]] = {}
    for entry in read_metrics(run):
        if entry.tag in TAGS:
            seen = (entry.value, entry.iteration)
            best[entry.problem] = max(best.get(entry.problem, seen), seen)
    return best


def _levels(rows: Sequence[Row]) -> list[float]:
    return sorted({row["level"] for row in rows})


def _cases(rows: Sequence[Row], level: float) -> list[dict[tuple[str, str], float]]:
    """Of each photograph and seed at a level, the scores by method and kind; those that all methods have."""
    cases: dict[tuple[str, int], dict[tuple[str, str], float]] = {}
    for row in rows:
        if row["level"] == level:
            case = cases.setdefault((row["image"], row["seed"]), {})
            case |= {(row["method"], kind): row[kind] for kind in ("end", "oracle")}
    return [case for case in cases.values() if len(case) == 2 * (1 + len(RIVALS))]


def _margin(cases: Sequence[dict[tuple[str, str], float]]) -> float:
    """The default's mean over that of the rival whose oracle has the best mean."""
    best = max(mean(case[rival, "oracle"] for case in cases) for rival in RIVALS)
    return mean(case["default", "end"] for case in cases) - best


def _is_won(case: dict[tuple[str, str], float]) -> bool:
    return case["default", "end"] > max(case[rival, "oracle"] for rival in RIVALS)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
