r"""Evaluate a model by its predictions of hidden entries.

Shapes: n rows, m columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN_FRACTION = 0.2
"""Fraction of the observed entries that is hidden."""


def draw_hidden(observed: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """Draw a mask of entries to hide, ``(n, m)``. It only depends on the observed entries and the seed.

    Args:
        observed: ``(n, m)``, true for observed entries, of which there is at least one.
        seed: seed of the draw.
    """
    draw = np.random.default_rng(seed).random(observed.shape)
    hidden = observed & (draw < HIDDEN_FRACTION)
    if not hidden.any():
        hidden.flat[np.where(observed, draw, np.inf).argmin()] = True
    return hidden


def negative_error(X: NDArray[Any], predicted: NDArray[Any], hidden: NDArray[Any], scale: NDArray[Any]) -> float:
    r"""Return the negative mean absolute error of the hidden entries, ``−mean |x_ij − x̂_ij|/scale_j``.

    The absolute error is used because hidden entries may be outliers, which add nearly the same error for every model.

    Args:
        X: ``(n, m)``.
        predicted: ``(n, m)``.
        hidden: ``(n, m)``, with at least one true value.
        scale: ``(m,)``, positive.
    """
    return -float((np.abs(X - predicted) / scale)[hidden].mean())
