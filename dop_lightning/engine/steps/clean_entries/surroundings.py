"""What is known of an entry besides its value: its estimate, how well its neighbours are estimated, and their values.

Shapes: C×H×W an image, ``*m`` any observation of N entries; r rows of g entries that are corrupted together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from dop_lightning.engine.steps.clean_entries.mixture import LEAST_SCALE, log_student
from dop_lightning.engine.steps.clean_entries.neighbours import STEPS, bordered

SIDE = 5
"""Side of the window over which the local scale of the residual is averaged, pixels."""

PRIOR = 4.0
"""The local scale is averaged as if so many entries with the common one belonged to the window besides."""

DOUBT = 2.0
"""A residual is foretold from its neighbours as if so many of them with residual 0 stood around besides."""

FEWEST = 30.0
"""Clean entries that have to be held out for their error to be compared."""

MOST_FOLLOWED = 10.0
"""The error of held-out entries is at most so many times that of others."""

MOST_DISTANCE = 1e3
"""The distance, in scales of the observation, to neighbours that are not there."""


@dataclass(frozen=True)
class Surroundings:
    """The place of each entry, one dimension of N entries; what any value would look like there can be asked.

    Attributes:
        estimate: x̂.
        scale: the mean |y − x̂| of the clean entries around, without the entry itself, above 0; larger where the entry
            was held out.
        pull: by which share of its distance an estimate comes closer to an entry that it is fitted to; 0 where the
            entry was held out.
        foretold: ``(N, F)``, the residual ``y − x̂`` as far as clean entries beside it foretell it: those of the other
            channels, those around it in its own. F is 0 where there are no neighbours.
        neighbours: ``(N, 8)``, the values around, infinite where none was observed; ``None`` without neighbours.
        unit: the scale of the observation.
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
        """Those of an observation.

        Args:
            y: the observation, ``(*m)``; one that is not ``(C, H, W)`` has no neighbours.
            estimate: x̂.
            clean: the probability of each entry that it is clean, 0 where it was not observed.
            observed: bool.
            unit: the scale of the observation, above 0.
            per_pixel: whether the channels of a pixel are corrupted together: then they do not speak for each other.
            held_out: bool, entries that the estimate was not fitted to.
        """
        residual = y - estimate
        error = residual.abs() * clean
        followed = _followed(error, clean, held_out)
        pull = torch.where(held_out, 0.0, 1 - 1 / followed).flatten()
        more = torch.where(held_out, followed, 1.0)
        common = error.sum() / clean.sum().clamp_min(1e-12)
        least = LEAST_SCALE / 2 * unit
        if y.dim() != 3:
            scale = (common * more).clamp_min(least)
            return cls(estimate.flatten(), scale.flatten(), pull, residual.new_zeros(y.numel(), 0), None, unit)

        def elsewhere(values: Tensor, side: int) -> Tensor:
            """The sum over a window and all channels, without the entry itself; its whole pixel with per_pixel."""
            own = values.sum(0, keepdim=True) if per_pixel else values
            return _window(values, side).sum(0, keepdim=True) - own

        scale = (elsewhere(error, SIDE) + PRIOR * common) / (elsewhere(clean, SIDE) + PRIOR)
        signed = residual * clean
        around = (_window(signed, 3) - signed) / (_window(clean, 3) - clean + DOUBT)
        beside = (signed.sum(0) - signed) / (clean.sum(0) - clean + DOUBT / 4)
        foretold = [around] if per_pixel or len(y) == 1 else [around, beside]
        return cls(
            estimate.flatten(),
            (scale * more).flatten().clamp_min(least),
            pull,
            torch.stack([part.flatten() for part in foretold], dim=1),
            _neighbours(y, observed),
            unit,
        )

    def log_clean(self, residual: Tensor, places: Tensor) -> Tensor:
        """Logarithm of the density of a clean entry: Student's t of the local scale, in units of 1/y."""
        return log_student(residual, self.scale[places])

    def features(self, values: Tensor, residual: Tensor, places: Tensor) -> Tensor:
        """What tells outliers from clean entries, larger for outliers.

        The distance from the estimate in local scales, likewise from the estimate corrected by each of the foretold
        residuals, and the mean distance to the two most similar neighbours; the logarithm of each.

        Args:
            values: any shape.
            residual: their distances from the estimate, the same shape.
            places: int64, the same shape, indices of entries.

        Returns:
            The same shape, and one dimension more.
        """
        scale = self.scale[places]
        columns = [torch.log1p(residual.abs() / scale)]
        columns += [torch.log1p((residual - part[places]).abs() / scale) for part in self.foretold.unbind(1)]
        if self.neighbours is not None:
            apart = (self.neighbours[places] - values[..., None]).abs().topk(2, dim=-1, largest=False).values
            apart = apart.clamp_max(MOST_DISTANCE * self.unit).mean(-1)
            columns.append((apart / self.unit + LEAST_SCALE).log())
        return torch.stack(columns, dim=-1)


def _followed(error: Tensor, clean: Tensor, held_out: Tensor) -> float:
    """f, how many times as large the error of clean entries is where they were held out; at least 1."""
    apart, fitted = ((error[at].sum() + 1e-12) / (clean[at].sum() + 1e-9) for at in (held_out, ~held_out))
    ratio = float(apart / fitted) if float(clean[held_out].sum()) > FEWEST else 1.0
    return min(max(ratio, 1.0), MOST_FOLLOWED)


def _window(values: Tensor, side: int) -> Tensor:
    """The sum over a window of each channel; beyond its edges the image is continued."""
    around = pad(values[None], [side // 2] * 4, mode="replicate")
    return avg_pool2d(around, side, stride=1)[0] * side**2


def _neighbours(y: Tensor, observed: Tensor) -> Tensor:
    """The 8 values around each entry, ``(N, 8)``."""
    around = bordered(torch.where(observed, y, torch.inf))
    height, width = y.shape[1:]
    return torch.stack([around[:, i : i + height, j : j + width].flatten() for i, j in STEPS], dim=1)
