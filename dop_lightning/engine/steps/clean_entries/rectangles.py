r"""Dead rectangles: axis-aligned blocks of one colour or of noise.

*One colour.* A window of 6×6 pixels is constant if each channel varies by at most half a grey level. A connected
union of constant windows of one colour is a candidate. If its outline has at most eight corners, it is a rectangle or a
union of overlapping rectangles. Skies and black backgrounds have far more corners; there, the largest rectangles inside
are the candidates. A candidate of value v is dead if it has a sharp edge on all sides except at most one, and if its
surroundings vary like a photograph. Tiles and windows on a screen, by contrast, lie on a uniform background or next to
each other. With the pixels y₁ and y₃ at distances of one and three pixels from a side, the edge is sharp if

    ``median |y₁ − v| ≥ 0.5 · median |y₃ − v|``  and  ``median |y₁ − v| ≥ 0.03``  in some channel.

*Noise.* The residual of a pixel is ``e = y − m``, where m is the mean of the two opposite neighbours that differ least.
It is large in noise and small in a photograph. The candidate is the rectangle with the largest sum of a bounded
log-likelihood ratio of e, for uniform noise against a Laplace density whose scale is the mean of ``|e|`` outside. It is
dead if adjacent pixels differ as much as distant ones, if its values cover their range evenly, and if its surroundings
are smooth.

A rectangle has at least 6×6 pixels. Rectangles of one colour that contain impulses are not detected.

Shapes: C×H×W, an image.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from dop_lightning.engine.steps.clean_entries.components import Boxes, labels
from dop_lightning.engine.steps.clean_entries.sorting import cumulated

SIDE = 6
"""Minimum side of a rectangle, pixels."""

VALUE_TOLERANCE = 0.5 / 255
"""Values count as equal if they differ by at most this, in scales of the observation."""

CORNERS = 8
"""Maximum number of corners of the outline of a rectangle or of two overlapping ones; a background has more."""

MIN_EDGE_STEP = 0.03
"""Minimum difference from the surrounding pixels, in scales of the observation."""

MIN_EDGE_FRACTION = 0.5
"""Minimum fraction of the difference that is reached one pixel from the side."""

MAX_SURROUNDING_FLATNESS = 0.65
"""Fraction of pixels around a rectangle with one of their two most frequent values above which it belongs to a
drawing."""

MIN_DRAWING_FRACTION = 0.3
"""Fraction of pixels outside the rectangles with one of their two most frequent values above which the image is a
drawing."""

LARGEST = 0.3
"""Typical maximum side of a rectangle, as a fraction of the larger side of the image; candidates may be up to twice as
large."""

MAX_PIXELS = 40_000
"""Maximum number of pixels in the bounding box of a component that is searched for rectangles; the search is slow."""

MIN_NOISE_ROUGHNESS = 0.12
"""Mean |e| in a window of 5×5 pixels above which the window may be noise, in scales of the observation."""

MAX_SURROUNDING_ROUGHNESS = 0.5
"""Maximum mean |e| around a rectangle of noise relative to that inside."""

INDEPENDENT = 0.75
"""Minimum mean difference of adjacent pixels in noise relative to that of distant pixels."""

MIN_QUARTER_FRACTION = 0.12
"""Minimum fraction of the values of noise in each quarter of their range; letters on paper are black or white."""

MIN_NOISE_STEP = 0.25
"""Minimum mean difference of adjacent pixels in noise, in scales of the observation; for uniform noise it is 1/3."""


def dead_rectangles(y: Tensor, scale: float = 1.0, observed: Tensor | None = None) -> Tensor:
    """Find the pixels of dead rectangles, in all channels.

    Args:
        y: the observation, ``(C, H, W)``; no rectangles are detected for any other number of dimensions.
        scale: scale of the observation, above 0.
        observed: bool, ``(C, H, W)``; ``None`` if all entries are observed. Unobserved entries are never detected.

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
    found = _constant_rectangles(values, known)
    found |= _noise_rectangles(values, known & ~found)
    return found.expand_as(y) & (known if observed is None else observed)


