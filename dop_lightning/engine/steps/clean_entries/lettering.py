r"""Printed text: date stamps, captions and watermarks, drawn over a photograph in one opaque colour.

1. *Colour.* Strokes are thin, so one of the top-hats ``y − open(y)`` and ``close(y) − y`` with a disk of 7 pixels is
   large in some channel. The candidates are the most frequent colours of thin pixels.
2. *Core.* For a candidate c, the distance field ``d = max over channels |y − c|`` is 0 in the strokes. The core
   consists of the pixels with ``d ≤ 2.5/255`` and ``close(d) > 0.15``: they are thin and differ from the background.
3. *Letters.* Blended pixels at the edges of strokes connect the pieces of the core into letters. Adjacent letters of
   similar height form a line of text if most of its pixels close to c belong to the core: text has one colour, within
   one grey level, while thin structures in a photograph are shaded. Once a line is found, weaker thresholds apply to
   other lines of its colour.
4. *Support.* The core, and the pixels connected to it that differ from the background, which is a normalized average of
   the surroundings. The support extends one pixel from the core, or three if the text has an outline.

Lines of text must be horizontal, and letters at most 30 pixels tall.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from dop_lightning.engine.steps.clean_entries.blur import local_mean
from dop_lightning.engine.steps.clean_entries.components import Boxes, dilate, grow, labels
from dop_lightning.engine.steps.clean_entries.curves import closed, disk, opened

MIN_STROKE_CONTRAST = 0.15
"""Minimum contrast of a stroke, in scales of the observation."""

COLOUR_TOLERANCE = 2.5 / 255
"""Tolerance of the colour, in scales of the observation."""

CANDIDATES = 5
"""Maximum number of candidate colours."""

MIN_THIN_PIXELS = 40
"""Minimum number of thin pixels of a candidate colour."""

MAX_COLOUR_DISTANCE = 0.25
"""A pixel is close to the colour if its d is at most this fraction of the contrast."""

PURE, PURE_BESIDE, PURE_SMALL = 0.4, 0.25, 0.1
"""Minimum fraction of the close pixels that have the colour: in the first line of text, in other lines of the same
colour, and in other lines of small letters, which are mostly blended."""

MIN_LINE_PIXELS = 25
"""Minimum number of core pixels in the first line."""

SHORTEST, TALLEST = 5, 30
"""Minimum and maximum height of a letter, pixels."""

MAX_LETTER_GAP = 9
"""Maximum gap between two letters, pixels."""

LETTERS = 4
"""Minimum number of letters in the first line."""

LETTER_ASPECT_RATIO = 0.8
"""Typical width of a letter relative to its height."""

MIN_ALIGNED_FRACTION = 0.6
"""Minimum fraction of the letters in a line that are aligned and whose height is within a third of the median."""

MIN_PAGE_FRACTION = 0.3
"""Fraction of pixels with one of the two most frequent grey levels above which an image counts as a page or a
screenshot."""

EDGE = 0.06
"""Minimum difference of an edge pixel from the background, in scales of the observation."""

OUTLINE = 3
"""Maximum width of an outline around the core, pixels."""

MIN_OUTLINE_FRACTION = 0.12
"""Fraction of the pixels around the core that share one other colour above which the text has an outline."""

BLUR = 2.5
"""Standard deviation of the window for averaging the background, pixels."""


def printed_text(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Find the pixels of printed text, in all channels.

    Args:
        y: the observation, ``(C, H, W)``; no text is detected for any other number of dimensions.
        scale: scale of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed. Unobserved entries are never text.

    Returns:
        bool, the shape of ``y``, true for text.
    """
    if y.dim() != 3 or min(y.shape[1:]) < 24:
        return torch.zeros_like(y, dtype=torch.bool)
    known = torch.ones_like(y[0], dtype=torch.bool) if observed is None else observed.all(dim=0)
    values = torch.where(known, y / scale, 0)
    values = torch.where(known, values, local_mean(values, known, BLUR))
    found = torch.zeros_like(known)
    for colour in _text_colours(values, known):
        found |= _text_core(values, colour, known)
    if not bool(found.any()) or _most_frequent(values, known & ~found) > MIN_PAGE_FRACTION:
        return torch.zeros_like(y, dtype=torch.bool)
    return _text_support(values, found, known).expand_as(y) & (known if observed is None else observed)


def _most_frequent(y: Tensor, places: Tensor) -> float:
    """Return the fraction of entries with one of the two most frequent grey levels."""
    levels = (y[:, places].mean(dim=0) * 255).round()
    return float(levels.unique(return_counts=True)[1].sort().values[-2:].sum()) / max(1, levels.numel())


