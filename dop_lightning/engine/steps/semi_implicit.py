"""Semi-implicit steps along the gradient flow. The step length grows as the residual shrinks.

Shapes: K problems, n rows, m columns, r columns of the factors.
"""

from collections.abc import Iterator
from ctypes import CDLL, c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from dop_lightning.engine.automatic import spectral_norms
from dop_lightning.engine.descent import BatchState, StepRule
from dop_lightning.engine.steps.base import alphas, grow_if_due, over
from dop_lightning.foundation.checks import positive
from dop_lightning.foundation.native.compiled import library
from dop_lightning.model.corruption import HadamardCorruption, NoCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.operators import EntryMask, Identity
from dop_lightning.model.signals.capabilities import Factors

DAMPING = 1.5
"""κ. Both factors move at once: with κ = 1, each takes a full Gauss–Newton step, and the part that they share would be
corrected twice."""

PRUNE_EVERY = 5
"""Iterations between two checks for surplus components."""

LOOKS = 8
"""Power iterations per check, started from the estimate of the largest singular vector of the residual."""

MIN_SIDE = 100
"""Minimum number of rows and of columns for pruning. In smaller matrices, the largest singular value of noise is too
variable."""

MAX_PRUNING_RESIDUAL = 0.05
"""Norm of the residual relative to X below which surplus components are searched for."""

EDGE = 3.0
"""Threshold for surplus components, relative to the largest singular value of noise with the norm of the residual."""

MAX_WHITE_RATIO = 1.2
"""Maximum of the largest singular value of a residual without structure, relative to that of noise."""

ROUNDING = 10.0
"""Residuals below this many units in the last place of y count as zero."""

COMPILED = 2**16
"""Minimum number of entries of a matrix for updating its corruption with a compiled kernel."""

_FUNCTIONS = {torch.float32: "step_corruption_float", torch.float64: "step_corruption_double"}

STRIP_ENTRIES = 2**18
"""Entries of a strip of rows that is processed at once. A few such arrays fit in the cache of a core."""


