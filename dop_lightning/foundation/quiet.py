"""Warnings of other libraries that do not concern the user."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ALONE = threading.RLock()


@contextmanager
def quiet(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings in a ``with`` block.

    Filters belong to the whole process. Two threads that change them would put them back in the wrong order, and leave
    warnings ignored, so one thread at a time is inside.

    Args:
        category: of the warnings.
    """
    with _ALONE, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
