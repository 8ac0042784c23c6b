"""Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + s − y)``: the state of a batch, and the interfaces of its parts.

Plain torch. All methods of the paper use this engine with different parts, see
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
from dop_lightning.engine.optim.factory import ThetaOptimizer, make_optimizers
from dop_lightning.engine.optim.state import load_optimizer_state, optimizer_state
from dop_lightning.engine.outcome import Status
from dop_lightning.engine.snapshot import Snapshot
from dop_lightning.engine.state import AdvanceInterrupted, Evaluation, State, one_per_problem, out_of_memory
from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.foundation.devices import place_module
from dop_lightning.foundation.machine import is_out_of_memory
from dop_lightning.foundation.signatures import create_part, require_result
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
    """Runs the iterations of one batch, and caches what makes them fast between calls, such as a CUDA graph."""

    @property
    def holds_graph(self) -> bool:
        """Whether the loop holds a graph, which keeps the memory of a whole iteration."""

    def descend(
        self,
        state: "BatchState",
        iterations: int,
        average: float | None,
        look: Callable[[int], bool] | None = None,
        weigh_: "Callable[[BatchState, Tensor], Tensor] | None" = None,
    ) -> Tensor:
        """Do iterations in place, see :class:`~dop_lightning.engine.steps.network_loop.NetworkLoop`."""

    def release(self) -> None:
        """Free cached memory that can be recomputed."""


class EntryWeights(Protocol):
    """A step rule that weights the entries of an observation, and whose result differs from the last output."""

    def weigh_(self, state: "BatchState", residual: Tensor) -> Tensor:
        """Multiply the residual ``(K, *m)`` by the weights of its entries, in place.

        Store the weights in ``state.memory`` and change them only in place: a CUDA graph refers to them by address.
        """

    def recovered(self, state: "BatchState", evaluation: Evaluation) -> Evaluation:
        """Return the result of a batch, given an evaluation of its current output."""


class StepRule(ABC):
    """Update rule of θ, g and h of a batch.

    A rule holds only settings. Its state for a batch is in ``state.memory``: tensors with leading dimension K, saved
    and restored per problem like the parameters.

    Attributes:
        ends_as: status of problems that are finished.
        grid: blocks also end at multiples of this, if the rule checks problems only there.
        first: the first block ends at this iteration, if problems may be finished then.
        uses_undamaged: whether the rule uses ``undamaged`` of problems; problems with ``undamaged`` are rejected
            otherwise.
        added_memory: names in ``state.memory`` that states of earlier versions lack. They keep their initial values.
    """

    ends_as: ClassVar[Status] = "done"
    added_memory: ClassVar[frozenset[str]] = frozenset()
    uses_undamaged: ClassVar[bool] = False
    grid: int | None = None
    first: int | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Reject rules of version 0.1 whose weights would be ignored."""
        super().__init_subclass__(**kwargs)
        own = [name for name in ("weigh_", "recovered") if hasattr(cls, name)]
        if own and cls.weights is StepRule.weights:
            raise TypeError(
                f"{cls.__name__} overrides {own[0]} but not the property weights; return self from weights so that the "
                "method is called, see dop_lightning.engine.descent.EntryWeights"
            )

    @property
    def weights(self) -> EntryWeights | None:
        """The rule itself if it weights entries, else ``None``."""
        return None

    def corruption_probability(self, state: "BatchState", k: int, iteration: int) -> Tensor | None:
        """Return the probability that each entry of problem k is corrupted, ``(*m)`` on the CPU, if it is known."""
        return None

    def check(self, state: "BatchState") -> None:  # noqa: B027 — most rules support all methods
        """Check that the rule supports the parts of a method. By default, all are supported.

        Raises:
            ValueError: a part is not supported. The message names the part and the alternatives.
        """

    def automatic_tau(self, state: "BatchState") -> list[float]:
        """Return τ of each problem for ``tau: auto``."""
        return automatic_tau(state.problems, state.operator, state.loss, state.alpha if state.has_corruption else None)

    def start(self, state: "BatchState") -> dict[str, Tensor]:
        """Return the initial ``state.memory``: tensors ``(K, …)``."""
        return {}

    def loop(self, state: "BatchState") -> Loop | None:
        """Return a loop that is kept between calls of :meth:`descend`, or ``None``."""
        return None

    @abstractmethod
    def descend(self, state: "BatchState", iterations: int) -> Tensor:
        """Do iterations in place. Splitting them over several calls must give the same bits.

        Avoid host synchronisation. (It is required only for growing factors, to decide whether they grow.)

        Returns:
            The loss before the last iteration, ``(K,)``.
        """

    def finished(self, state: "BatchState") -> list[int]:
        """Return the positions of problems that are finished, even if the run allows more iterations."""
        return []


