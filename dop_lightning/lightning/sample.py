"""Sample the problems of a large run for display."""

from collections.abc import Mapping, Sequence

from dop_lightning.foundation.spread import spread
from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import Problem


def sample(wholes: Sequence[Problem], mosaics: Mapping[str, Mosaic], most: int) -> list[tuple[Problem, Problem]]:
    """Sample at most ``most`` of the problems that the engine recovers, each with its whole problem.

    The sample is evenly spaced over the whole problems, and then over the tiles of each image that is recovered in
    tiles, so that the tiles of one image do not displace another image. It depends only on the list of problems.

    Args:
        wholes: whole problems.
        mosaics: tiles of the problems that are recovered in tiles, by name.
        most: maximum size of the sample, at least 0.

    Returns:
        Pairs of a problem and its whole problem, which is the problem itself if it is not a tile.
    """
    chosen = [wholes[position] for position in spread(len(wholes), most)]
    pairs = []
    for whole in chosen:
        parts = list(mosaics[whole.name].tiles.values()) if whole.name in mosaics else [whole]
        pairs += [(parts[position], whole) for position in spread(len(parts), most // len(chosen))]
    return pairs
