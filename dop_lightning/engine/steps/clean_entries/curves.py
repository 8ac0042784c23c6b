r"""Detection of scratches and creases: thin curves across an image.

An opaque scratch has a constant value along its length. A half-transparent scratch shows ``(1 − o)·x + o·v`` with
constant opacity o and constant value v, white or black. In contrast, edges of objects are steps, and lines of objects
are blurred and shaded.

Scratches of exactly one value or one opacity, up to rounding to 8 bits, are paths of maximum likelihood
(``exact_scratches.py``). If there are almost none, for instance because the file was compressed, thin structures are
searched with tolerances. Bright curves are found as follows. Dark curves are the bright curves of 1 − y.

1. *Thin structures.* The top-hat ``T = y − open(y)`` by a disk of diameter 7 pixels, averaged over the channels, is the
   contrast of structures narrower than the disk. The opening by lines of L pixels in 16 directions,
   ``P = min(T, max_θ open_θ(dilate(T)))``, keeps structures at least L pixels long. The dilation tolerates steps of one
   pixel across the line.
2. *Constant values.* Consider the line through a pixel p in one of the directions, and the fraction of its pixels at or
   beside which a field f is within a tolerance of f(p). The agreement of f at p is the maximum of this fraction over
   the directions. For opaque scratches, f is y, with a tolerance of 2.5 grey levels of 8 bits. For half-transparent
   scratches, f is the opacity ``o = (y − b)/(1 − b)`` with the background b, a local mean of the surrounding pixels,
   and o must lie at the peak of its histogram over long lines. If neither kind is found, long lines much brighter than
   all thin structures around them are creases, where the paper shows.
3. *Connected components.* Pixels of high agreement are seeds. Thin pixels of lower agreement are added if they are
   connected to a seed. Components shorter than 12 pixels are dropped.

Shapes: C×H×W, an image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from dop_lightning.engine.steps.clean_entries.blur import local_mean
from dop_lightning.engine.steps.clean_entries.components import Extents, grow
from dop_lightning.engine.steps.clean_entries.exact_scratches import exact_scratches

Offset = tuple[int, int]

DIRECTIONS = 16
"""Number of line directions over 180°."""

DISK = 3.04
"""Radius of the disk in pixels. Structures narrower than 7 pixels are thin."""

SHORT, LONG = 11, 21
"""Line length L in pixels, for candidate pixels and for seeds."""

FAINT, CLEAR = 0.05, 0.1
"""Minimum contrast P of candidate pixels and of seeds, in scales of the observation."""

MIN_CONTRAST_RATIO = 2.0
"""Minimum ratio of the contrast of a seed to the mean contrast of thin structures around it."""

BOLD, BOLDER = 0.15, 5.0
"""Minimum contrast, and minimum ratio to the contrast around, for creases. They are stricter because creases are
detected by contrast alone."""

CONTRAST_WINDOW = 41
"""Side length of the window of this mean, in pixels."""

VALUE_TOLERANCE = 2.5 / 255
"""Tolerance for equal values, in scales of the observation."""

SAME_OPACITY = 0.08
"""Tolerance for equal opacities."""

LOOSE, SURE = 0.65, 0.95
"""Minimum agreement of candidate pixels and of seeds."""

PEAK = 0.25
"""Minimum fraction of pixels of long lines at the most frequent opacity for scratches to be half-transparent."""

MIN_EXACT_FRACTION = 0.007
"""If exact scratches cover less than this fraction of the pixels, thin structures are searched."""

MAX_SCRATCH_FRACTION_FOR_CREASES = 0.01
"""If scratches cover less than this fraction of the pixels, creases are searched. An image is assumed to have only one
of the two kinds of damage."""

MIN_SCRATCH_EXTENT = 64
"""Minimum extent, in pixels, of the scratches considered by :func:`looks_scratched`."""

SPECKLED, SPECKS = 0.15, 0.08
"""Minimum difference from the median along the row, and maximum fraction of pixels with such a difference. Above this
fraction, the image contains impulses."""

MIDDLE = 256
"""Side length, in pixels, of the central part evaluated by :func:`looks_scratched`. Images smaller than half of it are
not evaluated."""

MIN_DRAWING_FRACTION = 0.3
"""Fraction of the two most frequent grey levels above which an image is a drawing, a page or a screenshot."""

MAX_HALF_TRANSPARENT_FRACTION = 0.1
"""Fraction of pixels above which apparent half-transparent scratches are considered texture."""

OPACITIES = (0.25, 0.9)
"""Range of the opacity of half-transparent scratches."""

BLUR = 2.5
"""Standard deviation, in pixels, of the Gaussian window over which the background is averaged."""

SHORTEST = 12
"""Minimum extent of a scratch, in pixels."""


def scratches(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Return the support of scratches and creases.

    Args:
        y: observation, ``(C, H, W)``. The result is empty for any other number of dimensions.
        scale: scale of the observation, positive.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed. Pixels with an unobserved channel are
            never part of a scratch.

    Returns:
        bool, the shape of ``y``; equal in all channels.

    >>> rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    >>> y = 0.5 + 0.2 * torch.sin(rows / 9) + 0.2 * torch.cos(columns / 7)
    >>> y[10:50, 30] = 1.0
    >>> found = scratches(y[None])[0]
    >>> bool(found[10:50, 30].all()), int(found.sum())
    (True, 40)
    """
    if y.dim() != 3 or min(y.shape[1:]) < LONG:
        return torch.zeros_like(y, dtype=torch.bool)
    known = torch.ones_like(y[0], dtype=torch.bool) if observed is None else observed.all(dim=0)
    found = exact_scratches(_from_black(y, scale, known), known).to(y.device)
    if float(found.to(torch.float32).mean()) < MIN_EXACT_FRACTION:
        found = found | _thin_scratches(y, scale, known)
    return _drop_short(found).expand_as(y) & (known if observed is None else observed)


