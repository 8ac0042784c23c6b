"""Limit the size of YAML settings, which aliases can expand to far more than the file contains."""

from typing import Any

LARGEST = 100_000
"""Maximum number of settings in a file, with aliases expanded."""


def require_small(settings: Any, file: str) -> None:
    """Check the number of values in settings, in time proportional to the size of the file.

    Args:
        settings: parsed settings, in which an alias is a reference to the same object.
        file: name of the file, for the error message.

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
        raise ValueError(f"{file}: must contain at most {LARGEST} values with aliases expanded, got {total:.3g}")
