"""Problems that differ by their seeds alone, and which of several methods is the best on them.

What goes together is told by the run, its axes in a sweep, and the attributes of a problem, never by its name.
"""

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dop_lightning.runs.results import CUSTOM_FORMAT, HIGHER_IS_BETTER, custom_scores
from dop_lightning.runs.tables.many import RunTable


class Better(NamedTuple):
    """What is best, and at which precision means are compared."""

    choose: Callable[[Sequence[float]], float]
    spec: str


BETTER = {"psnr": Better(max, ".2f"), "ssim": Better(max, ".3f"), "relative_error": Better(min, "#.3g")}
"""Built-in scores of which one is the best. Others describe a recovery: a rank, a density, a time."""

METHOD_ATTRIBUTES = ("alpha_scale",)
"""Attributes of a problem that say how it is recovered, not what is to be recovered."""

STATUSES = ("done", "stable", "diverged", "interrupted")


@dataclass
class Group:
    """The problems of a row.

    Attributes:
        run: the run, or the folder of the sweep whose points have a seed each.
        axes: values on the axes of a sweep, but for that of seeds.
        attributes: of each of its problems.
        comparable: groups for which this is equal have the same to recover.
        problems: the names of all of them, with a result or without.
        results: of those that have one.
    """

    run: str
    axes: dict[str, str]
    attributes: dict[str, Any]
    comparable: str
    problems: list[str] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def values(self, key: str) -> list[float]:
        """A score of each problem for which it is known and finite."""
        found = [result.get(key) for result in self.results]
        return [float(value) for value in found if value is not None and math.isfinite(value)]

    @property
    def status(self) -> str:
        """How its problems have ended: one word where all are alike, else how many of each."""
        count = Counter(result["status"] for result in self.results)
        if len(count) == 1:
            return str(*count)
        return ", ".join(f"{count[status]} {status}" for status in STATUSES if count[status])

    @property
    def size(self) -> str:
        """How many problems it has, and of how many, where some have no result."""
        count, whole = len(self.results), len(self.problems)
        return str(count) if count == whole else f"{count} of {whole}"


def group_over_seeds(runs: Sequence[RunTable], each: bool = False) -> list[Group]:
    """Put problems that differ by their seeds alone together, in the order of the runs.

    Two files of one name have equal attributes as well: problems of a run with equal attributes *and* seed are
    different ones, and the first of each seed go together, then the second of each. An axis ``seeds`` of a sweep joins
    its points.

    Args:
        runs: as :func:`~dop_lightning.runs.tables.many.read_runs` gives them.
        each: make a group of each problem instead.

    Returns:
        Groups with at least one result.
    """
    groups: dict[str, Group] = {}
    occurred: Counter[str] = Counter()
    for run in runs:
        axes = {key: value for key, value in run.axes.items() if not _is_of_seeds(key)}
        place = run.name if axes == run.axes else str(Path(run.name).parent)
        results = {result["problem"]: result for result in run.results}
        for entry in run.problems:
            result = results.get(entry["name"], {})
            attributes = entry.get("attributes", result.get("attributes", {}))
            seed = entry.get("seed", result.get("seed"))
            rates = [result.get(rate) for rate in run.listed]  # one a problem: others are other methods
            what = [entry.get("shape"), _without(attributes, METHOD_ATTRIBUTES)]
            identity = _text([place, axes, attributes, rates, *what])
            occurred[_text([identity, seed])] += 1
            occurrence = occurred[_text([identity, seed])]
            given = {key: value for key, value in axes.items() if _is_of_problem(key)}
            comparable = _text([*what, given, occurrence, seed if each else None])
            key = _text([identity, occurrence, (run.name, entry["name"]) if each else None])
            group = groups.setdefault(key, Group(place, axes, attributes, comparable))
            group.problems.append(entry["name"])
            group.results += [result] if result else []
    return [group for group in groups.values() if group.results]


def _is_of_seeds(key: str) -> bool:
    return key.rpartition(".")[2] in ("seed", "seeds")


def _is_of_problem(key: str) -> bool:
    """Whether an axis says what is to be recovered, not how."""
    return key.startswith("data.") and not key.endswith((".alphas", ".batch_size"))


def _without(values: dict[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in left_out}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def better_of(groups: Sequence[Group]) -> dict[str, Better]:
    """The scores of which one is the best: built-in ones, and custom ones that say so, alike in all results."""
    results = [result for group in groups for result in group.results]
    said: dict[str, set[bool]] = {}
    for result in results:
        for key, higher in result.get(HIGHER_IS_BETTER, {}).items():
            said.setdefault(key, set()).add(higher)
    custom = {key: Better(max if True in of else min, CUSTOM_FORMAT) for key, of in said.items() if len(of) == 1}
    return {**BETTER, **{key: custom[key] for key in custom_scores(results) if key in custom}}


def best_of(groups: Sequence[Group]) -> list[set[str]]:
    """The scores in which a group is the best among those with the same to recover; those that look alike all are.

    A mean that lacks a problem is not compared: it may be the easy ones that are known.

    Returns:
        The keys of scores, for each group.
    """
    best: list[set[str]] = [set() for _ in groups]
    better = better_of(groups)
    rivals: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        rivals.setdefault(group.comparable, []).append(place)
    for places in rivals.values():
        for key, (choose, spec) in better.items():
            values = {place: groups[place].values(key) for place in places}
            whole = [place for place in places if len(values[place]) == len(groups[place].problems)]
            means = {place: statistics.fmean(values[place]) for place in whole}
            if len(means) < 2:
                continue
            top = format(choose(list(means.values())), spec)
            for place, mean in means.items():
                if format(mean, spec) == top:
                    best[place].add(key)
    return best
