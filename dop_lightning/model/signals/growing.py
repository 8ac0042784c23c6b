"""Factors whose common dimension r', the bound on the rank, may grow.

Shapes: K problems, n rows, m columns, r the columns of every factor; U ``(K, n, r)``, V ``(K, m, r)``.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.model.signals.abilities import Factors, Growth
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.randomness import stream

FIRST_BOUND = 8
"""r' of a growing factor at its start, where none is given."""

GROWN = 10.0
"""A direction is in use when it has grown so much beyond the start. Small against what a signal needs, so that new
columns come before the old ones are filled; large against what the outliers' spectrum does in that time."""

FIRST_COUNTER = 16
"""Counter of the stream that subspace iterations begin with, apart from the other draws of a start."""

SUBSPACE_ITERATIONS = 12

NEGLIGIBLE = 1e-2
"""Part of the largest singular value of U, below which a direction is not in use however much it has grown."""


def matrix_shape(problems: ProblemBatch, signal: str) -> tuple[int, int]:
    """Rows and columns of the signals; ``signal`` names who asks in the error."""
    shape = problems.signal_shape
    if len(shape) != 2:
        raise ValueError(f"{signal} needs a matrix, n×m, got a signal of shape {shape}")
    return shape[0], shape[1]


GAP = 4.0
"""Surplus components are dropped where the spectrum falls by this factor."""

CLEAR = 2.0
"""And where the components that stay are above so many times the limit."""


