r"""Scratches and creases: thin curves that cross what an image shows.

An opaque scratch has one value along its length, a half transparent one shows ``(1 − o)·x + o·v`` with one opacity o
and one value v, white or black. The edges of things are steps, and their lines are blurred and shaded.

Of the bright ones (the dark ones are those of 1 − y):

1. *Thin.* The top-hat ``T = y − open(y)`` by a disk of 7 pixels, averaged over the channels, is the contrast of what is
   narrower than the disk. The opening by lines of L pixels in 16 directions, ``P = min(T, max_θ open_θ(dilate(T)))``,
   leaves what goes on for L pixels; a step aside of one pixel is allowed.
2. *Alike.* The agreement of a field f at a place p is the largest share, over the directions, of the pixels of the line
   through p beside which f is within a tolerance of f(p). Field y, tolerance two grey levels: an opaque scratch.
   Field ``o = (y − b)/(1 − b)`` with the background b, the mean of what is beside: a half transparent one, where o
   lies at the peak of its histogram over long lines. Without either, what is bright and stands out from all thin
   lines around it is a crease, which shows the paper.
3. *Connected.* What agrees well is a seed; what agrees less and is connected with a seed belongs to it, as far as it is
   thin. Components shorter than 12 pixels are dropped.

Shapes: C×H×W, an image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from dop_lightning.engine.steps.clean_entries.blur import local_mean
from dop_lightning.engine.steps.clean_entries.components import Extents, grow

Offset = tuple[int, int]

DIRECTIONS = 16
"""Of the lines, over a half turn."""

DISK = 3.04
"""Radius of the disk; what is narrower than 7 pixels is thin."""

SHORT, LONG = 11, 21
"""L: of what may belong to a scratch, and of what is one."""

FAINT, CLEAR = 0.05, 0.1
"""T of what may belong to a scratch, and of what is one, in scales of the observation."""

LIVELIER = 2.0
"""A scratch has so many times the mean contrast of the thin lines around it."""

BOLD, BOLDER = 0.15, 5.0
"""The same two of a crease, which nothing but its contrast tells."""

AROUND = 41
"""Side of the window of that mean."""

SAME = 2.5 / 255
"""Tolerance of a value, in scales of the observation."""

SAME_OPACITY = 0.08
"""Tolerance of an opacity."""

LOOSE, SURE = 0.65, 0.95
"""Agreement of what may belong to a scratch, and of what is one."""

PEAK = 0.25
"""Share of the long lines within a tolerance of one opacity above which scratches are half transparent."""

FEW = 0.01
"""Share of the pixels below which there are creases instead: there is one kind of damage."""

FAR_REACHING = 64
"""Extent of the shortest scratch by which an image looks scratched, pixels."""

SPECKLED, SPECKS = 0.15, 0.08
"""Where a larger share of the pixels differs by more from the median along its row, there are impulses."""

MIDDLE = 256
"""Side of the part of an image by which that is told, pixels; images of less than half of it are not looked at."""

DRAWN = 0.3
"""Share of the two most frequent grey levels above which an image is a drawing, a page or a screen."""

MANY = 0.1
"""Share of the pixels above which what looks half transparent is a texture."""

OPACITIES = (0.25, 0.9)
"""Of half transparent scratches."""

BLUR = 2.5
"""Standard deviation of the window that the background is averaged in, pixels."""

SHORTEST = 12
"""Extent of the shortest scratch, pixels."""


def scratches(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """The pixels of scratches, in all channels.

    Args:
        y: the observation, ``(C, H, W)``; of any other number of dimensions it has no scratches.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are. What is missing in a channel is no scratch.

    Returns:
        bool, the shape of ``y``.

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
    both = _both(y, scale, known)
    found = both[0].opaque() | both[1].opaque()
    share, half = max((each.half_transparent() for each in both), key=lambda each: each[0])
    if share >= PEAK and int(found.sum()) < int(half.sum()) < MANY * half.numel():
        found = found | half
    if float(found.to(y.dtype).mean()) < FEW:
        found = found | both[0].creases()
    return _long_enough(found).expand_as(y) & (known if observed is None else observed)


