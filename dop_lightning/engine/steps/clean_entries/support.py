"""Estimate which entries are clean, before any network is fitted.

Shapes: C×H×W, an image.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.easy import are_few
from dop_lightning.engine.steps.clean_entries.errors import mean_errors, sample_of
from dop_lightning.engine.steps.clean_entries.estimate import clean_and_diversity
from dop_lightning.engine.steps.clean_entries.interpolation import interpolate
from dop_lightning.engine.steps.clean_entries.joint import Per, are_joint
from dop_lightning.engine.steps.clean_entries.medians import window_median
from dop_lightning.engine.steps.clean_entries.sharp import Sign
from dop_lightning.engine.steps.clean_entries.structure import SIDE

ROUNDS, ROUNDS_OF_RANDOM = 4, 2
"""Most rounds of support and interpolation, and those for many outliers of random values: with more of these, a support
that is too small is confirmed by what it leaves out."""

SAME = 0.01
"""The same, as a share of the outliers, below which the interpolation from the last w would be the same."""

RANDOM = 0.5
"""Diversity of the values of outliers above which they count as random."""

SETTLED = 3e-4
"""Mean change of w in a round below which there is no further one."""

DECIDED = 0.9999
"""With outliers of few values, entries that are clean with more than this probability are not predicted again."""

SAMPLE = 2000
"""Approximate number of pixels from which the error of the estimates is measured."""


MORE = 2.0
"""A first support that calls more entries corrupted than this many times those of the first look is doubted."""

FEW = 1e-3
"""Share of the entries by which it may exceed that in any case."""

AS_WELL = 1.05
"""Error of the first look's interpolation relative to that of the support's, up to which it predicts as well."""


class FirstSupport(NamedTuple):
    """What is known of the corruption before any fit.

    Attributes:
        clean: probability that each entry is clean, ``(C, H, W)``.
        diversity: of the values of outliers: 0 if they are few, such as those of dead and hot pixels, 1 if random.
        estimate: x̃ that they were found with, ``(C, H, W)``, if any.
        joint: whether the channels of a pixel are corrupted together.
        settled: whether the estimate is the interpolation from almost the same clean entries, at those that may be
            corrupted.
    """

    clean: Tensor
    diversity: float
    estimate: Tensor | None
    settled: bool = False
    joint: bool = False

    @property
    def is_random(self) -> bool:
        """Whether outliers have random values."""
        return self.diversity > RANDOM

    @property
    def is_uncertain(self) -> bool:
        """Whether the support may be worse than the first look: many outliers have random values."""
        return self.is_random and not are_few(self.clean)


def first_support(
    y: Tensor,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per: Per = "auto",
    sign: Sign = "auto",
    poll: Callable[[], None] | None = None,
    median: Tensor | None = None,
) -> FirstSupport:
    """Estimate which entries are clean, from medians and then by interpolation.

    The mixture is that of :func:`~dop_lightning.engine.steps.clean_entries.estimate.clean_probability`. No estimate
    uses the entry that it predicts, so any entries can serve as held-out ones: a sample, drawn with a fixed seed.

    Args:
        y: the observation, ``(C, H, W)``.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` for all.
        per: whether the channels of a pixel are corrupted together, ``pixel``, or independently, ``entry``. ``auto``
            estimates it from the first round if outliers have random values; those of few values are found without.
        sign: of the outliers.
        poll: called between the rounds; an exception that it raises ends the work.
        median: of the known entries in a window of :data:`~dop_lightning.engine.steps.clean_entries.structure.SIDE`
            pixels around each, if it is known already.

    >>> y = torch.full((1, 32, 32), 0.5)
    >>> y[0, ::5, ::5] = 1.0
    >>> clean = first_support(y).clean[0]
    >>> bool((clean[::5, ::5] < 0.1).all()), bool((clean[1::5] > 0.9).all())
    (True, True)
    """
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    sample = sample_pixels(y)
    estimate = window_median(y, known, SIDE) if median is None else median
    joint = per == "pixel"
    found = FirstSupport(known.to(y.dtype), 0.0, estimate, joint=joint)

    def support(estimate: Tensor) -> FirstSupport:
        found = clean_and_diversity(y, estimate, sample, scale, observed, joint, sign, calibrated=True)
        return FirstSupport(*found, estimate, joint=joint)

    for number in range(ROUNDS):
        before = found.clean
        if poll is not None:
            poll()
        found = support(estimate)
        if number == 0 and per == "auto" and found.is_random and are_joint(found.clean, observed):
            joint = True
            found = support(estimate)
        last = (ROUNDS_OF_RANDOM if found.is_random and not are_few(found.clean) else ROUNDS) - 1
        change = float((found.clean - before).abs().mean())
        if change < SETTLED:
            return found._replace(settled=number > 0 and change < SAME * float((1 - found.clean).mean()))
        if number >= last:
            break
        if found.diversity > 0 and not (number > 0 and are_few(found.clean)):
            estimate = interpolate(y, found.clean, first=estimate)
        else:  # most entries are clean by their values, or have hardly changed
            at = (found.clean <= DECIDED) | (sample & known)
            estimate = torch.where(at, interpolate(y, found.clean, at, first=estimate), estimate)
    return found


def sample_pixels(y: Tensor) -> Tensor:
    """Draw the pixels from which the error of the estimates is measured, with a fixed seed: bool ``(C, H, W)``."""
    drawn = torch.rand(y.shape[1:], generator=torch.Generator().manual_seed(0), device="cpu")
    return (drawn < SAMPLE / drawn.numel()).to(y.device).expand(y.shape)


def better_support(y: Tensor, look: Tensor, support: Tensor) -> Tensor:
    """Return the support, or the first look if that doubts much fewer entries and predicts as well.

    Under a pattern that no median follows, such as a checkerboard, the support may be wrong everywhere.

    Args:
        y: the observation, ``(C, H, W)``.
        look: probability of the first look that each entry is clean.
        support: probability of the first support.
    """
    if float((1 - support).mean()) <= MORE * float((1 - look).mean()) + FEW:
        return support
    both = look * support
    sample = sample_of(both, 0.5)
    errors = [mean_errors(y, interpolate(y, clean, sample), both * sample)[0] for clean in (look, support)]
    return support if errors[0] > AS_WELL * errors[1] else look  # the look, if they have nothing in common
