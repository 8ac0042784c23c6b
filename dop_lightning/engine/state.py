"""Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + s − y)``: the state of a batch, and k iterations of it.

Plain torch. Everything of the paper is this engine with exchangeable parts, see :class:`Method`.

Shapes: K problems, ``*m`` the shape of an observation, ``*n`` of a signal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.engine.alpha import default_alphas
from dop_lightning.engine.graphs import make_capturable
from dop_lightning.engine.optim.discrepant_sgd import DiscrepantSGD, parameter_groups
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.optim.state import is_stacked, load_optimizer_state, optimizer_state
from dop_lightning.engine.outcome import Status
from dop_lightning.engine.steps import GradientDescent, StepRule
from dop_lightning.engine.steps.network_loop import NetworkLoop
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.machine import is_out_of_memory
from dop_lightning.model.corruption import Corruption, HadamardCorruption, NoCorruption
from dop_lightning.model.losses import Loss, SquaredLoss
from dop_lightning.model.operators import Operator, operator_of
from dop_lightning.model.signals.base import Signal
from dop_lightning.model.signals.growing import LowRank
from dop_lightning.problems.problem import ProblemBatch

if TYPE_CHECKING:  # solvers give what the engine gives
    from dop_lightning.engine.convex.solver import ConvexSolver

    SolverFactory = Callable[[ProblemBatch], ConvexSolver]

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
        operator: makes A of a batch; by default as the problems say: what they were measured by, their mask, or the
            identity.
        loss: ℓ.
        theta_optimizer: makes another optimizer of θ (``functools.partial(torch.optim.Adam, lr=0.005)``); g, h go on
            by gradient descent at α·τ. ``None`` is gradient descent at τ.
        steps: how θ, g and h move along the gradient.
        solver: makes a solver of the convex program (Eq. 8) of a batch, to be used instead of all of the above but the
            operator, see :class:`~dop_lightning.engine.convex.ConvexState`.
        graphs: whether iterations of networks that allow it are replayed as a CUDA graph on a GPU, see
            :mod:`dop_lightning.engine.graphs`.
    """

    signal: SignalFactory
    corruption: CorruptionFactory | None = HadamardCorruption
    operator: OperatorFactory = operator_of
    loss: Loss = field(default_factory=SquaredLoss)
    theta_optimizer: ThetaOptimizer | None = None
    steps: StepRule = field(default_factory=GradientDescent)
    solver: "SolverFactory | None" = None
    graphs: bool = True


@dataclass(frozen=True)
class Evaluation:
    """What a batch has recovered so far.

    Attributes:
        iteration: gradient iterations done.
        signal: X̂ ``(K, *n)``, as the next iteration sees it.
        corruption: ŝ ``(K, *m)``.
        loss: ``(K,)``.
        average: the running average of the outputs ``(K, *n)``, where one is kept beside X̂.
    """

    iteration: int
    signal: Tensor
    corruption: Tensor
    loss: Tensor
    average: Tensor | None = None


