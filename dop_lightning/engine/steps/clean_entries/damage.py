"""Structured damage: entries that are connected, so that their places do not tell them from the picture.

Shapes: C×H×W, an image.
"""

import warnings
from collections.abc import Callable
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.curves import looks_scratched, scratches
from dop_lightning.engine.steps.clean_entries.dust import dust_specks, looks_dusty
from dop_lightning.engine.steps.clean_entries.lettering import printed_text
from dop_lightning.engine.steps.clean_entries.lines import dead_lines
from dop_lightning.engine.steps.clean_entries.rectangles import dead_rectangles
from dop_lightning.problems.problem import Problem, scale

_SEARCHES: dict[str, Callable[[Tensor, float, Tensor | None], Tensor]] = {
    "scratches": scratches,
    "rectangles": dead_rectangles,
    "dust": dust_specks,
    "text": printed_text,
}
"""What may be damaged besides isolated entries and whole rows and columns."""

DAMAGE = ("auto", "points", "lines", *_SEARCHES)
"""The values of ``damage``. ``points`` is isolated entries only; ``lines`` and ``auto`` add dead rows and columns; the
others add one more kind each, and may be joined, as in ``scratches+dust``."""

PART = 256
"""Side of the parts of an image by which :func:`likely_damage` judges it, pixels."""

FEW_COLOURS, FEW_GREYS = 256, 48
"""Colours of a palette, and levels of a grey image, up to which nothing is suggested."""


def check_damage(damage: str) -> str:
    """Return ``damage`` if it is valid.

    >>> check_damage("scratches+dust")
    'scratches+dust'
    >>> check_damage("tears")
    Traceback (most recent call last):
    ValueError: damage must be one of auto, points, lines, scratches, rectangles, dust, text, or several of the last \
four joined by '+', got 'tears'
    """
    kinds = damage.split("+") if isinstance(damage, str) else []
    if damage in DAMAGE or (len(kinds) == len(set(kinds)) > 1 and set(kinds) <= set(_SEARCHES)):
        return damage
    raise ValueError(
        f"damage must be one of {', '.join(DAMAGE)}, or several of the last four joined by '+', got {damage!r}"
    )


def structured_damage(y: Tensor, damage: str = "auto", scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Find the support of structured damage from the observation alone.

    Args:
        y: the observation, ``(C, H, W)``; of any other number of dimensions it has no structured damage.
        damage: what to look for, see :func:`check_damage`.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are.

    Returns:
        bool, the shape of ``y``.
    """
    if y.dim() != 3 or damage == "points":
        return torch.zeros_like(y, dtype=torch.bool)
    found = dead_lines(y, scale, observed)
    for kind in damage.split("+"):
        if kind in _SEARCHES:
            found = found | _SEARCHES[kind](y, scale, observed)
    return found


def likely_damage(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> str | None:
    """Suggest an option of ``damage`` for an image, by its middle and its corners; ``None`` if there is no reason to.

    Half transparent dust and scratches are not noticed, and nothing is suggested for images of few colours. Text is
    suggested only where there are no scratches and no dust, whose pieces may look like letters.

    Args:
        y: the observation, ``(C, H, W)``.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are.
    """
    if y.dim() != 3:
        return None
    parts = [(y[:, at[0], at[1]], scale, None if observed is None else observed[:, at[0], at[1]]) for at in _parts(y)]
    if _has_few_colours(parts[0][0] / scale):
        return None
    kinds = {
        "scratches": looks_scratched(y, scale, observed),
        "rectangles": any(bool(dead_rectangles(*part).any()) for part in parts),
        "dust": looks_dusty(*parts[0]),
    }
    if not kinds["scratches"] and not kinds["dust"]:
        kinds["text"] = any(bool(printed_text(*part).any()) for part in parts)
    return "+".join(kind for kind, likely in kinds.items() if likely) or None


def _has_few_colours(y: Tensor) -> bool:
    """Return whether an image has a palette or few grey levels, so that flat parts and equal values mean nothing."""
    colours = (y.flatten(1) * 255).round().unique(dim=1).shape[1]
    return colours <= (FEW_COLOURS if y.shape[0] > 1 else FEW_GREYS)


def _parts(y: Tensor) -> list[tuple[slice, slice]]:
    """The middle and, of larger images, the corners."""
    starts = [sorted({(n - PART) // 2, 0, n - PART}) if n > PART else [0] for n in y.shape[1:]]
    middle = tuple(slice(max(0, (n - PART) // 2), max(0, (n - PART) // 2) + PART) for n in y.shape[1:])
    corners = [(slice(top, top + PART), slice(left, left + PART)) for top in starts[0][::2] for left in starts[1][::2]]
    return [middle, *(each for each in corners if each != middle)]  # type: ignore[list-item]


_FOUND: WeakKeyDictionary[Problem, dict[str, Tensor]] = WeakKeyDictionary()
"""What was found in whole problems: each of their tiles asks for it."""

_LOOKING = Lock()
"""Tiles ask side by side, and one of them looks."""


def damage_of(problem: Problem, damage: str) -> Tensor:
    """The support of structured damage of a problem, ``(*m)``, on the CPU; that of a tile is that of its whole.

    With ``auto``, a warning suggests an option where other kinds of damage are likely.
    """
    part = problem.part
    whole = problem if part is None else part.whole
    with _LOOKING:
        found = _FOUND.setdefault(whole, {})
        if damage not in found:
            found[damage] = structured_damage(whole.observation, damage, scale(whole), whole.mask)
            likely = likely_damage(whole.observation, scale(whole), whole.mask) if damage == "auto" else None
            if likely:
                warnings.warn(
                    f"{whole.name} is likely to have {likely.replace('+', ' and ')}: pass --damage {likely}, in Python "
                    f"damage='{likely}', to fill them in",
                    stacklevel=2,
                )
    return found[damage] if part is None else found[damage][..., part.rows, part.columns].contiguous()
