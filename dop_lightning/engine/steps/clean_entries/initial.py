"""Initial estimate of the corruption of a problem before any fit: damage, flat borders, first look and first support.

Shapes: ``*m`` one observation, C×H×W for an image.
"""

from collections.abc import Callable
from math import nan
from typing import NamedTuple

from torch import Tensor

from dop_lightning.engine.steps.clean_entries.border import border_of
from dop_lightning.engine.steps.clean_entries.damage import damage_of
from dop_lightning.engine.steps.clean_entries.joint import Per
from dop_lightning.engine.steps.clean_entries.recurrence import with_recurrence
from dop_lightning.engine.steps.clean_entries.sharp import Sign
from dop_lightning.engine.steps.clean_entries.structure import FirstLook, first_look
from dop_lightning.engine.steps.clean_entries.support import FirstSupport, better_support, first_support
from dop_lightning.engine.steps.clean_entries.undamaged import known_undamaged, with_undamaged, without_undamaged
from dop_lightning.problems.problem import Problem, scale


class Initial(NamedTuple):
    """Result of :func:`initial`.

    Attributes:
        look: first look at the entries of ``mask``; other entries have probability 0 of being clean.
        mask: bool, observed entries outside of ``damaged``.
        damaged: bool, entries of structured damage and flat border lines.
        border: values of flat border lines; NaN elsewhere.
        undamaged: bool, observed entries known to be clean; ``None`` if none are specified.
    """

    look: FirstLook
    mask: Tensor
    damaged: Tensor
    border: Tensor
    undamaged: Tensor | None = None

    @property
    def flat(self) -> Tensor:
        """Entries of flat border lines; bool."""
        return self.border.isfinite()


def initial(
    problem: Problem, damage: str = "auto", per_pixel: bool = False, sign: Sign = "auto", y: Tensor | None = None
) -> Initial:
    """Detect structured damage and flat borders, and take the first look at the other entries.

    Args:
        problem: a problem that observes entries of the signal directly.
        damage: see :func:`~dop_lightning.engine.steps.clean_entries.structured_damage`.
        per_pixel: whether the channels of a pixel are corrupted together.
        sign: sign of the outliers.
        y: the observation of ``problem``, on the device to use. By default, the observation is used on its current
            device.
    """
    y = problem.observation if y is None else y
    border, undamaged = border_of(problem, damage).to(y.device), known_undamaged(problem)
    if undamaged is not None:
        undamaged = undamaged.to(y.device)
        border = border.masked_fill(undamaged, nan)
    damaged = without_undamaged(damage_of(problem, damage).to(y.device), problem) | border.isfinite()
    mask = ~damaged if problem.mask is None else problem.mask.to(y.device) & ~damaged
    look = first_look(y, scale(problem), mask, per_pixel, problem.noise, sign)
    if not look.by_noise:
        look = look._replace(clean=with_recurrence(y, look.clean, mask, per_pixel))
    return Initial(look._replace(clean=with_undamaged(look.clean, problem)), mask, damaged, border, undamaged)


def initial_support(
    found: Initial,
    y: Tensor,
    scale: float = 1.0,
    per: Per = "auto",
    sign: Sign = "auto",
    poll: Callable[[], None] | None = None,
) -> FirstSupport:
    """Estimate which entries of an image are clean.

    The result is the first look if it is decisive or better than the first support; otherwise it is the first support.
    Both include evidence from recurring patterns
    (:func:`~dop_lightning.engine.steps.clean_entries.with_recurrence`).

    Args:
        found: result of :func:`initial`.
        y: observation, ``(C, H, W)``.
        scale: scale of the observation, positive.
        per: whether the channels of a pixel are corrupted together. ``auto`` estimates it, see
            :func:`~dop_lightning.engine.steps.clean_entries.first_support`.
        sign: sign of the outliers.
        poll: function called between the steps. To cancel, raise an exception in it.

    Returns:
        The support. It has no estimate if the first look is used.
    """
    look = found.look.clean
    if found.look.decides:
        return FirstSupport(look, 0.0, None, joint=per == "pixel")
    support = first_support(y, scale, found.mask, per, sign, poll, found.look.median, found.look.distance)
    better = better_support(y, look, support.clean)
    if better is look:
        return FirstSupport(look, support.diversity, None, joint=support.joint)
    clean = with_recurrence(y, better, found.mask, support.joint)
    if found.undamaged is not None:
        clean = clean.masked_fill(found.undamaged, 1)
    return support._replace(clean=clean, settled=support.settled and clean is better)