class Parts(Protocol):
    """The exchangeable parts of gradient descent, see :class:`~dop_lightning.engine.method.Method`."""

    @property
    def signal(self) -> SignalFactory:
        """Creates φ(θ) of a batch."""

    @property
    def corruption(self) -> CorruptionFactory | None:
        """Creates s of a batch; ``None`` for s = 0."""

    @property
    def operator(self) -> OperatorFactory:
        """Creates A of a batch."""

    @property
    def loss(self) -> Loss:
        """ℓ."""

    @property
    def theta_optimizer(self) -> ThetaOptimizer | None:
        """Creates the optimizer of θ; ``None`` for gradient descent at τ."""

    @property
    def steps(self) -> StepRule:
        """Step rule of θ, g and h."""

    @property
    def graphs(self) -> bool:
        """Whether iterations may be replayed as a CUDA graph."""


class BatchState(State):
    """State of K problems: θ, g, h, the optimizers and the number of iterations done.

    Args:
        method: the parts.
        problems: the batch, on the device to run on.
        tau: learning rate of θ, above 0: one number, or one per problem; ``auto`` estimates it from the data, see
            :mod:`dop_lightning.engine.automatic`.
        alpha: ratio of the learning rates, above 0: one number, or one per problem; ``None`` uses ``alpha`` of each
            problem, or the default of :mod:`dop_lightning.engine.alpha` if that is ``None`` too.

    Attributes:
        iteration: number of gradient iterations done.
        memory: state of the step rule, tensors ``(K, …)``.
        loop: runs the iterations of networks.
        descent: the optimizer with discrepant rates, of g and h, and of θ if there is no ``theta_optimizer``.

    Raises:
        ValueError: a rate is out of range, the number of rates is not K, or the parts are incompatible.
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
        self.operator = create_part(method.operator, Operator, problems).to(problems.device)
        self.signal = place_module(create_part(method.signal, Signal, problems), problems.device)
        corruption = create_part(method.corruption or NoCorruption, Corruption, problems)
        self.corruption = place_module(corruption, problems.device)
        if self.has_corruption and not list(self.corruption.parameters()):
            raise ValueError(
                f"{type(self.corruption).__name__} has no parameters; set is_modelled = False if s is constant"
            )
        if (growth := self.signal.growth) is not None:
            if method.theta_optimizer is not None:
                raise ValueError(
                    "growing must be false with a theta_optimizer, whose state cannot grow with the factor"
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
        largest = torch.finfo(self.problems.dtype).max / 16  # loss and signal multiply the rate by a factor
        for problem, t, a in zip(self.problems, self.tau, self.alpha, strict=True):
            if not max(t, a * t) <= largest:
                raise ValueError(
                    f"{problem.name}: tau and alpha·tau must be at most {largest:.3g} so that steps do not overflow "
                    f"{self.problems.dtype}, got {t:.3g} and {a * t:.3g}"
                )

    @property
    def has_corruption(self) -> bool:
        """Whether s is modelled."""
        return self.corruption.is_modelled

    @property
    def is_sequential(self) -> bool:
        """Whether θ is updated with autograd: on a CPU, the networks of a batch then run one after the other."""
        return not self.closed_form

    @property
    def modules(self) -> list[nn.Module]:
        """Signal and corruption."""
        return [self.signal, self.corruption]

    @property
    def closed_form(self) -> bool:
        """Whether θ is updated without autograd."""
        return self.signal.closed_form and self.method.theta_optimizer is None

    def rates(self) -> tuple[Rate, Rate]:
        """Return the learning rates of θ (0 unless in closed form) and of the corruption, from the optimizers."""
        if self.descent is None:
            return 0.0, 0.0
        theta: Rate = self.descent.rate("theta") if self.closed_form else 0.0
        return theta, self.descent.rate("corruption") if self.has_corruption else 0.0

    def tau_tensor(self) -> Tensor:
        """Return the initial τ as a tensor ``(K,)`` on the device, in float64 (float32 on MPS)."""
        dtype = torch.float32 if self.problems.device.type == "mps" else torch.float64
        return torch.tensor(self.tau, dtype=dtype, device=self.problems.device)

    def residual(self, out: Tensor, iteration: int) -> Tensor:
        """Compute ``r = A(X) + s − y`` in ``out``, ``(K, *m)``. Call it without gradients."""
        torch.neg(self.problems.observation, out=out)
        self.operator.add_forward_(out, self.signal, iteration)
        self.corruption.add_to_(out)
        return out

    def advance(self, iterations: int) -> list[int]:
        """Do gradient iterations (Eqs. 6 and 10) on every problem.

        There is no host synchronisation, except every few iterations for growing factors. A problem has diverged if its
        loss or its parameters are not finite at the end. If :meth:`interrupt` is called during the iterations, the
        batch returns to its state at the start of the call.

        Args:
            iterations: at least 0.

        Returns:
            Positions of the problems that diverged.

        Raises:
            OutOfMemoryError: the batch does not fit in memory; it is back in its state at the start of the call.
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
            self.release()  # the capture of a graph may have been interrupted
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
        """Do the iterations of :meth:`advance`; return the positions of problems that are not finite afterwards."""
        with torch.no_grad():
            steps = self.method.steps
            loss = require_result(steps.descend(self, iterations), Tensor, steps.descend)
            size = len(self)
            healthy = torch.isfinite(loss) & self.signal.finite(size) & self.corruption.finite(size).to(loss.device)
            return torch.nonzero(~healthy).flatten().tolist()

    def snapshot(self) -> Snapshot:
        """Copy everything that iterations change."""
        parameters = [*self.signal.parameters(), *self.corruption.parameters()]
        return Snapshot(parameters, self.optimizers, self.memory)

    def restore(self, snapshot: Snapshot, which: Sequence[int]) -> None:
        """Restore the problems at the positions ``which`` from a snapshot."""
        snapshot.restore([self.owned(k) for k in which], self.optimizers, self.memory, which)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Return X̂, ŝ and the loss as the next iteration sees them, without changing the state."""
        try:
            return self._evaluate()
        except (RuntimeError, MemoryError) as error:
            if not (self.loop is not None and self.loop.holds_graph and is_out_of_memory(error)):
                raise
        self.release()  # a graph keeps the memory of an iteration, which is enough for an evaluation
        return self._evaluate()

    def _evaluate(self) -> Evaluation:
        if self.signal.closed_form:  # X is cheap to compute twice; the residual is freed before X̂ and ŝ are allocated
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
        """Return the probability that each entry of problem k is corrupted, if the step rule estimates it."""
        return self.method.steps.corruption_probability(self, k, iteration)

    def finished(self) -> dict[int, Status]:
        """Return the positions of finished problems, with their final status."""
        return dict.fromkeys(self.method.steps.finished(self), self.method.steps.ends_as)

    def release(self) -> None:
        """Free cached memory that can be recomputed."""
        if self.loop is not None:
            self.loop.release()
        self.signal.release()

    def settings(self, k: int) -> dict[str, Attribute]:
        """Return the learning rates of problem k, and the classes of its parts."""
        settings: dict[str, Attribute] = {"tau": self.tau[k]}
        if self.has_corruption:
            settings["alpha"] = self.alpha[k]
        parts = {
            "signal": self.signal,
            "corruption": self.corruption,
            "operator": self.operator,
            "loss_function": self.loss,  # since a score is called loss
            "steps": self.method.steps,
            "optimizer": self.optimizers[0],  # of θ; the optimizer of g and h is always the same
        }
        return settings | {name: type(part).__name__ for name, part in parts.items()}

    def problem_state(self, k: int) -> dict[str, Any]:
        """Return the full state of problem k, to continue bit for bit: tensors on the CPU and plain numbers."""
        return {
            "iteration": self.iteration,
            "signal": self.signal.problem_state(k),
            "corruption": self.corruption.problem_state(k),
            "optimizers": [optimizer_state(o, self.owned(k)) for o in self.optimizers],
            "memory": {name: remembered[k].cpu().clone() for name, remembered in self.memory.items()},
        }

    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Load a state from :meth:`problem_state` into problem k. The caller sets the iteration.

        Raises:
            ValueError: the state has another method or shape.
        """
        self.signal.load_problem_state(k, state["signal"])
        self.corruption.load_problem_state(k, state["corruption"])
        missing = set(self.memory) - set(state["memory"]) - self.method.steps.added_memory
        if len(state["optimizers"]) != len(self.optimizers) or missing or set(state["memory"]) - set(self.memory):
            raise ValueError(f"{self.problems[k].name}: the state was saved with another optimizer or step rule")
        for name, remembered in self.memory.items():
            if name in state["memory"]:  # otherwise the state is from an earlier version
                remembered[k].copy_(state["memory"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer_state(optimizer, self.owned(k), saved)

    def owned(self, k: int) -> dict[nn.Parameter, tuple[str, int | None]]:
        """Return the parameters of problem k, with their names and their indices in stacked parameters."""
        parts = (("signal", self.signal), ("corruption", self.corruption))
        return {p: (f"{kind}.{name}", i) for kind, part in parts for name, p, i in part.problem_parameters(k)}

    def select(self, keep: Sequence[int]) -> "BatchState":
        """Return the problems at the positions ``keep`` as a separate batch, in their current state."""
        alpha = [self.alpha[k] for k in keep]
        tau: list[float] | Literal["auto"] = "auto" if self.automatic else [self.tau[k] for k in keep]
        other = BatchState(self.method, self.problems.select(keep), tau, alpha)
        other.iteration = self.iteration
        for place, k in enumerate(keep):
            other.load_problem_state(place, self.problem_state(k))
        return other


def advance(state: BatchState, iterations: int) -> list[int]:
    """Call ``state.advance(iterations)``. Kept from version 0.1."""
    return state.advance(iterations)
