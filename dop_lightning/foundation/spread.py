"""Select a few of many items, evenly spaced in their list and in every grid that the list may enumerate."""

GOLDEN = (5**0.5 - 1) / 2
"""Golden ratio. The fractional parts of its multiples are spread evenly over [0, 1), for any number of multiples."""


def spread(count: int, most: int) -> list[int]:
    """Return the increasing positions of at most ``most`` out of ``count`` items, one in each of ``most`` equal parts.

    The offset within a part advances by the golden ratio from part to part. With a constant offset, the sample would
    miss values of periodic axes: problems are a grid of image × noise × seed, and every 25th of a thousand problems has
    one of only two seeds out of ten.

    Args:
        count: number of items, ≥ 0.
        most: maximum number of positions, ≥ 0.

    >>> spread(1000, 5), spread(3, 5), spread(9, 1)
    ([100, 223, 547, 670, 994], [0, 1, 2], [4])
    """
    parts = min(count, most)
    bounds = [part * count // parts for part in range(parts)] + [count]
    places = [(0.5 + part * GOLDEN) % 1 for part in range(parts)]
    return [bounds[part] + int(places[part] * (bounds[part + 1] - bounds[part])) for part in range(parts)]
