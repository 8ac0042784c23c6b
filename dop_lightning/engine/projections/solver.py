r"""Robust PCA of one matrix of unknown rank by alternating projections.

Shapes: n rows, m columns, k singular triplets.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from dop_lightning.engine.projections.certificate import MAX_EXACT_RESIDUAL, Certificate, certify, rejected
from dop_lightning.engine.projections.low_rank import LowRank, leading, stepped
from dop_lightning.engine.projections.rank import RankRule, edge, first_rank
from dop_lightning.engine.projections.ranks import SINGLE_PROCESS, SingleProcess
from dop_lightning.engine.projections.refit import MAX_LOST_FRACTION, lost_rows, with_columns, with_rows
from dop_lightning.engine.projections.structure import next_components, prediction
from dop_lightning.engine.projections.sweep import Clipped, Observation, Sweep, strips_of, sweep
from dop_lightning.foundation.checks import at_least, fraction, positive
from dop_lightning.problems.problem import Attribute, Problem
from dop_lightning.problems.randomness import stream

WIDTH = 8
"""Initial number of triplets."""

CANDIDATES = 4
"""Number of candidate triplets beyond the rank."""

WIDEST = 4
"""Divisor of the smaller side that gives the maximum rank; a larger one is not low."""

SAMPLE = 2**12
"""Number of entries from which the scale of the residual is estimated."""

QUARTILE = 0.3186
"""Lower quartile of |x| for standard normal x."""

LARGE = 20.0
"""Initial threshold, in units of the median absolute value of the observation."""

WAIT = 2
"""Steps after an increase of the rank before the threshold falls again."""

SLOW = 0.9
"""The threshold falls at least by this factor, until it reaches LOW times the scale of the residual."""

LOW = 3.0

NOISE = 3.0
"""Residual in standard deviations of dense noise beyond which an entry is an outlier."""

BOUND = 4.0
"""Number of standard deviations to which the cutoff of an exact L corresponds."""

SETTLING_STEPS = 3
"""Steps without progress after which the recovery has settled."""

MIN_PROGRESS_RATIO = 0.95
"""Without progress, the residual is at least this multiple of its value SETTLING_STEPS steps earlier."""

FITS = 5
"""Maximum number of refits of lost rows and columns."""

MAX_FINAL_STEPS = 12
"""Maximum number of steps with all entries."""

MIN_SIDE = 40
"""Minimum number of rows and columns for a verdict: in smaller matrices, components fit outliers."""

HIDDEN, MAX_HIDDEN, MIN_HIDDEN = 0.05, 20_000, 200
"""Fraction and bounds on the number of hidden entries."""

Phase = Literal["search", "polish", "ended"]


@dataclass
class Progress:
    """Progress of a recovery.

    Attributes:
        estimate: L.
        threshold: threshold of outliers.
        rule: rank rule.
        phase: ``search`` with hidden entries, ``polish`` with all entries, or ``ended``.
        steps: number of steps in this phase.
        wait: steps until the threshold falls.
        share: fraction of outliers in the last pass.
        scales: scales of the residual in the last steps.
        energies: root mean squares of the residual without outliers in the last steps.
        fits: number of refits of lost rows and columns.
        certificate: verdict; ``None`` until it is reached.
    """

    estimate: LowRank
    threshold: float
    rule: RankRule
    phase: Phase = "search"
    steps: int = 0
    wait: int = 0
    share: float = 0.0
    scales: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    fits: int = 0
    certificate: Certificate | None = None


class AlternatingProjections:
    r"""``D = L + S`` with low-rank L and sparse S, by alternating hard thresholding and projection.

    A step computes the residual ``R = D − L``, sets entries above the threshold θ to 0, and moves L towards the rest E,

        ``L ← H_r(P_T(L + E/(1 − ρ)))``,   ``E = R∘[|R| ≤ θ]``,

    where ``P_T`` is the projection onto the tangent space at L, ``H_r`` truncation to rank r, and ρ the fraction of
    entries that were dropped: an unknown entry holds L back, and the factor compensates for this on average.
    Alternating projections are due to Netrapalli, Niranjan, Sanghavi, Anandkumar and Jain (2014), the tangent space to
    Cai, Cai and Wei (2019). Both algorithms require the rank and fixed thresholds. Here,

    * the rank is the number of singular values above the noise edge of the residual
      (:mod:`~dop_lightning.engine.projections.rank`); no gap in the spectrum is needed,
    * the threshold falls geometrically, bounded below by a multiple of the scale of R, estimated from its lower
      quartile,
    * lost rows and columns are refitted (:mod:`~dop_lightning.engine.projections.refit`),
    * a fraction of the entries is hidden until the recovery has settled, and then certifies it
      (:mod:`~dop_lightning.engine.projections.certificate`). A few steps with all entries follow.

    Each step is one pass over D in strips, and only stores U and V.

    Args:
        tolerance: a recovery is exact if the root mean square of E is below this fraction of that of L; above 0.
        rank: maximum rank, at least 1. Defaults to a quarter of the smaller side.
        decay: factor by which the threshold falls, above 0 and below 1. Smaller values need fewer steps but tolerate
            fewer outliers.
        floor: lower bound on the threshold as a multiple of the scale of the residual, above 0.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, tolerance: float = 1e-6, rank: int | None = None, decay: float = 0.5, floor: float = 4.5
    ) -> None:
        self.tolerance = positive("tolerance", tolerance)
        self.bound = None if rank is None else at_least("rank", rank, 1)
        self.decay = positive("decay", fraction("decay", decay))
        self.floor = positive("floor", floor)

    def begin(self, problem: Problem) -> "Recovery":
        """Return the recovery of a problem in its initial state."""
        D, mask = problem.observation, problem.mask
        if D.shape[0] < D.shape[1]:  # with the longer side first, strips hold more rows
            D, mask = D.mT, None if mask is None else mask.mT
        mask = None if mask is None else mask.contiguous()
        observation = Observation(D.contiguous(), mask, torch.empty(0, dtype=torch.int64, device=D.device))
        return Recovery(self, observation, problem.seed, is_transposed=D is not problem.observation)


