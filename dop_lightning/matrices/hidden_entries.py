r"""How well does a model predict entries that it has not seen?

Shapes: n rows, m columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN = 0.2
"""The fraction of the observed entries that is hidden."""


def draw_hidden(observed: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """Draw which entries to hide, ``(n, m)``: equal for tables of equal shape and seed.

    Args:
        observed: ``(n, m)``, true where observed; at least one.
        seed: of the draw.
    """
    draw = np.random.default_rng(seed).random(observed.shape)
    hidden = observed & (draw < HIDDEN)
    if not hidden.any():
        hidden.flat[np.where(observed, draw, np.inf).argmin()] = True
    return hidden


def negative_error(X: NDArray[Any], predicted: NDArray[Any], hidden: NDArray[Any], scale: NDArray[Any]) -> float:
    r"""Return minus the mean absolute error of the hidden entries, ``−mean |x_ij − x̂_ij|/scale_j``.

    The absolute error is used because hidden entries may be outliers, which add nearly the same to every model.

    Args:
        X: ``(n, m)``.
        predicted: ``(n, m)``.
        hidden: ``(n, m)``, at least one true.
        scale: ``(m,)``, positive.
    """
    return -float((np.abs(X - predicted) / scale)[hidden].mean())
