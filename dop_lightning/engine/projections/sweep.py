"""One pass over an observation, strip by strip: its residual without outliers, multiplied with the factors.

Where rows are spread over ranks, an observation holds those of one of them.

Shapes: n rows, m columns, k singular triplets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from dop_lightning.engine.projections.low_rank import LowRank
from dop_lightning.engine.projections.ranks import ALONE, Alone

IN_CACHE = 2**18
"""Entries of a strip of rows on a CPU: it stays in the cache of a core."""

LEAST_HEIGHT = 16
"""Fewest rows of a strip: thinner products are slow."""

ON_DEVICE = 2**28
"""Entries of a strip elsewhere."""


class Rows(Protocol):
    """A matrix that is read strip by strip: a tensor, or one that reads its rows from a file."""

    @property
    def shape(self) -> torch.Size:
        """``(n, m)``."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the entries."""

    @property
    def device(self) -> torch.device:
        """Where rows are."""

    def numel(self) -> int:
        """Return the number of entries."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Tensor: ...


def strips_of(values: Rows) -> Iterator[slice]:
    """Yield the rows of a matrix that are worked on at once."""
    n, m = values.shape
    most = IN_CACHE if values.device.type == "cpu" else ON_DEVICE
    height = max(LEAST_HEIGHT, most // m)
    for start in range(0, n, height):
        yield slice(start, min(n, start + height))


@dataclass
class Observation:
    """What was observed of a matrix.

    Attributes:
        values: D, ``(n, m)``, finite wherever observed.
        mask: ``(n, m)`` bool, true where observed; ``None`` if all is.
        hidden: sorted flat positions of observed entries that are kept from the recovery; may be empty.
        has_gaps: whether entries that were not observed are NaN in D, instead of a mask.
    """

    values: Rows
    mask: Tensor | None
    hidden: Tensor
    has_gaps: bool = False

    @property
    def strips(self) -> Iterator[slice]:
        """Rows that are worked on at once."""
        return strips_of(self.values)

    def conceal(self, strip: Tensor, rows: slice) -> None:
        """Set what is not known of these rows to 0 in ``strip``."""
        if self.has_gaps:
            strip.nan_to_num_(nan=0.0)
        if self.mask is not None:
            strip.mul_(self.mask[rows])
        if len(self.hidden):
            m = self.values.shape[1]
            ends = torch.tensor([rows.start * m, rows.stop * m], device=self.hidden.device)
            first, last = torch.searchsorted(self.hidden, ends).tolist()
            if last > first:
                strip.view(-1).index_fill_(0, self.hidden[first:last] - rows.start * m, 0)

    def below(self, rows: slice, threshold: float, like: Tensor) -> Tensor:
        """Return a copy of these rows in the type of ``like``, 0 at entries that are unknown or above the threshold."""
        strip = self.values[rows].to(like, copy=True)
        self.conceal(strip, rows)
        return strip.sub_(hardshrink(strip, threshold))


@dataclass
class Sweep:
    """What a pass gives. E is the residual ``D − L`` where it was observed and is no outlier, else 0.

    Attributes:
        forward: ``E·V``, ``(n, k)``.
        backward: ``Eᵀ·U``, ``(m, k)``; the own share of its rows.
        energy: ``‖E‖_F²``.
        of_rows: number of outliers in each row ``(n,)``, if they were counted.
        of_columns: and in each column ``(m,)``.
    """

    forward: Tensor
    backward: Tensor
    energy: float
    of_rows: Tensor | None = None
    of_columns: Tensor | None = None


@dataclass(frozen=True)
class Clipped:
    """D without its largest entries, as an operator that passes over D strip by strip.

    Attributes:
        observation: D.
        threshold: entries of larger magnitude are 0.
        factor: of all entries.
        ranks: among which rows are spread.
    """

    observation: Observation
    threshold: float
    factor: float = 1.0
    ranks: Alone = ALONE

    def forward(self, V: Tensor) -> Tensor:
        """Return its product with V ``(m, k)``."""
        result = V.new_empty(len(self.observation.values), V.shape[1])
        for rows in self.observation.strips:
            torch.mm(self.observation.below(rows, self.threshold, V), V, out=result[rows])
        return result.mul_(self.factor)

    def backward(self, U: Tensor) -> Tensor:
        """Return the product of its transpose with U ``(n, k)``, the own share of the rows."""
        result = U.new_zeros(self.observation.values.shape[1], U.shape[1])
        for rows in self.observation.strips:
            result.addmm_(self.observation.below(rows, self.threshold, U).mT, U[rows])
        return self.ranks.scattered_sum(result).mul_(self.factor)

    def energy(self, like: Tensor) -> float:
        """Return its squared Frobenius norm, computed in the type of ``like``."""
        total = 0.0
        for rows in self.observation.strips:
            total += float(torch.linalg.vector_norm(self.observation.below(rows, self.threshold, like))) ** 2
        return float(self.ranks.sum(torch.tensor(total, dtype=torch.float64, device=like.device))) * self.factor**2


def sweep(
    observation: Observation, estimate: LowRank, threshold: float, counts: bool = False, ranks: Alone = ALONE
) -> Sweep:
    """Pass over the observation once.

    Args:
        observation: D.
        estimate: L, with its candidates: U and V have all k columns.
        threshold: entries whose residual is larger in magnitude are outliers.
        counts: whether outliers are counted by row and by column.
        ranks: among which rows are spread.
    """
    D, U, V = observation.values, estimate.left, estimate.right
    n, m = D.shape
    left, right = estimate.scaled_left, V[:, : estimate.rank].mT
    forward = U.new_empty(n, U.shape[1])
    backward = torch.zeros_like(V)
    energy = torch.zeros((), dtype=torch.float64, device=U.device)
    of_rows = torch.zeros(n, dtype=torch.int64, device=U.device) if counts else None
    of_columns = torch.zeros(m, dtype=torch.int64, device=U.device) if counts else None
    buffer: Tensor | None = None
    for rows in observation.strips:
        height = rows.stop - rows.start
        buffer = U.new_empty(height, m) if buffer is None else buffer
        E = buffer[:height]
        torch.addmm(D[rows].to(U), left[rows], right, alpha=-1, out=E)
        observation.conceal(E, rows)
        large = hardshrink(E, threshold)
        E.sub_(large)
        if of_rows is not None and of_columns is not None:
            flags = large != 0
            of_rows[rows] = flags.sum(dim=1)
            of_columns += flags.sum(dim=0)
        energy += torch.linalg.vector_norm(E).double().square()
        torch.mm(E, V, out=forward[rows])
        backward.addmm_(E.mT, U[rows])
    of_columns = None if of_columns is None else ranks.sum(of_columns)
    return Sweep(forward, ranks.scattered_sum(backward), float(ranks.sum(energy)), of_rows, of_columns)
