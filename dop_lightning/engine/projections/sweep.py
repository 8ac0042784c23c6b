"""One pass over an observation, strip by strip: products of its residual without outliers with the factors.

If rows are distributed over ranks, an observation holds those of one rank.

Shapes: n rows, m columns, k singular triplets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from dop_lightning.engine.projections.low_rank import LowRank
from dop_lightning.engine.projections.ranks import SINGLE_PROCESS, SingleProcess
from dop_lightning.foundation.renamed import RenamedAttribute

CPU_STRIP_ENTRIES = 2**18
"""Entries per strip of rows on a CPU, so that a strip fits in the cache of a core."""

MIN_HEIGHT = 16
"""Minimum number of rows per strip; thinner products are slow."""

DEVICE_STRIP_ENTRIES = 2**28
"""Entries per strip on other devices."""


class Rows(Protocol):
    """A matrix that is read strip by strip: a tensor, or an object that reads rows from a file."""

    @property
    def shape(self) -> torch.Size:
        """``(n, m)``."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the entries."""

    @property
    def device(self) -> torch.device:
        """Device of the rows that are read."""

    def numel(self) -> int:
        """Return the number of entries."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Tensor: ...


def strips_of(values: Rows) -> Iterator[slice]:
    """Yield slices of rows that are processed at once."""
    n, m = values.shape
    most = CPU_STRIP_ENTRIES if values.device.type == "cpu" else DEVICE_STRIP_ENTRIES
    height = max(MIN_HEIGHT, most // m)
    for start in range(0, n, height):
        yield slice(start, min(n, start + height))


@dataclass
class Observation:
    """Observed matrix.

    Attributes:
        values: D, ``(n, m)``, finite at observed entries.
        mask: ``(n, m)`` bool, true for observed entries; ``None`` if all are observed.
        hidden: sorted flat positions of observed entries that are held out of the recovery; may be empty.
        has_gaps: whether unobserved entries are NaN in D, instead of a mask.
    """

    values: Rows
    mask: Tensor | None
    hidden: Tensor
    has_gaps: bool = False

    @property
    def strips(self) -> Iterator[slice]:
        """Slices of rows that are processed at once."""
        return strips_of(self.values)

    def zero_hidden(self, strip: Tensor, rows: slice) -> None:
        """Set unobserved and hidden entries of these rows to 0 in ``strip``."""
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
        """Return a copy of these rows in the dtype of ``like``, with unknown entries and those above threshold at 0."""
        strip = self.values[rows].to(like, copy=True)
        self.zero_hidden(strip, rows)
        return strip.sub_(hardshrink(strip, threshold))

    # Old names, until version 0.3.
    conceal = RenamedAttribute("zero_hidden")


@dataclass
class Sweep:
    """Result of a pass. E is the residual ``D − L`` at observed entries that are not outliers, and 0 elsewhere.

    Attributes:
        forward: ``E·V``, ``(n, k)``.
        backward: ``Eᵀ·U``, ``(m, k)``; this rank's share of its rows.
        energy: ``‖E‖_F²``.
        of_rows: number of outliers in each row, ``(n,)``; ``None`` if not counted.
        of_columns: number of outliers in each column, ``(m,)``; ``None`` if not counted.
    """

    forward: Tensor
    backward: Tensor
    energy: float
    of_rows: Tensor | None = None
    of_columns: Tensor | None = None


@dataclass(frozen=True)
class Clipped:
    """D without its largest entries, as an operator that reads D strip by strip.

    Attributes:
        observation: D.
        threshold: entries of larger magnitude are set to 0.
        factor: factor on all entries.
        ranks: processes that share the rows.
    """

    observation: Observation
    threshold: float
    factor: float = 1.0
    ranks: SingleProcess = SINGLE_PROCESS

    def forward(self, V: Tensor) -> Tensor:
        """Return the product with V, ``(m, k)``."""
        result = V.new_empty(len(self.observation.values), V.shape[1])
        for rows in self.observation.strips:
            torch.mm(self.observation.below(rows, self.threshold, V), V, out=result[rows])
        return result.mul_(self.factor)

    def backward(self, U: Tensor) -> Tensor:
        """Return this rank's share of the product of the transpose with U, ``(n, k)``."""
        result = U.new_zeros(self.observation.values.shape[1], U.shape[1])
        for rows in self.observation.strips:
            result.addmm_(self.observation.below(rows, self.threshold, U).mT, U[rows])
        return self.ranks.scattered_sum(result).mul_(self.factor)

    def energy(self, like: Tensor) -> float:
        """Return the squared Frobenius norm, computed in the dtype of ``like``."""
        total = 0.0
        for rows in self.observation.strips:
            total += float(torch.linalg.vector_norm(self.observation.below(rows, self.threshold, like))) ** 2
        return float(self.ranks.sum(torch.tensor(total, dtype=torch.float64, device=like.device))) * self.factor**2


def sweep(
    observation: Observation,
    estimate: LowRank,
    threshold: float,
    counts: bool = False,
    ranks: SingleProcess = SINGLE_PROCESS,
) -> Sweep:
    """Pass over the observation once.

    Args:
        observation: D.
        estimate: L with its candidates; U and V have all k columns.
        threshold: entries with a residual of larger magnitude are outliers.
        counts: whether to count outliers by row and by column.
        ranks: processes that share the rows.
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
        observation.zero_hidden(E, rows)
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
