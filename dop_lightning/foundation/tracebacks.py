"""Whether errors of the user show a traceback."""

import os

TRACEBACK = "DOP_TRACEBACK"
"""The environment variable that asks for full tracebacks."""


def wants_traceback() -> bool:
    """Whether ``DOP_TRACEBACK`` is 1.

    Raises:
        ValueError: it is neither 0 nor 1, nor empty.
    """
    given = os.environ.get(TRACEBACK, "")
    if given not in ("", "0", "1"):
        raise ValueError(f"the environment variable {TRACEBACK} must be 0 or 1, got {given!r}")
    return given == "1"