class LowRank(Signal):
    r"""A product of factors with r' columns each.

    A *growing* factor starts small, at r' = 8 columns, and is to give the answer of r' = min(n, m), of which the start
    is close to ``U = c·I`` with ``c = γ√n`` (``c = γ√(min(n, m)/2)`` for ``UVᵀ``): there all directions are equal, and
    each grows like ``exp(A*(ξ))``, with ``ξ = −Σ τ·r`` (Lemma 2). Directions that have hardly grown do not matter, so
    they are left out until they do:

    * the first columns are ``c`` times the r' leading eigenvectors of ``A*(y)`` (singular vectors for ``UVᵀ``);
    * whenever more than three quarters of the columns have grown tenfold (and are no mere hundredth of the largest),
      their number is doubled by the leading eigenvectors v of ``A*(ξ)`` in what is orthogonal to U, as long as they
      would be by now, ``c·exp(vᵀA*(ξ)v)``. ξ is known from g and h.

    Problems of a batch grow one by one: columns that a problem has not asked for are 0, and stay so.

    Args:
        problems: the batch, of matrices.
        rank: the (first) bound.
        scale: standard deviation γ of the start.
        growing: whether the bound grows.
    """

    closed_form = True
    symmetric: bool

    def __init__(self, problems: ProblemBatch, rank: int | None, scale: float, growing: bool) -> None:
        super().__init__(problems)
        rows, columns = matrix_shape(problems, type(self).__name__)
        self.largest = min(rows, columns)
        self.growing = growing
        self.scale = positive("scale", scale)
        if rank is None:
            self.first_bound = min(FIRST_BOUND, self.largest) if growing else self.largest
        else:
            self.first_bound = at_least("rank", rank, 1)
        if growing and self.first_bound > self.largest:
            raise ValueError(f"rank must be at most {self.largest}, the smaller side, where it grows, got {rank}")
        self.problems = problems

    @property
    def factors(self) -> Factors:
        """Itself."""
        return self

    @property
    def growth(self) -> Growth | None:
        """Itself, if it is growing."""
        return self if self.growing else None

    @property
    @abstractmethod
    def pair(self) -> tuple[Tensor, Tensor]:
        """The left and the right factor, plain tensors on the parameters' memory: ``X = left·rightᵀ``."""

    @property
    def length(self) -> float:
        """c: how long a direction is in the mean at the start with all columns."""
        return self.scale * (self.largest if self.symmetric else self.largest / 2) ** 0.5

    def columns(self) -> list[int]:
        """r' of each problem: the columns up to the last one that is not 0."""
        used = (self.pair[0] != 0).any(dim=1)  # K r
        numbers = torch.arange(1, used.shape[1] + 1, device=used.device)
        return (used * numbers).amax(dim=1).tolist()

    @torch.no_grad()
    def begin_(self, pulled: Tensor) -> None:
        """Start a growing factor.

        Args:
            pulled: ``A*(y)``, ``(K, n, m)``.
        """
        for k in range(len(pulled)):
            left, _, right = self._leading(pulled[k], self.first_bound, k)
            for factor, vectors in zip(self.arrays, (left, right), strict=False):
                factor[k] = self.length * vectors

    @torch.no_grad()
    def grow_(self, dual: Callable[[], Tensor], settled: Tensor | None = None) -> bool:
        """Double the columns of every problem that uses more than three quarters of its own; whether any did.

        Args:
            dual: gives ``A*(ξ)``, ``(K, n, m)``.
            settled: problems that keep their columns, ``(K,)`` bool; ``None`` if there are none.
        """
        left = self.pair[0]
        if not self.growing or min(columns := self.columns()) >= self.largest:
            return False
        spectrum = torch.linalg.eigvalsh(torch.bmm(left.mT, left).nan_to_num(0.0, 0.0, 0.0)).clamp_min(0).sqrt()  # K r
        least = (NEGLIGIBLE * spectrum[:, -1:]).clamp_min(GROWN * self.length)
        in_use = (spectrum > least).sum(dim=1).tolist()
        fixed = [False] * len(columns) if settled is None else settled.tolist()
        wanted = [
            min(2 * own, self.largest) if 4 * used > 3 * own and not keeps else own
            for own, used, keeps in zip(columns, in_use, fixed, strict=True)
        ]
        if wanted == columns:
            return False
        self._widen(max(wanted))
        pulled = torch.nan_to_num(dual(), 0.0, 0.0, 0.0)  # of a problem that is about to diverge
        for k, (before, after) in enumerate(zip(columns, wanted, strict=True)):
            if after > before:
                self._add(k, before, after, pulled[k])
        return True

    @torch.no_grad()
    def prune_(self, k: int, limit: float) -> bool:
        """Drop the components of problem k whose singular values lie below ``limit``, if there is a gap at it.

        X keeps the others. The factors become balanced, ``U = U_r√Σ_r`` and ``V = V_r√Σ_r``.

        Args:
            k: position of the problem.
            limit: of singular values of X.

        Returns:
            Whether the smallest one above it is at least :data:`GAP` times the largest one below it, and
            :data:`CLEAR` times the limit.
        """
        left, right = (factor[k].double() for factor in self.pair)
        (Q_left, R_left), (Q_right, R_right) = torch.linalg.qr(left), torch.linalg.qr(right)
        core = R_left @ R_right.mT
        if not torch.isfinite(core).all():
            return False
        U, values, Vh = torch.linalg.svd(core)
        rank = int((values > limit).sum())
        if not 0 < rank < len(values) or not values[rank - 1] >= max(GAP * float(values[rank]), CLEAR * limit):
            return False
        if self.symmetric:
            Vh = U.mT  # of a positive semidefinite matrix
            Q_right = Q_left
        length = values[:rank].sqrt()
        new = Q_left @ U[:, :rank] * length, Q_right @ Vh[:rank].mT * length
        for factor, columns in zip(self.arrays, new, strict=False):
            factor[k] = 0
            factor[k, :, :rank] = columns.to(factor)
        self._narrow(max(1, *self.columns()))
        return True

    def _narrow(self, width: int) -> None:
        """Leave out columns that are 0 for all problems."""
        for p in self.parameters():
            if p.shape[2] > width:
                p.data = p.data[:, :, :width].contiguous()
        self.tie_arrays()

    def _add(self, k: int, before: int, after: int, dual: Tensor) -> None:
        """Fill columns of problem k."""
        own = [factor[k, :, :before] for factor in self.pair]
        left, right = (torch.linalg.qr(factor).Q for factor in own)
        rest = dual - left @ (left.mT @ dual)
        rest = rest - (rest @ right) @ right.mT
        vectors = self._leading(rest, after - before, k)
        # more than that would have been seen before
        lengths = self.length * vectors[1].exp().clamp(1 / GROWN, GROWN)
        for factor, new in zip(self.arrays, (vectors[0], vectors[2]), strict=False):
            factor[k, :, before:after] = new * lengths

    def _leading(self, M: Tensor, count: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvectors of the largest eigenvalues of ``(M + Mᵀ)/2``, or singular vectors of M, by subspace iteration.

        Args:
            M: ``(n, m)``; what is not finite in it, of a problem that is about to diverge, counts as 0.
            count: how many.
            k: whose random numbers begin.

        Returns:
            ``(n, count)``, ``(count,)``, ``(m, count)``.
        """
        M, unit = _of_order_one(torch.nan_to_num(M, 0.0, 0.0, 0.0))
        width = min(2 * count, self.largest)
        start = torch.empty(M.shape[1], width, dtype=M.dtype, device="cpu")
        start.normal_(generator=stream(self.problems[k].seed, "init", FIRST_COUNTER))
        basis = start.to(M.device)
        if self.symmetric:
            S = (M + M.mT) / 2
            # above the spectral norm; a shift by less is enough for positive eigenvalues to go before negative ones
            bound = torch.minimum(torch.linalg.matrix_norm(S, 1), torch.linalg.matrix_norm(S))
            for _ in range(SUBSPACE_ITERATIONS):
                basis = torch.linalg.qr(S @ basis + bound / 4 * basis).Q
            values, vectors = torch.linalg.eigh(basis.mT @ S @ basis)
            chosen = basis @ vectors[:, -count:].flip(1)
            return chosen, values[-count:].flip(0) * unit, chosen
        for _ in range(SUBSPACE_ITERATIONS // 2):
            basis = torch.linalg.qr(M.mT @ (M @ basis)).Q
        left, values, right = torch.linalg.svd(M @ basis, full_matrices=False)
        return left[:, :count], values[:count] * unit, basis @ right[:count].mT

    def _widen(self, width: int) -> None:
        """Make room for ``width`` columns, those that are new being 0."""
        for p in self.parameters():
            if p.shape[2] < width:
                wider = p.new_zeros(*p.shape[:2], width)
                wider[:, :, : p.shape[2]] = p.detach()
                p.data = wider
        self.tie_arrays()

    def problem_state(self, k: int) -> dict[str, Tensor]:
        """A copy of the factors of problem k, without columns that others have asked for."""
        state = super().problem_state(k)
        if not self.growing:
            return state
        own = self.columns()[k]
        return {name: factor[:, :own].clone() for name, factor in state.items()}

    def load_problem_state(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Put a state of any number of columns in the place of problem k."""
        if self.growing:
            self._widen(max((factor.shape[-1] for factor in state.values()), default=0))
            width = self.pair[0].shape[2]
            pad = {name: width - factor.shape[-1] for name, factor in state.items()}
            state = {name: torch.nn.functional.pad(factor, (0, pad[name])) for name, factor in state.items()}
        super().load_problem_state(k, state)
        if self.growing:
            self._narrow(max(1, *self.columns()))


def _of_order_one(M: Tensor) -> tuple[Tensor, Tensor]:
    """M and a power of two, M being their product: squares of what is very large or small are no numbers of its type.

    A power of two changes the exponents alone, so that results have the same bits where squares are numbers anyhow.
    """
    most = int(0.8 * math.log2(torch.finfo(M.dtype).max))
    unit = torch.exp2(torch.frexp(M.abs().amax()).exponent.clamp(-most, most).to(M))
    return M / unit, unit