def _constant_rectangles(y: Tensor, known: Tensor) -> Tensor:
    """Return the pixels of rectangles of one colour, ``(H, W)``."""
    high = _window_maxima(torch.where(known, y, -torch.inf))
    low = -_window_maxima(torch.where(known, -y, -torch.inf))
    few = avg_pool2d(known[None].to(y.dtype), SIDE, 1)[0] >= 0.5
    constant = ((high - low) <= VALUE_TOLERANCE).all(dim=0) & few  # windows, indexed by their first pixel
    if not bool(constant.any()):
        return torch.zeros_like(known)
    flat = _max_over_windows(constant[None].to(y.dtype))[0] > 0
    colour = _max_over_windows(torch.where(constant, (high * 255).round(), -torch.inf)).nan_to_num(neginf=0)
    weights = 521.0 ** torch.arange(y.shape[0], device=y.device, dtype=torch.float64) % 1e6 + 1
    numbers = labels(flat, (colour.double() * weights.view(-1, 1, 1)).sum(dim=0))
    boxes, corners = Boxes.of(numbers), _corner_counts(numbers)
    found = torch.zeros_like(flat)
    largest = max(LARGEST * max(y.shape[1:]), 2 * SIDE)
    for k in ((boxes.height <= 2 * largest) & (boxes.width <= 2 * largest)).nonzero().flatten().tolist():
        rows, columns = boxes.slices(k, margin=5)
        one, part, seen = numbers[rows, columns] == k + 1, y[:, rows, columns], known[rows, columns]
        is_simple = corners[k] == 4 or (corners[k] <= CORNERS and min(one.shape) >= 2 * SIDE + 10)  # 10: both margins
        for each in [one] if is_simple else _largest_inside(one):
            surroundings = _ring(each, 4) & ~flat[rows, columns] & seen
            if _has_sharp_sides(part, each, seen) and not _is_drawn(part, surroundings):
                found[rows, columns] |= each
    return (
        found
        if not bool(found.any()) or _most_frequent(y, known & ~found) <= MIN_DRAWING_FRACTION
        else torch.zeros_like(found)
    )


def _largest_inside(one: Tensor) -> list[Tensor]:
    """Return the largest rectangles in a component with many corners, such as a rectangle connected to a background."""
    part, result = torch.where(one, 1.0, -8.0), []
    if part.numel() > MAX_PIXELS:
        return []
    for _ in range(2):
        first, last, begin, end = _largest_sum(part)
        if min(last - first, end - begin) >= SIDE:
            each = torch.zeros_like(one)
            each[first:last, begin:end] = True
            result.append(each & one)
        part[first:last, begin:end] = -8
    return result


def _window_maxima(image: Tensor) -> Tensor:
    """Return the maximum of each window of 6×6 pixels."""
    return max_pool2d(image, SIDE, 1)


def _max_over_windows(windows: Tensor) -> Tensor:
    """Return the maximum over the windows that contain each pixel, ``(C, H, W)``."""
    return max_pool2d(pad(windows, [SIDE - 1] * 4, value=-torch.inf), SIDE, 1)


def _corner_counts(numbers: Tensor) -> Tensor:
    """Return the number of corners in the outline of each component, ``(N,)``."""
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
    """Return the pixels at a distance of more than ``inner`` and at most ``reach``."""
    far, near = (max_pool2d(one[None].float(), 2 * d + 1, 1, d)[0] > 0 for d in (reach, inner))
    return far & ~near


def _has_sharp_sides(y: Tensor, one: Tensor, known: Tensor) -> bool:
    """Return whether all sides of a rectangle, except at most one, are sharp edges.

    Sides at the border of the image are ignored. At least two sides must be sharp.
    """
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
                cliffs.append(bool(((step >= MIN_EDGE_STEP) & (step >= MIN_EDGE_FRACTION * beyond)).any()))
    return sum(cliffs) >= max(2, len(cliffs) - 1)


