"""The LightningModule: θ, g, h of every batch as parameters; a training step is a block of gradient descent."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer

from dop_lightning.engine.convex import ConvexMethod, ConvexSolver
from dop_lightning.engine.method import Method
from dop_lightning.engine.outcome import Outcome, Record, Status
from dop_lightning.engine.roster import Roster, batch_labels
from dop_lightning.engine.run import Run
from dop_lightning.engine.state import OutOfMemoryError, Procedure, State
from dop_lightning.engine.steps import GradientDescent, StepRule
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.images.mosaics import combine
from dop_lightning.lightning.listener import TrainerListener
from dop_lightning.lightning.recovery_callback import RecoveryCallback, require_hooks
from dop_lightning.lightning.strategies import ProblemParallelStrategy  # noqa: F401 — registers problem_parallel
from dop_lightning.lightning.strategies.planning import plan_run
from dop_lightning.model.corruption import Corruption, HadamardCorruption
from dop_lightning.model.losses import Loss, SquaredLoss
from dop_lightning.model.operators import Operator, operator_of
from dop_lightning.model.signals import Signal, SymmetricFactor
from dop_lightning.problems.problem import ProblemBatch


class DoubleOverparameterization(pl.LightningModule):
    r"""Robust recovery by double over-parameterization (Eqs. 3, 6, 9, 10).

    Gradient descent on ``f(θ, g, h) = ℓ(A(φ(θ)) + g∘g − h∘h − y)`` with rate τ for θ and α·τ for g, h. Its rivals are
    settings: without corruption it is DIP, or factorisation; with the absolute loss besides, DIP-ℓ1 and MF-ℓ1 (Eq. 2).

    The problems come from the data module, a :class:`~dop_lightning.lightning.data.RecoveryDataModule`. One training
    step is one block of gradient iterations of every unfinished batch; ``Trainer(max_steps=N)`` means N gradient
    iterations of every problem.

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
        block: gradient iterations of one training step, at least 1. It changes no result; a step should take less
            than about a second, since signals and time limits are looked at between steps. A problem that ends by
            itself (a horizon, a solver that has converged) stays as it is until the end of its block.
        evaluate_every: iterations between two evaluations (scores, pictures, the test for having settled).
        graphs: whether iterations of networks that allow it are replayed as a CUDA graph on a GPU, see
            :mod:`dop_lightning.engine.graphs`.

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
        block: int = 100,
        evaluate_every: int = 1000,
        graphs: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint holds problems, not a state_dict
        steps = steps or GradientDescent()
        loss = loss or SquaredLoss()
        self.method: Procedure = (
            Method(signal, corruption, operator, loss, theta_optimizer, steps, graphs)
            if solver is None
            else ConvexMethod(solver, operator)
        )
        self.tau: float | list[float] | Literal["auto"]
        if isinstance(tau, str):
            one_of("tau", tau, ["auto"])
            self.tau = "auto"
        else:
            self.tau = _positive_numbers("tau", tau)
        self.alpha = None if alpha is None else _positive_numbers("alpha", alpha)
        self.block = at_least("block", block, 1)
        self.evaluate_every = at_least("evaluate_every", evaluate_every, 1)
        self._run: Run | None = None
        self._listener = TrainerListener(self)
        self._parts = nn.ModuleList()
        self.stopped_by: Literal["", "SIGINT", "SIGTERM"] = ""

    # ------------------------------------------------------------------------------------------------ the problems

    def configure_model(self) -> None:
        """Build signal and corruption of every batch of the data module, where they are to run."""
        self._check_trainer()
        require_hooks(self.trainer.callbacks)  # type: ignore[attr-defined]
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "batches"):
            raise ValueError(
                "DoubleOverparameterization needs datamodule=…, a RecoveryDataModule such as ImageDataModule or "
                "MatrixDataModule, got none"
            )
        plan = plan_run(self.trainer, data, lambda problem: self._roster(data, [ProblemBatch([problem])]).states[0])
        own = plan.ranks[self.trainer.global_rank]
        batches = [data.batches[position] for position in own]
        if self._run is not None and self._run.roster.is_about(batches):
            return  # fit, then test: the module keeps what it recovered
        self._run = Run(
            self._roster(data, batches, batch_labels(own)),
            block=self.block,
            evaluate_every=self.evaluate_every,
            listeners=[self._listener],
            interrupted=lambda: self.stopped_by,
        )
        self.follow_states()

    def _roster(self, data: Any, batches: Sequence[ProblemBatch], labels: Sequence[str] | None = None) -> Roster:
        names = [problem.name for problem in data.problems]
        device = self.trainer.strategy.root_device
        return Roster(self.method, batches, self.tau, self.alpha, names, device, labels)

    def _check_trainer(self) -> None:
        """Without a number of iterations or a time limit, a run would have no end."""
        timed = any(isinstance(callback, pl.callbacks.Timer) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        maximum = self.trainer.max_steps
        if self.trainer.state.fn == "fit" and (maximum == 0 or (maximum == -1 and not timed)):
            raise ValueError(f"trainer.max_steps must be the number of gradient iterations, at least 1, got {maximum}")

    @property
    def run(self) -> Run:
        """The run: its batches, and how far each problem is.

        Raises:
            RuntimeError: no trainer has called :meth:`configure_model` yet.
        """
        if self._run is None:
            raise RuntimeError("DoubleOverparameterization has no run before a trainer has configured it")
        return self._run

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
    def mean_scores(self) -> dict[str, float]:
        """By tag, the mean over the problems at work at the last evaluation."""
        return self._listener.mean_scores

    @property
    def recovery_callbacks(self) -> Iterator[RecoveryCallback]:
        """The callbacks of the trainer that follow problems, in its order."""
        return self._listener.callbacks

    def follow_states(self) -> None:
        """Take the parts of the batches at work as parameters, and let the trainer have their optimizers."""
        self._parts = nn.ModuleList(self.roster.parts())
        if self._trainer is not None and self.trainer.strategy.optimizers:
            self.trainer.strategy.optimizers = self.configure_optimizers()

    def configure_optimizers(self) -> list[Optimizer]:
        """The optimizers of the batches at work, each with the groups ``theta`` and ``corruption``."""
        return [optimizer for state in self.states for optimizer in state.optimizers]

    # ------------------------------------------------------------------------------------------------ gradient descent

    def on_fit_start(self) -> None:
        """Put Lightning's step counter, which ``max_steps`` is compared with, to the iterations done."""
        self.run.block, self.run.evaluate_every = self.block, self.evaluate_every
        self.run.maximum = self.trainer.max_steps
        self.run.begin()
        progress = self._step_progress
        progress.total.completed = progress.total.ready = self.iteration
        if not self.states:
            self.trainer.should_stop = True

    @property
    def _step_progress(self) -> Any:
        return self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One block of gradient iterations of every unfinished batch."""
        try:
            moved = self.run.step()
        except OutOfMemoryError as error:
            raise ValueError(
                f"{error}; an image takes less in tiles (data.init_args.tile, or --tile of dop recover), and with a "
                "smaller width"
            ) from error
        except StopIteration as error:  # Lightning would take it for the end of the data, and go on without end
            raise RuntimeError("StopIteration was raised in a step") from error
        self._step_progress.total.increment_by(moved)
        self._step_progress.current.increment_by(moved)
        if not self.states:
            self.trainer.should_stop = True

    def stop_problem(self, name: str, status: Status, state: Mapping[str, Any] | None = None) -> None:
        """To be called from ``on_evaluation``: the problem called ``name`` ends, see :meth:`Run.stop`."""
        self.run.stop(name, status, state)

    def on_train_end(self) -> None:
        """Return the present results of problems that a signal or a time limit interrupted."""
        self.run.interrupt()

    # ---------------------------------------------------------------------------------------------- score and write

    def outcome_of(self, name: str) -> Outcome:
        """What is recovered of one problem, or of an image in tiles, at its present state."""
        mosaic = self.trainer.datamodule.mosaics.get(name)  # type: ignore[attr-defined]
        if mosaic is not None:
            return combine(mosaic, {place: self.outcome_of(tile.name) for place, tile in mosaic.tiles.items()})
        return self.run.outcome_of(name)

    @torch.no_grad()
    def validation_step(self, batch: str, batch_idx: int) -> dict[str, Any]:
        """The scores of the problem called ``batch``."""
        return self._score(batch)

    @torch.no_grad()
    def test_step(self, batch: str, batch_idx: int) -> dict[str, Any]:
        """The scores of the problem called ``batch``."""
        return self._score(batch)

    def _score(self, name: str) -> dict[str, Any]:
        outcome = self.outcome_of(name)
        self.log_dict(outcome.scores, batch_size=1)
        return {"problem": name, "status": outcome.status, "iterations": outcome.iteration, **outcome.scores}

    @torch.no_grad()
    def predict_step(self, batch: str, batch_idx: int) -> Outcome:
        """What is recovered of the problem called ``batch``."""
        return self.outcome_of(batch)

    # ------------------------------------------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save problem by problem: nothing in a checkpoint depends on how they were batched."""
        checkpoint["batches"] = self.roster.save()
        for problems in checkpoint["batches"].values():
            for name, saved in problems.items():
                saved["callbacks"] = {call.name: call.problem_state(name) for call in self.recovery_callbacks}
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"):
            checkpoint.pop(key, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the problems of a checkpoint over; one that it does not hold starts anew."""
        problems = checkpoint.get("problems")
        if problems is None:
            raise ValueError("ckpt_path must be a checkpoint folder written by dop, got one without problems")
        if problems and self.records and not set(problems) & set(self.records):
            raise ValueError(
                f"ckpt_path must hold problems of this run, such as {next(iter(self.records))!r}, "
                f"got one with {', '.join(map(repr, sorted(problems)[:3]))}"
            )
        self.roster.load(problems)
        self.follow_states()
        for name in set(problems) & set(self.records):
            for callback in self.recovery_callbacks:
                callback.load_problem_state(name, problems[name]["callbacks"].get(callback.name, {}))
        # the rest of Lightning's own state is empty: the step counter follows the problems, see on_fit_start
        checkpoint.setdefault("state_dict", {})
        checkpoint.setdefault("optimizer_states", [])
        checkpoint.setdefault("lr_schedulers", [])


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