class SemiImplicit(StepRule):
    r"""Semi-implicit Euler steps of the gradient flow (12)–(13), much longer than those of gradient descent.

    The steps of gradient descent are limited by components that are large already: ``τ‖X‖₂ < 1``, ``α·τ·|s| < 1``.
    These have converged, however. The run time is determined by components that are still small and grow by
    ``exp(τ·r)``. An iteration therefore treats the stiff part of the flow implicitly (linearised, with the
    Gauss–Newton part of the Jacobian, block by block):

    * ``D = α·τ·r / (1 + 2α·τ·(g∘g + h∘h))``, ``g ← g − D∘g``, ``h ← h + D∘h``: gradient descent for small g and h, a
      Gauss–Newton step for large ones.
    * With the new residual R, ``U ← U − τ/2·(R + Rᵀ)U·(I + κ·τ·UᵀU)⁻¹`` (for rectangular matrices
      ``U ← U − τ·RV·(I + κ·τ·VᵀV)⁻¹``, and likewise V): gradient descent for small directions, alternating least
      squares for large ones.

    For large components, these steps are stable for any τ. Small components move explicitly, which limits τ. Each
    problem therefore has ``τ ← min(growth·τ, trust/‖R‖₂, τ·longest/max|D|)``, and τ is at least halved if its loss
    increases. The steps grow as the residual shrinks, so that an error of 10⁻⁶ takes little more time than 10⁻³. The
    implicit bias does not change: up to O(1/log(1/γ)), ξ of s and of X are the same sum ``−Σ τ·r`` (Lemma 2).
    ``tests/engine/steps`` and ``docs/performance.md`` compare the result with small steps and with Eq. 8.

    The rule supports low-rank factors, any corruption ``g∘g − h∘h`` or none, the quarter squared loss, and identity or
    entry mask as operator. On a CPU, R is never stored: rows are processed in strips that fit in the cache.

    Args:
        growth: maximum factor by which τ grows per iteration, above 1.
        trust: bound on ``τ·‖R‖₂``, above 0; the norm is estimated by one power iteration per step.
        longest: bound on ``max|D|``, above 0 and at most 2; beyond 2, g or h could grow where it should shrink. Both
            bounds limit the first step for any tau, and then act with a delay of one iteration.
        tolerance: a problem is done if ``‖r‖ ≤ tolerance·‖X‖``, above 0, or if r is at the level of rounding errors.
            The norm is that of X, since outliers may be arbitrarily large. ``None`` disables stopping.
        prune: whether to drop surplus components of a growing factor, if there is a corruption.

    Raises:
        ValueError: an argument is out of range.
    """

    added_memory = frozenset({"settled"})

    def __init__(
        self,
        growth: float = 1.3,
        trust: float = 0.3,
        longest: float = 2.0,
        tolerance: float | None = None,
        prune: bool = True,
    ) -> None:
        if positive("growth", growth) <= 1:
            raise ValueError(f"growth must be above 1, got {growth!r}")
        self.growth = growth
        self.trust = positive("trust", trust)
        if positive("longest", longest) > 2:
            raise ValueError(f"longest must be at most 2, got {longest!r}")
        self.longest = longest
        self.tolerance = None if tolerance is None else positive("tolerance", tolerance)
        self.prune = prune

    def finished(self, state: BatchState) -> list[int]:
        """Return the problems whose residual was small before the last iteration."""
        if self.tolerance is None or state.iteration == 0:
            return []
        left, right = _factors(state).pair
        signal = (torch.bmm(left.mT, left) * torch.bmm(right.mT, right)).sum(dim=(1, 2)).clamp_min(0)  # ‖X‖²
        data = torch.linalg.vector_norm(state.problems.observation.flatten(1), dim=1).square()
        rounding = (ROUNDING * torch.finfo(data.dtype).eps) ** 2 * data
        small = 4 * state.memory["last_loss"] <= torch.maximum(self.tolerance**2 * signal, rounding)
        return torch.nonzero(small).flatten().tolist()

    def check(self, state: BatchState) -> None:
        """Require the parts that the steps are derived for."""
        parts = (
            ("signal", state.signal, state.signal.factors is not None, "Factor or SymmetricFactor"),
            (
                "corruption",
                state.corruption,
                isinstance(state.corruption, HadamardCorruption | NoCorruption),
                "HadamardCorruption or NoCorruption",
            ),
            ("operator", state.operator, isinstance(state.operator, Identity | EntryMask), "Identity or EntryMask"),
        )
        for name, part, is_allowed, allowed in parts:
            if not is_allowed:
                raise ValueError(f"SemiImplicit requires {allowed} as {name}, got {type(part).__name__}; use Nesterov")
        if not (isinstance(state.loss, SquaredLoss) and state.loss.reduction == "quarter"):
            raise ValueError("SemiImplicit requires SquaredLoss with reduction quarter as loss; use GradientDescent")
        if state.method.theta_optimizer is not None:
            raise ValueError("SemiImplicit does not support theta_optimizer; remove it, or use GradientDescent")

    @torch.no_grad()
    def automatic_tau(self, state: BatchState) -> list[float]:
        """Return the longest first step that the bounds allow for ``R = −y``; 1 if y = 0, where any step works."""
        y = state.problems.observation
        norms, _ = spectral_norms(y, state.problems)
        bound = self.trust / norms.cpu().double()
        if state.has_corruption:
            ratio = torch.tensor(state.alpha, dtype=torch.float64, device="cpu")
            largest = y.flatten(1).abs().amax(dim=1).cpu().double() * ratio
            bound = torch.minimum(bound, self.longest / largest)
        return torch.where(torch.isfinite(bound), bound, 1.0).tolist()

    def start(self, state: BatchState) -> dict[str, Tensor]:
        """Return τ, the last loss, estimates of the largest singular vectors of R, and whether pruning is finished."""
        _, right = spectral_norms(state.problems.observation, state.problems)
        left = torch.bmm(state.problems.observation, right)
        left = left / torch.linalg.vector_norm(left, dim=1, keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)
        tau = state.tau_tensor()
        if not state.automatic:
            tau = torch.minimum(tau, torch.tensor(self.automatic_tau(state), dtype=tau.dtype, device=tau.device))
        tau = tau.to(left)
        settled = torch.zeros(len(tau), dtype=torch.bool, device=tau.device)
        loss = torch.full_like(tau, torch.inf)
        return {"tau": tau, "last_loss": loss, "left": left, "right": right, "settled": settled}

    def descend(self, state: BatchState, iterations: int) -> Tensor:
        """Take semi-implicit steps: update s, then X."""
        memory, ratio = state.memory, alphas(state)
        loss = memory["last_loss"]
        scratch = _Scratch(state)
        for i in range(state.iteration, state.iteration + iterations):
            if self.prune and i % PRUNE_EVERY == 0:
                self._prune(state)
            grow_if_due(state, i)
            tau = memory["tau"]
            swept = self._sweep(state, scratch, tau * ratio)
            norm = self._move_factors(state, swept, tau)
            loss = swept.loss / 4
            longer = torch.minimum(tau * self.growth, self.trust / norm)
            longer = torch.minimum(longer, tau * (self.longest / swept.longest.clamp_min(1e-9)))
            longer = torch.minimum(longer, _max_tau(state))
            rose = loss > memory["last_loss"]
            memory["tau"] = torch.where(rose, torch.minimum(longer, tau / 2), longer)
            memory["last_loss"] = loss
        return loss

    @staticmethod
    def _prune(state: BatchState) -> None:
        """Drop surplus components of problems whose residual is small."""
        growth, memory = state.signal.growth, state.memory
        if growth is None or not state.has_corruption:
            return
        n, m = state.problems.signal_shape
        if min(n, m) < MIN_SIDE:
            return
        left, right = _factors(state).pair
        size = (torch.bmm(left.mT, left) * torch.bmm(right.mT, right)).sum(dim=(1, 2)).clamp_min(0).sqrt()
        residual = (4 * memory["last_loss"]).sqrt()
        values = torch.stack([memory["settled"].double(), residual.double(), size.double()]).tolist()  # one sync
        near = [not done and e < MAX_PRUNING_RESIDUAL * x for done, e, x in zip(*values, strict=True)]
        if not any(near):
            return
        r = state.residual(torch.empty_like(state.problems.observation), state.iteration)
        norms = _spectral_norms(r, memory["right"])
        for k in (k for k, is_near in enumerate(near) if is_near):
            noise = residual[k] / (n * m) ** 0.5 * (n**0.5 + m**0.5)
            if float(norms[k]) <= MAX_WHITE_RATIO * noise:
                memory["settled"][k] = growth.prune_(k, EDGE * noise)

    @staticmethod
    def _sweep(state: BatchState, scratch: "_Scratch", rate: Tensor) -> "_Swept":
        """Update g and h strip by strip, and multiply the residual by the factors and the singular vectors."""
        left, right = _factors(state).pair
        beside_left = torch.cat([left, state.memory["left"]], dim=2)  # K n r+1
        beside_right = torch.cat([right, state.memory["right"]], dim=2)  # K m r+1
        forward = torch.empty_like(beside_left)
        backward = torch.zeros_like(beside_right)
        swept = _Swept(forward, backward, rate.new_zeros(len(rate)), rate.new_zeros(len(rate)))
        step = over(rate, left)
        kernels = _compiled_kernels(state)
        for rows in scratch.strips():
            r = scratch.residual(rows)
            if kernels is not None:
                torch.mm(left[0, rows], right[0].mT, out=r[0])
                _step_compiled(kernels, r, state, rows, rate, swept)
                torch.mm(r[0], beside_right[0], out=forward[0, rows])
                backward[0].addmm_(r[0].mT, beside_left[0, rows])
                continue
            torch.neg(state.problems.observation[:, rows], out=r)
            r.baddbmm_(left[:, rows], right.mT)
            if isinstance(state.operator, EntryMask):
                r.mul_(state.operator.mask[:, rows])
            if isinstance(state.corruption, HadamardCorruption):
                g, h = (array[:, rows] for array in state.corruption.arrays)
                _step_corruption(r, g, h, step, swept, scratch.others(rows))
            else:
                swept.loss.add_(r.square().sum(dim=(1, 2)))
            torch.bmm(r, beside_right, out=scratch.product(rows))
            forward[:, rows] = scratch.product(rows)
            backward.baddbmm_(r.mT, beside_left[:, rows])
        return swept

    @staticmethod
    def _move_factors(state: BatchState, swept: "_Swept", tau: Tensor) -> Tensor:
        """Update the factors and the singular vectors of R, and return the estimates of ``‖R‖₂``."""
        left, right = _factors(state).pair
        step = over(tau, left)
        forward, backward, memory = swept.forward, swept.backward, state.memory
        if _factors(state).symmetric:
            forward = (forward + backward) / 2
            left.sub_(_damped_step(forward[:, :, :-1], left, step))
            memory["left"], norm = _normalise(forward[:, :, -1:])
            memory["right"] = memory["left"].clone()
            return norm
        change = _damped_step(forward[:, :, :-1], right, step)
        right.sub_(_damped_step(backward[:, :, :-1], left, step))
        left.sub_(change)
        memory["left"], norm = _normalise(forward[:, :, -1:])
        memory["right"], other = _normalise(backward[:, :, -1:])
        return torch.maximum(norm, other)


