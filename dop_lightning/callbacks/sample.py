"""Which problems of a large run are looked at: a few, spread over all of them."""

from collections.abc import Mapping, Sequence

from dop_lightning.problems import Problem
from dop_lightning.tiling import Mosaic

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, without their whole part, lie as evenly in [0, 1) as can be, however many they are."""


def spread(count: int, most: int) -> list[int]:
    """Positions of at most ``most`` out of ``count`` things, rising: one in each of ``most`` equal parts of the list.

    Its place in its part moves on by the golden ratio from part to part. Problems are a grid, image × noise × seed,
    whose later axes come round again and again: every 25th of a thousand would have one of two seeds out of ten.

    Args:
        count: how many there are, at least 0.
        most: how many are wanted, at least 0.

    >>> spread(1000, 5), spread(3, 5), spread(9, 1)
    ([100, 223, 547, 670, 994], [0, 1, 2], [4])
    """
    parts = min(count, most)
    bounds = [part * count // parts for part in range(parts)] + [count]
    places = [(0.5 + part * GOLDEN) % 1 for part in range(parts)]
    return [bounds[part] + int(places[part] * (bounds[part + 1] - bounds[part])) for part in range(parts)]


def sample(wholes: Sequence[Problem], mosaics: Mapping[str, Mosaic], most: int) -> list[tuple[Problem, Problem]]:
    """At most ``most`` of the problems that the engine works on, each with what it is a part of.

    They are spread over what is to be recovered, and then over the tiles of each image that is recovered in tiles: no
    image is passed over for the tiles of another one. The choice depends on the list of problems alone.

    Args:
        wholes: what is to be recovered.
        mosaics: those of them that are recovered in tiles, by name.
        most: at least 0.

    Returns:
        Pairs: the problem, and the whole, which is itself where it is no tile.
    """
    chosen = [wholes[position] for position in spread(len(wholes), most)]
    pairs = []
    for whole in chosen:
        parts = list(mosaics[whole.name].tiles.values()) if whole.name in mosaics else [whole]
        pairs += [(parts[position], whole) for position in spread(len(parts), most // len(chosen))]
    return pairs
