"""Restore an image without a network: support, then interpolation by kriging."""

from typing import ClassVar, get_args

import numpy as np
import torch

from dop_lightning.engine.rivals.base import Flags, Image, ImageFilter, Restored
from dop_lightning.engine.steps.clean_entries import Sign, check_damage, filled, interpolate
from dop_lightning.engine.steps.clean_entries.errors import mean_errors
from dop_lightning.engine.steps.clean_entries.initial import initial, initial_support
from dop_lightning.engine.steps.clean_entries.joint import Per
from dop_lightning.engine.steps.clean_entries.support import sample_pixels
from dop_lightning.engine.steps.refinement import KEPT_PROBABILITY, MAX_REGRESSION_ERROR, SMALL, most_error
from dop_lightning.foundation.checks import one_of
from dop_lightning.problems.problem import Problem, scale

MIN_CLEAN_PROBABILITY = 0.5
"""Minimum probability of being clean for an entry to count in the error. With outliers of random values, no entry may
be certain."""

MAX_TILE = 1088
"""Maximum side of a tile in pixels. Larger tiles are faster, because part of the work per tile is constant, but they
need more memory."""


class Interpolation(ImageFilter):
    """Detect corrupted entries, and interpolate them from the clean ones.

    The first look and the first support estimate the probability w that an entry is clean
    (:mod:`dop_lightning.engine.steps.clean_entries`). Kriging predicts the other entries from the clean ones
    (:func:`~dop_lightning.engine.steps.clean_entries.interpolate`), which gives x̃. The result is computed as in
    :class:`~dop_lightning.engine.steps.Refinement`, whose network has x̃ as its input:

        ``X̂ = w∘y + (1 − w)∘x̃``,   with ``X̂ = y`` bit for bit where ``w > 0.99``.

    An image is returned unchanged if the interpolation predicts its clean entries no better than their mean does.

    Args:
        per: ``entry`` if the channels of a pixel are corrupted independently, ``pixel`` if pixels are corrupted as a
            whole; ``auto`` estimates it.
        damage: damage to detect in addition to isolated entries, see
            :func:`~dop_lightning.engine.steps.clean_entries.structured_damage`.
        sign: sign of the outliers: ``both``, ``positive`` or ``negative``; ``auto`` detects it in noise-limited frames.

    Raises:
        ValueError: an argument has an invalid value.

    >>> image = np.full((1, 16, 16), 0.5)
    >>> image[0, ::5, ::5] = 1.0
    >>> bool((abs(Interpolation().restore(image, np.zeros(image.shape, dtype=bool)) - 0.5) < 0.01).all())
    True
    """

    max_concurrent_pixels: ClassVar[int] = MAX_TILE**2
    uses_undamaged: ClassVar[bool] = True

    def __init__(self, per: Per = "auto", damage: str = "auto", sign: Sign = "auto") -> None:
        one_of("per", per, get_args(Per))
        one_of("sign", sign, get_args(Sign))
        self.per: Per = per
        self.damage = check_damage(damage)
        self.sign = sign

    def restore(self, image: Image, missing: Flags) -> Image:
        """Return the restored image ``(C, H, W)``; see :meth:`~dop_lightning.engine.rivals.ImageFilter.restore`."""
        observed = None if not missing.any() else torch.from_numpy(~missing)
        problem = Problem("image", torch.from_numpy(image).float(), mask=observed, data_range=1.0)
        return np.asarray(self.restored(problem).signal.double().numpy())

    def restored(self, problem: Problem) -> Restored:
        """Return X̂ of a problem and ``1 − w``."""
        y, size = problem.observation, scale(problem)
        found = initial(problem, self.damage, self.per == "pixel", self.sign)
        self.poll()
        support = initial_support(found, y, size, self.per, self.sign, self.poll)
        self.poll()
        clean, estimate = support.clean, support.estimate
        observed = torch.ones_like(found.mask) if problem.mask is None else problem.mask
        sample = sample_pixels(y) & (clean > MIN_CLEAN_PROBABILITY)
        if estimate is None or not support.settled:
            estimate = interpolate(y, clean, (clean <= KEPT_PROBABILITY) | sample, estimate)
        if not found.look.decides:
            error, guessed = mean_errors(y, estimate, clean * sample)
            bound = most_error(y, clean, guessed, size, float((clean * sample).sum()))
            most = min(max(MAX_REGRESSION_ERROR * guessed, SMALL * size), bound)
            if not error <= most:  # also if the error is nan: no entry is clean
                clean = observed.to(y.dtype)
        elif problem.noise is not None:
            estimate = filled(y, estimate, clean > KEPT_PROBABILITY, problem.noise)
        mixed = clean * torch.where(observed, y, 0) + (1 - clean) * estimate
        signal = torch.where(found.flat, found.border, torch.where(clean > KEPT_PROBABILITY, y, mixed))
        corrupted = torch.where(found.flat, (y != found.border).to(y.dtype), 1 - clean)
        return Restored(signal, (corrupted * observed).float())
