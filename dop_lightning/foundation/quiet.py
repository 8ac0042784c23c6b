"""Suppress irrelevant warnings of other libraries."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ALONE = threading.RLock()


@contextmanager
def quiet(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings in a ``with`` block.

    Warning filters are global to the process. If two threads changed them concurrently, they could restore them in the
    wrong order and leave warnings disabled. Only one thread at a time can therefore be inside such a block.

    Args:
        category: category of the warnings to ignore.
    """
    with _ALONE, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
