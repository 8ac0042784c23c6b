"""Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + s − y)``: the state of a batch, and k iterations of it.

Plain torch. Everything of the paper is this engine with exchangeable parts, see :class:`Method`.

Shapes: K problems, ``*m`` the shape of an observation, ``*n`` of a signal.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.checks import at_least, positive
from dop_lightning.corruption import Corruption, HadamardCorruption, NoCorruption
from dop_lightning.objective import Loss, SquaredLoss
from dop_lightning.operators import Operator, observed_entries
from dop_lightning.optim import DiscrepantSGD, parameter_groups
from dop_lightning.optim_state import is_stacked, load_optimizer_state, optimizer_state
from dop_lightning.parts import Rate
from dop_lightning.problems import ProblemBatch
from dop_lightning.runtime import is_out_of_memory
from dop_lightning.signals.base import Signal

IMAGE_ALPHA = 400.0
"""α of images of up to 128×128 pixels in colour; see docs/results.md."""

ENTRIES_A_UNIT = 3 * 128**2 / IMAGE_ALPHA
"""Of larger images, entries of the array for a unit of α."""

SignalFactory = Callable[[ProblemBatch], Signal]
CorruptionFactory = Callable[[ProblemBatch], Corruption]
OperatorFactory = Callable[[ProblemBatch], Operator]
ThetaOptimizer = Callable[[Sequence[nn.Parameter]], Optimizer]


class OutOfMemoryError(RuntimeError):
    """A batch takes more memory than there is; smaller ones may not."""


@dataclass
class Method:
    """How to recover: the exchangeable parts of the engine.

    Args:
        signal: makes φ(θ) of a batch.
        corruption: makes s of a batch; ``None`` is s = 0 (DIP, factorisation).
        operator: makes A of a batch; by default the identity, or the entry mask of the problems.
        loss: ℓ.
        theta_optimizer: makes another optimizer of θ (``functools.partial(torch.optim.Adam, lr=0.005)``); g, h go on
            by gradient descent at α·τ. ``None`` is gradient descent at τ.
    """

    signal: SignalFactory
    corruption: CorruptionFactory | None = HadamardCorruption
    operator: OperatorFactory = observed_entries
    loss: Loss = field(default_factory=SquaredLoss)
    theta_optimizer: ThetaOptimizer | None = None


@dataclass(frozen=True)
class Evaluation:
    """What a batch has recovered so far.

    Attributes:
        iteration: gradient iterations done.
        signal: X̂ ``(K, *n)``, as the next iteration sees it.
        corruption: ŝ ``(K, *m)``.
        loss: ``(K,)``.
    """

    iteration: int
    signal: Tensor
    corruption: Tensor
    loss: Tensor


class BatchState:
    """K problems on their way: θ, g, h, the optimizers and the number of iterations done.

    Args:
        method: the parts.
        problems: the batch, on the device where it is to run.
        tau: learning rate of θ, above 0: one number, or one a problem.
        alpha: ratio of the rates, above 0: one number, or one a problem; ``None`` is :func:`default_alpha`.

    Raises:
        ValueError: a rate is out of range or there are not K of them.
    """

    def __init__(
        self,
        method: Method,
        problems: ProblemBatch,
        tau: float | Sequence[float],
        alpha: float | Sequence[float] | None = None,
    ) -> None:
        self.method = method
        self.problems = problems
        size = len(problems)
        self.tau = _one_a_problem("tau", tau, size)
        self.alpha = _one_a_problem("alpha", default_alpha(problems, method.loss) if alpha is None else alpha, size)
        self.iteration = 0
        self.loss = method.loss
        self.operator = method.operator(problems).to(problems.device)
        self.signal = method.signal(problems).to(problems.device)
        self.corruption = (method.corruption or NoCorruption)(problems).to(problems.device)
        self.optimizers = self._make_optimizers()
        self._negative_observation = -problems.observation

    def _make_optimizers(self) -> list[Optimizer]:
        """One optimizer with the groups ``theta`` and ``corruption``; two where θ has another one."""
        groups = parameter_groups(
            list(self.signal.parameters()),
            list(self.corruption.parameters()),
            tau=self.tau[0],
            alpha=self.alpha[0],
        )
        theta_rates = [tau / self.tau[0] for tau in self.tau]
        rates = {
            "theta": [self.signal.rate_scale * ratio for ratio in theta_rates],
            "corruption": [r * a / self.alpha[0] for r, a in zip(theta_rates, self.alpha, strict=True)],
        }
        for group in groups:
            part = self.signal if group["name"] == "theta" else self.corruption
            group["scale"] = _scales(part, rates[group["name"]], group["params"])
        optimizers: list[Optimizer] = []
        if self.method.theta_optimizer is not None:
            optimizers.append(self.method.theta_optimizer(groups.pop(0)["params"]))
        if groups:
            optimizers.append(DiscrepantSGD(groups))
        return optimizers

    def __len__(self) -> int:
        return len(self.problems)

    @property
    def own_corruption(self) -> bool:
        """Whether s is modelled at all."""
        return not isinstance(self.corruption, NoCorruption)

    def residual(self, out: Tensor, iteration: int) -> Tensor:
        """``r = A(X) + s − y`` into ``out``, ``(K, *m)``; to be called without gradients."""
        out.copy_(self._negative_observation)
        self.operator.add_forward_(out, self.signal, iteration)
        self.corruption.add_to_(out)
        return out

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """X̂, ŝ and the loss as the next iteration will see them; the state is not touched."""
        signal = self.signal(self.iteration)
        corruption = self.corruption.value().to(signal)
        residual = self.operator(signal) + corruption + self._negative_observation
        return Evaluation(self.iteration, signal, corruption, self.loss.value(residual))

    def problem_state(self, k: int) -> dict[str, Any]:
        """All that problem k needs to go on elsewhere, bit for bit: tensors on the CPU and plain numbers."""
        return {
            "iteration": self.iteration,
            "signal": self.signal.problem_state(k),
            "corruption": self.corruption.problem_state(k),
            "optimizers": [optimizer_state(o, self.owned(k)) for o in self.optimizers],
        }

    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Put a state made by :meth:`problem_state` in the place of problem k. The iteration is that of the caller.

        Raises:
            ValueError: the state is of another method or shape.
        """
        self.signal.load_problem_state(k, state["signal"])
        self.corruption.load_problem_state(k, state["corruption"])
        if len(state["optimizers"]) != len(self.optimizers):
            raise ValueError(f"{self.problems[k].name}: the state has other optimizers than this method")
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer_state(optimizer, self.owned(k), saved)

    def owned(self, k: int) -> dict[nn.Parameter, tuple[str, int | None]]:
        """Parameters of problem k with their names and places in a stack."""
        parts = (("signal", self.signal), ("corruption", self.corruption))
        return {p: (f"{kind}.{name}", i) for kind, part in parts for name, p, i in part.problem_parameters(k)}

    def select(self, keep: Sequence[int]) -> "BatchState":
        """The problems at the positions ``keep`` as a batch of their own, going on where they are."""
        other = BatchState(
            self.method, self.problems.select(keep), [self.tau[k] for k in keep], [self.alpha[k] for k in keep]
        )
        other.iteration = self.iteration
        for place, k in enumerate(keep):
            other.load_problem_state(place, self.problem_state(k))
        return other


