"""The LightningModule: θ, g and h of every batch as parameters. A training step is a block of gradient descent."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, Self
from weakref import WeakKeyDictionary

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.engine.convex import ConvexMethod, ConvexSolver
from dop_lightning.engine.instant import Interpolation  # noqa: F401 — for class_path in configs
from dop_lightning.engine.method import Method
from dop_lightning.engine.outcome import Record, Status
from dop_lightning.engine.rivals import FilterMethod, ImageFilter
from dop_lightning.engine.roster import Roster, batch_labels
from dop_lightning.engine.run import Run
from dop_lightning.engine.runners import max_active_images, max_active_tiles
from dop_lightning.engine.state import OutOfMemoryError, Procedure, State
from dop_lightning.engine.steps import GradientDescent, StepRule
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.devices import default_to_float32, without_device_modes
from dop_lightning.lightning.checkpoint_io import FolderCheckpointIO
from dop_lightning.lightning.clock import IterationClock
from dop_lightning.lightning.data.base import RecoveryDataModule
from dop_lightning.lightning.data.saved import GivenProblems
from dop_lightning.lightning.listener import TrainerListener
from dop_lightning.lightning.loggers import RecoveryLogging
from dop_lightning.lightning.persistent_module import PersistentModule
from dop_lightning.lightning.precision import apply_precision, restore_precision
from dop_lightning.lightning.recovered_module import RecoveredModule
from dop_lightning.lightning.recovery_callback import RecoveryCallback, require_hooks
from dop_lightning.lightning.requirements import (
    check_trainer,
    has_independent_problems,
    step_grids,
    stopped_early,
    suppress_irrelevant_warnings,
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

    Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + g∘g − h∘h − y)`` with rate τ for θ and α·τ for g, h. Its baselines
    are special cases: without corruption it is DIP, or matrix factorization; with the absolute loss in addition, DIP-ℓ1
    and MF-ℓ1 (Eq. 2).

    The data module, a :class:`~dop_lightning.lightning.data.RecoveryDataModule`, provides the problems. One training
    step is one block of gradient iterations of every unfinished batch. ``Trainer(max_steps=N)`` sets N gradient
    iterations per problem, and ``max_epochs=N`` sets N evaluations.

    Args:
        signal: creates φ(θ) for a batch of problems.
        corruption: creates s for a batch; ``None`` is s = 0.
        operator: creates A for a batch; by default the operator of the problems: their sensing operator, the mask of
            observed entries, or the identity.
        loss: loss ℓ; by default a quarter of the sum of squares.
        tau: learning rate τ of θ, positive; a list has one value per problem, in the order of the data module; ``auto``
            estimates it from the data (matrices only, see :mod:`dop_lightning.engine.automatic`).
        alpha: ratio α of the learning rates, positive; a list has one value per problem. ``None`` uses the value of the
            problem, or the rules of :mod:`dop_lightning.engine.alpha`.
        theta_optimizer: another optimizer of θ, such as Adam; g and h still use gradient descent at α·τ.
        steps: step rule of θ, g and h: :class:`~dop_lightning.engine.steps.GradientDescent` (the default),
            :class:`~dop_lightning.engine.steps.Nesterov`, :class:`~dop_lightning.engine.steps.SemiImplicit`,
            :class:`~dop_lightning.engine.steps.Refinement`.
        solver: solve the convex program (Eq. 8) instead, with λ = 1/α: :class:`~dop_lightning.engine.convex.InexactALM`
            or :class:`~dop_lightning.engine.convex.AcceleratedProximalGradient`. ``signal``, ``corruption``, ``loss``,
            ``tau`` and ``steps`` are then ignored, and ``max_steps`` counts iterations of the solver.
        filter: apply a classical image filter instead: :class:`~dop_lightning.engine.rivals.DetectAndFill`,
            :class:`~dop_lightning.engine.rivals.AdaptiveMedian` and others. All other parts are then ignored, and each
            problem ends after one iteration.
        separation: separate matrices by robust PCA with an automatically chosen method instead:
            :class:`~dop_lightning.matrices.robust_separation.RobustSeparation`. All other parts are then ignored.
        block: gradient iterations per training step, at least 1. It does not change the result. A step should take less
            than about a second, since signals and time limits are checked between steps. A problem that ends on its own
            within a block (at a horizon, or when a solver has converged) does not change until the end of the block.
        evaluate_every: iterations between two evaluations (scores, pictures, stopping rules).
        graphs: whether to replay iterations of supported networks as a CUDA graph on a GPU, see
            :mod:`dop_lightning.engine.graphs`.
        metrics: custom metrics, as a list or by tag: ``torchmetrics.Metric`` objects and functions, see
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
            raise ValueError(f"{' and '.join(several)} cannot be combined; set all but one of them to null")
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

    # ---------------------------------------------------------------------------------------------------- problems

    def configure_callbacks(self) -> list[pl.Callback]:
        """Check that the trainer is supported, and return required callbacks that it lacks.

        These are :class:`RecoveryLogging` if there are loggers, and the standard callbacks of a run if the module was
        created by a plain ``LightningCLI``. Lightning calls this hook first.
        """
        check_trainer(self.trainer, self)
        suppress_irrelevant_warnings()
        self.trainer.num_sanity_val_steps = 0  # validation repeats the scores of an evaluation, which happens later
        present = tuple(type(callback) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        wanted: list[type[pl.Callback]] = [RecoveryLogging] if self.trainer.loggers else []
        if self.is_from_cli:
            # imported by name, since callbacks import this module
            wanted += import_module("dop_lightning.lightning.callbacks.standard").STANDARD.values()
        bars = any(issubclass(kind, pl.callbacks.ProgressBar) for kind in present)
        missing = (kind for kind in wanted if not any(issubclass(own, kind) for own in present))
        return [kind() for kind in missing if not (bars and issubclass(kind, pl.callbacks.ProgressBar))]

    def configure_model(self) -> None:
        """Build signal and corruption of every batch of the data module on the device of the trainer.

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
        method, dtype = apply_precision(self.trainer, self.method)
        device = self.trainer.strategy.root_device
        with default_to_float32(), without_device_modes(device):
            plan = plan_run(
                self.trainer, data, lambda problem: self._roster(data, [ProblemBatch([problem])], method).states[0]
            )
            own = plan.ranks[self.trainer.global_rank]
            self._build(data, [data.batches[place] for place in own], batch_labels(own), method, device, dtype)

    def attach(self, data: "RecoveryDataModule | Sequence[Problem]") -> Self:
        """Build signal and corruption of every batch before a trainer does.

        The parameters then exist, ``load_state_dict`` works, and a trainer can fit without ``datamodule=…``.

        Args:
            data: a data module, or problems.

        Returns:
            The module.
        """
        if not isinstance(data, RecoveryDataModule):
            data = GivenProblems(data)
        data.setup()
        batches = data.batches or form_batches(data.problems, None)
        with default_to_float32():
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
        """Create the run. An existing run of the same problems is kept, with its recovered signals."""
        before, self._data = self._run, data
        if before is not None and before.roster.matches(batches) and before.roster.method is method:
            if (before.roster.device, before.roster.dtype) != (device, dtype or before.roster.dtype):
                before.roster.move(device, dtype)
                self.follow_states()
            return
        roster = self._roster(data, batches, method, labels, device, dtype)
        if before is not None and before.roster.has_problems_of(batches):  # in other batches, or with another precision
            roster.load(before.roster.entries())
            roster.deactivate()
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
        in_turn = self._trainer is None or has_independent_problems(self.trainer)
        wholes = (
            in_turn
            and self._trainer is not None
            and isinstance(method, Method | FilterMethod)
            and isinstance(files := self.trainer.strategy.checkpoint_io, FolderCheckpointIO)
            and files.has_folder
        )
        at_once = max_active_images() if wholes else max_active_tiles(method) if in_turn else None
        return Roster(
            method, batches, self.tau, self.alpha, names, device, labels, dtype, at_once=at_once, wholes=wholes
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the batches to another device or type, with everything that iterations need.

        Raises:
            ValueError: the type is neither float32 nor float64.
        """
        if self._run is not None and self._run.roster.batches:  # a process may have no problems
            roster = self._run.roster
            now = roster.dtype or roster.batches[0].dtype
            probe = fn(torch.zeros(1, dtype=now, device=roster.device))
            if probe.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"the module must be float32 or float64, got {probe.dtype}; to use a lower precision inside "
                    'networks, set Trainer(precision="bf16-mixed")'
                )
            if (probe.device, probe.dtype) != (roster.device, now):
                with default_to_float32():
                    roster.move(probe.device, probe.dtype)
                self.follow_states()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for ``torch.save`` and ``copy.deepcopy``: the run as in a checkpoint, without a trainer."""
        kept = dict(self.__dict__)
        for name in ("_run", "_listener", "_evaluated", "_clock", "_trainer", "_fabric"):
            kept[name] = None
        kept["_modules"] = {name: part for name, part in self._modules.items() if name != "_parts"}
        if self._run is not None:
            roster = self._run.roster
            kept["_saved_run"] = (roster.batches, roster.labels, roster.device, roster.dtype, roster.entries())
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the run."""
        saved = state.pop("_saved_run", None)
        super().__setstate__(state)
        self._listener, self._evaluated, self._parts = TrainerListener(self), WeakKeyDictionary(), nn.ModuleList()
        if saved is not None:
            batches, labels, device, dtype, entries = saved
            self._build(self._data, batches, labels, self.method, device, dtype)
            self.roster.load(entries)
            self.roster.deactivate()
            self.follow_states()

    @property
    def run(self) -> Run:
        """The run, with its batches and the progress of each problem.

        Raises:
            RuntimeError: neither a trainer nor :meth:`attach` has created the run yet.
        """
        if self._run is None:
            raise RuntimeError(
                "DoubleOverparameterization has no run before a trainer configures it; call attach(data) to create one"
            )
        return self._run

    @property
    def data(self) -> Any:
        """The data module of the run, or its replacement from a checkpoint file.

        Raises:
            RuntimeError: there is no run yet.
        """
        _ = self.run
        return self._data

    @property
    def roster(self) -> Roster:
        """Problems of the run."""
        return self.run.roster

    @property
    def is_configured(self) -> bool:
        """Whether the run exists."""
        return self._run is not None

    @property
    def states(self) -> list[State]:
        """Active batches."""
        return self.run.states

    @property
    def records(self) -> dict[str, Record]:
        """Progress of each problem, by name."""
        return self.run.records

    @property
    def iteration(self) -> int:
        """Number of iterations that every unfinished problem has completed."""
        return self.run.iteration

    @property
    def maximum(self) -> int:
        """Maximum number of iterations per problem from ``max_steps`` and ``max_epochs``; -1 if unlimited."""
        limits = [self.trainer.max_steps]
        if (self.trainer.max_epochs or -1) > 0 and isinstance(self.trainer.limit_train_batches, float):
            limits.append((self.trainer.max_epochs or 0) * self.evaluate_every)
        return min((limit for limit in limits if limit > 0), default=-1)

    @property
    def mean_scores(self) -> dict[str, float]:
        """Mean of each score over all problems for which it is known, at their last evaluations."""
        return self._listener.mean_scores

    @property
    def clock(self) -> IterationClock:
        """Counters of the trainer while it fits.

        Raises:
            RuntimeError: no trainer is fitting the module.
        """
        if self._clock is None:
            raise RuntimeError("DoubleOverparameterization has no clock before a trainer fits it")
        return self._clock

    @property
    def recovery_callbacks(self) -> Iterator[RecoveryCallback]:
        """Callbacks of the trainer that follow problems, in order."""
        return self._listener.callbacks

    def follow_states(self) -> None:
        """Register the parts of the batches as parameters, and the optimizers of active batches with the trainer."""
        self._parts = nn.ModuleList(self.roster.parts())
        if self._trainer is not None and self.trainer.strategy.optimizers:
            self.trainer.strategy.optimizers = self._check_optimizers()

    def configure_optimizers(self) -> list[Optimizer]:
        """Return the optimizers of the active batches, each with the groups ``theta`` and ``corruption``."""
        return [optimizer for state in self.states for optimizer in state.optimizers]

    def _check_optimizers(self) -> list[Optimizer]:
        given: Any = self.configure_optimizers()
        if not isinstance(given, list) or not all(isinstance(optimizer, Optimizer) for optimizer in given):
            raise ValueError(
                f"{type(self).__name__}.configure_optimizers must return a list of optimizers, got "
                f"{type(given).__name__}; learning-rate schedulers are not supported, because rates are saved for each "
                "problem; change lr of the groups in a callback instead"
            )
        return given

    # ------------------------------------------------------------------------------------------------ gradient descent

    def on_fit_start(self) -> None:
        """Set Lightning's counters to the completed iterations and evaluations."""
        self._check_optimizers()
        self._clock = IterationClock(self.trainer, self.run.block_end)
        run = self.run
        run.block, run.evaluate_every, run.maximum = self.block, self.evaluate_every, self.maximum
        run.grids = step_grids(self.trainer)
        run.begin()
        self._clock.set(self.iteration, self.iteration // self.evaluate_every)
        if not self.states:
            self.trainer.should_stop = True

    def on_train_start(self) -> None:
        """Set the length of the first epoch."""
        self.clock.begin_epoch(self._blocks_to_evaluation())

    def _blocks_to_evaluation(self) -> int:
        at, count, last = self.iteration, 0, self.iteration - self.iteration % self.evaluate_every + self.evaluate_every
        while at < last and at != self.maximum:
            at, count = self.run.block_end(at), count + 1
        return count

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Run one block of gradient iterations for every unfinished batch."""
        try:
            moved = self.run.step()
        except OutOfMemoryError as error:
            raise ValueError(
                f"{error}; to reduce memory, recover the image in tiles (data.init_args.tile, or --tile of dop "
                "recover) or use a smaller width"
            ) from error
        except StopIteration as error:  # Lightning would interpret it as the end of the data, and loop forever
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
        """End the problem ``name``. Call this from ``on_evaluation``; see :meth:`Run.stop`."""
        self.run.stop(name, status, state)

    def on_train_end(self) -> None:
        """End active problems: as ``done`` if early stopping ended the run, otherwise as ``interrupted``."""
        if stopped_early(self.trainer):
            self.run.finish(for_good=True)
        elif self.clock.has_reached_max_epochs:
            self.run.finish()
        self.run.interrupt()

    def on_fit_end(self) -> None:
        """Make batches hold the final parameters of the problems that have ended."""
        self.roster.deactivate()
        self.follow_states()

    def teardown(self, stage: str) -> None:
        """Restore the original counters and precision of the trainer."""
        if self._clock is not None:
            self._clock.restore()
            self._clock = None
        restore_precision(self.trainer)
        if isinstance(self.trainer.strategy.checkpoint_io, FolderCheckpointIO):
            self.trainer.strategy.checkpoint_io = self.trainer.strategy.checkpoint_io.files


def _positive_numbers(name: str, value: float | list[float]) -> float | list[float]:
    return [positive(name, v) for v in value] if isinstance(value, list) else positive(name, value)


def recovery_module(module: pl.LightningModule) -> DoubleOverparameterization:
    """Check that the module passed to a callback recovers problems, and return it.

    Raises:
        TypeError: the module is of another type.
    """
    if not isinstance(module, DoubleOverparameterization):
        raise TypeError(f"this callback requires a DoubleOverparameterization module, got {type(module).__name__}")
    return module
