"""Result of :func:`~dop_lightning.images.recover.recover_image` for a stack of images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dop_lightning.engine.outcome import Status
from dop_lightning.foundation.units import format_duration
from dop_lightning.images.history import History

STATUS_ORDER: tuple[Status, ...] = ("interrupted", "diverged", "done", "stable")


@dataclass(frozen=True, eq=False, repr=False)
class StackRecovery:
    """A recovered stack: several images in one array, such as a batch, a time series or the slices of a volume.

    ``image``, ``corruption``, ``corruption_probability`` and ``mask`` have the shape and type of the input; see
    :class:`~dop_lightning.images.recovery.Recovery` for their meaning. The other arrays have one entry per image, with
    the shape of the stack axes.

    Attributes:
        image: the recovered stack, with the type and layout of the input.
        corruption: the estimated corruption, observation minus clean values.
        corruption_probability: probability of corruption in [0, 1]; NaN in images that were not recovered. ``None``
            with the preset ``paper``.
        mask: true where a value was detected as corrupted.
        statuses: status of each image, as in ``Recovery``. Images that have not started are ``interrupted`` after 0
            iterations, and keep their observed values.
        iterations: gradient iterations of each image.
        alphas: ratio of the learning rates of each image; NaN if not applicable.
        histories: history of each image by its index, except for images that have not started.
        seconds: total duration in seconds.
    """

    image: Any
    corruption: Any
    corruption_probability: Any
    mask: Any
    statuses: np.ndarray
    iterations: np.ndarray
    alphas: np.ndarray
    histories: dict[tuple[int, ...], History]
    seconds: float

    @property
    def status(self) -> Status:
        """Worst status of the images, in the order ``interrupted``, ``diverged``, ``done``, ``stable``."""
        return next(status for status in STATUS_ORDER if (self.statuses == status).any())

    def __repr__(self) -> str:
        found = float(self.mask.sum()) / max(1, int(np.prod(self.mask.shape)))
        return (
            f"StackRecovery({type(self.image).__name__} of {' × '.join(map(str, self.image.shape))}, "
            f"{self.statuses.size} image{'s' * (self.statuses.size != 1)}, {self.status} in "
            f"{format_duration(self.seconds)}, {found:.1%} of the values corrupted)"
        )