def default_alpha(problems: ProblemBatch, loss: Loss) -> float:
    """The ratio of the rates where none is given.

    Matrices have ``α = √max(n, m)`` (section 2.3: λ = 1/√n is right for robust PCA [Candès et al., 2011]). Images under
    the mean of squares have ``α = min(max(400, N/123), N/8)`` with N = C·H·W. A step multiplies an entry of g by
    1 − 4αr/N: the first bound lets s of a large image grow within the iterations of a small one, the second keeps tiny
    images from diverging.

    Raises:
        ValueError: there is no default for such a signal and loss.
    """
    shape = problems.signal_shape
    if len(shape) == 2:
        return float(max(shape) ** 0.5)
    if len(shape) == 3 and isinstance(loss, SquaredLoss) and loss.reduction == "mean":
        entries = math.prod(shape)
        return min(max(IMAGE_ALPHA, entries / ENTRIES_A_UNIT), entries / 8)
    raise ValueError(f"alpha has no default for a signal of shape {shape} and this loss, give a number")


def advance(state: BatchState, iterations: int) -> list[int]:
    """Do gradient iterations (Eqs. 6 and 10) on every problem of a batch.

    There is no host synchronisation inside. A problem whose loss or parameters are not finite at the end has diverged:
    it goes back to where it was at the start of this call, and the others keep what they reached.

    Args:
        state: changed in place.
        iterations: at least 0.

    Returns:
        Positions of the problems that diverged.

    Raises:
        OutOfMemoryError: the batch is too large for its device; it is where it was at the start of this call.
    """
    if at_least("iterations", iterations, 0) == 0:
        return []
    snapshot = _Snapshot(state)
    try:
        diverged = _descend(state, iterations)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        state.signal.release()
        snapshot.restore(state, range(len(state)))
        many = f"{len(state)} problem{'s' * (len(state) > 1)}"
        raise OutOfMemoryError(f"out of memory with {many} of shape {state.problems.signal_shape}") from None
    snapshot.restore(state, diverged)
    state.iteration += iterations
    return diverged


