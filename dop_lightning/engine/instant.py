"""Restore an image without a network: support, then interpolation by kriging."""

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.rivals.base import Flags, Image, ImageFilter, Restored
from dop_lightning.engine.steps.clean_entries import Sign, check_damage, filled, first_look, first_support, interpolate
from dop_lightning.engine.steps.clean_entries.border import border_of
from dop_lightning.engine.steps.clean_entries.damage import damage_of
from dop_lightning.engine.steps.refinement import CERTAIN, FORETOLD, SMALL, mean_errors
from dop_lightning.foundation.checks import one_of
from dop_lightning.problems.problem import Problem, scale

SAMPLE = 20_000
"""Approximate number of clean entries that the error of the interpolation is measured at."""


MORE = 2.0
"""A first support that calls more entries corrupted than this many times those of the first look is doubted."""

FEW = 1e-3
"""Share of the entries by which it may exceed that in any case."""


class Interpolation(ImageFilter):
    """Find what is corrupted, and interpolate it from what is clean.

    The first look and the first support find the clean entries, with probability w
    (:mod:`dop_lightning.engine.steps.clean_entries`), and kriging predicts the others from them
    (:func:`~dop_lightning.engine.steps.clean_entries.interpolate`): x̃. As under
    :class:`~dop_lightning.engine.steps.Refinement`, whose input this is,

        ``X̂ = w∘y + (1 − w)∘x̃``,   with ``X̂ = y`` bit for bit where ``w > 0.99``.

    An image whose clean entries are predicted no better than by their mean is returned unchanged.

    Args:
        per: ``entry`` corrupts each channel of a pixel by itself, ``pixel`` the whole pixel.
        damage: damage to detect besides isolated entries, see
            :func:`~dop_lightning.engine.steps.clean_entries.structured_damage`.
        sign: of the outliers: ``both``, ``positive`` or ``negative``; ``auto`` detects it in frames limited by noise.

    Raises:
        ValueError: an argument is none of these.

    >>> image = np.full((1, 16, 16), 0.5)
    >>> image[0, ::5, ::5] = 1.0
    >>> bool((abs(Interpolation().restore(image, np.zeros(image.shape, dtype=bool)) - 0.5) < 0.01).all())
    True
    """

    def __init__(self, per: Literal["entry", "pixel"] = "entry", damage: str = "auto", sign: Sign = "auto") -> None:
        one_of("per", per, ["entry", "pixel"])
        one_of("sign", sign, get_args(Sign))
        self.per = per
        self.damage = check_damage(damage)
        self.sign = sign

    def restore(self, image: Image, missing: Flags) -> Image:
        """Return the restored image ``(C, H, W)``; see :meth:`~dop_lightning.engine.rivals.ImageFilter.restore`."""
        observed = None if not missing.any() else torch.from_numpy(~missing)
        problem = Problem("image", torch.from_numpy(image).float(), mask=observed, data_range=1.0)
        return np.asarray(self.restored(problem).signal.double().numpy())

    def restored(self, problem: Problem) -> Restored:
        """Return X̂ of a problem, and ``1 − w``."""
        y, size, pixels = problem.observation, scale(problem), self.per == "pixel"
        damaged, border = damage_of(problem, self.damage), self._border(problem)
        flat = border.isfinite()
        damaged = damaged | flat
        observed = torch.ones_like(damaged) if problem.mask is None else problem.mask
        mask = observed & ~damaged
        look = first_look(y, size, mask, pixels, problem.noise, self.sign)
        clean = look.clean * mask
        if not look.decides:
            clean = self._better(y, clean, first_support(y, size, mask, pixels, self.sign).clean * mask)
        sample = self._sample(clean)
        estimate = interpolate(y, clean, (clean <= CERTAIN) | sample)
        if not look.decides:
            error, guessed = mean_errors(y, estimate, clean * sample)
            if not error <= max(FORETOLD * guessed, SMALL * size):  # also if nothing is clean
                clean = observed.to(y.dtype)
        elif problem.noise is not None:
            estimate = filled(y, estimate, clean > CERTAIN, problem.noise)
        mixed = clean * torch.where(observed, y, 0) + (1 - clean) * estimate
        signal = torch.where(flat, border, torch.where(clean > CERTAIN, y, mixed))
        corrupted = torch.where(flat, (y != border).to(y.dtype), 1 - clean)
        return Restored(signal, (corrupted * observed).float())

    def _border(self, problem: Problem) -> Tensor:
        return torch.full_like(problem.observation, math.nan) if self.damage == "points" else border_of(problem)

    def _better(self, y: Tensor, look: Tensor, support: Tensor) -> Tensor:
        """Return the support, or the first look if that doubts much less and predicts as well.

        Under a pattern that no median follows, such as a checkerboard, the support may be wrong everywhere.
        """
        if float((1 - support).mean()) <= MORE * float((1 - look).mean()) + FEW:
            return support
        both = look * support
        sample = self._sample(both)
        errors = [mean_errors(y, interpolate(y, clean, sample), both * sample)[0] for clean in (look, support)]
        return support if errors[0] > errors[1] else look  # the look, if they have nothing in common

    def _sample(self, clean: Tensor) -> Tensor:
        """Draw the clean entries that the error is measured at, with a fixed seed: bool ``(C, H, W)``."""
        drawn = torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)) < SAMPLE / clean.numel()
        return drawn & (clean > CERTAIN)
