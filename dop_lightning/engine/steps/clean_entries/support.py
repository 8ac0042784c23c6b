"""Estimate which entries are clean before any network is fitted.

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
from dop_lightning.engine.steps.clean_entries.values import FAR_DISTANCE

ROUNDS, ROUNDS_OF_RANDOM = 4, 2
"""Maximum number of rounds of support and interpolation, in general and for many outliers with random values. With more
rounds of the latter, a support that is too small reinforces itself, because it excludes the entries that contradict
it."""

CONVERGENCE_TOLERANCE, UPDATE_TOLERANCE = 3e-4, 0.01
"""From the second round on, the rounds end when the mean change of w is below the larger of the first number and the
second one times the fraction of outliers. In the first round, only the first bound applies."""

FIRST_SETTLED = 3
"""Number, from 0, of the first round whose interpolation can count as up to date. Before, it classifies the pixels by
an interpolation from a median or from another support, and one more interpolation is better."""

RANDOM = 0.5
"""Diversity of the values of outliers above which they count as random."""

MIN_DECIDED_PROBABILITY = 0.9999
"""If outliers have few values, entries whose probability of being clean exceeds this are not predicted again."""

SAMPLE = 2000
"""Approximate number of pixels that are used to measure the error of the estimates."""


MAX_SUPPORT_RATIO = 2.0
"""The first support is compared with the first look if it flags more than this many times as many entries as corrupted,
plus :data:`SUPPORT_RATIO_SLACK`."""

SUPPORT_RATIO_SLACK = 1e-3
"""Fraction of all entries by which the support may exceed that bound."""

MAX_ERROR_RATIO = 1.05
"""Maximum error of the interpolation from the first look, relative to that from the support, to prefer the first
look."""


class FirstSupport(NamedTuple):
    """Estimate of the corruption before any fit.

    Attributes:
        clean: probability that each entry is clean, ``(C, H, W)``.
        diversity: diversity of the values of outliers: 0 for few values, as for dead and hot pixels, 1 for random ones.
        estimate: x̃ from which ``clean`` was estimated, ``(C, H, W)``, if any.
        settled: whether ``estimate``, at the entries that may be corrupted, is the interpolation from almost the same
            clean entries, with pixels classified by an earlier interpolation.
        joint: whether the channels of a pixel are corrupted together.
    """

    clean: Tensor
    diversity: float
    estimate: Tensor | None
    settled: bool = False
    joint: bool = False

    @property
    def is_random(self) -> bool:
        """Whether the outliers have random values."""
        return self.diversity > RANDOM

    @property
    def is_uncertain(self) -> bool:
        """Whether many outliers have random values, so that the support may be worse than the first look."""
        return self.is_random and not are_few(self.clean)


def first_support(
    y: Tensor,
    scale: float = 1.0,
    observed: Tensor | None = None,
    per: Per = "auto",
    sign: Sign = "auto",
    poll: Callable[[], None] | None = None,
    median: Tensor | None = None,
    distance: float = FAR_DISTANCE,
) -> FirstSupport:
    """Estimate which entries are clean, first from medians and then by interpolation.

    The mixture is that of :func:`~dop_lightning.engine.steps.clean_entries.estimate.clean_probability`. No estimate
    uses the entry that it predicts, so any entries can serve as held-out ones. A sample is drawn with a fixed seed.

    Args:
        y: the observation, ``(C, H, W)``.
        scale: scale of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed.
        per: ``pixel`` if the channels of a pixel are corrupted together, ``entry`` if independently. ``auto`` estimates
            this after the first round if the outliers have random values; otherwise it is ``entry``.
        sign: sign of the outliers.
        poll: called before each round; it may raise an exception to stop the computation.
        median: median of the known entries in a window of
            :data:`~dop_lightning.engine.steps.clean_entries.structure.SIDE` pixels around each entry; computed by
            default.
        distance: distance from the estimate beyond which entries are far, in scales of the observation, positive.

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
        found = clean_and_diversity(
            y, estimate, sample, scale, observed, joint, sign, calibrated=True, distance=distance
        )
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
        slight = UPDATE_TOLERANCE * float((1 - found.clean).mean())
        if change < max(CONVERGENCE_TOLERANCE, slight if number > 0 else 0):
            return found._replace(settled=number >= FIRST_SETTLED and change < slight)
        if number >= last:
            break
        if found.diversity > 0 and not (number > 0 and are_few(found.clean)):
            estimate = interpolate(y, found.clean, first=estimate)
        else:  # most entries are clearly clean, or have hardly changed
            at = (found.clean <= MIN_DECIDED_PROBABILITY) | (sample & known)
            estimate = torch.where(at, interpolate(y, found.clean, at, first=estimate), estimate)
    return found


def sample_pixels(y: Tensor, fraction: float | None = None) -> Tensor:
    """Draw the pixels for measuring the error of the estimates, with a fixed seed; bool ``(C, H, W)``.

    Args:
        y: the observation, ``(C, H, W)``.
        fraction: fraction of the pixels; by default, about :data:`SAMPLE` pixels.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(y.shape[1:], generator=generator, dtype=torch.float32, device="cpu")
    return (drawn < (SAMPLE / drawn.numel() if fraction is None else fraction)).to(y.device).expand(y.shape)


def better_support(y: Tensor, look: Tensor, support: Tensor) -> Tensor:
    """Return the support, or the first look if it flags far fewer entries as corrupted and predicts as well.

    In a pattern that medians cannot reproduce, such as a checkerboard, the support may be wrong everywhere.

    Args:
        y: the observation, ``(C, H, W)``.
        look: probability that each entry is clean, from the first look.
        support: probability that each entry is clean, from the first support.
    """
    if float((1 - support).mean()) <= MAX_SUPPORT_RATIO * float((1 - look).mean()) + SUPPORT_RATIO_SLACK:
        return support
    both = look * support
    sample = sample_of(both, 0.5)
    errors = [mean_errors(y, interpolate(y, clean, sample), both * sample)[0] for clean in (look, support)]
    return support if errors[0] > MAX_ERROR_RATIO * errors[1] else look  # the look if no sampled entry is clean in both
