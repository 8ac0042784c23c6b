"""Structured damage: entries that are connected, so that their places do not tell them from the picture.

Shapes: C×H×W, an image.
"""

import warnings
from threading import Lock
from typing import Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.curves import looks_scratched, scratches
from dop_lightning.engine.steps.clean_entries.lines import dead_lines
from dop_lightning.foundation.checks import one_of
from dop_lightning.problems.problem import Problem, scale

Damage = Literal["auto", "points", "lines", "scratches"]
"""What may be damaged besides isolated entries: with ``points`` nothing; with ``lines`` and ``auto`` whole rows and
columns; with ``scratches`` thin curves as well."""


def check_damage(damage: str) -> Damage:
    """Return ``damage`` if it is known.

    >>> check_damage("tears")
    Traceback (most recent call last):
    ValueError: damage must be one of auto, points, lines, scratches, got 'tears'
    """
    one_of("damage", damage, get_args(Damage))
    return damage  # type: ignore[return-value]


def structured_damage(y: Tensor, damage: Damage = "auto", scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """The support of structured damage, told from the observation alone.

    Args:
        y: the observation, ``(C, H, W)``; of any other number of dimensions it has no structured damage.
        damage: what to look for.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are.

    Returns:
        bool, the shape of ``y``.
    """
    if y.dim() != 3 or damage == "points":
        return torch.zeros_like(y, dtype=torch.bool)
    found = dead_lines(y, scale, observed)
    return found | scratches(y, scale, observed) if damage == "scratches" else found


_FOUND: WeakKeyDictionary[Problem, dict[str, Tensor]] = WeakKeyDictionary()
"""What was found in whole problems: each of their tiles asks for it."""

_LOOKING = Lock()
"""Tiles ask side by side, and one of them looks."""


def damage_of(problem: Problem, damage: Damage) -> Tensor:
    """The support of structured damage of a problem, ``(*m)``, on the CPU; that of a tile is told from its whole.

    With ``auto``, a warning suggests to look for scratches where they are likely.
    """
    part = problem.part
    whole = problem if part is None else part.whole
    with _LOOKING:
        found = _FOUND.setdefault(whole, {})
        if damage not in found:
            found[damage] = structured_damage(whole.observation, damage, scale(whole), whole.mask)
            if damage == "auto" and looks_scratched(whole.observation, scale(whole), whole.mask):
                warnings.warn(
                    f"{whole.name} looks scratched: --damage scratches, in Python damage='scratches', fills these "
                    "lines in",
                    stacklevel=2,
                )
    return found[damage] if part is None else found[damage][..., part.rows, part.columns].contiguous()