def looks_scratched(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> bool:
    """Whether an image is likely to have opaque scratches, by its middle; never a drawing, nor a small image.

    A scratch is in all channels: their mean is looked at, which is faster.

    Args:
        y: the observation, ``(C, H, W)``.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are.
    """
    if y.dim() != 3 or min(y.shape[1:]) < MIDDLE // 2:
        return False
    rows, columns = (slice(max(0, (side - MIDDLE) // 2), (side + MIDDLE) // 2) for side in y.shape[1:])
    part = y[:, rows, columns].mean(dim=0, keepdim=True)
    known = torch.ones_like(part[0], dtype=torch.bool) if observed is None else observed[:, rows, columns].all(dim=0)
    levels = (part[0, known] / scale * 255).round()
    counts = levels.unique(return_counts=True)[1].sort().values
    if levels.numel() == 0 or float(counts[-2:].sum()) > DRAWN * levels.numel():
        return False
    grey = part[0] / scale
    middle = torch.stack([grey.roll(k, 1) for k in (-2, -1, 0, 1, 2)]).median(dim=0).values
    if float(((grey - middle).abs() > SPECKLED).float().mean()) > SPECKS:
        return False
    both = _both(part, scale, known)
    opaque = [_long_enough(each.opaque(), FAR_REACHING) for each in both]
    return float(max(each.float().mean() for each in opaque)) > FEW


def _both(y: Tensor, scale: float, known: Tensor) -> tuple["_Thin", "_Thin"]:
    """The bright and the dark."""
    low = y[:, known].amin() if bool(known.any()) else y.amin()
    values = ((y - low) / scale).clamp(0, 1)
    return _Thin.of(values, known), _Thin.of(1 - values, known)


@dataclass(frozen=True)
class _Thin:
    """What is thin, and brighter than what is around it; maps ``(H, W)``.

    Attributes:
        y: the image, ``(C, H, W)``, in [0, 1].
        contrast: T.
        lively: the mean of T around.
        thin: what may belong to a scratch.
        clear: what goes on for long.
        bold: what stands out from all that is around.
        flat: the agreement of y.
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
        short, long = _along(contrast, SHORT), _along(contrast, LONG)
        lively = _mean_around(short)
        thin = (short > FAINT) & (contrast > lively)
        clear = (long > CLEAR) & (contrast > LIVELIER * lively)
        bold = (long > BOLD) & (long > BOLDER * lively)
        return cls(y, contrast, lively, thin, clear, bold, _agreement(y, thin, SAME))

    def opaque(self) -> Tensor:
        """Of one value each."""
        return grow(self.clear & (self.flat >= SURE), self.thin & (self.flat >= LOOSE))

    def half_transparent(self) -> tuple[float, Tensor]:
        """Of the opacity that most long lines have, and the share of those that have it."""
        beside = max_pool2d((self.contrast > FAINT)[None].to(self.y.dtype), 3, 1, 1)[0] == 0
        background = local_mean(self.y, beside, BLUR)
        opacity = ((self.y - background) / (1 - background).clamp_min(0.05)).mean(dim=0)
        alike = (_agreement(opacity[None], self.thin, SAME_OPACITY) >= SURE) & self.clear
        share, peak = _peak(opacity[alike & (self.flat < LOOSE)])
        off = (opacity - peak).abs()
        seeds = (alike | self.bold) & (off <= SAME_OPACITY)
        return share, grow(seeds, self.thin & (off <= 2 * SAME_OPACITY))

    def creases(self) -> Tensor:
        """Of any value, by their contrast alone."""
        return grow(self.bold, self.thin & (self.contrast > BOLDER / 2 * self.lively))


def _peak(opacity: Tensor) -> tuple[float, float]:
    """The share of the long lines that have one opacity, 0 where none stands out, and that opacity."""
    if opacity.numel() < LONG:
        return 0.0, 0.0
    centres = torch.linspace(*OPACITIES, 53, device=opacity.device)
    shares = ((opacity[:, None] - centres).abs() <= SAME_OPACITY / 2).to(torch.float32).mean(dim=0)
    best = int(shares.argmax())
    beside = max(float(shares[max(0, best - 12)]), float(shares[min(52, best + 12)]))
    stands_out = 0 < best < 52 and float(shares[best]) > 1.5 * beside
    return float(shares[best]) if stands_out else 0.0, float(centres[best])


def disk() -> list[Offset]:
    """The offsets of a disk of 7 pixels."""
    reach = range(-3, 4)
    return [(i, j) for i in reach for j in reach if i * i + j * j <= DISK**2]


def _lines(length: int) -> list[list[Offset]]:
    """The pixels of a line through the origin, in each direction."""
    reach = range(-(length // 2), length // 2 + 1)
    angles = [math.pi * k / DIRECTIONS for k in range(DIRECTIONS)]
    return [sorted({(round(at * math.sin(a)), round(at * math.cos(a))) for at in reach}) for a in angles]


def _erode(image: Tensor, offsets: list[Offset]) -> Tensor:
    """The least value over a set of offsets; what is outside does not count."""
    reach = max(max(abs(i), abs(j)) for i, j in offsets)
    height, width = image.shape[-2:]
    around = pad(image, [reach] * 4, value=math.inf)
    result = torch.full_like(image, math.inf)
    for i, j in offsets:
        result = torch.minimum(result, around[..., reach + i : reach + i + height, reach + j : reach + j + width])
    return result


def opened(image: Tensor, offsets: list[Offset]) -> Tensor:
    """The opening by a set of offsets that is symmetric."""
    return -_erode(-_erode(image, offsets), offsets)


def closed(image: Tensor, offsets: list[Offset]) -> Tensor:
    """Return the closing by a set of offsets that is symmetric."""
    return -opened(-image, offsets)


def _along(contrast: Tensor, length: int) -> Tensor:
    """P, ``(H, W)``."""
    wide = max_pool2d(contrast[None], 3, 1, 1)[0]
    best = torch.zeros_like(contrast)
    for line in _lines(length):
        best = torch.maximum(best, opened(wide, line))
    return torch.minimum(contrast, best)


def _mean_around(image: Tensor) -> Tensor:
    side = min(AROUND, min(image.shape) // 2 * 2 - 1)
    return avg_pool2d(image[None], side, 1, side // 2, count_include_pad=False)[0]


def _agreement(field: Tensor, places: Tensor, tolerance: float) -> Tensor:
    """The agreement of a field ``(F, H, W)`` at places, bool ``(H, W)``; 0 elsewhere."""
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
    for k, line in enumerate(_lines(LONG)):
        down, right = round(math.cos(math.pi * k / DIRECTIONS)), -round(math.sin(math.pi * k / DIRECTIONS))
        share = torch.zeros_like(best)
        for i, j in line:
            share += is_near(i, j) | is_near(i + down, j + right) | is_near(i - down, j - right)
        best = torch.maximum(best, share / len(line))
    result = torch.zeros(height, width, dtype=field.dtype, device=field.device)
    result[rows, columns] = best
    return result


def _long_enough(found: Tensor, least: int = SHORTEST) -> Tensor:
    """Without components of which neither side has ``least`` pixels."""
    extents = Extents.of(found)
    return found & (torch.maximum(extents.height, extents.width) >= least)
