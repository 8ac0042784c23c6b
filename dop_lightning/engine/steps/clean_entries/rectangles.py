r"""Dead rectangles: blocks along rows and columns that show one colour, or noise.

*One colour.* A window of 6×6 pixels is constant if each channel varies by at most half a grey level. A connected
union of such windows of one colour is a candidate. If its outline has at most eight corners, it is a rectangle or
some that overlap; skies and black backgrounds have far more corners, and there the largest rectangles inside are the
candidates. A candidate is dead if it ends in a cliff on all sides but one, with its value v and the pixels y₁ and y₃
at distances of one and three pixels from the side,

    ``median |y₁ − v| ≥ 0.5 · median |y₃ − v|``  and  ``median |y₁ − v| ≥ 0.03``  in some channel,

and if its surroundings vary as a photograph does. Tiles and windows on a screen lie on paper, or beside each other.

*Noise.* The residual of a pixel is ``e = y − m``, with the mean m of the two opposite neighbours that differ least.
It is large in noise and small in a photograph. A bounded log-likelihood ratio of e, uniform noise against a density
of Laplace whose scale is the mean of ``|e|`` outside, is summed over rectangles; that of the largest sum is the
candidate. It is dead if adjacent pixels differ as much as distant ones, if its values fill their range evenly and if
its surroundings are calm.

A rectangle has at least 6×6 pixels. Impulses inside a rectangle of one colour hide it.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from dop_lightning.engine.steps.clean_entries.components import Boxes, labels
from dop_lightning.engine.steps.clean_entries.sorting import cumulated

SIDE = 6
"""Of the smallest rectangle, pixels."""

SAME = 0.5 / 255
"""Values that differ by no more are one, in scales of the observation."""

CORNERS = 8
"""Of the outline of a rectangle, or of two that overlap; a background has more."""

CLIFF = 0.03
"""Least difference to the pixels around, in scales of the observation."""

STEEP = 0.5
"""Share of the difference that is there after one pixel."""

DULL = 0.65
"""Share of the two most frequent values around a rectangle above which it is part of a drawing."""

DRAWN = 0.3
"""Share of the two most frequent values of the whole image, without the rectangles, above which it is a drawing."""

LARGEST = 0.3
"""Of the sides of a rectangle, in shares of those of the image."""

MOST_PIXELS = 40_000
"""Of the box of a component in which rectangles are looked for: the search takes long."""

ROUGH = 0.12
"""Mean |e| in a window of 5×5 pixels above which there may be noise, in scales of the observation."""

CALM = 0.5
"""|e| around a rectangle of noise is at most this share of that inside."""

INDEPENDENT = 0.75
"""Mean difference of adjacent pixels of noise, in shares of that of distant ones."""

EVEN = 0.12
"""Least share of the values of noise in each quarter of their range; letters on paper are black or white."""

LOUD = 0.25
"""Mean difference of adjacent pixels of noise, in scales of the observation; that of uniform noise is a third."""


def dead_rectangles(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Find the pixels of dead rectangles, in all channels.

    Args:
        y: the observation, ``(C, H, W)``; of any other number of dimensions it has no rectangles.
        scale: of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` where all are. What is missing belongs to no rectangle.

    Returns:
        bool, the shape of ``y``.

    >>> rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    >>> y = 0.5 + 0.2 * torch.sin(rows / 9) + 0.3 * torch.cos(columns / 7)
    >>> y[20:32, 40:48] = 1.0
    >>> found = dead_rectangles(y[None])[0]
    >>> bool(found[20:32, 40:48].all()), int(found.sum())
    (True, 96)
    """
    if y.dim() != 3 or min(y.shape[1:]) < 4 * SIDE:
        return torch.zeros_like(y, dtype=torch.bool)
    known = torch.ones_like(y[0], dtype=torch.bool) if observed is None else observed.all(dim=0)
    if not bool(known.any()):
        return torch.zeros_like(y, dtype=torch.bool)
    values = y / scale
    found = _constant(values, known)
    found |= _noise(values, known & ~found)
    return found.expand_as(y) & (known if observed is None else observed)


