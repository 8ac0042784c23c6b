"""Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + s − y)``: the state of a batch, and what it asks of its parts.

Plain torch. Everything of the paper is this engine with exchangeable parts, see
:class:`~dop_lightning.engine.method.Method`.

Shapes: K problems, ``*m`` the shape of an observation, ``*n`` of a signal.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from dop_lightning.engine.alpha import default_alphas
from dop_lightning.engine.automatic import automatic_tau
from dop_lightning.engine.optim.of_batch import ThetaOptimizer, make_optimizers
from dop_lightning.engine.optim.state import load_optimizer_state, optimizer_state
from dop_lightning.engine.outcome import Status
from dop_lightning.engine.snapshot import Snapshot
from dop_lightning.engine.state import AdvanceInterrupted, Evaluation, State, one_per_problem, out_of_memory
from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.foundation.devices import place_module
from dop_lightning.foundation.machine import is_out_of_memory
from dop_lightning.foundation.signatures import made_by, require_result
from dop_lightning.model.corruption import Corruption, NoCorruption
from dop_lightning.model.losses import Loss
from dop_lightning.model.operators import Operator
from dop_lightning.model.part import Rate
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import Attribute, ProblemBatch, refuse_undamaged

SignalFactory = Callable[[ProblemBatch], Signal]
CorruptionFactory = Callable[[ProblemBatch], Corruption]
OperatorFactory = Callable[[ProblemBatch], Operator]


class Loop(Protocol):
    """Does the iterations of one batch, and keeps between them what makes them fast, such as a CUDA graph."""

    @property
    def holds_graph(self) -> bool:
        """Whether it keeps the memory of a whole iteration."""

    def descend(
        self,
        state: "BatchState",
        iterations: int,
        average: float | None,
        look: Callable[[int], None] | None = None,
        weigh_: "Callable[[BatchState, Tensor], Tensor] | None" = None,
    ) -> Tensor:
        """Do iterations in place, see :class:`~dop_lightning.engine.steps.network_loop.NetworkLoop`."""

    def release(self) -> None:
        """Free what can be made again."""


class EntryWeights(Protocol):
    """A step rule that weighs the entries of an observation, and recovers something else than the last output."""

    def weigh_(self, state: "BatchState", residual: Tensor) -> Tensor:
        """Multiply the residual ``(K, *m)`` by the weights of its entries, in place.

        The weights lie in ``state.memory`` and are changed in place alone: a CUDA graph knows them by where they are.
        """

    def recovered(self, state: "BatchState", evaluation: Evaluation) -> Evaluation:
        """Return what a batch has recovered, given its present output."""


class StepRule(ABC):
    """How θ, g and h of a batch move.

    A rule holds settings alone. What it remembers of a batch lies in ``state.memory``: tensors with a leading dimension
    of K, saved and restored problem by problem like the parameters.

    Attributes:
        ends_as: the status of a problem that has nothing left to do.
        grid: blocks end at multiples of it, for a rule that looks at a problem only there.
        first: the first block ends at this iteration, for a rule whose problems may have nothing left to do then.
        uses_undamaged: whether it uses ``undamaged`` of problems, which are refused otherwise.
        added_memory: names that states of earlier versions lack; they keep their start.
    """

    ends_as: ClassVar[Status] = "done"
    added_memory: ClassVar[frozenset[str]] = frozenset()
    uses_undamaged: ClassVar[bool] = False
    grid: int | None = None
    first: int | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse rules of version 0.1 whose weights would be ignored."""
        super().__init_subclass__(**kwargs)
        own = [name for name in ("weigh_", "recovered") if hasattr(cls, name)]
        if own and cls.weights is StepRule.weights:
            raise TypeError(
                f"{cls.__name__} overrides {own[0]} without the property weights, which must return self for it to be "
                "used; see dop_lightning.engine.descent.EntryWeights"
            )

    @property
    def weights(self) -> EntryWeights | None:
        """The rule as one that weighs entries, if it does."""
        return None

    def corruption_probability(self, state: "BatchState", k: int, iteration: int) -> Tensor | None:
        """Return the probability that each entry of problem k is corrupted, ``(*m)`` on the CPU, if it is known."""
        return None

    def check(self, state: "BatchState") -> None:  # noqa: B027 — most rules are for all methods
        """Refuse a method that this rule is not for.

        Raises:
            ValueError: with the name of the part and what is possible instead.
        """

    def automatic_tau(self, state: "BatchState") -> list[float]:
        """Return ``tau: auto`` of each problem."""
        return automatic_tau(state.problems, state.operator, state.loss, state.alpha if state.has_corruption else None)

    def start(self, state: "BatchState") -> dict[str, Tensor]:
        """Return what is remembered of each problem, at its start: ``(K, …)``."""
        return {}

    def loop(self, state: "BatchState") -> Loop | None:
        """Return what does the iterations of a batch, if it is to be kept between calls of :meth:`descend`."""
        return None

    @abstractmethod
    def descend(self, state: "BatchState", iterations: int) -> Tensor:
        """Do iterations in place, without a host synchronisation; in one call or in several, bit for bit the same.

        (To see whether a growing factor should grow, the host has to look at it.)

        Returns:
            The loss before the last of them, ``(K,)``.
        """

    def finished(self, state: "BatchState") -> list[int]:
        """Return positions of problems that have nothing left to do, however many iterations a run allows."""
        return []


