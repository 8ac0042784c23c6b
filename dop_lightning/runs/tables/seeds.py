"""Group problems that differ only by seed, and find the best of several methods.

Problems are grouped by the run, its axes in a sweep, and their attributes, never by name.
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
from dop_lightning.runs.tables.comparison import RunTable


class Better(NamedTuple):
    """How the best value of a score is chosen, and the format in which means are compared."""

    choose: Callable[[Sequence[float]], float]
    spec: str


DIRECTIONS = {"psnr": Better(max, ".2f"), "ssim": Better(max, ".3f"), "relative_error": Better(min, "#.3g")}
"""Built-in scores for which a value can be the best. Other scores, such as rank or time, only describe a result."""

METHOD_ATTRIBUTES = ("alpha_scale",)
"""Attributes of a problem that describe the method and not the data."""

STATUSES = ("done", "stable", "diverged", "interrupted")


@dataclass
class Group:
    """Problems of one row.

    Attributes:
        run: the run, or the folder of the sweep if each of its points has one seed.
        axes: values on the axes of a sweep, except the axis of seeds.
        attributes: attributes that the problems share.
        comparable: key of the data; groups with equal keys can be compared.
        problems: names of all problems, with or without a result.
        results: results of the problems that have one.
    """

    run: str
    axes: dict[str, str]
    attributes: dict[str, Any]
    comparable: str
    problems: list[str] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def values(self, key: str) -> list[float]:
        """Return the known and finite values of a score."""
        found = [result.get(key) for result in self.results]
        return [float(value) for value in found if value is not None and math.isfinite(value)]

    @property
    def status(self) -> str:
        """Status of the problems: one word if they agree, otherwise the number of each."""
        count = Counter(result["status"] for result in self.results)
        if len(count) == 1:
            return str(*count)
        return ", ".join(f"{count[status]} {status}" for status in STATUSES if count[status])

    @property
    def size(self) -> str:
        """Number of problems, such as ``3``, or ``2 of 3`` if results are missing."""
        count, whole = len(self.results), len(self.problems)
        return str(count) if count == whole else f"{count} of {whole}"


def group_over_seeds(runs: Sequence[RunTable], each: bool = False) -> list[Group]:
    """Group problems that differ only by seed, in the order of the runs.

    Problems of a run with equal attributes *and* seed, such as two files of the same name, are different problems. The
    first problems of each seed form one group, the second ones another. An axis ``seeds`` of a sweep joins its points.

    Args:
        runs: runs, as returned by :func:`~dop_lightning.runs.tables.comparison.read_runs`.
        each: create one group per problem instead.

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
            rates = [result.get(rate) for rate in run.listed]  # given per problem: different rates, different methods
            what = [entry.get("shape"), _drop_keys(attributes, METHOD_ATTRIBUTES)]
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
    """Return whether an axis changes the data and not the method."""
    return key.startswith("data.") and not key.endswith((".alphas", ".batch_size"))


def _drop_keys(values: dict[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in left_out}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def better_of(groups: Sequence[Group]) -> dict[str, Better]:
    """Return the scores for which a value can be the best: built-in ones, and custom ones with a known direction.

    Custom scores are included if all results agree on ``higher_is_better``.
    """
    results = [result for group in groups for result in group.results]
    directions: dict[str, set[bool]] = {}
    for result in results:
        for key, higher in result.get(HIGHER_IS_BETTER, {}).items():
            directions.setdefault(key, set()).add(higher)
    custom = {key: Better(max if True in of else min, CUSTOM_FORMAT) for key, of in directions.items() if len(of) == 1}
    return {**DIRECTIONS, **{key: custom[key] for key in custom_scores(results) if key in custom}}


def best_of(groups: Sequence[Group]) -> list[set[str]]:
    """Return the scores in which each group is the best among the comparable ones. Equal rounded means are all best.

    A mean with missing problems is not compared, because the known problems may be the easy ones.

    Returns:
        The keys of the scores of each group.
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
