"""Structured damage: connected regions of corrupted entries, whose positions resemble those of image content.

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
"""Detectors of the kinds of damage other than isolated entries and dead rows and columns."""

DAMAGE = ("auto", "points", "lines", *_SEARCHES)
"""Allowed values of ``damage``. ``points`` detects isolated entries only. ``lines`` and ``auto`` also detect dead rows
and columns. Each other value detects one more kind; these can be combined, such as ``scratches+dust``."""

PART = 256
"""Side length, in pixels, of the parts of an image evaluated by :func:`likely_damage`."""

FEW_COLOURS, FEW_GREYS = 256, 48
"""Maximum number of colours, and of grey levels, of images without a suggestion, such as palette images."""

WINDOW, FAR = 5, 0.25
"""Side length of the median window in pixels, and minimum distance of an impulse from this median, in scales of the
observation."""

MIN_IMPULSES, MAX_IMPULSES = 0.002, 0.25
"""Fraction of such pixels up to which an image has no impulses, and above which impulses cannot be distinguished from
other damage."""

ISOLATED_FACTOR = 0.4
"""The pixels are impulses if the fraction of isolated ones exceeds this factor times that of independent pixels."""


def check_damage(damage: str) -> str:
    """Validate ``damage`` and return it.

    Raises:
        ValueError: ``damage`` is not one of :data:`DAMAGE` or a combination of kinds.

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
    """Detect the support of structured damage from the observation alone.

    Args:
        y: observation, ``(C, H, W)``. The result is empty for any other number of dimensions.
        damage: kinds of damage to detect, see :data:`DAMAGE`.
        scale: scale of the observation, positive.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed.

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
    """Suggest a value of ``damage`` for an image from its centre and its corners; ``None`` if none is likely.

    Half-transparent dust and scratches are not detected. No damage is suggested for images of few colours, nor for
    images with isolated impulses, which form specks by chance. Text is suggested only without scratches and dust,
    because their fragments can look like letters.

    Args:
        y: observation, ``(C, H, W)``.
        scale: scale of the observation, positive.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed.
    """
    if y.dim() != 3:
        return None
    parts = [
        (y[:, at[0], at[1]], scale, None if observed is None else observed[:, at[0], at[1]])
        for at in _searched_parts(y)
    ]
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
    """Return whether an image has few colours or grey levels. Flat regions are then no evidence of damage."""
    levels = (y.flatten(1) * 255).round()
    colours = _numbered(levels[0])
    for channel in levels[1:]:
        colours = _numbered(colours * channel.numel() + _numbered(channel))
    return int(colours.max()) < (FEW_COLOURS if y.shape[0] > 1 else FEW_GREYS)


def _numbered(values: Tensor) -> Tensor:
    """Replace each value by its position among the distinct ones."""
    return values.unique(return_inverse=True)[1]


def _has_impulses(y: Tensor, scale: float, observed: Tensor | None) -> bool:
    """Return whether pixels far from their local median are too many to evaluate, or isolated like independent pixels.

    If each pixel is far with probability p, independently, a fraction ``p(1 − p)⁸`` of the pixels is far and has no far
    neighbour.
    """
    known = torch.ones_like(y, dtype=torch.bool) if observed is None else observed
    far = (((y - window_median(y, known, WINDOW)).abs() > FAR * scale) & known).any(dim=0).to(y.dtype)
    share = float(far.mean())
    neighbours = avg_pool2d(far[None, None], 3, 1, 1, divisor_override=1)[0, 0] - far
    isolated = float((far * (neighbours < 0.5)).mean())
    return share > MAX_IMPULSES or (share > MIN_IMPULSES and isolated > ISOLATED_FACTOR * share * (1 - share) ** 8)


def _searched_parts(y: Tensor) -> list[tuple[slice, slice]]:
    """Return the central part and, for images larger than one part, the corners."""
    starts = [sorted({(n - PART) // 2, 0, n - PART}) if n > PART else [0] for n in y.shape[1:]]
    middle = tuple(slice(max(0, (n - PART) // 2), max(0, (n - PART) // 2) + PART) for n in y.shape[1:])
    corners = [(slice(top, top + PART), slice(left, left + PART)) for top in starts[0][::2] for left in starts[1][::2]]
    return [middle, *(each for each in corners if each != middle)]  # type: ignore[list-item]


_FOUND: WeakKeyDictionary[object, dict[str, Tensor]] = WeakKeyDictionary()
"""Cache of the damage of whole problems, shared by their tiles, kept while the tensors of the problem are in memory."""

_DETECTION_LOCK = Lock()
"""Tiles request the damage concurrently. The lock ensures that it is computed only once."""


def damage_of(problem: Problem, damage: str) -> Tensor:
    """Return the support of structured damage of a problem, ``(*m)``, on the CPU.

    For a tile, the damage is detected in the whole image. With ``auto``, a warning suggests a value of ``damage`` if
    other kinds of damage are likely.
    """
    part = problem.part
    whole = problem if part is None else part.whole
    with _DETECTION_LOCK:
        holder = whole.in_memory()
        found = _FOUND.setdefault(holder, {})
        if damage not in found:
            found[damage] = structured_damage(whole.observation, damage, scale(whole), whole.mask)
            likely = likely_damage(whole.observation, scale(whole), whole.mask) if damage == "auto" else None
            if likely:
                warnings.warn(
                    f"{whole.name} probably has {likely.replace('+', ' and ')}. Pass --damage {likely} (in Python: "
                    f"damage='{likely}') to restore the damaged areas.",
                    stacklevel=2,
                )
    return found[damage] if part is None else found[damage][..., part.rows, part.columns].contiguous()
