"""Low-rank matrices as singular value decompositions, and their update by one step.

The rows may be distributed over ranks. Each rank then holds its rows of the left vectors, and all right vectors.

Shapes: n rows, m columns, k singular triplets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dop_lightning.engine.projections.ranks import SINGLE_PROCESS, SingleProcess
from dop_lightning.foundation.renamed import RenamedAttribute


@dataclass(frozen=True)
class LowRank:
    """``L = Σ_{i<rank} values_i·left_i·right_iᵀ``. Triplets beyond the rank are candidates.

    Attributes:
        left: ``(n, k)``, orthonormal columns.
        values: ``(k,)``, descending, float64.
        right: ``(m, k)``, orthonormal columns.
        rank: number of triplets that belong to L, from 0 to k.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    rank: int

    @property
    def scaled_left(self) -> Tensor:
        """``left·values``, ``(n, rank)``."""
        return self.left[:, : self.rank] * self.values[: self.rank].to(self.left)

    @property
    def scaled_right(self) -> Tensor:
        """``right·values``, ``(m, rank)``."""
        return self.right[:, : self.rank] * self.values[: self.rank].to(self.right)

    @property
    def norm(self) -> float:
        """``‖L‖_F``."""
        return float(torch.linalg.vector_norm(self.values[: self.rank]))

    def dense(self) -> Tensor:
        """Return L, ``(n, m)``."""
        return self.scaled_left @ self.right[:, : self.rank].mT

    def entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return ``L[rows, columns]`` for index tensors of equal shape."""
        return (self.scaled_left[rows] * self.right[columns, : self.rank]).sum(dim=-1)

    def truncate(self, rank: int, width: int) -> "LowRank":
        """Return the first ``width`` triplets; ``rank`` of them belong to L."""
        return LowRank(self.left[:, :width], self.values[:width], self.right[:, :width], rank)

    def gather_right(self, columns: int, ranks: SingleProcess) -> "LowRank":
        """Gather all right vectors from the shares that each rank holds in ``right``.

        Args:
            columns: m.
            ranks: processes that share rows and columns.
        """
        return LowRank(self.left, self.values, ranks.gather_rows(self.right, columns), self.rank)

    # Old names, until version 0.3.
    cut = RenamedAttribute("truncate")
    completed = RenamedAttribute("gather_right")


def stepped(start: LowRank, forward: Tensor, backward: Tensor, ranks: SingleProcess = SINGLE_PROCESS) -> LowRank:
    r"""Project ``L + E`` onto the tangent space at L and decompose it.

    With U, V the left and right vectors of ``start`` and ``Z = L + E``, the result is the decomposition of
    ``P_T(Z) = Z·VVᵀ + UUᵀ·Z − UUᵀ·Z·VVᵀ``, which has rank at most 2k [Vandereycken, 2013; Cai, Cai and Wei, 2019].
    The candidate triplets are included, so that each step is also a step of subspace iteration for them.

    Args:
        start: L.
        forward: ``E·V``, ``(n, k)``.
        backward: ``Eᵀ·U``, ``(m, k)``; this rank's share of its rows.
        ranks: processes that share the rows.

    Returns:
        2k triplets, or ``min(n, m)`` if fewer, with the rank of ``start``. Call :meth:`LowRank.gather_right` on the
        result.
    """
    own = ranks.own(len(start.right))
    U, V, r, k = start.left, start.right[own], start.rank, start.left.shape[1]
    ZV, ZtU = forward.clone(), backward.clone()
    ZV[:, :r] += start.scaled_left
    ZtU[:, :r] += start.scaled_right[own]

    def core(Ru: Tensor, Rv: Tensor) -> Tensor:
        return Ru[:, k:] @ Rv[:, :k].mT + Ru[:, :k] @ (Rv[:, k:].mT - (Ru[:, :k].mT @ Ru[:, k:]) @ Rv[:, :k].mT)

    return LowRank(*ranks.decomposed(torch.cat([U, ZV], dim=1), torch.cat([V, ZtU], dim=1), core), r)


def leading(
    forward: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor], Tensor],
    start: Tensor,
    rounds: int = 2,
    ranks: SingleProcess = SINGLE_PROCESS,
) -> LowRank:
    """Return the leading singular triplets of M by randomised subspace iteration [Halko et al., 2011].

    Args:
        forward: returns ``M·V`` for V ``(m, k)``.
        backward: returns ``Mᵀ·U`` for U ``(n, k)``; this rank's share of its rows.
        start: random matrix, ``(m, k)`` with k at most ``min(n, m)``.
        rounds: number of subspace iterations.
        ranks: processes that share the rows.
    """
    m = len(start)
    Q = ranks.qr(forward(start))[0]
    for _ in range(rounds):
        Q = ranks.qr(forward(ranks.gather_rows(ranks.qr(backward(Q))[0], m)))[0]
    right, values, uh = ranks.svd(backward(Q))
    return LowRank(Q @ uh.mT, values.double(), ranks.gather_rows(right, m), start.shape[1])


def orthonormal(
    left: Tensor, values: Tensor, right: Tensor, rank: int, ranks: SingleProcess = SINGLE_PROCESS
) -> LowRank:
    """Return the decomposition of ``left·values·rightᵀ`` for any factors with k columns.

    The factors and the result hold this rank's share of the rows.
    """
    return LowRank(*ranks.decomposed(left, right, lambda Ru, Rv: (Ru * values) @ Rv.mT), rank)
