"""The LightningModule: θ, g, h of every batch as parameters; a training step is a block of gradient descent."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, Self
from weakref import WeakKeyDictionary

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.engine.at_once import tiles_at_work, wholes_at_work
from dop_lightning.engine.convex import ConvexMethod, ConvexSolver
from dop_lightning.engine.instant import Interpolation  # noqa: F401 — a config names it
from dop_lightning.engine.method import Method
from dop_lightning.engine.outcome import Record, Status
from dop_lightning.engine.rivals import FilterMethod, ImageFilter
from dop_lightning.engine.roster import Roster, batch_labels
from dop_lightning.engine.run import Run
from dop_lightning.engine.state import OutOfMemoryError, Procedure, State
from dop_lightning.engine.steps import GradientDescent, StepRule
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.devices import single_by_default, without_device_modes
from dop_lightning.lightning.checkpoint_io import FolderCheckpointIO
from dop_lightning.lightning.clock import IterationClock
from dop_lightning.lightning.data.base import RecoveryDataModule
from dop_lightning.lightning.data.saved import GivenProblems
from dop_lightning.lightning.listener import TrainerListener
from dop_lightning.lightning.loggers import RecoveryLogging
from dop_lightning.lightning.persistent_module import PersistentModule
from dop_lightning.lightning.precision import give_precision_back, take_precision
from dop_lightning.lightning.recovered_module import RecoveredModule
from dop_lightning.lightning.recovery_callback import RecoveryCallback, require_hooks
from dop_lightning.lightning.requirements import (
    check_trainer,
    has_no_common_end,
    silence_what_does_not_apply,
    step_grids,
    stopped_early,
)
from dop_lightning.lightning.strategies import ProblemParallelStrategy  # noqa: F401 — registers problem_parallel
from dop_lightning.lightning.strategies.planning import plan_run
from dop_lightning.matrices.robust_separation import RobustSeparation
from dop_lightning.model.corruption import Corruption, HadamardCorruption
from dop_lightning.model.losses import Loss, SquaredLoss
from dop_lightning.model.operators import Operator, operator_of
from dop_lightning.model.signals import Signal, SymmetricFactor
from dop_lightning.problems.custom_metrics import CustomMetrics
from dop_lightning.problems.problem import Problem, ProblemBatch, form_batches


class DoubleOverparameterization(PersistentModule, RecoveredModule):
    r"""Robust recovery by double over-parameterization (Eqs. 3, 6, 9, 10).

    Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + g∘g − h∘h − y)`` with rate τ for θ and α·τ for g, h. Its rivals are
    settings: without corruption it is DIP, or factorisation; with the absolute loss besides, DIP-ℓ1 and MF-ℓ1 (Eq. 2).

    The problems come from the data module, a :class:`~dop_lightning.lightning.data.RecoveryDataModule`. One training
    step is one block of gradient iterations of every unfinished batch; ``Trainer(max_steps=N)`` means N gradient
    iterations of every problem, ``max_epochs=N`` means N evaluations.

    Args:
        signal: makes φ(θ) of a batch of problems.
        corruption: makes s of a batch; ``None`` is s = 0.
        operator: makes A of a batch; by default as the problems say: what they were measured by, the mask of the
            observed entries, or the identity.
        loss: ℓ; by default a quarter of the sum of squares.
        tau: learning rate of θ, above 0; a list is one value per problem, in the order of the data module; ``auto``
            takes it from the data (matrices, see :mod:`dop_lightning.engine.automatic`).
        alpha: ratio of the learning rates, above 0; a list is one value per problem; ``None`` is that of the problem,
            or by the rules of :mod:`dop_lightning.engine.alpha`.
        theta_optimizer: another optimizer of θ, such as Adam; g and h stay with gradient descent at α·τ.
        steps: how θ, g and h move: :class:`~dop_lightning.engine.steps.GradientDescent` (the default),
            :class:`~dop_lightning.engine.steps.Nesterov`, :class:`~dop_lightning.engine.steps.SemiImplicit`,
            :class:`~dop_lightning.engine.steps.Refinement`.
        solver: the convex program (Eq. 8) instead, with λ = 1/α: :class:`~dop_lightning.engine.convex.InexactALM` or
            :class:`~dop_lightning.engine.convex.AcceleratedProximalGradient`. ``signal``, ``corruption``, ``loss``,
            ``tau`` and ``steps`` have no meaning then, and ``max_steps`` counts iterations of the solver.
        filter: a classical filter instead, for images: :class:`~dop_lightning.engine.rivals.DetectAndFill`,
            :class:`~dop_lightning.engine.rivals.AdaptiveMedian` and others. No other part has a meaning then, and each
            problem ends after one iteration.
        separation: robust PCA that chooses its method instead, for matrices:
            :class:`~dop_lightning.matrices.robust_separation.RobustSeparation`. No other part has a meaning then.
        block: gradient iterations of one training step, at least 1. It changes no result; a step should take less
            than about a second, since signals and time limits are looked at between steps. A problem that ends by
            itself (a horizon, a solver that has converged) stays as it is until the end of its block.
        evaluate_every: iterations between two evaluations (scores, pictures, the test for having settled).
        graphs: whether iterations of networks that allow it are replayed as a CUDA graph on a GPU, see
            :mod:`dop_lightning.engine.graphs`.
        metrics: metrics of your own, by tag or as a list: ``torchmetrics.Metric`` objects and functions, see
            :class:`~dop_lightning.problems.custom_metrics.CustomMetrics`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        signal: Callable[[ProblemBatch], Signal] = SymmetricFactor,
        corruption: Callable[[ProblemBatch], Corruption] | None = HadamardCorruption,
        operator: Callable[[ProblemBatch], Operator] = operator_of,
        loss: Loss | None = None,
        tau: float | list[float] | Literal["auto"] = 1e-4,
        alpha: float | list[float] | None = None,
        theta_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        steps: StepRule | None = None,
        solver: Callable[[ProblemBatch], ConvexSolver] | None = None,
        filter: ImageFilter | None = None,
        separation: RobustSeparation | None = None,
        block: int = 100,
        evaluate_every: int = 1000,
        graphs: bool = True,
        metrics: dict[str, Callable[..., Any]] | list[Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        steps = steps or GradientDescent()
        loss = loss or SquaredLoss()
        self.method: Procedure
        given = {"filter": filter, "solver": solver, "separation": separation}
        if len(several := [name for name, part in given.items() if part is not None]) > 1:
            raise ValueError(f"{' and '.join(several)} must not both be given; set one of them to null")
        if filter is not None:
            self.method = FilterMethod(filter)
        elif separation is not None:
            self.method = separation
        elif solver is not None:
            self.method = ConvexMethod(solver, operator)
        else:
            self.method = Method(signal, corruption, operator, loss, theta_optimizer, steps, graphs)
        self.tau: float | list[float] | Literal["auto"]
        if isinstance(tau, str):
            one_of("tau", tau, ["auto"])
            self.tau = "auto"
        else:
            self.tau = _positive_numbers("tau", tau)
        self.alpha = None if alpha is None else _positive_numbers("alpha", alpha)
        self.block = at_least("block", block, 1)
        self.evaluate_every = at_least("evaluate_every", evaluate_every, 1)
        self._data: RecoveryDataModule | None = None
        self.metrics = CustomMetrics(metrics)
        self._run: Run | None = None
        self._clock: IterationClock | None = None
        self._listener = TrainerListener(self)
        self._parts = nn.ModuleList()
        self.stopped_by: Literal["", "SIGINT", "SIGTERM"] = ""

    # ------------------------------------------------------------------------------------------------ the problems

    def configure_callbacks(self) -> list[pl.Callback]:
        """Refuse a trainer that cannot work, and return the callbacks that it lacks.

        These are :class:`RecoveryLogging` with loggers, and of a plain ``LightningCLI`` the callbacks of every run.
        This is the first hook that Lightning calls.
        """
        check_trainer(self.trainer, self)
        silence_what_does_not_apply()
        self.trainer.num_sanity_val_steps = 0  # a validation repeats the scores of an evaluation, which begins later
        present = tuple(type(callback) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        wanted: list[type[pl.Callback]] = [RecoveryLogging] if self.trainer.loggers else []
        if self.is_from_cli:
            # by its name: callbacks import this module
            wanted += import_module("dop_lightning.lightning.callbacks.standard").STANDARD.values()
        bars = any(issubclass(kind, pl.callbacks.ProgressBar) for kind in present)
        missing = (kind for kind in wanted if not any(issubclass(own, kind) for own in present))
        return [kind() for kind in missing if not (bars and issubclass(kind, pl.callbacks.ProgressBar))]

    def configure_model(self) -> None:
        """Build signal and corruption of every batch of the data module, where they are to run.

        Without a trainer, as in ``load_from_checkpoint``, nothing is built.
        """
        if self._trainer is None:
            return
        check_trainer(self.trainer, self)
        require_hooks(self.trainer.callbacks)  # type: ignore[attr-defined]
        data: Any = getattr(self.trainer, "datamodule", None) or self._data
        if not hasattr(data, "batches"):
            raise ValueError(
                "DoubleOverparameterization needs datamodule=…, a RecoveryDataModule such as ImageDataModule or "
                "MatrixDataModule, got none"
            )
        if not isinstance(self.trainer.strategy.checkpoint_io, FolderCheckpointIO):
            self.trainer.strategy.checkpoint_io = FolderCheckpointIO(files=self.trainer.strategy.checkpoint_io)
        method, dtype = take_precision(self.trainer, self.method)
        device = self.trainer.strategy.root_device
        with single_by_default(), without_device_modes(device):
            plan = plan_run(
                self.trainer, data, lambda problem: self._roster(data, [ProblemBatch([problem])], method).states[0]
            )
            own = plan.ranks[self.trainer.global_rank]
            self._build(data, [data.batches[place] for place in own], batch_labels(own), method, device, dtype)

    def attach(self, data: "RecoveryDataModule | Sequence[Problem]") -> Self:
        """Build signal and corruption of every batch now, before a trainer does.

        Parameters are then known, ``load_state_dict`` works, and a trainer fits without ``datamodule=…``.

        Args:
            data: a data module, or problems.

        Returns:
            The module.
        """
        if not isinstance(data, RecoveryDataModule):
            data = GivenProblems(data)
        data.setup()
        batches = data.batches or form_batches(data.problems, None)
        with single_by_default():
            self._build(data, batches, None, self.method, self.device, None)
        return self

    def _build(
        self,
        data: Any,
        batches: Sequence[ProblemBatch],
        labels: Sequence[str] | None,
        method: Procedure,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        """Make the run, unless there is one of these problems: the module keeps what it recovered."""
        before, self._data = self._run, data
        if before is not None and before.roster.is_about(batches) and before.roster.method is method:
            if (before.roster.device, before.roster.dtype) != (device, dtype or before.roster.dtype):
                before.roster.move(device, dtype)
                self.follow_states()
            return
        roster = self._roster(data, batches, method, labels, device, dtype)
        if before is not None and before.roster.has_problems_of(batches):  # in other batches, or of another precision
            roster.load(before.roster.entries())
            roster.rest()
        self._run = Run(
            roster,
            block=self.block,
            evaluate_every=self.evaluate_every,
            listeners=[self._listener],
            interrupted=lambda: self.stopped_by,
            metrics=self.metrics,
        )
        self.follow_states()

    def _roster(
        self,
        data: Any,
        batches: Sequence[ProblemBatch],
        method: Procedure,
        labels: Sequence[str] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Roster:
        names = [problem.name for problem in data.problems]
        device = device or self.trainer.strategy.root_device
        in_turn = self._trainer is None or has_no_common_end(self.trainer)
        wholes = (
            in_turn
            and self._trainer is not None
            and isinstance(method, Method | FilterMethod)
            and isinstance(files := self.trainer.strategy.checkpoint_io, FolderCheckpointIO)
            and files.has_folder
        )
        at_once = wholes_at_work() if wholes else tiles_at_work(method) if in_turn else None
        return Roster(
            method, batches, self.tau, self.alpha, names, device, labels, dtype, at_once=at_once, wholes=wholes
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Bring the batches along to another device or type, with all that iterations need.

        Raises:
            ValueError: the type is neither float32 nor float64.
        """
        if self._run is not None and self._run.roster.batches:  # a process may have no problems
            roster = self._run.roster
            now = roster.dtype or roster.batches[0].dtype
            probe = fn(torch.zeros(1, dtype=now, device=roster.device))
            if probe.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"the type of the module must be float32 or float64, got {probe.dtype}: networks have a precision "
                    "of their own inside"
                )
            if (probe.device, probe.dtype) != (roster.device, now):
                with single_by_default():
                    roster.move(probe.device, probe.dtype)
                self.follow_states()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Return what ``torch.save`` and ``copy.deepcopy`` keep: the run as a checkpoint holds it, and no trainer."""
        kept = dict(self.__dict__)
        for name in ("_run", "_listener", "_looks", "_clock", "_trainer", "_fabric"):
            kept[name] = None
        kept["_modules"] = {name: part for name, part in self._modules.items() if name != "_parts"}
        if self._run is not None:
            roster = self._run.roster
            kept["_saved_run"] = (roster.batches, roster.labels, roster.device, roster.dtype, roster.entries())
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the run again."""
        saved = state.pop("_saved_run", None)
        super().__setstate__(state)
        self._listener, self._looks, self._parts = TrainerListener(self), WeakKeyDictionary(), nn.ModuleList()
        if saved is not None:
            batches, labels, device, dtype, entries = saved
            self._build(self._data, batches, labels, self.method, device, dtype)
            self.roster.load(entries)
            self.roster.rest()
            self.follow_states()

    @property
    def run(self) -> Run:
        """The run: its batches, and how far each problem is.

        Raises:
            RuntimeError: neither a trainer nor :meth:`attach` has built one yet.
        """
        if self._run is None:
            raise RuntimeError(
                "DoubleOverparameterization has no run before a trainer has configured it; call attach(data) for one"
            )
        return self._run

    @property
    def data(self) -> Any:
        """The data module of the run, or what a checkpoint file held of it.

        Raises:
            RuntimeError: there is no run yet.
        """
        _ = self.run
        return self._data

    @property
    def roster(self) -> Roster:
        """The problems of the run."""
        return self.run.roster

    @property
    def is_configured(self) -> bool:
        """Whether there is a run."""
        return self._run is not None

    @property
    def states(self) -> list[State]:
        """The batches at work."""
        return self.run.states

    @property
    def records(self) -> dict[str, Record]:
        """How far each problem is, by name."""
        return self.run.records

    @property
    def iteration(self) -> int:
        """Iterations that every unfinished problem has behind it."""
        return self.run.iteration

    @property
    def maximum(self) -> int:
        """Iterations of each problem by ``max_steps`` and ``max_epochs`` of the trainer, -1 for no such number."""
        limits = [self.trainer.max_steps]
        if (self.trainer.max_epochs or -1) > 0 and isinstance(self.trainer.limit_train_batches, float):
            limits.append((self.trainer.max_epochs or 0) * self.evaluate_every)
        return min((limit for limit in limits if limit > 0), default=-1)

    @property
    def mean_scores(self) -> dict[str, float]:
        """By tag, the mean over all problems of which it is known, each at its last evaluation."""
        return self._listener.mean_scores

    @property
    def clock(self) -> IterationClock:
        """The counters of the trainer, while it fits.

        Raises:
            RuntimeError: it does not.
        """
        if self._clock is None:
            raise RuntimeError("DoubleOverparameterization has no clock before a trainer fits it")
        return self._clock

    @property
    def recovery_callbacks(self) -> Iterator[RecoveryCallback]:
        """The callbacks of the trainer that follow problems, in its order."""
        return self._listener.callbacks

    def follow_states(self) -> None:
        """Take the parts of the batches as parameters, and let the trainer have the optimizers of those at work."""
        self._parts = nn.ModuleList(self.roster.parts())
        if self._trainer is not None and self.trainer.strategy.optimizers:
            self.trainer.strategy.optimizers = self._checked_optimizers()

    def configure_optimizers(self) -> list[Optimizer]:
        """Return the optimizers of the batches at work, each with the groups ``theta`` and ``corruption``."""
        return [optimizer for state in self.states for optimizer in state.optimizers]

    def _checked_optimizers(self) -> list[Optimizer]:
        given: Any = self.configure_optimizers()
        if not isinstance(given, list) or not all(isinstance(optimizer, Optimizer) for optimizer in given):
            raise ValueError(
                f"{type(self).__name__}.configure_optimizers must return a list of optimizers, got "
                f"{type(given).__name__}: learning-rate schedulers are not supported, since rates are saved problem by "
                "problem; change lr of the groups in a callback"
            )
        return given

    # ------------------------------------------------------------------------------------------------ gradient descent

    def on_fit_start(self) -> None:
        """Set Lightning's counters to the iterations and evaluations done."""
        self._checked_optimizers()
        self._clock = IterationClock(self.trainer, self.run.block_end)
        run = self.run
        run.block, run.evaluate_every, run.maximum = self.block, self.evaluate_every, self.maximum
        run.grids = step_grids(self.trainer)
        run.begin()
        self._clock.set(self.iteration, self.iteration // self.evaluate_every)
        if not self.states:
            self.trainer.should_stop = True

    def on_train_start(self) -> None:
        """Say how long the first epoch is."""
        self.clock.begin_epoch(self._blocks_to_evaluation())

    def _blocks_to_evaluation(self) -> int:
        at, count, last = self.iteration, 0, self.iteration - self.iteration % self.evaluate_every + self.evaluate_every
        while at < last and at != self.maximum:
            at, count = self.run.block_end(at), count + 1
        return count

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Do one block of gradient iterations of every unfinished batch."""
        try:
            moved = self.run.step()
        except OutOfMemoryError as error:
            raise ValueError(
                f"{error}; an image takes less in tiles (data.init_args.tile, or --tile of dop recover), and with a "
                "smaller width"
            ) from error
        except StopIteration as error:  # Lightning would take it for the end of the data, and go on without end
            raise RuntimeError("StopIteration was raised in a step") from error
        self.clock.advance(moved)
        if self.run.has_evaluated:
            self.clock.publish(self._listener.metrics, self._listener.shown)
            self.clock.begin_epoch(self._blocks_to_evaluation())
        if moved == 0:  # a batch was split
            self.clock.lengthen_epoch()
        if self.run.has_evaluated or not self.states:
            self.clock.end_epoch()
        if not self.states:
            self.trainer.should_stop = True

    def stop_problem(self, name: str, status: Status, state: Mapping[str, Any] | None = None) -> None:
        """To be called from ``on_evaluation``: the problem called ``name`` ends, see :meth:`Run.stop`."""
        self.run.stop(name, status, state)

    def on_train_end(self) -> None:
        """End the problems at work: as ``done`` if early stopping ended the run, else as ``interrupted``."""
        if stopped_early(self.trainer):
            self.run.finish(for_good=True)
        elif self.clock.has_reached_max_epochs:
            self.run.finish()
        self.run.interrupt()

    def on_fit_end(self) -> None:
        """Let batches hold the parameters of the problems that have ended."""
        self.roster.rest()
        self.follow_states()

    def teardown(self, stage: str) -> None:
        """Let the trainer count and compute as before."""
        if self._clock is not None:
            self._clock.restore()
            self._clock = None
        give_precision_back(self.trainer)
        if isinstance(self.trainer.strategy.checkpoint_io, FolderCheckpointIO):
            self.trainer.strategy.checkpoint_io = self.trainer.strategy.checkpoint_io.files


def _positive_numbers(name: str, value: float | list[float]) -> float | list[float]:
    return [positive(name, v) for v in value] if isinstance(value, list) else positive(name, value)


def recovery_module(module: pl.LightningModule) -> DoubleOverparameterization:
    """Return the module of a callback's hook, which must be one that recovers problems.

    Raises:
        TypeError: it is another one.
    """
    if not isinstance(module, DoubleOverparameterization):
        raise TypeError(f"this callback follows DoubleOverparameterization, got {type(module).__name__}")
    return module
