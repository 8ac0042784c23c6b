"""Semi-implicit steps along the gradient flow, whose length grows as the residual shrinks.

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
from dop_lightning.model.signals.abilities import Factors

DAMPING = 1.5
"""κ: both factors move at once, each by a whole Gauss–Newton step where it is 1; the part they share is then corrected
twice."""

PRUNE_EVERY = 5
"""Iterations between two looks at whether there are surplus components."""

LOOKS = 8
"""Power iterations of such a look, from the vector that follows the largest singular value of the residual."""

LEAST_SIDE = 100
"""Rows and columns from which the largest singular value of noise is predictable enough."""

CLOSE = 0.05
"""Norm of the residual, relative to X, below which surplus components are looked for."""

EDGE = 3.0
"""A component is surplus below so many times the largest singular value of noise of the size of the residual."""

WHITE = 1.2
"""The largest singular value of a residual without structure is at most so many times that of noise."""

ROUNDING = 10.0
"""A residual of so many units in the last place of y is none."""

COMPILED = 2**16
"""Entries of a matrix from which its corruption is stepped by a compiled kernel."""

_FUNCTIONS = {torch.float32: "step_corruption_float", torch.float64: "step_corruption_double"}

IN_CACHE = 2**18
"""Entries of a strip of rows that is worked on at once: a few such arrays lie in a core's cache."""


