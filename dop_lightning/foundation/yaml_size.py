"""The size of YAML settings, whose aliases can stand for far more than the file holds."""

from typing import Any

LARGEST = 100_000
"""Settings that a file may hold, with aliases written out."""


def require_small(settings: Any, file: str) -> None:
    """Check the number of values of settings, in time proportional to the file.

    Args:
        settings: as parsed, where an alias is the same object again.
        file: for the error.

    Raises:
        ValueError: there are more than :data:`LARGEST` values, or an alias contains itself.
    """
    sizes: dict[int, int | None] = {}

    def size(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = None
            inner = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(map(size, inner))
        known = sizes[id(value)]
        if known is None:
            raise ValueError(f"{file}: an alias must not contain itself")
        return known

    try:
        total = size(settings)
    except RecursionError:
        raise ValueError(f"{file}: settings are nested too deeply") from None
    if total > LARGEST:
        raise ValueError(f"{file}: must hold at most {LARGEST} values with its aliases written out, got {total:.3g}")