def _descend(state: BatchState, iterations: int) -> list[int]:
    """The iterations of :func:`advance`; positions of what is not finite after them."""
    residual = torch.empty_like(state.problems.observation)
    step = _closed_form_step if _is_closed_form(state) else _gradient_step
    loss = torch.zeros(len(state))
    with torch.no_grad():
        rates = _Rates(state)
        for i in range(state.iteration, state.iteration + iterations):
            state.residual(residual, i)
            if i == state.iteration + iterations - 1:
                loss = state.loss.value(residual)
            step(state, residual, rates)
        size = len(state)
        healthy = torch.isfinite(loss) & state.signal.finite(size) & state.corruption.finite(size).to(loss.device)
        return torch.nonzero(~healthy).flatten().tolist()


def _is_closed_form(state: BatchState) -> bool:
    return state.signal.closed_form and state.method.theta_optimizer is None


class _Rates:
    """The rates of a block, read once."""

    def __init__(self, state: BatchState) -> None:
        sgd = state.optimizers[-1]
        self.theta: Rate = sgd.rate("theta") if _is_closed_form(state) and isinstance(sgd, DiscrepantSGD) else 0.0
        self.corruption: Rate = 0.0
        if state.own_corruption and isinstance(sgd, DiscrepantSGD):
            self.corruption = sgd.rate("corruption")


def _closed_form_step(state: BatchState, residual: Tensor, rates: _Rates) -> None:
    """θ, g and h in place, all from the same residual."""
    factor = state.loss.derivative_(residual)
    state.signal.descend_(state.operator.adjoint(residual), rates.theta * factor)
    state.corruption.descend_(residual, rates.corruption * factor)


def _gradient_step(state: BatchState, residual: Tensor, rates: _Rates) -> None:
    """θ by its gradient and its optimizer, g and h in place."""
    factor = state.loss.derivative_(residual)
    with torch.enable_grad():
        state.signal.pull_back(state.operator.adjoint(residual), factor)
    for optimizer in state.optimizers:
        optimizer.step()  # g and h have no gradient here
    state.corruption.descend_(residual, rates.corruption * factor)


class _Snapshot:
    """Copies of all parameters, and of what optimizers remember of them, to bring single problems back."""

    def __init__(self, state: BatchState) -> None:
        parameters = [*state.signal.parameters(), *state.corruption.parameters()]
        self.copies = {p: p.detach().clone() for p in parameters}
        self.memories = [
            {p: {key: _copy(value) for key, value in memory.items()} for p, memory in optimizer.state.items()}
            for optimizer in state.optimizers
        ]

    def restore(self, state: BatchState, which: Sequence[int]) -> None:
        """Bring the problems at the positions ``which`` back."""
        with torch.no_grad():
            for p, (_, i) in [item for k in which for item in state.owned(k).items()]:
                _put_back(p, self.copies[p], i)
                for optimizer, memories in zip(state.optimizers, self.memories, strict=True):
                    for key, value in optimizer.state.get(p, {}).items():
                        if is_stacked(value, p, i) or (i is None and isinstance(value, Tensor)):
                            before = memories.get(p, {}).get(key)
                            _put_back(value, torch.zeros_like(value) if before is None else before, i)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _put_back(tensor: Tensor, copy: Tensor, index: int | None) -> None:
    (tensor if index is None else tensor[index]).copy_(copy if index is None else copy[index])


def _one_a_problem(name: str, value: float | Sequence[float], size: int) -> list[float]:
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * size
    if len(values) != size:
        raise ValueError(f"{name} must be one number or one a problem, {size} of them, got {len(values)}")
    for v in values:
        positive(name, v)
    return values


def _scales(part: nn.Module, factors: list[float], parameters: Sequence[nn.Parameter]) -> list[float | Tensor | None]:
    """The scale of each parameter, given one factor a problem."""
    scales: dict[nn.Parameter, float | Tensor | None] = {}
    for k in range(len(factors)):
        for _, p, i in part.problem_parameters(k):  # type: ignore[operator]
            if len(set(factors)) == 1:
                scales[p] = None if factors[0] == 1.0 else factors[0]
            elif i is None:
                scales[p] = factors[k]
            else:
                scales[p] = torch.tensor(factors, dtype=p.dtype, device=p.device)
    return [scales[p] for p in parameters]