class SemiImplicit(StepRule):
    r"""Semi-implicit Euler steps of the gradient flow (12)–(13), much longer than gradient descent's.

    The steps of gradient descent are bounded by what has grown already: ``τ‖X‖₂ < 1``, ``α·τ·|s| < 1``. Those parts are
    at rest, though, and what a run waits for is what still is small and grows by ``exp(τ·r)``. So an iteration takes
    the stiff part of the flow implicitly (linearised, with the Gauss–Newton part of the Jacobian, block by block):

    * ``D = α·τ·r / (1 + 2α·τ·(g∘g + h∘h))``, ``g ← g − D∘g``, ``h ← h + D∘h``: gradient descent where g and h are
      small, a Gauss–Newton step where they are large.
    * with the residual R after that, ``U ← U − τ/2·(R + Rᵀ)U·(I + κ·τ·UᵀU)⁻¹`` (likewise
      ``U ← U − τ·RV·(I + κ·τ·VᵀV)⁻¹`` and V): gradient descent for directions that are small, alternating least squares
      for those that are not.

    These are stable at any τ as far as what is large is concerned. What is small moves explicitly, so that each problem
    has ``τ ← min(growth·τ, trust/‖R‖₂, τ·longest/max|D|)``, and half of τ where its loss has risen: the step grows as
    the residual shrinks, and an error of 10⁻⁶ takes little more than one of 10⁻³. The bias does not change: up to
    O(1/log(1/γ)), ξ of s and that of X are the same sum ``−Σ τ·r`` (Lemma 2). ``tests/engine/steps`` and
    ``docs/performance.md`` compare with small steps and with Eq. 8.

    For low-rank factors, any corruption ``g∘g − h∘h`` or none, the quarter squared loss, identity or entry mask. On
    a CPU there is no array for R: rows are worked on in strips that lie in the cache.

    Args:
        growth: the most that τ grows in an iteration, above 1.
        trust: bound on ``τ·‖R‖₂``, as estimated by a power iteration that goes along, above 0.
        longest: bound on ``max|D|``, above 0 and at most 2, up to which neither g nor h grows where it should shrink.
            Both bound the first step, whatever tau, and then act with a delay of one iteration.
        tolerance: a problem is done where ``‖r‖ ≤ tolerance·‖X‖``, above 0, or where r is rounding: nothing moves
            without a residual. X it is since outliers may be larger than it by any factor. ``None`` goes on as long as
            a run allows.
        prune: whether surplus components of a growing factor are dropped, if there is a corruption.

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
        """Problems whose residual was small before the last iteration."""
        if self.tolerance is None or state.iteration == 0:
            return []
        left, right = _factors(state).pair
        signal = (torch.bmm(left.mT, left) * torch.bmm(right.mT, right)).sum(dim=(1, 2)).clamp_min(0)  # ‖X‖²
        data = torch.linalg.vector_norm(state.problems.observation.flatten(1), dim=1).square()
        rounding = (ROUNDING * torch.finfo(data.dtype).eps) ** 2 * data
        small = 4 * state.memory["last_loss"] <= torch.maximum(self.tolerance**2 * signal, rounding)
        return torch.nonzero(small).flatten().tolist()

    def check(self, state: BatchState) -> None:
        """What the steps are derived for."""
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
                raise ValueError(f"SemiImplicit needs as {name} {allowed}, got {type(part).__name__}; use Nesterov")
        if not (isinstance(state.loss, SquaredLoss) and state.loss.reduction == "quarter"):
            raise ValueError("SemiImplicit needs the loss SquaredLoss with reduction quarter; use GradientDescent")
        if state.method.theta_optimizer is not None:
            raise ValueError("SemiImplicit moves θ by itself, got a theta_optimizer")

    @torch.no_grad()
    def automatic_tau(self, state: BatchState) -> list[float]:
        """The first step is as long as the bounds allow for ``R = −y``; where y is 0, any step will do."""
        y = state.problems.observation
        norms, _ = spectral_norms(y, state.problems)
        bound = self.trust / norms.cpu().double()
        if state.has_corruption:
            ratio = torch.tensor(state.alpha, dtype=torch.float64, device="cpu")
            largest = y.flatten(1).abs().amax(dim=1).cpu().double() * ratio
            bound = torch.minimum(bound, self.longest / largest)
        return torch.where(torch.isfinite(bound), bound, 1.0).tolist()

    def start(self, state: BatchState) -> dict[str, Tensor]:
        """τ, the loss before, and vectors that follow the largest singular value of R."""
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
        """Step s, then X."""
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
            longer = torch.minimum(longer, _most(state))
            rose = loss > memory["last_loss"]
            memory["tau"] = torch.where(rose, torch.minimum(longer, tau / 2), longer)
            memory["last_loss"] = loss
        return loss

    @staticmethod
    def _prune(state: BatchState) -> None:
        """Drop the surplus components of problems that are close to the observation."""
        growth, memory = state.signal.growth, state.memory
        if growth is None or not state.has_corruption:
            return
        n, m = state.problems.signal_shape
        if min(n, m) < LEAST_SIDE:
            return
        left, right = _factors(state).pair
        size = (torch.bmm(left.mT, left) * torch.bmm(right.mT, right)).sum(dim=(1, 2)).clamp_min(0).sqrt()
        residual = (4 * memory["last_loss"]).sqrt()
        told = torch.stack([memory["settled"].double(), residual.double(), size.double()]).tolist()  # one wait on a GPU
        near = [not done and e < CLOSE * x for done, e, x in zip(*told, strict=True)]
        if not any(near):
            return
        r = state.residual(torch.empty_like(state.problems.observation), state.iteration)
        norms = _norms(r, memory["right"])
        for k in (k for k, is_near in enumerate(near) if is_near):
            noise = residual[k] / (n * m) ** 0.5 * (n**0.5 + m**0.5)
            if float(norms[k]) <= WHITE * noise:
                memory["settled"][k] = growth.prune_(k, EDGE * noise)

    @staticmethod
    def _sweep(state: BatchState, scratch: "_Scratch", rate: Tensor) -> "_Swept":
        """Step g and h strip by strip, and multiply the residual with the factors and the vectors beside them."""
        left, right = _factors(state).pair
        beside_left = torch.cat([left, state.memory["left"]], dim=2)  # K n r+1
        beside_right = torch.cat([right, state.memory["right"]], dim=2)  # K m r+1
        forward = torch.empty_like(beside_left)
        backward = torch.zeros_like(beside_right)
        swept = _Swept(forward, backward, rate.new_zeros(len(rate)), rate.new_zeros(len(rate)))
        step = over(rate, left)
        kernels = _kernels(state)
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
        """Move the factors; ``‖R‖₂`` as seen by the vectors that follow it."""
        left, right = _factors(state).pair
        step = over(tau, left)
        forward, backward, memory = swept.forward, swept.backward, state.memory
        if _factors(state).symmetric:
            forward = (forward + backward) / 2
            left.sub_(_damped(forward[:, :, :-1], left, step))
            memory["left"], norm = _normalised(forward[:, :, -1:])
            memory["right"] = memory["left"].clone()
            return norm
        change = _damped(forward[:, :, :-1], right, step)
        right.sub_(_damped(backward[:, :, :-1], left, step))
        left.sub_(change)
        memory["left"], norm = _normalised(forward[:, :, -1:])
        memory["right"], other = _normalised(backward[:, :, -1:])
        return torch.maximum(norm, other)


@dataclass
class _Swept:
    """What a sweep over the rows gives: ``R·[V v]``, ``Rᵀ·[U u]``, ``‖r‖²`` before it, and ``max|D|``."""

    forward: Tensor
    backward: Tensor
    loss: Tensor
    longest: Tensor


def _step_corruption(
    r: Tensor, g: Tensor, h: Tensor, rate: Tensor, swept: _Swept, scratch: tuple[Tensor, Tensor, Tensor]
) -> None:
    """From ``A(X) − y`` in ``r``: step g and h in place, and leave the residual after that in ``r``."""
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


def _kernels(state: BatchState) -> CDLL | None:
    """The compiled kernels, for one large matrix without gaps on a CPU."""
    y, corruption = state.problems.observation, state.corruption
    is_one = len(y) == 1 and y.device.type == "cpu" and y.numel() >= COMPILED and y.is_contiguous()
    if not is_one or not isinstance(corruption, HadamardCorruption) or type(state.operator) is not Identity:
        return None
    return library() if y.dtype in _FUNCTIONS and all(array.is_contiguous() for array in corruption.arrays) else None


def _step_compiled(kernels: CDLL, r: Tensor, state: BatchState, rows: slice, rate: Tensor, swept: _Swept) -> None:
    """From X in ``r``: do what :func:`_step_corruption` does, in one pass."""
    assert isinstance(state.corruption, HadamardCorruption)
    arrays = (r, *(array[:, rows] for array in (state.problems.observation, *state.corruption.arrays)))
    found = (c_double * 2)()
    step = getattr(kernels, _FUNCTIONS[r.dtype])
    pointers = [c_void_p(array.data_ptr()) for array in arrays]
    step(*pointers, c_int64(r.numel()), c_double(float(rate)), found, c_int(torch.get_num_threads()))
    swept.loss.add_(found[0])
    swept.longest.clamp_(min=found[1])


def _damped(gradient: Tensor, other: Tensor, tau: Tensor) -> Tensor:
    """``τ·G·(I + κ·τ·WᵀW)⁻¹`` with W the other factor."""
    gram = torch.bmm(other.mT, other).mul_(DAMPING * tau)
    gram.diagonal(dim1=1, dim2=2).add_(1)
    root = torch.linalg.cholesky_ex(gram).L
    return torch.cholesky_solve((gradient * tau).mT, root).mT


def _factors(state: BatchState) -> Factors:
    factors = state.signal.factors
    if factors is None:
        raise TypeError(f"SemiImplicit needs a signal with factors, got {type(state.signal).__name__}")
    return factors


def _most(state: BatchState) -> Tensor:
    """The largest τ at which ``I + κ·τ·UᵀU`` is safely above rounding."""
    left, _ = _factors(state).pair
    size = torch.linalg.vector_norm(left, dim=(1, 2)).square()
    return 0.1 / (torch.finfo(left.dtype).eps * DAMPING * size.clamp_min(_least(left)))


def _norms(matrices: Tensor, right: Tensor) -> Tensor:
    """Estimates of ``‖M‖₂``, ``(K,)``, by power iteration from ``right``, ``(K, m, 1)``."""
    for _ in range(LOOKS):
        left, norms = _normalised(torch.bmm(matrices, right))
        right, _ = _normalised(torch.bmm(matrices.mT, left))
    return norms


def _normalised(vector: Tensor) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True).clamp_min(_least(vector))
    return vector / norm, norm.flatten()


def _least(like: Tensor) -> float:
    """What may be divided by, and the quotient be multiplied with α and κ: 1e-30 in single precision."""
    return float(torch.finfo(like.dtype).tiny ** 0.79)


class _Scratch:
    """Room for a strip of rows, made once a block."""

    def __init__(self, state: BatchState) -> None:
        size, rows, columns = state.problems.observation.shape
        self.rows = rows
        self.height = min(rows, max(64, IN_CACHE // (size * columns)))
        if state.problems.device.type != "cpu" or (size > 1 and size * 64 * columns > IN_CACHE):
            # On a GPU, each strip is a dozen launches. Of small matrices, many of them, thin strips make thin products.
            self.height = rows
        like = state.problems.observation
        self._arrays = [like.new_empty(size * self.height * columns) for _ in range(4)]
        self._size, self._columns = size, columns
        self._state = state
        self._product = like.new_empty(0)

    def strips(self) -> Iterator[slice]:
        """The rows, strip by strip."""
        for begin in range(0, self.rows, self.height):
            yield slice(begin, min(begin + self.height, self.rows))

    def _part(self, k: int, rows: slice) -> Tensor:
        height = rows.stop - rows.start
        return self._arrays[k][: self._size * height * self._columns].view(self._size, height, self._columns)

    def residual(self, rows: slice) -> Tensor:
        """``(K, rows, m)``."""
        return self._part(0, rows)

    def others(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Three more of that shape."""
        return self._part(1, rows), self._part(2, rows), self._part(3, rows)

    def product(self, rows: slice) -> Tensor:
        """``(K, rows, r + 1)``."""
        width = _factors(self._state).pair[1].shape[2] + 1
        if len(self._product) != self._size * self.height * width:
            self._product = self._arrays[0].new_empty(self._size * self.height * width)
        height = rows.stop - rows.start
        return self._product[: self._size * height * width].view(self._size, height, width)