def _from_black(y: Tensor, scale: float, known: Tensor) -> Tensor:
    """Return y in [0, 1]. Black is 0, or the minimum if y is not within [0, scale]."""
    values = y[:, known] / scale
    inside = values.numel() == 0 or (float(values.amin()) >= 0 and float(values.amax()) <= 1)
    return (y / scale - (0.0 if inside else float(values.amin()))).clamp(0, 1)


def _thin_scratches(y: Tensor, scale: float, known: Tensor) -> Tensor:
    """Return thin structures of nearly one value or nearly one opacity, or, if there are few, creases; ``(H, W)``."""
    both = _thin_structures(y, scale, known)
    found = both[0].opaque() | both[1].opaque()
    share, half = max((each.half_transparent() for each in both), key=lambda each: each[0])
    if share >= PEAK and int(found.sum()) < int(half.sum()) < MAX_HALF_TRANSPARENT_FRACTION * half.numel():
        found = found | half
    if float(found.to(y.dtype).mean()) < MAX_SCRATCH_FRACTION_FOR_CREASES:
        found = found | both[0].creases()
    return found


def looks_scratched(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> bool:
    """Return whether the central part of an image is likely to have opaque scratches.

    Only the mean of the channels is evaluated, because scratches are present in all channels. The result is ``False``
    for drawings, for images with impulses and for images smaller than half of :data:`MIDDLE`.

    Args:
        y: observation, ``(C, H, W)``.
        scale: scale of the observation, positive.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed.
    """
    if y.dim() != 3 or min(y.shape[1:]) < MIDDLE // 2:
        return False
    rows, columns = (slice(max(0, (side - MIDDLE) // 2), (side + MIDDLE) // 2) for side in y.shape[1:])
    part = y[:, rows, columns].mean(dim=0, keepdim=True)
    known = torch.ones_like(part[0], dtype=torch.bool) if observed is None else observed[:, rows, columns].all(dim=0)
    levels = (part[0, known] / scale * 255).round()
    counts = levels.unique(return_counts=True)[1].sort().values
    if levels.numel() == 0 or float(counts[-2:].sum()) > MIN_DRAWING_FRACTION * levels.numel():
        return False
    grey = part[0] / scale
    middle = torch.stack([grey.roll(k, 1) for k in (-2, -1, 0, 1, 2)]).median(dim=0).values
    if float(((grey - middle).abs() > SPECKLED).float().mean()) > SPECKS:
        return False
    both = _thin_structures(part, scale, known)
    opaque = [_drop_short(each.opaque(), MIN_SCRATCH_EXTENT) for each in both]
    return float(max(each.float().mean() for each in opaque)) > MAX_SCRATCH_FRACTION_FOR_CREASES


def _thin_structures(y: Tensor, scale: float, known: Tensor) -> tuple["_Thin", "_Thin"]:
    """Return the bright and the dark thin structures."""
    low = y[:, known].amin() if bool(known.any()) else y.amin()
    values = ((y - low) / scale).clamp(0, 1)
    return _Thin.of(values, known), _Thin.of(1 - values, known)


@dataclass(frozen=True)
class _Thin:
    """Thin structures that are brighter than their surroundings; maps of shape ``(H, W)``.

    Attributes:
        y: the image, ``(C, H, W)``, in [0, 1].
        contrast: T.
        lively: local mean of P for short lines.
        thin: bool, candidate pixels of scratches.
        clear: bool, pixels of long lines of sufficient contrast, the possible seeds.
        bold: bool, pixels of long lines of much higher contrast than their surroundings.
        flat: agreement of y.
    """

    y: Tensor
    contrast: Tensor
    lively: Tensor
    thin: Tensor
    clear: Tensor
    bold: Tensor
    flat: Tensor

    @classmethod
    def of(cls, y: Tensor, known: Tensor) -> "_Thin":
        contrast = torch.where(known, (y - opened(y, disk())).mean(dim=0), 0)
        short, long = _line_contrast(contrast, SHORT), _line_contrast(contrast, LONG)
        lively = _mean_around(short)
        thin = (short > FAINT) & (contrast > lively)
        clear = (long > CLEAR) & (contrast > MIN_CONTRAST_RATIO * lively)
        bold = (long > BOLD) & (long > BOLDER * lively)
        return cls(y, contrast, lively, thin, clear, bold, _orientation_agreement(y, thin, VALUE_TOLERANCE))

    def opaque(self) -> Tensor:
        """Return the support of opaque scratches, each of a constant value."""
        return grow(self.clear & (self.flat >= SURE), self.thin & (self.flat >= LOOSE))

    def half_transparent(self) -> tuple[float, Tensor]:
        """Return the support of scratches of the most frequent opacity.

        The first result is the fraction of pixels of long lines that have this opacity.
        """
        clear = max_pool2d((self.contrast > FAINT)[None].to(self.y.dtype), 3, 1, 1)[0] == 0
        background = local_mean(self.y, clear, BLUR)
        opacity = ((self.y - background) / (1 - background).clamp_min(0.05)).mean(dim=0)
        alike = (_orientation_agreement(opacity[None], self.thin, SAME_OPACITY) >= SURE) & self.clear
        share, peak = _opacity_peak(opacity[alike & (self.flat < LOOSE)])
        off = (opacity - peak).abs()
        seeds = (alike | self.bold) & (off <= SAME_OPACITY)
        return share, grow(seeds, self.thin & (off <= 2 * SAME_OPACITY))

    def creases(self) -> Tensor:
        """Return the support of creases, detected by contrast alone."""
        return grow(self.bold, self.thin & (self.contrast > BOLDER / 2 * self.lively))


def _opacity_peak(opacity: Tensor) -> tuple[float, float]:
    """Return the fraction of values at the most frequent opacity and this opacity; the fraction is 0 without a peak."""
    if opacity.numel() < LONG:
        return 0.0, 0.0
    centres = torch.linspace(*OPACITIES, 53, device=opacity.device)
    shares = ((opacity[:, None] - centres).abs() <= SAME_OPACITY / 2).to(torch.float32).mean(dim=0)
    best = int(shares.argmax())
    nearby = max(float(shares[max(0, best - 12)]), float(shares[min(52, best + 12)]))
    stands_out = 0 < best < 52 and float(shares[best]) > 1.5 * nearby
    return float(shares[best]) if stands_out else 0.0, float(centres[best])


def disk() -> list[Offset]:
    """Return the offsets of a disk with a diameter of 7 pixels."""
    reach = range(-3, 4)
    return [(i, j) for i in reach for j in reach if i * i + j * j <= DISK**2]


def _line_offsets(length: int) -> list[list[Offset]]:
    """Return the pixels of a line through the origin, one list per direction."""
    reach = range(-(length // 2), length // 2 + 1)
    angles = [math.pi * k / DIRECTIONS for k in range(DIRECTIONS)]
    return [sorted({(round(at * math.sin(a)), round(at * math.cos(a))) for at in reach}) for a in angles]


def _erode(image: Tensor, offsets: list[Offset]) -> Tensor:
    """Erode by a structuring element given as offsets. Pixels outside the image are ignored."""
    reach = max(max(abs(i), abs(j)) for i, j in offsets)
    height, width = image.shape[-2:]
    around = pad(image, [reach] * 4, value=math.inf)
    result = torch.full_like(image, math.inf)
    for i, j in offsets:
        result = torch.minimum(result, around[..., reach + i : reach + i + height, reach + j : reach + j + width])
    return result


def opened(image: Tensor, offsets: list[Offset]) -> Tensor:
    """Return the morphological opening by a structuring element, given as offsets symmetric about the origin."""
    return -_erode(-_erode(image, offsets), offsets)


def closed(image: Tensor, offsets: list[Offset]) -> Tensor:
    """Return the morphological closing by a structuring element, given as offsets symmetric about the origin."""
    return -opened(-image, offsets)


def _line_contrast(contrast: Tensor, length: int) -> Tensor:
    """Return P, the contrast of structures at least ``length`` pixels long, ``(H, W)``."""
    wide = max_pool2d(contrast[None], 3, 1, 1)[0]
    best = torch.zeros_like(contrast)
    for line in _line_offsets(length):
        best = torch.maximum(best, opened(wide, line))
    return torch.minimum(contrast, best)


def _mean_around(image: Tensor) -> Tensor:
    side = min(CONTRAST_WINDOW, min(image.shape) // 2 * 2 - 1)
    half = side // 2
    rows = avg_pool2d(image[None], (side, 1), 1, (half, 0), count_include_pad=False)
    return avg_pool2d(rows, (1, side), 1, (0, half), count_include_pad=False)[0]


def _orientation_agreement(field: Tensor, places: Tensor, tolerance: float) -> Tensor:
    """Return the agreement of a field ``(F, H, W)`` at ``places`` (bool, ``(H, W)``); 0 elsewhere."""
    reach = LONG // 2 + 1
    height, width = places.shape
    around = pad(field, [reach] * 4, value=math.inf).flatten(1)
    rows, columns = places.nonzero(as_tuple=True)
    at = (rows + reach) * (width + 2 * reach) + columns + reach
    own = field[:, rows, columns]
    near: dict[Offset, Tensor] = {}

    def is_near(i: int, j: int) -> Tensor:
        if (i, j) not in near:
            near[i, j] = (around[:, at + i * (width + 2 * reach) + j] - own).abs().amax(dim=0) <= tolerance
        return near[i, j]

    best = torch.zeros(len(at), dtype=field.dtype, device=field.device)
    for k, line in enumerate(_line_offsets(LONG)):
        down, right = round(math.cos(math.pi * k / DIRECTIONS)), -round(math.sin(math.pi * k / DIRECTIONS))
        share = torch.zeros_like(best)
        for i, j in line:
            share += is_near(i, j) | is_near(i + down, j + right) | is_near(i - down, j - right)
        best = torch.maximum(best, share / len(line))
    result = torch.zeros(height, width, dtype=field.dtype, device=field.device)
    result[rows, columns] = best
    return result


def _drop_short(found: Tensor, least: int = SHORTEST) -> Tensor:
    """Drop components whose height and width are both less than ``least`` pixels."""
    extents = Extents.of(found)
    return found & (torch.maximum(extents.height, extents.width) >= least)
