"""Factors whose common dimension r', the bound on the rank, can grow.

Shapes: K problems, n rows, m columns, r columns of each factor; U ``(K, n, r)``, V ``(K, m, r)``.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.model.signals.base import Signal
from dop_lightning.model.signals.capabilities import Factors, Growth
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.randomness import stream

INITIAL_RANK = 8
"""Default initial r' of a growing factor."""

MIN_GROWTH = 10.0
"""Growth relative to the initial length from which a direction is in use. It is small compared with the growth of the
directions of a signal, so that columns are added before the existing ones are filled, and large compared with the
growth that the spectrum of the outliers causes in the same time."""

FIRST_COUNTER = 16
"""Counter of the stream that initializes subspace iterations, separate from the other initial draws."""

SUBSPACE_ITERATIONS = 12

NEGLIGIBLE = 1e-2
"""Fraction of the largest singular value of U below which a direction is not in use, whatever its growth."""


def matrix_shape(problems: ProblemBatch, signal: str) -> tuple[int, int]:
    """Return the rows and columns of the signals. ``signal`` is the name of the class in the error message."""
    shape = problems.signal_shape
    if len(shape) != 2:
        raise ValueError(f"{signal} requires a matrix, n×m, got a signal of shape {shape}")
    return shape[0], shape[1]


GAP = 4.0
"""Minimum ratio of adjacent singular values at which surplus components are dropped."""

CLEAR = 2.0
"""Minimum ratio of the singular values of the other components to the limit, also required for this."""


