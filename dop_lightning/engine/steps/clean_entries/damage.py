"""Structured damage: entries that are connected, so that their places do not tell them from the picture.

Shapes: C×H×W, an image.
"""

import warnings
from collections.abc import Callable
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dop_lightning.engine.steps.clean_entries.curves import looks_scratched, scratches
from dop_lightning.engine.steps.clean_entries.dust import dust_specks, looks_dusty
from dop_lightning.engine.steps.clean_entries.lettering import printed_text
from dop_lightning.engine.steps.clean_entries.lines import dead_lines
from dop_lightning.engine.steps.clean_entries.medians import window_median
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

WINDOW, FAR = 5, 0.25
"""An impulse is farther than this, in scales of the observation, from the median of a window of so many pixels."""

FEWEST_IMPULSES, MOST_IMPULSES = 0.002, 0.25
"""Shares of such pixels up to which there are no impulses, and from which they cannot be told from other damage."""

ISOLATED = 0.4
"""Share of the isolated pixels among independent ones from which the pixels are impulses."""


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

    Half transparent dust and scratches are not noticed, and nothing is suggested for images of few colours or with
    isolated impulses, which form specks by chance. Text is suggested only where there are no scratches and no dust,
    whose pieces may look like letters.

    Args:
        y: the observation, ``(C, H, W)``.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are.
    """
    if y.dim() != 3:
        return None
    parts = [(y[:, at[0], at[1]], scale, None if observed is None else observed[:, at[0], at[1]]) for at in _parts(y)]
    if _has_few_colours(parts[0][0] / scale) or _has_impulses(*parts[0]):
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


def _has_impulses(y: Tensor, scale: float, observed: Tensor | None) -> bool:
    """Return whether pixels far from the median around them are mostly isolated, as independent ones would be.

    Of independent pixels of share p, ``p(1 − p)⁸`` have no neighbour of their kind.
    """
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    far = (((y - window_median(y, known, WINDOW)).abs() > FAR * scale) & known).any(dim=0).to(y.dtype)
    share = float(far.mean())
    neighbours = avg_pool2d(far[None, None], 3, 1, 1, divisor_override=1)[0, 0] - far
    isolated = float((far * (neighbours < 0.5)).mean())
    return share > MOST_IMPULSES or (share > FEWEST_IMPULSES and isolated > ISOLATED * share * (1 - share) ** 8)


def _parts(y: Tensor) -> list[tuple[slice, slice]]:
    """The middle and, of larger images, the corners."""
    starts = [sorted({(n - PART) // 2, 0, n - PART}) if n > PART else [0] for n in y.shape[1:]]
    middle = tuple(slice(max(0, (n - PART) // 2), max(0, (n - PART) // 2) + PART) for n in y.shape[1:])
    corners = [(slice(top, top + PART), slice(left, left + PART)) for top in starts[0][::2] for left in starts[1][::2]]
    return [middle, *(each for each in corners if each != middle)]  # type: ignore[list-item]


_FOUND: WeakKeyDictionary[object, dict[str, Tensor]] = WeakKeyDictionary()
"""What was found in whole problems while their tensors are in memory: each of their tiles asks for it."""

_LOOKING = Lock()
"""Tiles ask side by side, and one of them looks."""


def damage_of(problem: Problem, damage: str) -> Tensor:
    """The support of structured damage of a problem, ``(*m)``, on the CPU; that of a tile is that of its whole.

    With ``auto``, a warning suggests an option where other kinds of damage are likely.
    """
    part = problem.part
    whole = problem if part is None else part.whole
    with _LOOKING:
        holder = whole.in_memory()
        found = _FOUND.setdefault(holder, {})
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