@dataclass
class _Swept:
    """Results of a sweep over the rows: ``R·[V v]``, ``Rᵀ·[U u]``, ``‖r‖²`` before the sweep, and ``max|D|``."""

    forward: Tensor
    backward: Tensor
    loss: Tensor
    longest: Tensor


def _step_corruption(
    r: Tensor, g: Tensor, h: Tensor, rate: Tensor, swept: _Swept, scratch: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Update g and h in place. On entry, ``r`` is ``A(X) − y``; on return, it is the new residual."""
    positive_part, negative_part, D = scratch
    torch.mul(g, g, out=positive_part)
    torch.mul(h, h, out=negative_part)
    torch.add(positive_part, negative_part, out=D)
    r.add_(positive_part).sub_(negative_part)
    D.mul_(2 * rate).add_(1)
    torch.div(r, D, out=D)
    D.mul_(rate)
    swept.loss.add_(torch.linalg.vector_norm(r, dim=(1, 2)).square())
    r.sub_(positive_part).add_(negative_part)  # A(X) − y again
    low, high = D.amin(dim=(1, 2)), D.amax(dim=(1, 2))
    torch.maximum(swept.longest, torch.maximum(-low, high), out=swept.longest)
    g.addcmul_(D, g, value=-1)
    h.addcmul_(D, h)
    r.addcmul_(g, g).addcmul_(h, h, value=-1)


def _compiled_kernels(state: BatchState) -> CDLL | None:
    """Return the compiled kernels if supported: one large, fully observed, contiguous matrix on a CPU."""
    y, corruption = state.problems.observation, state.corruption
    is_one = len(y) == 1 and y.device.type == "cpu" and y.numel() >= COMPILED and y.is_contiguous()
    if not is_one or not isinstance(corruption, HadamardCorruption) or type(state.operator) is not Identity:
        return None
    return library() if y.dtype in _FUNCTIONS and all(array.is_contiguous() for array in corruption.arrays) else None


def _step_compiled(kernels: CDLL, r: Tensor, state: BatchState, rows: slice, rate: Tensor, swept: _Swept) -> None:
    """Do the same as :func:`_step_corruption` in one pass. On entry, ``r`` is X."""
    assert isinstance(state.corruption, HadamardCorruption)
    arrays = (r, *(array[:, rows] for array in (state.problems.observation, *state.corruption.arrays)))
    found = (c_double * 2)()
    step = getattr(kernels, _FUNCTIONS[r.dtype])
    pointers = [c_void_p(array.data_ptr()) for array in arrays]
    step(*pointers, c_int64(r.numel()), c_double(float(rate)), found, c_int(torch.get_num_threads()))
    swept.loss.add_(found[0])
    swept.longest.clamp_(min=found[1])


def _damped_step(gradient: Tensor, other: Tensor, tau: Tensor) -> Tensor:
    """Return ``τ·G·(I + κ·τ·WᵀW)⁻¹``, where W is the other factor."""
    gram = torch.bmm(other.mT, other).mul_(DAMPING * tau)
    gram.diagonal(dim1=1, dim2=2).add_(1)
    root = torch.linalg.cholesky_ex(gram).L
    return torch.cholesky_solve((gradient * tau).mT, root).mT


def _factors(state: BatchState) -> Factors:
    factors = state.signal.factors
    if factors is None:
        raise TypeError(f"SemiImplicit requires a signal with factors, got {type(state.signal).__name__}")
    return factors


def _max_tau(state: BatchState) -> Tensor:
    """Return the largest τ that keeps ``I + κ·τ·UᵀU`` well-conditioned: ``κ·τ·‖U‖²`` is at most 0.1/ε."""
    left, _ = _factors(state).pair
    size = torch.linalg.vector_norm(left, dim=(1, 2)).square()
    return 0.1 / (torch.finfo(left.dtype).eps * DAMPING * size.clamp_min(_min_divisor(left)))


def _spectral_norms(matrices: Tensor, right: Tensor) -> Tensor:
    """Estimate ``‖M‖₂``, ``(K,)``, by power iteration started from ``right``, ``(K, m, 1)``."""
    for _ in range(LOOKS):
        left, norms = _normalise(torch.bmm(matrices, right))
        right, _ = _normalise(torch.bmm(matrices.mT, left))
    return norms


def _normalise(vector: Tensor) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True).clamp_min(_min_divisor(vector))
    return vector / norm, norm.flatten()


def _min_divisor(like: Tensor) -> float:
    """Return the smallest safe divisor, 1e-30 in single precision: quotients can still be multiplied by α and κ."""
    return float(torch.finfo(like.dtype).tiny ** 0.79)


class _Scratch:
    """Buffers for a strip of rows, allocated once per block."""

    def __init__(self, state: BatchState) -> None:
        size, rows, columns = state.problems.observation.shape
        self.rows = rows
        self.height = min(rows, max(64, STRIP_ENTRIES // (size * columns)))
        if state.problems.device.type != "cpu" or (size > 1 and size * 64 * columns > STRIP_ENTRIES):
            # A single strip: on a GPU, each strip costs a dozen launches; for many small matrices, thin strips would
            # make the products inefficient.
            self.height = rows
        like = state.problems.observation
        self._arrays = [like.new_empty(size * self.height * columns) for _ in range(4)]
        self._size, self._columns = size, columns
        self._state = state
        self._product = like.new_empty(0)

    def strips(self) -> Iterator[slice]:
        """Yield the rows of each strip."""
        for begin in range(0, self.rows, self.height):
            yield slice(begin, min(begin + self.height, self.rows))

    def _view(self, k: int, rows: slice) -> Tensor:
        height = rows.stop - rows.start
        return self._arrays[k][: self._size * height * self._columns].view(self._size, height, self._columns)

    def residual(self, rows: slice) -> Tensor:
        """Return a buffer ``(K, rows, m)``."""
        return self._view(0, rows)

    def others(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return three more buffers ``(K, rows, m)``."""
        return self._view(1, rows), self._view(2, rows), self._view(3, rows)

    def product(self, rows: slice) -> Tensor:
        """Return a buffer ``(K, rows, r + 1)``."""
        width = _factors(self._state).pair[1].shape[2] + 1
        if len(self._product) != self._size * self.height * width:
            self._product = self._arrays[0].new_empty(self._size * self.height * width)
        height = rows.stop - rows.start
        return self._product[: self._size * height * width].view(self._size, height, width)
