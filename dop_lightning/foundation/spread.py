"""A few out of many: positions that lie evenly in a list, and in every grid that the list may be."""

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