class BatchState:
    """K problems on their way: θ, g, h, the optimizers and the number of iterations done.

    Args:
        method: the parts.
        problems: the batch, on the device where it is to run.
        tau: learning rate of θ, above 0: one number, or one a problem; ``auto`` takes it from the data, see
            :mod:`dop_lightning.engine.steps.automatic`.
        alpha: ratio of the rates, above 0: one number, or one a problem; ``None`` is that of each problem, and
            :mod:`dop_lightning.engine.alpha` says where it has none.

    Attributes:
        iteration: gradient iterations done.
        memory: what the step rule remembers of each problem, ``(K, …)``.
        loop: does the iterations of networks.

    Raises:
        ValueError: a rate is out of range, there are not K of them, or the parts do not go together.
    """

    def __init__(
        self,
        method: Method,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"],
        alpha: float | Sequence[float] | None = None,
    ) -> None:
        self.method = method
        self.problems = problems
        size = len(problems)
        self.iteration = 0
        self.loss = method.loss
        self.operator = method.operator(problems).to(problems.device)
        self.signal = method.signal(problems).to(problems.device)
        self.corruption = (method.corruption or NoCorruption)(problems).to(problems.device)
        if isinstance(self.signal, LowRank) and self.signal.growing:
            if method.theta_optimizer is not None:
                raise ValueError(
                    "growing must be false with a theta_optimizer, whose memory has no room for new columns"
                )
            self.signal.begin_(self.operator.adjoint(problems.observation))
        if alpha is None:
            rates = [1.0] * size if isinstance(tau, str) else one_a_problem("tau", tau, size)
            alpha = default_alphas(problems, method.loss, rates, self.corruption, method.theta_optimizer)
        self.alpha = one_a_problem("alpha", alpha, size)
        self.automatic = isinstance(tau, str) and one_of("tau", tau, ["auto"]) == "auto"
        method.steps.check(self)
        self.tau = method.steps.automatic_tau(self) if isinstance(tau, str) else one_a_problem("tau", tau, size)
        largest = torch.finfo(problems.dtype).max / 16  # a step multiplies by the factors of loss and signal
        for problem, t, a in zip(problems, self.tau, self.alpha, strict=True):
            if not max(t, a * t) <= largest:
                raise ValueError(
                    f"{problem.name}: tau and alpha·tau must be at most {largest:.3g}, which steps in {problems.dtype} "
                    f"can take, got {t:.3g} and {a * t:.3g}"
                )
        self.optimizers = self._make_optimizers()
        self.memory = method.steps.start(self)
        self.loop = NetworkLoop.of(self)

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
            if signature(optimizers[0].step).parameters["closure"].default is Parameter.empty:
                raise ValueError(
                    "theta_optimizer must step along a gradient that it is given, got "
                    f"{type(optimizers[0]).__name__}, which works out its own; torch.optim.Adam does not"
                )
            if isinstance(optimizers[0], Muon) and self._stacked:
                raise ValueError(
                    f"theta_optimizer must not be Muon for {type(self.signal).__name__}, whose parameters hold all "
                    "problems of a batch, which it would mix; torch.optim.Adam does not"
                )
            if self.problems.device.type == "cuda" and self.signal.capturable:
                make_capturable(optimizers[0])  # with graphs and without, for the same bits
        if groups:
            optimizers.append(DiscrepantSGD(groups))
        return optimizers

    @property
    def _stacked(self) -> bool:
        """Whether parameters of θ are those of all problems, one behind the other."""
        return any(i is not None for k in range(len(self)) for _, _, i in self.signal.problem_parameters(k))

    def __len__(self) -> int:
        return len(self.problems)

    def advance(self, iterations: int) -> list[int]:
        """:func:`advance` of this batch."""
        return advance(self, iterations)

    def finished(self) -> dict[int, Status]:
        """Positions of problems that have nothing left to do, with what they end as."""
        return dict.fromkeys(self.method.steps.finished(self), self.method.steps.ends_as)

    def release(self) -> None:
        """Let go of what can be made anew."""
        self.loop.release()
        self.signal.release()

    @property
    def modules(self) -> list[nn.Module]:
        """Signal and corruption."""
        return [self.signal, self.corruption]

    @property
    def closed_form(self) -> bool:
        """Whether θ moves without autograd."""
        return self.signal.closed_form and self.method.theta_optimizer is None

    def tau_tensor(self) -> Tensor:
        """τ at the start, ``(K,)`` in float64 on the device."""
        dtype = torch.float32 if self.problems.device.type == "mps" else torch.float64
        return torch.tensor(self.tau, dtype=dtype, device=self.problems.device)

    @property
    def own_corruption(self) -> bool:
        """Whether s is modelled at all."""
        return not isinstance(self.corruption, NoCorruption)

    def residual(self, out: Tensor, iteration: int) -> Tensor:
        """``r = A(X) + s − y`` into ``out``, ``(K, *m)``; to be called without gradients."""
        torch.neg(self.problems.observation, out=out)
        self.operator.add_forward_(out, self.signal, iteration)
        self.corruption.add_to_(out)
        return out

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """X̂, ŝ and the loss as the next iteration will see them; the state is not touched."""
        try:
            return self._evaluate()
        except (RuntimeError, MemoryError) as error:
            if not (self.loop.holds_graph and is_out_of_memory(error)):
                raise
        self.release()  # the memory of an iteration, which a graph keeps, is enough for it
        return self._evaluate()

    def _evaluate(self) -> Evaluation:
        if self.signal.closed_form:  # cheap to make twice, and the residual need not lie beside X̂ and ŝ
            loss = self.loss.value(self.residual(torch.empty_like(self.problems.observation), self.iteration))
            signal = self.signal(self.iteration)
            return Evaluation(self.iteration, signal, self.corruption.value().to(signal), loss)
        signal = self.signal(self.iteration)
        corruption = self.corruption.value().to(signal)
        residual = torch.sub(self.operator(signal), self.problems.observation).add_(corruption)
        loss = self.loss.value(self.method.steps.weigh_(self, residual))
        evaluation = Evaluation(self.iteration, signal, corruption, loss, self.memory.get("average"))
        return self.method.steps.recovered(self, evaluation)

    def problem_state(self, k: int) -> dict[str, Any]:
        """All that problem k needs to go on elsewhere, bit for bit: tensors on the CPU and plain numbers."""
        return {
            "iteration": self.iteration,
            "signal": self.signal.problem_state(k),
            "corruption": self.corruption.problem_state(k),
            "optimizers": [optimizer_state(o, self.owned(k)) for o in self.optimizers],
            "memory": {name: remembered[k].cpu().clone() for name, remembered in self.memory.items()},
        }

    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Put a state made by :meth:`problem_state` in the place of problem k. The iteration is that of the caller.

        Raises:
            ValueError: the state is of another method or shape.
        """
        self.signal.load_problem_state(k, state["signal"])
        self.corruption.load_problem_state(k, state["corruption"])
        if len(state["optimizers"]) != len(self.optimizers) or set(state["memory"]) != set(self.memory):
            raise ValueError(f"{self.problems[k].name}: the state has other optimizers or steps than this method")
        for name, remembered in self.memory.items():
            remembered[k].copy_(state["memory"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer_state(optimizer, self.owned(k), saved)

    def owned(self, k: int) -> dict[nn.Parameter, tuple[str, int | None]]:
        """Parameters of problem k with their names and places in a stack."""
        parts = (("signal", self.signal), ("corruption", self.corruption))
        return {p: (f"{kind}.{name}", i) for kind, part in parts for name, p, i in part.problem_parameters(k)}

    def select(self, keep: Sequence[int]) -> "BatchState":
        """The problems at the positions ``keep`` as a batch of their own, going on where they are."""
        alpha = [self.alpha[k] for k in keep]
        tau: list[float] | Literal["auto"] = "auto" if self.automatic else [self.tau[k] for k in keep]
        other = BatchState(self.method, self.problems.select(keep), tau, alpha)
        other.iteration = self.iteration
        for place, k in enumerate(keep):
            other.load_problem_state(place, self.problem_state(k))
        return other


def advance(state: BatchState, iterations: int) -> list[int]:
    """Do gradient iterations (Eqs. 6 and 10) on every problem of a batch.

    There is no host synchronisation inside, but where a rank is growing, every few iterations. A problem whose loss or
    parameters are not finite at the end has diverged: it goes back to where it was at the start of this call, and the
    others keep what they reached.

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
        state.release()
        snapshot.restore(state, range(len(state)))
        many = f"{len(state)} problem{'s' * (len(state) > 1)}"
        raise OutOfMemoryError(f"out of memory with {many} of shape {state.problems.signal_shape}") from None
    snapshot.restore(state, diverged)
    state.iteration += iterations
    return diverged