def _is_drawn(y: Tensor, around: Tensor) -> bool:
    """Return whether the surroundings mostly have one or two values, as in a drawing."""
    return not bool(around.any()) or _most_frequent(y, around) > MAX_SURROUNDING_FLATNESS


def _most_frequent(y: Tensor, places: Tensor) -> float:
    """Return the fraction of entries with one of the two most frequent grey levels; 1 without entries."""
    levels = (y[:, places].mean(dim=0) * 255).round()
    if levels.numel() == 0:
        return 1.0
    return float(levels.unique(return_counts=True)[1].sort().values[-2:].sum()) / levels.numel()


def _noise_rectangles(y: Tensor, known: Tensor) -> Tensor:
    """Return the pixels of rectangles of noise, ``(H, W)``."""
    found = torch.zeros_like(known)
    residual = torch.where(known, _residual(torch.where(known, y, 0.5)), 0).mean(dim=0)
    weight = avg_pool2d(known[None].to(y.dtype), 5, 1, 2)[0].clamp_min(1e-3)
    rough = (avg_pool2d(residual[None], 5, 1, 2)[0] / weight > MIN_NOISE_ROUGHNESS) & known
    if float(rough.float().mean()) > 4 * LARGEST**2:  # most of the image is rough
        return found
    calm = float(residual[~rough & known].mean().clamp_min(2 / 255)) if bool((~rough & known).any()) else 1.0
    evidence = _noise_evidence(y, known, calm)
    numbers = labels(rough)
    boxes = Boxes.of(numbers)
    wide = torch.minimum(boxes.height, boxes.width) >= SIDE - 2
    for k in (wide & (boxes.size >= (SIDE - 2) ** 2)).nonzero().flatten().tolist():
        top, bottom = max(0, int(boxes.top[k]) - 6), int(boxes.bottom[k]) + 6
        left, right = max(0, int(boxes.left[k]) - 6), int(boxes.right[k]) + 6
        part = evidence[top:bottom, left:right]
        if max(part.shape) > 2 * LARGEST * max(known.shape) + 12:
            continue
        for _ in range(3):  # overlapping rectangles
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
    """Return |e|, ``(C, H, W)``."""
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


def _noise_evidence(y: Tensor, known: Tensor, calm: float) -> Tensor:
    """Return the bounded log-likelihood ratio of noise at each pixel, ``(H, W)``; 0 at unobserved pixels."""
    residual = _residual(torch.where(known, y, 0.5))
    ratio = (residual / calm + torch.tensor(2 * calm, device=y.device).log()).clamp(-2, 2)
    return torch.where(known, ratio.mean(dim=0) - 0.3, 0)


def _largest_sum(values: Tensor) -> tuple[int, int, int, int]:
    """Return the rectangle with the largest sum: first row, end row, first column, end column; ends are exclusive."""
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
    """Return whether a rectangle is noise and its surroundings are not.

    Args:
        inside: values of the rectangle, ``(C, h, w)``.
        y: values of the rectangle and its surroundings.
        one: bool, the pixels of the rectangle in ``y``.
        known: bool, the observed pixels of ``y``.
    """
    alongside = []
    if min(float((inside - inside.roll(1, dim)).abs().mean(dim=(1, 2)).min()) for dim in (1, 2)) < MIN_NOISE_STEP:
        return False
    quarters = ((inside - inside.amin()) / (inside.amax() - inside.amin()) * 4).long().clamp_max(3)
    if int(quarters.flatten().bincount(minlength=4).min()) < MIN_QUARTER_FRACTION * quarters.numel():
        return False
    for dim in (1, 2):
        far = inside.shape[dim] // 2
        near = (inside - inside.roll(1, dim)).abs().mean()
        alongside.append(float(near / (inside - inside.roll(far, dim)).abs().mean().clamp_min(1e-6)))
    if min(alongside) < INDEPENDENT:
        return False
    residual, ring = _residual(y).mean(dim=0), _ring(one, 5, 1) & known
    return bool(ring.any()) and float(residual[ring].mean()) <= MAX_SURROUNDING_ROUGHNESS * float(
        residual[one & known].mean()
    )
