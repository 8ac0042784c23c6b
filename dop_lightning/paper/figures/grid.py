"""Grid: the default of ``dop recover`` compared with the paper's methods on photographs × levels × seeds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, ClassVar

from dop_lightning.foundation.nearest import did_you_mean
from dop_lightning.foundation.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from dop_lightning.paper.figures.base import RUNS, Fit, FittedFigure, Row, mark
from dop_lightning.paper.figures.configs import Scale, layers, rival_configs
from dop_lightning.paper.figures.image_figures import TAGS
from dop_lightning.runs.find import named_runs
from dop_lightning.runs.results import read_metrics, render_table

LINES = {"default": (RED, "-", "o"), "dop": (BLUE, "--", "s"), "dip_l1": (SKY, "-.", "^"), "dip": (BLACK, ":", "v")}
"""Colour, line style and marker of each method."""

RIVALS = ("dop", "dip_l1", "dip")
"""Methods of the paper, compared with oracle stopping."""

OTHER_LINES = [(colour, marker) for marker in ("D", "P", "X") for colour in (ORANGE, GREEN, PURPLE, GREY)]
"""Colour and marker of each additional rival, in turn; their lines are thin and solid."""

MAX_PSNR_DIFFERENCE = 0.005
"""Maximum difference in dB between the input PSNR of the same problem in two runs."""

MARGIN = 1.0
"""Required gain in dB over the best oracle, in the mean of each level except light ones."""

MIN_GAIN = 2.0
"""Required gain in dB over plain DOP, in the overall mean."""

MIN_WIN_FRACTION = 0.9
"""Required fraction of cases in which the default is best."""

LIGHT_LEVEL = 0.2
"""Levels below this are light: there, the default must not be worse than the oracle of DIP-ℓ1."""


class Grid(FittedFigure):
    """PSNR by corruption level: mean and standard deviation over photographs and seeds.

    The default and DOP are scored at the end of the run. Oracles know the truth, and stop the other methods at the
    highest PSNR of their output or of its running average. Additional rivals, :attr:`configs` and :attr:`runs`, are
    scored at their end.

    Attributes:
        configs: config of each rival to run, by its name in ``configs/rivals/``.
        runs: folder of each finished run to show, by its name in the figure.
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

    def __init__(self) -> None:
        self.configs: dict[str, Path] = {}
        self.runs: dict[str, Path] = {}

    def use_rivals(self, names: Sequence[str], runs: Sequence[Path]) -> None:
        """Add rivals.

        Args:
            names: configs of ``configs/rivals/``, which are run on the problems of the figure.
            runs: folders of finished runs on these problems, or folders that contain such runs at any depth.

        Raises:
            ValueError: a config does not exist, a folder contains no run, or two methods have the same name.
        """
        known = rival_configs()
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(
                    f"--rivals must name configs of configs/rivals, {', '.join(known)}; got {name!r}{hint}"
                )
            self.configs[name] = known[name]
        for folder, name in named_runs(runs):
            if name in self.runs or name in {*self.methods, *self.configs}:
                raise ValueError(f"{folder}: the figure already has a method {name}; rename the folder")
            self.runs[name] = folder

    def compute(self, out: Path, scale: Scale, fit: Fit) -> int:
        """Start missing runs and resume interrupted ones, those of rivals last."""
        if status := super().compute(out, scale, fit):
            return status
        for name, config in self.configs.items():
            if status := fit(name, [*layers(self.name, "default", scale), config], out / RUNS / name):
                return status
        return 0

    def table(self, out: Path) -> list[Row]:
        """Return one row per method and problem, with the PSNR at the end and that of an oracle.

        Raises:
            ValueError: the run of a rival has other problems, or has not finished them.
        """
        rows = []
        inputs: dict[tuple[str, float, int], float] = {}
        folders = {name: out / RUNS / name for name in (*self.methods, *self.configs)} | self.runs
        for method, folder in folders.items():
            oracles = _oracles(folder)
            found = self.results_of(folder)
            if method not in self.methods:
                found = _matching(found, inputs, folder)
            for result in found:
                if method == "default":
                    inputs[_case_of(result)] = result.get("input_psnr", math.nan)
                best, iteration = oracles.get(result["problem"], (result["psnr"], result["iterations"]))
                rows.append(
                    {
                        "method": method,
                        "image": result["image"],
                        "level": float(result["ratio"]),
                        "seed": result["seed"],
                        "end": result["psnr"],
                        "oracle": max(result["psnr"], best),
                        "oracle_iteration": iteration,
                        "iterations": result["iterations"],
                        "seconds": result["seconds"],
                        "precision": result.get("support_precision"),
                        "recall": result.get("support_recall"),
                    }
                )
        return rows

    def summary(self, rows: Sequence[Row]) -> str:
        """Return a table with one line per level, then one with one line per additional rival: means ± deviations."""
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
        table = render_table(lines, self.columns)
        others = _other_rivals(rows)
        return f"{table}\n\n{_rival_table(rows, others)}" if others else table

    def verdict(self, rows: Sequence[Row], out: Path) -> list[str]:
        """Check that the default is better than methods with oracle stopping."""
        lines = []
        heavy = [level for level in _levels(rows) if level >= LIGHT_LEVEL]
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
        lines.append(f"{mark(over >= MIN_GAIN)}  it is {over:+.2f} dB over DOP on average, from {heavy[0]:.0%} on")
        lines.append(
            f"{mark(won >= MIN_WIN_FRACTION)}  it is better than every oracle in {won:.0%} of those {len(cases)} cases"
        )
        lines += [_verdict_on(rows, rival) for rival in _other_rivals(rows)]
        found = [row for row in rows if row["method"] == "default" and row["precision"] is not None]
        if found:
            missed, false = (1 - mean(row[key] for row in found) for key in ("recall", "precision"))
            text = f"it misses {missed:.2%} of the corrupted entries; {false:.2%} of the detected entries are clean"
            lines.append(f"     {text}")
        return lines

    def draw(self, rows: Sequence[Row], drawing: Any) -> None:
        """Plot means by level, with error bars of one standard deviation."""
        others = _other_rivals(rows)
        if others:  # the legend is placed beside the axes
            drawing.set_size_inches(self.size[0] + 2.0, self.size[1] + 0.6)
        axes = drawing.subplots()
        levels = _levels(rows)
        titles = {**self.methods, **{name: rival_title(name) for name in others}}
        styles = {**LINES}
        for place, name in enumerate(others):
            colour, marker = OTHER_LINES[place % len(OTHER_LINES)]
            styles[name] = (colour, "-", marker)
        for place, (method, title) in enumerate(titles.items()):
            kind = "end" if method in ("default", "dop") or method in others else "oracle"
            values = [[case[method, kind] for case in _cases(rows, level)] for level in levels]
            colour, dashes, marker = styles[method]
            axes.errorbar(
                # with a small horizontal offset per method, to avoid overlap
                [100 * level + 0.5 * (place - (len(titles) - 1) / 2) for level in levels],
                [mean(of_level) for of_level in values],
                yerr=[stdev(of_level) if len(of_level) > 1 else 0.0 for of_level in values],
                color=colour,
                linestyle=dashes,
                linewidth=0.9 if method in others else None,
                marker=marker,
                markersize=4,
                capsize=2,
                label=title,
            )
        axes.set_xticks([100 * level for level in levels])
        axes.set_xlabel("corrupted entries, %")
        axes.set_ylabel("PSNR, dB")
        cases = len(_cases(rows, levels[0]))
        axes.set_title(f"Salt and pepper, {cases} cases per level: mean and standard deviation", loc="left")
        if others:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        else:
            axes.legend(loc="lower left")