def _constant(y: Tensor, known: Tensor) -> Tensor:
    """Rectangles of one colour, ``(H, W)``."""
    high = _windows(torch.where(known, y, -torch.inf))
    low = -_windows(torch.where(known, -y, -torch.inf))
    few = avg_pool2d(known[None].to(y.dtype), SIDE, 1)[0] >= 0.5
    constant = ((high - low) <= SAME).all(dim=0) & few  # of the windows, by their first pixel
    if not bool(constant.any()):
        return torch.zeros_like(known)
    flat = _cover(constant[None].to(y.dtype))[0] > 0
    colour = _cover(torch.where(constant, (high * 255).round(), -torch.inf)).nan_to_num(neginf=0)
    weights = 521.0 ** torch.arange(y.shape[0], device=y.device, dtype=torch.float64) % 1e6 + 1
    numbers = labels(flat, (colour.double() * weights.view(-1, 1, 1)).sum(dim=0))
    boxes, corners = Boxes.of(numbers), _corners(numbers)
    found = torch.zeros_like(flat)
    largest = max(LARGEST * max(y.shape[1:]), 2 * SIDE)
    for k in ((boxes.height <= 2 * largest) & (boxes.width <= 2 * largest)).nonzero().flatten().tolist():
        rows, columns = boxes.slices(k, margin=5)
        one, part, seen = numbers[rows, columns] == k + 1, y[:, rows, columns], known[rows, columns]
        is_simple = corners[k] == 4 or (corners[k] <= CORNERS and min(one.shape) >= 2 * SIDE + 10)  # 10: both margins
        for each in [one] if is_simple else _inside(one):
            beside = _ring(each, 4) & ~flat[rows, columns] & seen
            if _is_cliff(part, each, seen) and not _is_drawn(part, beside):
                found[rows, columns] |= each
    return found if not bool(found.any()) or _most_frequent(y, known & ~found) <= DRAWN else torch.zeros_like(found)


def _inside(one: Tensor) -> list[Tensor]:
    """The largest rectangles in a component that has more corners, as where one is connected with a background."""
    part, result = torch.where(one, 1.0, -8.0), []
    if part.numel() > MOST_PIXELS:
        return []
    for _ in range(2):
        first, last, begin, end = _largest_sum(part)
        if min(last - first, end - begin) >= SIDE:
            each = torch.zeros_like(one)
            each[first:last, begin:end] = True
            result.append(each & one)
        part[first:last, begin:end] = -8
    return result


def _windows(image: Tensor) -> Tensor:
    """The largest value of each window of 6×6 pixels."""
    return max_pool2d(image, SIDE, 1)


def _cover(windows: Tensor) -> Tensor:
    """The largest value of the windows that each pixel is in, ``(C, H, W)``."""
    return max_pool2d(pad(windows, [SIDE - 1] * 4, value=-torch.inf), SIDE, 1)


def _corners(numbers: Tensor) -> Tensor:
    """The number of corners of the outline of each component, ``(N,)``."""
    around = pad(numbers, [1] * 4)
    height, width = numbers.shape
    count = torch.zeros(int(numbers.max()) + 1, dtype=torch.int64, device=numbers.device)

    def same(down: int, right: int) -> Tensor:
        return around[1 + down : 1 + down + height, 1 + right : 1 + right + width] == numbers

    for down in (-1, 1):
        for right in (-1, 1):
            beside, above, across = same(0, right), same(down, 0), same(down, right)
            corner = (~beside & ~above) | (beside & above & ~across)
            count.index_add_(0, numbers.flatten(), corner.flatten().long())
    return count[1:]


def _ring(one: Tensor, reach: int, inner: int = 0) -> Tensor:
    """The pixels at a distance of more than ``inner`` and at most ``reach``."""
    far, near = (max_pool2d(one[None].float(), 2 * d + 1, 1, d)[0] > 0 for d in (reach, inner))
    return far & ~near


def _is_cliff(y: Tensor, one: Tensor, known: Tensor) -> bool:
    """Whether the values jump on every side of a rectangle but one; what is at the border of the image is no side."""
    value = torch.stack([each[one & known].median() for each in y])
    off = torch.where(known, (y - value[:, None, None]).abs(), torch.nan)
    rows, columns = one.any(dim=1).nonzero().flatten(), one.any(dim=0).nonzero().flatten()
    cliffs = []
    for lines, at, first, last in (
        (off, columns, int(rows[0]), int(rows[-1])),
        (off.transpose(1, 2), rows, int(columns[0]), int(columns[-1])),
    ):
        for near, far in ((first - 1, first - 3), (last + 1, last + 3)):
            if 0 <= far < lines.shape[1]:
                step, beyond = (lines[:, k, at].nanmedian(dim=1).values for k in (near, far))
                cliffs.append(bool(((step >= CLIFF) & (step >= STEEP * beyond)).any()))
    return sum(cliffs) >= max(2, len(cliffs) - 1)


def _is_drawn(y: Tensor, around: Tensor) -> bool:
    """Whether what is around has one or two values, as paper does."""
    return not bool(around.any()) or _most_frequent(y, around) > DULL


def _most_frequent(y: Tensor, places: Tensor) -> float:
    """The share of the two most frequent grey levels."""
    levels = (y[:, places].mean(dim=0) * 255).round()
    if levels.numel() == 0:
        return 1.0
    return float(levels.unique(return_counts=True)[1].sort().values[-2:].sum()) / levels.numel()