class LowRank(Signal):
    r"""Product of factors with r' columns each.

    A *growing* factor initially has r' = 8 columns, and approximates the result for r' = min(n, m). The initial values
    of the latter are close to ``U = c·I`` with ``c = γ√n`` (``c = γ√(min(n, m)/2)`` for ``UVᵀ``): all directions are
    equal, and each grows like ``exp(A*(ξ))`` with ``ξ = −Σ τ·r`` (Lemma 2). Directions that have hardly grown do not
    influence the result, and are therefore omitted until they do:

    * The first columns are ``c`` times the r' leading eigenvectors of ``A*(y)`` (singular vectors for ``UVᵀ``).
    * Whenever more than three quarters of the columns have grown tenfold (and exceed a hundredth of the largest one),
      their number is doubled. The new columns are the leading eigenvectors v of ``A*(ξ)`` in the orthogonal complement
      of U, with the length that they would have reached by now, ``c·exp(vᵀA*(ξ)v)``. ξ is known from g and h.

    Problems of a batch grow independently: columns that a problem does not use are 0, and remain 0.

    Args:
        problems: the batch, of matrices.
        rank: the bound, or the initial bound if it grows.
        scale: standard deviation γ of the initial values.
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
            self.first_bound = min(INITIAL_RANK, self.largest) if growing else self.largest
        else:
            self.first_bound = at_least("rank", rank, 1)
        if growing and self.first_bound > self.largest:
            raise ValueError(f"rank must be at most {self.largest}, the smaller side, if growing is True, got {rank}")
        self.problems = problems

    @property
    def factors(self) -> Factors:
        """The signal itself."""
        return self

    @property
    def growth(self) -> Growth | None:
        """The signal itself if it is growing, otherwise ``None``."""
        return self if self.growing else None

    @property
    @abstractmethod
    def pair(self) -> tuple[Tensor, Tensor]:
        """Left and right factor of ``X = left·rightᵀ``, as tensors that share memory with the parameters."""

    @property
    def length(self) -> float:
        """Mean initial length c of a direction if all columns were present."""
        return self.scale * (self.largest if self.symmetric else self.largest / 2) ** 0.5

    def columns(self) -> list[int]:
        """Return r' of each problem: the number of columns up to the last nonzero one."""
        used = (self.pair[0] != 0).any(dim=1)  # K r
        numbers = torch.arange(1, used.shape[1] + 1, device=used.device)
        return (used * numbers).amax(dim=1).tolist()

    @torch.no_grad()
    def begin_(self, pulled: Tensor) -> None:
        """Initialize a growing factor.

        Args:
            pulled: ``A*(y)``, ``(K, n, m)``.
        """
        for k in range(len(pulled)):
            left, _, right = self._leading_vectors(pulled[k], self.first_bound, k)
            for factor, vectors in zip(self.arrays, (left, right), strict=False):
                factor[k] = self.length * vectors

    @torch.no_grad()
    def grow_(self, dual: Callable[[], Tensor], settled: Tensor | None = None) -> bool:
        """Double the columns of all problems that use more than three quarters of them.

        Args:
            dual: function that returns ``A*(ξ)``, ``(K, n, m)``.
            settled: boolean ``(K,)``, true for problems that keep their columns; ``None`` if there are none.

        Returns:
            Whether any problem has grown.
        """
        left = self.pair[0]
        if not self.growing or min(columns := self.columns()) >= self.largest:
            return False
        spectrum = torch.linalg.eigvalsh(torch.bmm(left.mT, left).nan_to_num(0.0, 0.0, 0.0)).clamp_min(0).sqrt()  # K r
        least = (NEGLIGIBLE * spectrum[:, -1:]).clamp_min(MIN_GROWTH * self.length)
        in_use = (spectrum > least).sum(dim=1).tolist()
        fixed = [False] * len(columns) if settled is None else settled.tolist()
        wanted = [
            min(2 * own, self.largest) if 4 * used > 3 * own and not keeps else own
            for own, used, keeps in zip(columns, in_use, fixed, strict=True)
        ]
        if wanted == columns:
            return False
        self._widen(max(wanted))
        pulled = torch.nan_to_num(dual(), 0.0, 0.0, 0.0)  # problems that are about to diverge
        for k, (before, after) in enumerate(zip(columns, wanted, strict=True)):
            if after > before:
                self._fill_columns(k, before, after, pulled[k])
        return True

    @torch.no_grad()
    def prune_(self, k: int, limit: float) -> bool:
        """Drop the components of problem k with singular values below ``limit``, if the spectrum has a gap there.

        The other components of X are kept. The factors are balanced, ``U = U_r√Σ_r`` and ``V = V_r√Σ_r``.

        Args:
            k: position of the problem.
            limit: threshold for singular values of X.

        Returns:
            Whether components were dropped: the smallest singular value above the limit must be at least :data:`GAP`
            times the largest one below it, and :data:`CLEAR` times the limit.
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
            Vh = U.mT  # X is positive semidefinite
            Q_right = Q_left
        length = values[:rank].sqrt()
        new = Q_left @ U[:, :rank] * length, Q_right @ Vh[:rank].mT * length
        for factor, columns in zip(self.arrays, new, strict=False):
            factor[k] = 0
            factor[k, :, :rank] = columns.to(factor)
        self._narrow(max(1, *self.columns()))
        return True

    def _narrow(self, width: int) -> None:
        """Remove columns beyond ``width``, which are 0 for all problems."""
        for p in self.parameters():
            if p.shape[2] > width:
                p.data = p.data[:, :, :width].contiguous()
        self.alias_parameters()

    def _fill_columns(self, k: int, before: int, after: int, dual: Tensor) -> None:
        """Fill the columns ``before`` to ``after`` of problem k."""
        own = [factor[k, :, :before] for factor in self.pair]
        left, right = (torch.linalg.qr(factor).Q for factor in own)
        rest = dual - left @ (left.mT @ dual)
        rest = rest - (rest @ right) @ right.mT
        vectors = self._leading_vectors(rest, after - before, k)
        # directions that have grown more would have been added before
        lengths = self.length * vectors[1].exp().clamp(1 / MIN_GROWTH, MIN_GROWTH)
        for factor, new in zip(self.arrays, (vectors[0], vectors[2]), strict=False):
            factor[k, :, before:after] = new * lengths

    def _leading_vectors(self, M: Tensor, count: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return leading eigenvectors of ``(M + Mᵀ)/2``, or singular vectors of M, by subspace iteration.

        Args:
            M: ``(n, m)``. Non-finite entries, of a problem that is about to diverge, are treated as 0.
            count: number of vectors.
            k: position of the problem whose random numbers initialize the iteration.

        Returns:
            Left vectors ``(n, count)``, values ``(count,)`` in descending order, and right vectors ``(m, count)``.
        """
        M, unit = _normalise_scale(torch.nan_to_num(M, 0.0, 0.0, 0.0))
        width = min(2 * count, self.largest)
        start = torch.empty(M.shape[1], width, dtype=M.dtype, device="cpu")
        start.normal_(generator=stream(self.problems[k].seed, "init", FIRST_COUNTER))
        basis = start.to(M.device)
        if self.symmetric:
            S = (M + M.mT) / 2
            # bound of the spectral norm; a smaller shift suffices to rank positive eigenvalues before negative ones
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
        """Extend the factors to ``width`` columns, filled with 0."""
        for p in self.parameters():
            if p.shape[2] < width:
                wider = p.new_zeros(*p.shape[:2], width)
                wider[:, :, : p.shape[2]] = p.detach()
                p.data = wider
        self.alias_parameters()

    def problem_state(self, k: int) -> dict[str, Tensor]:
        """Return a copy of the factors of problem k, without columns that only other problems use."""
        state = super().problem_state(k)
        if not self.growing:
            return state
        own = self.columns()[k]
        return {name: factor[:, :own].clone() for name, factor in state.items()}

    def load_problem_state(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Load a state with any number of columns into problem k."""
        if self.growing:
            self._widen(max((factor.shape[-1] for factor in state.values()), default=0))
            width = self.pair[0].shape[2]
            pad = {name: width - factor.shape[-1] for name, factor in state.items()}
            state = {name: torch.nn.functional.pad(factor, (0, pad[name])) for name, factor in state.items()}
        super().load_problem_state(k, state)
        if self.growing:
            self._narrow(max(1, *self.columns()))


def _normalise_scale(M: Tensor) -> tuple[Tensor, Tensor]:
    """Divide M by a power of two, so that its squares neither overflow nor underflow; return quotient and power.

    Dividing by a power of two changes only exponents, so that results are identical whenever scaling is not necessary.
    """
    most = int(0.8 * math.log2(torch.finfo(M.dtype).max))
    unit = torch.exp2(torch.frexp(M.abs().amax()).exponent.clamp(-most, most).to(M))
    return M / unit, unit
