"""Strategies for random configurations: parts with their arguments, most of them valid, some invalid."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import strategies as st

Drawn = st.SearchStrategy[Any]

RARELY = 35
"""One in this number of settings is invalid, or belongs to another part."""


@dataclass(frozen=True)
class Part:
    """A ``class_path`` with ``init_args`` as in YAML: creates the part, given arguments that are known only later."""

    kind: Callable[..., Any]
    arguments: Mapping[str, Any]

    def __call__(self, *given: Any) -> Any:
        return self.kind(*given, **self.arguments)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.kind.__name__}({arguments})"

    def names(self) -> Iterator[str]:
        """Yield the names that an error message may mention: the part, its arguments, and those of its parts."""
        yield self.kind.__name__
        for key, value in self.arguments.items():
            yield key
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, Part):
                    yield from part.names()


def parts(kind: Callable[..., Any], must: Mapping[str, Drawn] | None = None, **may: Drawn) -> Drawn:
    """Draw a part with the arguments of ``must``, and some of ``may``."""
    return arguments(must or {}, may).map(partial(Part, kind))


def arguments(must: Mapping[str, Drawn], may: Mapping[str, Drawn]) -> Drawn:
    """Draw all arguments of ``must``, and three quarters of ``may``; Hypothesis would omit most optional arguments."""
    some = {name: st.tuples(of(True, True, True, False), drawn) for name, drawn in may.items()}
    return st.tuples(st.fixed_dictionaries(dict(must)), st.fixed_dictionaries(some)).map(
        lambda drawn: drawn[0] | {name: value for name, (given, value) in drawn[1].items() if given}
    )


def usually(sensible: Drawn, wrong: Drawn, rarely: int = RARELY) -> Drawn:
    """Draw a valid value, or rarely an invalid one."""
    return st.integers(1, rarely).flatmap(lambda number: wrong if number == rarely // 2 else sensible)


def sometimes(strategy: Drawn, rarely: int = 4) -> Drawn:
    """Draw None in most cases."""
    return usually(st.none(), strategy, rarely)


def of(*values: Any) -> Drawn:
    """Draw one of these values."""
    return st.sampled_from(values)


def one_or_several(strategy: Drawn) -> Drawn:
    """Draw one value, or a short list, which may be empty."""
    return usually(strategy, st.lists(strategy, min_size=1, max_size=2) | usually(strategy, of([])), 8)


NO_NUMBER = of(0, -1, math.nan, math.inf, True, "many")
NO_COUNT = of(0, -1, 1.5, True, "many")


def positive(*values: float) -> Drawn:
    """Draw one of these numbers."""
    return usually(of(*values), NO_NUMBER)


def count(least: int, most: int) -> Drawn:
    """Draw an integer in this range."""
    return usually(st.integers(least, most), NO_COUNT)


def word(*values: Any) -> Drawn:
    """Draw one of these words."""
    return usually(of(*values), of("other", ""))


SCALE = positive(1e-10, 1e-4, 1e-2, 1.0)
RATIO = usually(of(0.0, 0.1, 0.3, 0.9), of(1.0, -0.1, 1.5, math.nan))
RANK = usually(of(None, 1, 2, 5), of(-1, 1.5, 0, 100), 5)
SIDE = usually(of(1, 2, 3, 5, 8, 12), NO_COUNT)
