"""Surroundings of an entry: its estimate, the error of the estimate at its neighbours, and their values.

Shapes: C×H×W, an image; ``*m``, any observation of N entries; F predictions of a residual.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from dop_lightning.engine.steps.clean_entries.mixture import MIN_SCALE, log_student
from dop_lightning.engine.steps.clean_entries.neighbours import STEPS, bordered

SIDE = 5
"""Side of the window over which the local scale of the residual is averaged, pixels."""

PRIOR = 4.0
"""Pseudocount that shrinks the local scale toward the common scale."""

SHRINKAGE_PSEUDOCOUNT = 2.0
"""Pseudocount that shrinks the prediction of a residual from its neighbours toward 0."""

FEWEST = 30.0
"""Minimum number of held-out clean entries for comparing errors."""

MAX_FOLLOWED = 10.0
"""Upper bound of the ratio of the error of held-out entries to that of others."""

MAX_DISTANCE = 1e3
"""Upper bound of distances to neighbours, in scales of the observation; unobserved neighbours have this distance."""


@dataclass(frozen=True)
class Surroundings:
    """Surroundings of N entries, one-dimensional, from which the features of any value at these places are computed.

    Attributes:
        estimate: x̂.
        scale: mean |y − x̂| of the surrounding clean entries, without the entry itself, above 0; larger if the entry was
            held out.
        pull: fraction of the distance by which an estimate moves toward an entry that it is fitted to; 0 if the entry
            was held out.
        foretold: ``(N, F)``, predictions of the residual ``y − x̂`` from clean entries: from the neighbours in the same
            channel, and from the other channels of the pixel. F is 0 without neighbours.
        neighbours: ``(N, 8)``, the surrounding values, infinite if not observed; ``None`` without neighbours.
        unit: scale of the observation.
    """

    estimate: Tensor
    scale: Tensor
    pull: Tensor
    foretold: Tensor
    neighbours: Tensor | None
    unit: float

    @classmethod
    def of(
        cls,
        y: Tensor,
        estimate: Tensor,
        clean: Tensor,
        observed: Tensor,
        unit: float,
        per_pixel: bool,
        held_out: Tensor,
    ) -> "Surroundings":
        """Compute the surroundings of the entries of an observation.

        Args:
            y: the observation, ``(*m)``; entries have neighbours only if it is ``(C, H, W)``.
            estimate: x̂.
            clean: probability that each entry is clean, 0 if it was not observed.
            observed: bool.
            unit: scale of the observation, above 0.
            per_pixel: whether the channels of a pixel are corrupted together; if so, they do not predict each other.
            held_out: bool, true for entries that the estimate was not fitted to.
        """
        residual = y - estimate
        error = residual.abs() * clean
        followed = _fit_ratio(error, clean, held_out)
        pull = torch.where(held_out, 0.0, 1 - 1 / followed).flatten()
        more = torch.where(held_out, followed, 1.0)
        common = error.sum() / clean.sum().clamp_min(1e-12)
        least = MIN_SCALE / 2 * unit
        if y.dim() != 3:
            scale = (common * more).clamp_min(least)
            return cls(estimate.flatten(), scale.flatten(), pull, residual.new_zeros(y.numel(), 0), None, unit)

        def elsewhere(values: Tensor, side: int) -> Tensor:
            """Return the sum over a window and all channels, without the entry itself, or its pixel with per_pixel."""
            own = values.sum(0, keepdim=True) if per_pixel else values
            return _window_sum(values, side).sum(0, keepdim=True) - own

        scale = (elsewhere(error, SIDE) + PRIOR * common) / (elsewhere(clean, SIDE) + PRIOR)
        signed = residual * clean
        around = (_window_sum(signed, 3) - signed) / (_window_sum(clean, 3) - clean + SHRINKAGE_PSEUDOCOUNT)
        beside = (signed.sum(0) - signed) / (clean.sum(0) - clean + SHRINKAGE_PSEUDOCOUNT / 4)
        foretold = [around] if per_pixel or len(y) == 1 else [around, beside]
        return cls(
            estimate.flatten(),
            (scale * more).flatten().clamp_min(least),
            pull,
            torch.stack([part.flatten() for part in foretold], dim=1),
            _neighbour_values(y, observed),
            unit,
        )

    def log_clean(self, residual: Tensor, places: Tensor) -> Tensor:
        """Return the log density of a clean entry: Student's t with the local scale; the density has units of 1/y."""
        return log_student(residual, self.scale[places])

    def features(self, values: Tensor, residual: Tensor, places: Tensor) -> Tensor:
        """Return the features that distinguish outliers from clean entries, larger for outliers.

        They are logarithms of the distance from the estimate in local scales, of the same distance after correcting the
        estimate by each predicted residual, and of the mean distance to the two most similar neighbours.

        Args:
            values: values v, any shape.
            residual: ``v − x̂``, the same shape.
            places: int64, the same shape, indices of entries.

        Returns:
            The same shape with one more dimension.
        """
        scale = self.scale[places]
        columns = [torch.log1p(residual.abs() / scale)]
        columns += [torch.log1p((residual - part[places]).abs() / scale) for part in self.foretold.unbind(1)]
        if self.neighbours is not None:
            apart = (self.neighbours[places] - values[..., None]).abs().topk(2, dim=-1, largest=False).values
            apart = apart.clamp_max(MAX_DISTANCE * self.unit).mean(-1)
            columns.append((apart / self.unit + MIN_SCALE).log())
        return torch.stack(columns, dim=-1)


def _fit_ratio(error: Tensor, clean: Tensor, held_out: Tensor) -> float:
    """Return the ratio of the error of held-out clean entries to that of other clean entries, at least 1."""
    apart, fitted = ((error[at].sum() + 1e-12) / (clean[at].sum() + 1e-9) for at in (held_out, ~held_out))
    ratio = float(apart / fitted) if float(clean[held_out].sum()) > FEWEST else 1.0
    return min(max(ratio, 1.0), MAX_FOLLOWED)


def _window_sum(values: Tensor, side: int) -> Tensor:
    """Return the sum over a window in each channel; the edge pixels are repeated beyond the image."""
    around = pad(values[None], [side // 2] * 4, mode="replicate")
    return avg_pool2d(around, side, stride=1)[0] * side**2


def _neighbour_values(y: Tensor, observed: Tensor) -> Tensor:
    """Return the 8 values around each entry, ``(N, 8)``."""
    around = bordered(torch.where(observed, y, torch.inf))
    height, width = y.shape[1:]
    return torch.stack([around[:, i : i + height, j : j + width].flatten() for i, j in STEPS], dim=1)