def rival_title(name: str) -> str:
    """Return the label of a rival: the title of its config, or the name of its run.

    >>> rival_title("adaptive_median"), rival_title("namf"), rival_title("runs/my_namf")
    ('adaptive median', 'NAMF', 'runs/my_namf')
    """
    proper = {"telea": "Telea", "fsr": "FSR", "namf": "NAMF", "bm3d": "BM3D"}
    return proper.get(name, name if "/" in name else name.replace("_", " "))


def _oracles(run: Path) -> dict[str, tuple[float, int]]:
    """Return the best PSNR during a run and its iteration, by problem."""
    best: dict[str, tuple[float, int]] = {}
    for entry in read_metrics(run):
        if entry.tag in TAGS:
            seen = (entry.value, entry.iteration)
            best[entry.problem] = max(best.get(entry.problem, seen), seen)
    return best


def _case_of(result: Mapping[str, Any]) -> tuple[str, float, int]:
    """Return the photograph, level and seed of a result."""
    return str(result.get("image")), float(result.get("ratio", math.nan)), int(result["seed"])


def _matching(results: Sequence[Row], inputs: Mapping[tuple[str, float, int], float], folder: Path) -> list[Row]:
    """Return the results of a rival on the problems of the figure.

    Args:
        results: results of the rival's run.
        inputs: input PSNR of each problem of the figure.
        folder: folder of the run, for messages.

    Raises:
        ValueError: a problem is missing or unfinished, or has another observation.
    """
    hint = "run it with the configs of the figure, see docs/rivals.md"
    found = {_case_of(result): result for result in results if result["status"] != "interrupted"}
    if missing := [case for case in inputs if case not in found]:
        image, level, seed = missing[0]
        raise ValueError(
            f"{folder}: no result for {len(missing)} of the {len(inputs)} problems of the figure, such as {image}, "
            f"{level:.0%}, seed {seed}; {hint}"
        )
    for case, psnr in inputs.items():
        own = found[case].get("input_psnr", math.nan)
        if abs(own - psnr) > MAX_PSNR_DIFFERENCE:
            raise ValueError(
                f"{folder}: {found[case]['problem']} differs from the problem of the figure: its input PSNR is "
                f"{own:.2f} dB instead of {psnr:.2f} dB; {hint}"
            )
    return [found[case] for case in inputs]