class Recovery:
    """Recovery of one matrix.

    The rows may be distributed over ranks: ``observation`` and the estimate then hold the rows of this rank.

    Args:
        solver: settings of the solver.
        observation: the matrix, possibly in a file. It is read strip by strip and not modified.
        seed: seed of the hidden entries and the initial vectors.
        is_transposed: whether the observation is the transpose of the problem's matrix.
        begins: whether to compute the initial state; otherwise, set ``progress``.
        ranks: processes that share the rows.

    Attributes:
        progress: current progress.
        steps_done: number of calls of :meth:`step` that did a step.
        observed: number of observed entries.
    """

    progress: Progress

    def __init__(
        self,
        solver: AlternatingProjections,
        observation: Observation,
        seed: int,
        is_transposed: bool = False,
        begins: bool = True,
        ranks: SingleProcess = SINGLE_PROCESS,
    ) -> None:
        self.solver = solver
        self._transposed = is_transposed
        self._seed = seed
        self._ranks = ranks
        self._D, self._mask, self._has_gaps = observation.values, observation.mask, observation.has_gaps
        self._shape = ranks.total(len(self._D)), self._D.shape[1]
        self._size = self._shape[0] * self._shape[1]
        self._of_rows, self._of_columns = self._observed_counts()
        self.observed = int(ranks.sum(self._of_rows.sum()))
        self._hidden, self._sample = self._draw_positions()
        self._sampled = self._entries(self._sample)
        own, m = ranks.own(self._shape[0]), self._shape[1]
        here = (self._hidden >= own.start * m) & (self._hidden < own.stop * m)
        self._hidden_here = self._hidden[here] - own.start * m
        self.steps_done = 0
        if begins:
            self.progress = self._initial_progress()
        if begins and (len(self._hidden) == 0 or min(self._shape) < MIN_SIDE):
            self._finish(rejected("the matrix is too small for a verdict"))

    # ----------------------------------------------------------------------------------------------- the observation

    def _observed_counts(self) -> tuple[Tensor, Tensor]:
        """Return the numbers of observed entries in each row of this rank and in each column."""
        n, m = self._D.shape
        if self._mask is not None:
            return self._mask.sum(dim=1), self._ranks.sum(self._mask.sum(dim=0))
        of_rows, of_columns = (torch.full((side,), other, device=self._D.device) for side, other in ((n, m), (m, n)))
        if self._has_gaps:
            for rows in strips_of(self._D):
                missing = torch.isnan(self._D[rows])
                of_rows[rows] -= missing.sum(dim=1)
                of_columns -= missing.sum(dim=0)
        return of_rows, self._ranks.sum(of_columns)

    def _is_observed(self, positions: Tensor) -> Tensor:
        if self._mask is not None:
            mask = self._mask
            return self._ranks.collect(*self._rows_and_columns(positions), lambda i, j: mask[i, j].int()) > 0
        return ~torch.isnan(self._entries(positions))

    def _draw_positions(self) -> tuple[Tensor, Tensor]:
        """Return flat positions of the hidden entries and of the sample, which are observed and disjoint."""
        generator = stream(self._seed, "held_out", 2)
        count = min(int(HIDDEN * self.observed), MAX_HIDDEN)
        hidden = min(count, self.observed // 2) if count >= MIN_HIDDEN else 0
        want = hidden + min(SAMPLE, self.observed - hidden)
        if want * 4 < self.observed:
            found = torch.empty(0, dtype=torch.int64, device="cpu")
            while len(found) < want:
                more = torch.randint(self._size, (2 * want,), generator=generator, device="cpu").to(self._D.device)
                if self._mask is not None or self._has_gaps:
                    more = more[self._is_observed(more)]
                found = torch.unique(torch.cat([found.to(more), more]))
        else:
            every = torch.arange(self._size, device=self._D.device)
            found = every if self.observed == len(every) else every[self._is_observed(every)]
        order = torch.randperm(len(found), generator=generator, device="cpu").to(found.device)[:want]
        return found[order[:hidden]].sort().values, found[order[hidden:]].sort().values

    def _entries(self, positions: Tensor) -> Tensor:
        return self._ranks.collect(
            *self._rows_and_columns(positions), lambda i, j: self._D[i, j]
        )  # for any memory order

    def _rows_and_columns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows and columns of flat positions."""
        m = self._shape[1]
        rows = torch.div(positions, m, rounding_mode="floor")
        return rows, positions - rows * m

    def _residuals(self, positions: Tensor, values: Tensor) -> Tensor:
        """Return ``D − L`` at flat positions."""
        return values - self._ranks.collect(*self._rows_and_columns(positions), self.progress.estimate.entries)

    def _structure_statistic(self) -> float:
        """Return how well the next components predict hidden entries."""
        now = self.progress
        generator = stream(self._seed, "init", 4)
        wide = next_components(
            self._observation(), now.estimate, now.threshold, self._step_factor, generator, self._ranks
        )
        residuals = self._residuals(self._hidden, self._entries(self._hidden))
        return prediction(wide, *self._rows_and_columns(self._hidden), residuals, now.threshold, self._ranks)

    @property
    def _step_factor(self) -> float:
        """Step factor that compensates for entries that are missing, hidden or outliers."""
        return 1 / max(0.1, (1 - self.progress.share) * self.observed / self._size)

    def _observation(self) -> Observation:
        hidden = self._hidden_here if self.progress.phase == "search" else self._hidden[:0]
        return Observation(self._D, self._mask, hidden, self._has_gaps)

    @property
    def _threshold_factor(self) -> float:
        """Factor by which the threshold falls; larger for short rows, which vary more."""
        return max(self.solver.decay, min(0.8, 0.4 + 2.1 / min(self._shape) ** 0.5))

    @property
    def _max_rank(self) -> int:
        """Maximum rank."""
        smaller = min(self._shape)
        return max(1, smaller // WIDEST) if self.solver.bound is None else min(self.solver.bound, smaller)

    # ------------------------------------------------------------------------------------------------------ the steps

    def _initial_progress(self) -> Progress:
        """Return the initial threshold, rank and triplets, from D without its largest entries."""
        n, m = self._shape
        generator = stream(self._seed, "init", 3)
        everything = Observation(self._D, self._mask, self._hidden[:0], self._has_gaps)
        sizes = self._sampled.abs()
        nonzero = sizes[sizes > 0]
        threshold = LARGE * float(nonzero.median()) if len(nonzero) else 0.0
        clipped = Clipped(everything, threshold, self._size / max(1, self.observed), self._ranks)
        like = self._sampled
        limit = edge((clipped.energy(like) / (n * m)) ** 0.5, n, m)
        width = min(WIDTH, n, m)
        while True:
            draws = torch.randn(m, width, generator=generator, dtype=torch.float32, device="cpu").to(like)
            estimate = leading(clipped.forward, clipped.backward, draws, ranks=self._ranks)
            rank = first_rank(estimate.values, limit)
            if rank + 2 <= width or width == min(n, m) or rank > self._max_rank:
                break
            width = min(2 * width, n, m)
        rank = min(rank, self._max_rank)
        estimate = estimate.truncate(rank, self._num_triplets(rank, width))
        return Progress(estimate, threshold, RankRule(estimate.values))

    def _num_triplets(self, rank: int, available: int) -> int:
        return min(max(rank + CANDIDATES, WIDTH), available, *self._shape)

    def step(self) -> None:
        """Do one step, or nothing if the recovery has ended."""
        now = self.progress
        if now.phase == "ended":
            return
        self.steps_done += 1
        residuals = self._residuals(self._sample, self._sampled).abs()
        if now.phase == "search" and now.steps == 0:
            now.threshold = min(now.threshold, float(residuals.max()))
        scale = self._residual_scale(residuals)
        if now.phase == "polish":
            now.threshold = NOISE * scale
        elif now.wait > 0:
            now.wait -= 1
        else:
            fallen = max(self.solver.floor * scale, self._threshold_factor * now.threshold)
            now.threshold = max(LOW * scale, min(fallen, SLOW * now.threshold))
        now.share = min(0.9, float((residuals > now.threshold).double().mean()))
        self._update(sweep(self._observation(), now.estimate, now.threshold, ranks=self._ranks))
        now.steps += 1
        now.scales = [*now.scales, scale][-SETTLING_STEPS - 1 :]
        self._check_progress(scale)

    def _residual_scale(self, residuals: Tensor) -> float:
        """Return the standard deviation of residuals that are not outliers, estimated from their lower quartile."""
        place = max(1, round(0.25 * (1 - self.progress.share) * len(residuals)))
        return float(residuals.kthvalue(place).values) / QUARTILE

    def _update(self, found: Sweep) -> None:
        """Update L and its rank."""
        now, (n, m) = self.progress, self._shape
        longer = self._step_factor
        moved = stepped(now.estimate, found.forward * longer, found.backward * longer, self._ranks)
        now.energies = [*now.energies, found.energy**0.5 / (n * m) ** 0.5][-SETTLING_STEPS - 1 :]
        noise = edge(longer * now.energies[-1], n, m)
        rounding = float(moved.values[0]) * max(n, m) * torch.finfo(self._D.dtype).eps  # as in a numerical rank
        limit = max(noise, rounding)
        rank = now.rule.rank(moved.values, now.estimate.rank, limit, now.threshold)
        rank = min(rank, self._max_rank)
        if rank > now.estimate.rank:
            now.wait = WAIT
        now.estimate = moved.truncate(rank, self._num_triplets(rank, len(moved.values))).gather_right(m, self._ranks)

    def _check_progress(self, scale: float) -> None:
        """End the phase if there is no more progress."""
        now = self.progress
        rms = now.estimate.norm / self._size**0.5
        if not rms > 0 or not scale < float("inf"):
            self._finish(rejected("no low-rank component was found"))
            return
        done = now.energies[-1] <= self.solver.tolerance * rms
        smallest = 8 * torch.finfo(self._D.dtype).eps * rms
        low = scale <= smallest or now.threshold <= 1.2 * self.solver.floor * scale
        rests = len(now.scales) > SETTLING_STEPS and (
            now.scales[-1] >= MIN_PROGRESS_RATIO * now.scales[0]
            and now.energies[-1] >= MIN_PROGRESS_RATIO * now.energies[0]
        )
        if now.phase == "polish":
            if now.steps >= MAX_FINAL_STEPS or (now.steps >= SETTLING_STEPS and (done or rests)):
                now.phase = "ended"
        elif (done or (low and rests)) and not self._fit_lost(scale):
            self._certify(rms)

    def _fit_lost(self, scale: float) -> bool:
        """Refit lost rows and columns; return whether the estimate changed."""
        now = self.progress
        if now.fits >= FITS:
            return False
        ranks, (n, m) = self._ranks, self._shape
        found = sweep(self._observation(), now.estimate, self.solver.floor * scale, counts=True, ranks=ranks)
        assert found.of_rows is not None
        assert found.of_columns is not None
        estimate, changed = now.estimate, False
        rows = lost_rows(found.of_rows, self._of_rows, ranks)
        if 0 < int(ranks.sum(torch.tensor(len(rows), device=rows.device))) <= MAX_LOST_FRACTION * n:
            known = self._observed_part(self._D[rows], lambda mask: mask[rows])
            estimate, changed = with_rows(estimate, rows, *known, ranks)
        columns = lost_rows(found.of_columns, self._of_columns)
        if 0 < len(columns) <= MAX_LOST_FRACTION * m:
            known = self._observed_part(self._D[:, columns], lambda mask: mask[:, columns])
            estimate, better = with_columns(estimate, columns, *known, ranks)
            changed = changed or better
        now.fits += 1
        if changed:
            now.estimate, now.scales, now.energies = estimate, [], []
        return changed

    def _observed_part(self, part: Tensor, of_mask: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return a part of D in the dtype of the estimate, and its mask if some entries were not observed."""
        part = part.to(self._sampled, copy=True)
        if self._has_gaps:
            return part.nan_to_num(nan=0.0), ~torch.isnan(part)
        return part, None if self._mask is None else of_mask(self._mask)

    def _certify(self, rms: float) -> None:
        """Certify the recovery; continue with all entries if it is accepted."""
        now, (n, m) = self.progress, self._shape
        r = now.estimate.rank
        values = self._entries(self._hidden)
        verdict = certify(
            self._residuals(self._hidden, values).abs(),
            self._residuals(self._sample, self._sampled).abs(),
            values.abs(),
            rms,
            self.solver.tolerance,
            r * (n + m - r) / max(1.0, self.observed * (1 - now.share)),
            self._structure_statistic,
        )
        if not verdict.is_accepted:
            self._finish(verdict)
            return
        now.certificate = verdict
        if verdict.kind == "exact":
            now.phase = "ended"
            return
        now.phase, now.steps, now.scales, now.energies = "polish", 0, [], []

    def _finish(self, verdict: Certificate) -> None:
        self.progress.certificate, self.progress.phase = verdict, "ended"

    # --------------------------------------------------------------------------------------------------- the result

    @property
    def estimate(self) -> LowRank:
        """L in the orientation of the problem."""
        now = self.progress.estimate
        return LowRank(now.right, now.values, now.left, now.rank) if self._transposed else now

    def report(self) -> dict[str, Attribute]:
        """Return the rank, and the verdict if there is one."""
        verdict = self.progress.certificate
        found: dict[str, Attribute] = {"method": "projections", "rank": self.progress.estimate.rank}
        if verdict is not None:
            found["certificate"] = verdict.kind
            if verdict.reason:
                found["reason"] = verdict.reason
        return found

    @property
    def _is_exact(self) -> bool:
        verdict = self.progress.certificate
        return verdict is not None and verdict.kind == "exact"

    @property
    def cutoff(self) -> float:
        """Residual above which an entry is an outlier."""
        now = self.progress
        rms = now.estimate.norm / self._size**0.5
        return MAX_EXACT_RESIDUAL * self.solver.tolerance * rms if self._is_exact else now.threshold

    def parts(self) -> tuple[Tensor, Tensor]:
        """Return L and S, ``(n, m)`` each; S is 0 at unobserved entries."""
        L, S = (torch.empty(tuple(self._D.shape), dtype=self._sampled.dtype, device=self._sampled.device) for _ in "LS")
        for rows in self._observation().strips:
            L[rows], S[rows] = self.rows_of_parts(rows)
        return (L.mT, S.mT) if self._transposed else (L, S)

    @property
    def noise(self) -> float:
        """Standard deviation of the residual without outliers, or a bound on it if L is exact."""
        return self.cutoff / (BOUND if self._is_exact else NOISE)

    def rows_of_parts(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return some rows of L and S, in the orientation of the observation."""
        estimate = self.progress.estimate
        L = estimate.scaled_left[rows] @ estimate.right[:, : estimate.rank].mT
        S = hardshrink(self._D[rows].to(L) - L, self.cutoff)
        if self._has_gaps:
            S.nan_to_num_(nan=0.0)
        if self._mask is not None:
            S.mul_(self._mask[rows])
        return L, S
