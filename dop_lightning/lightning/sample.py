"""Which problems of a large run are looked at: a few, spread over all of them."""

from collections.abc import Mapping, Sequence

from dop_lightning.foundation.spread import spread
from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import Problem


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