def _noise(y: Tensor, known: Tensor) -> Tensor:
    """Rectangles of noise, ``(H, W)``."""
    found = torch.zeros_like(known)
    residual = torch.where(known, _residual(torch.where(known, y, 0.5)), 0).mean(dim=0)
    weight = avg_pool2d(known[None].to(y.dtype), 5, 1, 2)[0].clamp_min(1e-3)
    rough = (avg_pool2d(residual[None], 5, 1, 2)[0] / weight > ROUGH) & known
    if float(rough.float().mean()) > 4 * LARGEST**2:  # all of the image is rough
        return found
    calm = float(residual[~rough & known].mean().clamp_min(2 / 255)) if bool((~rough & known).any()) else 1.0
    evidence = _evidence(y, known, calm)
    numbers = labels(rough)
    boxes = Boxes.of(numbers)
    wide = torch.minimum(boxes.height, boxes.width) >= SIDE - 2
    for k in (wide & (boxes.size >= (SIDE - 2) ** 2)).nonzero().flatten().tolist():
        top, bottom = max(0, int(boxes.top[k]) - 6), int(boxes.bottom[k]) + 6
        left, right = max(0, int(boxes.left[k]) - 6), int(boxes.right[k]) + 6
        part = evidence[top:bottom, left:right]
        if max(part.shape) > 2 * LARGEST * max(known.shape) + 12:
            continue
        for _ in range(3):  # those that overlap
            first, last, begin, end = _largest_sum(part)
            if min(last - first, end - begin) < SIDE:
                break
            rows, columns = slice(top + first, top + last), slice(left + begin, left + end)
            near = (slice(max(0, rows.start - 6), rows.stop + 6), slice(max(0, columns.start - 6), columns.stop + 6))
            one = torch.zeros_like(known)[near]
            one[first + top - near[0].start :, begin + left - near[1].start :][: last - first, : end - begin] = True
            if not _is_noise(y[:, rows, columns], y[:, *near], one, known[near]):
                break
            found[rows, columns] = True
            part[first:last, begin:end] = -1
    return found


def _residual(y: Tensor) -> Tensor:
    """|e|, ``(C, H, W)``."""
    around = pad(y, [1] * 4, mode="replicate")
    height, width = y.shape[1:]

    def moved(down: int, right: int) -> Tensor:
        return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    best, gap = torch.zeros_like(y), torch.full_like(y, torch.inf)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one, other = moved(down, right), moved(-down, -right)
        nearer = (one - other).abs() < gap
        best = torch.where(nearer, (one + other) / 2, best)
        gap = torch.where(nearer, (one - other).abs(), gap)
    return (y - best).abs()


def _evidence(y: Tensor, known: Tensor, calm: float) -> Tensor:
    """The log-likelihood ratio of noise, bounded for each pixel, ``(H, W)``; 0 where nothing is known."""
    residual = _residual(torch.where(known, y, 0.5))
    ratio = (residual / calm + torch.tensor(2 * calm, device=y.device).log()).clamp(-2, 2)
    return torch.where(known, ratio.mean(dim=0) - 0.3, 0)


def _largest_sum(values: Tensor) -> tuple[int, int, int, int]:
    """The rectangle of the largest sum: first row, row after the last, first column, column after the last."""
    height = values.shape[0]
    sums = pad(cumulated(values.double()), (0, 0, 1, 0))
    best = (-1.0, 0, 0, 0, 0)
    for first in range(height):
        bands = pad(cumulated(sums[first + 1 :] - sums[first], 1), (1, 0))  # (rows, W+1)
        least = bands.cummin(dim=1)
        gains = bands - least.values
        top = gains.max(dim=1)
        at = int(top.values.argmax())
        if float(top.values[at]) > best[0]:
            end = int(top.indices[at])
            best = (float(top.values[at]), first, first + 1 + at, int(least.indices[at, end]), end)
    return best[1:]


def _is_noise(inside: Tensor, y: Tensor, one: Tensor, known: Tensor) -> bool:
    """Whether adjacent pixels differ as much as distant ones, and those around do not.

    Args:
        inside: the values of a rectangle, ``(C, h, w)``.
        y: those and what is around.
        one: the pixels of the rectangle in y.
        known: those that were observed.
    """
    alongside = []
    if min(float((inside - inside.roll(1, dim)).abs().mean(dim=(1, 2)).min()) for dim in (1, 2)) < LOUD:
        return False
    quarters = ((inside - inside.amin()) / (inside.amax() - inside.amin()) * 4).long().clamp_max(3)
    if int(quarters.flatten().bincount(minlength=4).min()) < EVEN * quarters.numel():
        return False
    for dim in (1, 2):
        far = inside.shape[dim] // 2
        near = (inside - inside.roll(1, dim)).abs().mean()
        alongside.append(float(near / (inside - inside.roll(far, dim)).abs().mean().clamp_min(1e-6)))
    if min(alongside) < INDEPENDENT:
        return False
    residual, ring = _residual(y).mean(dim=0), _ring(one, 5, 1) & known
    return bool(ring.any()) and float(residual[ring].mean()) <= CALM * float(residual[one & known].mean())