def _descend(state: BatchState, iterations: int) -> list[int]:
    """The iterations of :func:`advance`; positions of what is not finite after them."""
    with torch.no_grad():
        loss = state.method.steps.descend(state, iterations)
        size = len(state)
        healthy = torch.isfinite(loss) & state.signal.finite(size) & state.corruption.finite(size).to(loss.device)
        return torch.nonzero(~healthy).flatten().tolist()


class _Snapshot:
    """Copies of all parameters, and of what optimizers and steps remember of them, to bring single problems back."""

    def __init__(self, state: BatchState) -> None:
        parameters = [*state.signal.parameters(), *state.corruption.parameters()]
        self.copies = {p: p.detach().clone() for p in parameters}
        self.memory = {name: remembered.clone() for name, remembered in state.memory.items()}
        self.of_optimizers = [
            {p: {key: _copy(value) for key, value in memory.items()} for p, memory in optimizer.state.items()}
            for optimizer in state.optimizers
        ]

    def restore(self, state: BatchState, which: Sequence[int]) -> None:
        """Bring the problems at the positions ``which`` back."""
        with torch.no_grad():
            for p, (_, i) in [item for k in which for item in state.owned(k).items()]:
                _put_back(p, self.copies[p], i)
                for optimizer, memories in zip(state.optimizers, self.of_optimizers, strict=True):
                    for key, value in optimizer.state.get(p, {}).items():
                        if is_stacked(value, p, i) or (i is None and isinstance(value, Tensor)):
                            before = memories.get(p, {}).get(key)
                            _put_back(value, torch.zeros_like(value) if before is None else before, i)
            for name, remembered in state.memory.items():
                for k in which:
                    _put_back(remembered, self.memory[name], k)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _put_back(tensor: Tensor, copy: Tensor, index: int | None) -> None:
    _fill(tensor if index is None else tensor[index], copy if index is None else copy[index])


def _fill(place: Tensor, copy: Tensor) -> None:
    """Copy, where the last dimension of a growing factor may differ: what is more of it is 0."""
    if place.shape == copy.shape:
        place.copy_(copy)
        return
    width = min(place.shape[-1], copy.shape[-1])
    place.zero_()[..., :width] = copy[..., :width]


def one_a_problem(name: str, value: float | Sequence[float], size: int) -> list[float]:
    """A setting of each of ``size`` problems: the one number given, or the numbers.

    Raises:
        ValueError: one is not above 0, or there are not so many.
    """
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