class Parts(Protocol):
    """The exchangeable parts of gradient descent, see :class:`~dop_lightning.engine.method.Method`."""

    @property
    def signal(self) -> SignalFactory:
        """Makes φ(θ) of a batch."""

    @property
    def corruption(self) -> CorruptionFactory | None:
        """Makes s of a batch; ``None`` is s = 0."""

    @property
    def operator(self) -> OperatorFactory:
        """Makes A of a batch."""

    @property
    def loss(self) -> Loss:
        """ℓ."""

    @property
    def theta_optimizer(self) -> ThetaOptimizer | None:
        """Makes another optimizer of θ."""

    @property
    def steps(self) -> StepRule:
        """How θ, g and h move."""

    @property
    def graphs(self) -> bool:
        """Whether iterations may be replayed as a CUDA graph."""


class BatchState(State):
    """K problems on their way: θ, g, h, the optimizers and the number of iterations done.

    Args:
        method: the parts.
        problems: the batch, on the device where it is to run.
        tau: learning rate of θ, above 0: one number, or one per problem; ``auto`` estimates it from the data, see
            :mod:`dop_lightning.engine.automatic`.
        alpha: ratio of the rates, above 0: one number, or one per problem; ``None`` is that of each problem, and
            :mod:`dop_lightning.engine.alpha` says where it has none.

    Attributes:
        iteration: gradient iterations done.
        memory: what the step rule remembers of each problem, ``(K, …)``.
        loop: does the iterations of networks.
        descent: the optimizer with discrepant rates: of g and h, and of θ unless that has another one.

    Raises:
        ValueError: a rate is out of range, there are not K of them, or the parts do not go together.
    """

    signal: Signal
    corruption: Corruption

    def __init__(
        self,
        method: Parts,
        problems: ProblemBatch,
        tau: float | Sequence[float] | Literal["auto"],
        alpha: float | Sequence[float] | None = None,
    ) -> None:
        self.method = method
        self.problems = problems
        size = len(problems)
        self.iteration = 0
        self.loss = method.loss
        self.operator = made_by(method.operator, Operator, problems).to(problems.device)
        self.signal = place_module(made_by(method.signal, Signal, problems), problems.device)
        corruption = made_by(method.corruption or NoCorruption, Corruption, problems)
        self.corruption = place_module(corruption, problems.device)
        if self.has_corruption and not list(self.corruption.parameters()):
            raise ValueError(
                f"{type(self.corruption).__name__} must have parameters, or is_modelled = False if s stays as it is"
            )
        if (growth := self.signal.growth) is not None:
            if method.theta_optimizer is not None:
                raise ValueError(
                    "growing must be false with a theta_optimizer, whose memory has no room for new columns"
                )
            growth.begin_(self.operator.adjoint(problems.observation))
        if alpha is None:
            rates = [1.0] * size if isinstance(tau, str) else one_per_problem("tau", tau, size)
            alpha = default_alphas(problems, method.loss, rates, self.corruption, method.theta_optimizer)
        self.alpha = one_per_problem("alpha", alpha, size)
        self.automatic = isinstance(tau, str) and one_of("tau", tau, ["auto"]) == "auto"
        method.steps.check(self)
        if not method.steps.uses_undamaged:
            refuse_undamaged(problems, type(method.steps).__name__)
        self.tau = method.steps.automatic_tau(self) if isinstance(tau, str) else one_per_problem("tau", tau, size)
        self._check_rates()
        self.optimizers, self.descent = make_optimizers(
            self.signal,
            self.corruption,
            self.tau,
            self.alpha,
            method.theta_optimizer,
            capturable=problems.device.type == "cuda" and self.signal.capturable,
        )
        self.memory = method.steps.start(self)
        self.loop = method.steps.loop(self)

    def _check_rates(self) -> None:
        largest = torch.finfo(self.problems.dtype).max / 16  # a step multiplies by the factors of loss and signal
        for problem, t, a in zip(self.problems, self.tau, self.alpha, strict=True):
            if not max(t, a * t) <= largest:
                raise ValueError(
                    f"{problem.name}: tau and alpha·tau must be at most {largest:.3g}, which steps in "
                    f"{self.problems.dtype} can take, got {t:.3g} and {a * t:.3g}"
                )

    @property
    def has_corruption(self) -> bool:
        """Whether s is modelled at all."""
        return self.corruption.is_modelled

    @property
    def runs_one_by_one(self) -> bool:
        """Whether θ moves by autograd: the networks of a batch run one after the other on a CPU."""
        return not self.closed_form

    @property
    def modules(self) -> list[nn.Module]:
        """Signal and corruption."""
        return [self.signal, self.corruption]

    @property
    def closed_form(self) -> bool:
        """Whether θ moves without autograd."""
        return self.signal.closed_form and self.method.theta_optimizer is None

    def rates(self) -> tuple[Rate, Rate]:
        """Return the rates of θ (in closed form, else 0) and of the corruption that the optimizers hold."""
        if self.descent is None:
            return 0.0, 0.0
        theta: Rate = self.descent.rate("theta") if self.closed_form else 0.0
        return theta, self.descent.rate("corruption") if self.has_corruption else 0.0

    def tau_tensor(self) -> Tensor:
        """Return τ at the start, ``(K,)`` in float64 on the device."""
        dtype = torch.float32 if self.problems.device.type == "mps" else torch.float64
        return torch.tensor(self.tau, dtype=dtype, device=self.problems.device)

    def residual(self, out: Tensor, iteration: int) -> Tensor:
        """``r = A(X) + s − y`` into ``out``, ``(K, *m)``; to be called without gradients."""
        torch.neg(self.problems.observation, out=out)
        self.operator.add_forward_(out, self.signal, iteration)
        self.corruption.add_to_(out)
        return out

    def advance(self, iterations: int) -> list[int]:
        """Do gradient iterations (Eqs. 6 and 10) on every problem.

        There is no host synchronisation inside, but where a rank is growing, every few iterations. A problem has
        diverged if its loss or its parameters are not finite at the end. If :meth:`interrupt` is called meanwhile, the
        batch is where it was at the start of this call.

        Args:
            iterations: at least 0.

        Returns:
            Positions of the problems that diverged.

        Raises:
            OutOfMemoryError: the batch does not fit in memory; it is where it was at the start of this call.
        """
        if at_least("iterations", iterations, 0) == 0:
            return []
        try:
            snapshot = self.snapshot()
        except (RuntimeError, MemoryError) as error:  # nothing has changed yet
            if not is_out_of_memory(error):
                raise
            self.release()
            raise out_of_memory(self.problems) from None
        try:
            with self._interruptible():
                diverged = self._descend(iterations)
        except AdvanceInterrupted:
            self._worker = None
            self.release()  # a graph that was cut
            self.restore(snapshot, range(len(self)))
            return []
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.release()
            self.restore(snapshot, range(len(self)))
            raise out_of_memory(self.problems) from None
        self.restore(snapshot, diverged)
        self.iteration += iterations
        return diverged

    def _descend(self, iterations: int) -> list[int]:
        """The iterations of :meth:`advance`; positions of what is not finite after them."""
        with torch.no_grad():
            steps = self.method.steps
            loss = require_result(steps.descend(self, iterations), Tensor, steps.descend)
            size = len(self)
            healthy = torch.isfinite(loss) & self.signal.finite(size) & self.corruption.finite(size).to(loss.device)
            return torch.nonzero(~healthy).flatten().tolist()

    def snapshot(self) -> Snapshot:
        """Copy all that iterations change."""
        parameters = [*self.signal.parameters(), *self.corruption.parameters()]
        return Snapshot(parameters, self.optimizers, self.memory)

    def restore(self, snapshot: Snapshot, which: Sequence[int]) -> None:
        """Bring the problems at the positions ``which`` back to where they were at a snapshot."""
        snapshot.restore([self.owned(k) for k in which], self.optimizers, self.memory, which)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """X̂, ŝ and the loss as the next iteration will see them; the state is not touched."""
        try:
            return self._evaluate()
        except (RuntimeError, MemoryError) as error:
            if not (self.loop is not None and self.loop.holds_graph and is_out_of_memory(error)):
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
        weights = self.method.steps.weights
        if weights is not None:
            residual = weights.weigh_(self, residual)
        loss = self.loss.value(residual)
        evaluation = Evaluation(self.iteration, signal, corruption, loss, self.memory.get("average"))
        return evaluation if weights is None else weights.recovered(self, evaluation)

    @torch.no_grad()
    def corruption_probability(self, k: int, iteration: int) -> Tensor | None:
        """The probability that each entry of problem k is corrupted, if the step rule knows it."""
        return self.method.steps.corruption_probability(self, k, iteration)

    def finished(self) -> dict[int, Status]:
        """Positions of problems that have nothing left to do, with what they end as."""
        return dict.fromkeys(self.method.steps.finished(self), self.method.steps.ends_as)

    def release(self) -> None:
        """Free what can be made again."""
        if self.loop is not None:
            self.loop.release()
        self.signal.release()

    def settings(self, k: int) -> dict[str, Attribute]:
        """The rates of problem k, and the classes of its parts."""
        settings: dict[str, Attribute] = {"tau": self.tau[k]}
        if self.has_corruption:
            settings["alpha"] = self.alpha[k]
        parts = {
            "signal": self.signal,
            "corruption": self.corruption,
            "operator": self.operator,
            "loss_function": self.loss,  # beside the score that is called loss
            "steps": self.method.steps,
            "optimizer": self.optimizers[0],  # of θ; those of g and h are the same in all
        }
        return settings | {name: type(part).__name__ for name, part in parts.items()}

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
        missing = set(self.memory) - set(state["memory"]) - self.method.steps.added_memory
        if len(state["optimizers"]) != len(self.optimizers) or missing or set(state["memory"]) - set(self.memory):
            raise ValueError(f"{self.problems[k].name}: the state has other optimizers or steps than this method")
        for name, remembered in self.memory.items():
            if name in state["memory"]:  # else of an earlier version
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
    """``state.advance(iterations)``, under the name that it had in version 0.1."""
    return state.advance(iterations)
