"""What random configurations are drawn with: parts with their arguments, most of them sensible, some of them wrong."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import strategies as st

Drawn = st.SearchStrategy[Any]

RARELY = 35
"""One in so many settings is wrong, or of a part that is meant for something else."""


@dataclass(frozen=True)
class Part:
    """What YAML calls ``class_path`` and ``init_args``: makes the part, given what is known only later."""

    kind: Callable[..., Any]
    arguments: Mapping[str, Any]

    def __call__(self, *given: Any) -> Any:
        return self.kind(*given, **self.arguments)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.kind.__name__}({arguments})"

    def names(self) -> Iterator[str]:
        """What an error may name: the part, its arguments, and those of its parts."""
        yield self.kind.__name__
        for key, value in self.arguments.items():
            yield key
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Part):
                    yield from part.names()


def parts(kind: Callable[..., Any], must: Mapping[str, Drawn] | None = None, **may: Drawn) -> Drawn:
    """A part with the arguments of ``must``, and some of ``may``."""
    return arguments(must or {}, may).map(partial(Part, kind))


def arguments(must: Mapping[str, Drawn], may: Mapping[str, Drawn]) -> Drawn:
    """All of ``must``, and more than half of ``may``: by itself, Hypothesis leaves most of what is optional out."""
    some = {name: st.tuples(of(True, True, True, False), drawn) for name, drawn in may.items()}
    return st.tuples(st.fixed_dictionaries(dict(must)), st.fixed_dictionaries(some)).map(
        lambda drawn: drawn[0] | {name: value for name, (given, value) in drawn[1].items() if given}
    )


def usually(sensible: Drawn, wrong: Drawn, rarely: int = RARELY) -> Drawn:
    """Now and then something wrong."""
    return st.integers(1, rarely).flatmap(lambda number: wrong if number == rarely // 2 else sensible)


def sometimes(strategy: Drawn, rarely: int = 4) -> Drawn:
    """Mostly None."""
    return usually(st.none(), strategy, rarely)


def of(*values: Any) -> Drawn:
    """One of these."""
    return st.sampled_from(values)


def one_or_several(strategy: Drawn) -> Drawn:
    """One, or a list of a few, possibly of none."""
    return usually(strategy, st.lists(strategy, min_size=1, max_size=2) | usually(strategy, of([])), 8)


NO_NUMBER = of(0, -1, math.nan, math.inf, True, "many")
NO_COUNT = of(0, -1, 1.5, True, "many")


def positive(*values: float) -> Drawn:
    """One of these numbers."""
    return usually(of(*values), NO_NUMBER)


def count(least: int, most: int) -> Drawn:
    """A whole number."""
    return usually(st.integers(least, most), NO_COUNT)


def word(*values: Any) -> Drawn:
    """One of these words."""
    return usually(of(*values), of("other", ""))


SCALE = positive(1e-10, 1e-4, 1e-2, 1.0)
RATIO = usually(of(0.0, 0.1, 0.3, 0.9), of(1.0, -0.1, 1.5, math.nan))
RANK = usually(of(None, 1, 2, 5), of(-1, 1.5, 0, 100), 5)
SIDE = usually(of(1, 2, 3, 5, 8, 12), NO_COUNT)
