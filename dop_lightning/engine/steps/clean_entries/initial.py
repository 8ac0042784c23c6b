"""What is known of the corruption of a problem before any fit: damage, flat borders, first look and first support.

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
        look: the first look, at the entries of ``mask``; others have probability 0.
        mask: bool, the observed entries without structured damage.
        damaged: bool, structured damage and flat border lines.
        border: value of flat border lines; NaN elsewhere.
        undamaged: bool, observed entries that are known to be clean, if any.
    """

    look: FirstLook
    mask: Tensor
    damaged: Tensor
    border: Tensor
    undamaged: Tensor | None = None

    @property
    def flat(self) -> Tensor:
        """Entries of flat border lines, bool."""
        return self.border.isfinite()


def initial(
    problem: Problem, damage: str = "auto", per_pixel: bool = False, sign: Sign = "auto", y: Tensor | None = None
) -> Initial:
    """Detect structured damage and flat borders, and take the first look at the other entries.

    Args:
        problem: whose entries are entries of the signal.
        damage: see :func:`~dop_lightning.engine.steps.clean_entries.structured_damage`.
        per_pixel: whether the channels of a pixel are corrupted together.
        sign: of the outliers.
        y: its observation on the device to work on; by default where it is.
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
    """Estimate which entries of an image are clean: those of the first look if it decides or is better.

    Recurring patterns are evidence for both (:func:`~dop_lightning.engine.steps.clean_entries.with_recurrence`).

    Args:
        found: by :func:`initial`.
        y: the observation, ``(C, H, W)``.
        scale: of the observation, above 0.
        per: whether the channels of a pixel are corrupted together; ``auto`` estimates it, see
            :func:`~dop_lightning.engine.steps.clean_entries.first_support`.
        sign: of the outliers.
        poll: called between the steps; an exception that it raises ends the work.

    Returns:
        The support, without an estimate if it is that of the first look.
    """
    look = found.look.clean
    if found.look.decides:
        return FirstSupport(look, 0.0, None, joint=per == "pixel")
    support = first_support(y, scale, found.mask, per, sign, poll, found.look.median)
    better = better_support(y, look, support.clean)
    if better is look:
        return FirstSupport(look, support.diversity, None, joint=support.joint)
    clean = with_recurrence(y, better, found.mask, support.joint)
    if found.undamaged is not None:
        clean = clean.masked_fill(found.undamaged, 1)
    return support._replace(clean=clean, settled=support.settled and clean is better)