def _other_rivals(rows: Sequence[Row]) -> list[str]:
    """Return the additional rivals, in the order of the table."""
    return [method for method in dict.fromkeys(row["method"] for row in rows) if method not in LINES]


def _rival_table(rows: Sequence[Row], others: Sequence[str]) -> str:
    """Return a table with one line per rival and one column per level; the default comes first."""
    levels = _levels(rows)
    lines = []
    for method in ("default", *others):
        line: Row = {"method": rival_title(method)}
        for level in levels:
            line[f"{level}"] = _spread([case[method, "end"] for case in _cases(rows, level)])
        lines.append(line)
    return render_table(lines, [("method", "at the end", ""), *((f"{level}", f"{level:.0%}", "") for level in levels)])


def _verdict_on(rows: Sequence[Row], rival: str) -> str:
    """Return the verdict on one additional rival, over all levels."""
    cases = [case for level in _levels(rows) for case in _cases(rows, level)]
    gains = [case["default", "end"] - case[rival, "end"] for case in cases]
    over, won = mean(gains), sum(gain > 0 for gain in gains)
    return (
        f"{mark(over >= 0)}  the default is {over:+.2f} dB over {rival_title(rival)}, better in {won} of {len(cases)}"
    )


def _levels(rows: Sequence[Row]) -> list[float]:
    return sorted({row["level"] for row in rows})


def _cases(rows: Sequence[Row], level: float) -> list[dict[tuple[str, str], float]]:
    """Return the scores of each photograph and seed at a level, by method and kind, if all methods have them."""
    cases: dict[tuple[str, int], dict[tuple[str, str], float]] = {}
    for row in rows:
        if row["level"] == level:
            case = cases.setdefault((row["image"], row["seed"]), {})
            case |= {(row["method"], kind): row[kind] for kind in ("end", "oracle")}
    methods = len(LINES) + len(_other_rivals(rows))
    return [case for case in cases.values() if len(case) == 2 * methods]


def _margin(cases: Sequence[dict[tuple[str, str], float]]) -> float:
    """Return the mean of the default minus that of the best oracle."""
    best = max(mean(case[rival, "oracle"] for case in cases) for rival in RIVALS)
    return mean(case["default", "end"] for case in cases) - best


def _is_won(case: dict[tuple[str, str], float]) -> bool:
    return case["default", "end"] > max(case[rival, "oracle"] for rival in RIVALS)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