def _text_colours(y: Tensor, known: Tensor) -> list[Tensor]:
    """Return the most frequent colours of thin pixels, ``(C,)`` each."""
    contrast = torch.maximum(y - opened(y, disk()), closed(y, disk()) - y).amax(dim=0)
    levels, counts = (y[:, (contrast > MIN_STROKE_CONTRAST) & known] * 255).round().unique(dim=1, return_counts=True)
    result: list[Tensor] = []
    for k in counts.argsort(descending=True).tolist():
        if int(counts[k]) < MIN_THIN_PIXELS or len(result) == CANDIDATES:
            break
        colour = levels[:, k] / 255
        if all(float((colour - other).abs().amax()) > COLOUR_TOLERANCE for other in result):
            result.append(colour)
    return result


def _text_core(y: Tensor, colour: Tensor, known: Tensor) -> Tensor:
    """Return the core of the text of one colour, ``(H, W)``."""
    distance = (y - colour[:, None, None]).abs().amax(dim=0)
    around = closed(distance[None], disk())[0]
    thin = (around > MIN_STROKE_CONTRAST) & known
    core = (distance <= COLOUR_TOLERANCE) & thin
    near = (distance <= (MAX_COLOUR_DISTANCE * around).clamp_min(COLOUR_TOLERANCE)) & thin
    text = torch.zeros_like(core)
    if not bool(core.any()):
        return text
    letters = labels(grow(core, (distance <= 0.5 * around) & thin))
    boxes = Boxes.of(letters)
    fitting = (boxes.height >= SHORTEST) & (boxes.height <= TALLEST)
    inside = torch.cat([fitting.new_zeros(1), fitting])[letters]
    lines = labels(max_pool2d(inside[None].float(), (1, MAX_LETTER_GAP), 1, (0, MAX_LETTER_GAP // 2))[0] > 0)
    spans = Boxes.of(lines)
    sure, likely = [], []
    cores = lines[core & inside].bincount(minlength=spans.size.numel() + 1)[1:]
    for k in ((spans.width >= 2 * SHORTEST) & (cores >= MIN_LINE_PIXELS // 2)).nonzero().flatten().tolist():
        part = spans.slices(k)
        one = (lines[part] == k + 1) & inside[part]
        own = letters[part][one].unique() - 1
        heights, middles = boxes.height[own].double(), (boxes.top[own] + boxes.bottom[own]).double() / 2
        alike = (heights - heights.median()).abs() <= heights.median() / 3
        level = (middles - middles.median()).abs() <= heights.median() / 2
        order, size = float((alike & level).double().mean()), int(core[part][one].sum())
        pure = size / max(1, int((near[part] & one).sum()))
        count = float(
            (boxes.width[own] / (LETTER_ASPECT_RATIO * heights)).round().clamp_min(1).sum()
        )  # touching letters
        if count >= LETTERS and order >= MIN_ALIGNED_FRACTION and pure >= PURE and size >= MIN_LINE_PIXELS:
            sure.append((own, k))
        elif (
            size >= MIN_LINE_PIXELS // 2
            and order >= MIN_ALIGNED_FRACTION
            and ((count >= 2 and pure >= PURE_BESIDE) or (len(own) > LETTERS and pure >= PURE_SMALL))
        ):
            likely.append((own, k))
    for own, k in sure + likely if sure else []:
        rows = slice(max(0, int(boxes.top[own].min()) - 2), int(boxes.bottom[own].max()) + 2)
        columns = slice(max(0, int(spans.left[k]) - MAX_LETTER_GAP), int(spans.right[k]) + MAX_LETTER_GAP)
        text[rows, columns] |= (core | near)[rows, columns]
    return text


def _text_support(y: Tensor, core: Tensor, known: Tensor) -> Tensor:
    """Return the core, the blended pixels at its edge, and the outline, ``(H, W)``."""
    rings = [core]
    for _ in range(OUTLINE):
        rings.append(dilate(rings[-1]))
    off = ((y - local_mean(y, known & ~rings[-1], BLUR)).abs().amax(dim=0) > EDGE) & known
    reach = rings[-1] if _is_outlined(y, core, rings[2] & ~core & known) else rings[1]
    return grow(core, off & reach)


def _is_outlined(y: Tensor, core: Tensor, ring: Tensor) -> bool:
    """Return whether many pixels around the core share one colour that differs from the text colour."""
    text = y[:, core].median(dim=1, keepdim=True).values
    others = y[:, ring]
    others = others[:, (others - text).abs().amax(dim=0) > 2 * MIN_STROKE_CONTRAST]
    counts = (others * 255).round().unique(dim=1, return_counts=True)[1]
    return counts.numel() > 0 and float(counts.max()) > MIN_OUTLINE_FRACTION * float(ring.sum())
