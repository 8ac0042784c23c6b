"""The LightningModule: θ, g, h of every batch as parameters; a training step is a block of gradient descent."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import StrategyRegistry
from torch import nn
from torch.optim import Optimizer

from dop_lightning.engine.convex.solver import ConvexSolver
from dop_lightning.engine.outcome import Outcome, Record, Status
from dop_lightning.engine.roster import Roster, State, batch_labels
from dop_lightning.engine.state import Evaluation, Method, OutOfMemoryError
from dop_lightning.engine.steps import GradientDescent, StepRule
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.machine import available_memory
from dop_lightning.images.mosaics import combine
from dop_lightning.lightning.callbacks.base import RecoveryCallback
from dop_lightning.lightning.strategies import ProblemParallelStrategy
from dop_lightning.lightning.strategies.batching import SHARE_FOR_BATCHES, automatic_batches
from dop_lightning.lightning.strategies.plan import Plan, deal
from dop_lightning.model.corruption import Corruption, HadamardCorruption
from dop_lightning.model.losses import Loss, SquaredLoss
from dop_lightning.model.operators import Operator, operator_of
from dop_lightning.model.signals import Signal, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import Scorer
from dop_lightning.runs.results import remaining

# Trainer(strategy="problem_parallel") knows it by name once this module is imported
assert ProblemParallelStrategy.strategy_name in StrategyRegistry


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
        tau: learning rate of θ, above 0; a list is one value a problem, in the order of the data module; ``auto`` takes
            it from the data (matrices, see :mod:`dop_lightning.engine.steps.automatic`).
        alpha: ratio of the learning rates, above 0; a list is one value a problem; ``None`` is that of the problem, or
            by the rules of :mod:`dop_lightning.engine.alpha`.
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
        self.method = Method(signal, corruption, operator, loss, theta_optimizer, steps, solver, graphs)
        self.tau: float | list[float] | Literal["auto"]
        if isinstance(tau, str):
            one_of("tau", tau, ["auto"])
            self.tau = "auto"
        else:
            self.tau = _positive_numbers("tau", tau)
        self.alpha = None if alpha is None else _positive_numbers("alpha", alpha)
        self.block = at_least("block", block, 1)
        self.evaluate_every = at_least("evaluate_every", evaluate_every, 1)
        self.roster: Roster | None = None
        self._scorers: dict[int, Scorer] = {}
        self._parts = nn.ModuleList()
        self._stopping: dict[str, Status] = {}
        self._going_back: dict[str, Mapping[str, Any]] = {}
        self.mean_scores: dict[str, float] = {}
        self.stopped_by: Literal["", "SIGINT", "SIGTERM"] = ""

    # ------------------------------------------------------------------------------------------------ the problems

    def configure_model(self) -> None:
        """Build signal and corruption of every batch of the data module, where they are to run."""
        self._check_trainer()
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "batches"):
            raise ValueError(
                "DoubleOverparameterization needs datamodule=…, a RecoveryDataModule such as ImageDataModule or "
                "MatrixDataModule, got none"
            )
        strategy: Any = self.trainer.strategy
        share = getattr(strategy, "share", lambda _, decide: decide())
        plan = Plan(**share("plan", lambda: self._plan(data, self.trainer.world_size).to_json()))
        data.group(plan.batches)
        own = plan.ranks[self.trainer.global_rank]
        batches = [data.batches[position] for position in own]
        if self.roster is not None and self.roster.is_about(batches):
            return  # fit, then test: the module keeps what it recovered
        self.roster = self._roster(data, batches, batch_labels(own))
        self._follow_roster()

    def _roster(self, data: Any, batches: Sequence[ProblemBatch], labels: Sequence[str] | None = None) -> Roster:
        names = [problem.name for problem in data.problems]
        device = self.trainer.strategy.root_device
        return Roster(self.method, batches, self.tau, self.alpha, names, device, labels)

    def _plan(self, data: Any, ranks: int) -> Plan:
        """Batches of a run that was started before, or as the data module asks for; dealt by what is left to do."""
        if data.plan is not None:
            data.group(data.plan)
        elif data.batch_size == "auto":
            device = self.trainer.strategy.root_device
            beside = 1 if device.type == "cuda" else getattr(self.trainer.strategy, "num_processes", 1)
            limit = data.max_memory or int(SHARE_FOR_BATCHES * available_memory(device)) // beside

            def begin(problem: Problem) -> State:
                return self._roster(data, [ProblemBatch([problem])]).states[0]

            data.group(automatic_batches(data.problems, begin, limit, ranks))
        left = remaining(Path(self.trainer.default_root_dir), data.problems, self.trainer.max_steps)
        costs = [sum(left[problem.name] * problem.observation.numel() for problem in batch) for batch in data.batches]
        return Plan([batch.names for batch in data.batches], deal(costs, ranks))

    def _check_trainer(self) -> None:
        """Without a number of iterations or a time limit, a run would have no end."""
        timed = any(isinstance(callback, pl.callbacks.Timer) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        maximum = self.trainer.max_steps
        if self.trainer.state.fn == "fit" and (maximum == 0 or (maximum == -1 and not timed)):
            raise ValueError(f"trainer.max_steps must be the number of gradient iterations, at least 1, got {maximum}")

    @property
    def _problems(self) -> Roster:
        assert self.roster is not None, "configure_model comes first"
        return self.roster

    @property
    def states(self) -> list[State]:
        """The batches at work."""
        return self._problems.states

    @property
    def records(self) -> dict[str, Record]:
        """How far each problem is, by name."""
        return self._problems.records

    @property
    def iteration(self) -> int:
        """Iterations that every unfinished problem has behind it."""
        return self._problems.iteration

    def _follow_roster(self) -> None:
        """The parts of the batches at work are the module's parameters, their optimizers the trainer's."""
        self._scorers = {id(state): self._scorer(state) for state in self.states}
        self._parts = nn.ModuleList(self._problems.parts())
        if self._trainer is not None and self.trainer.strategy.optimizers:
            self.trainer.strategy.optimizers = self.configure_optimizers()

    def _scorer(self, state: State) -> Scorer:
        """The scorer of a batch, with its truths stacked already where it was at work before."""
        known = self._scorers.get(id(state))
        if known is not None and known.problems is state.problems:
            return known
        return Scorer(state.problems, state.own_corruption)

    def configure_optimizers(self) -> list[Optimizer]:
        """The optimizers of the batches at work, each with the groups ``theta`` and ``corruption``."""
        return [optimizer for state in self.states for optimizer in state.optimizers]

    @property
    def recovery_callbacks(self) -> Iterator[RecoveryCallback]:
        """The callbacks of the trainer that follow problems, in its order."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return (callback for callback in callbacks if isinstance(callback, RecoveryCallback))

    # ------------------------------------------------------------------------------------------------ gradient descent

    def on_fit_start(self) -> None:
        """Put Lightning's step counter, which ``max_steps`` is compared with, to the iterations done."""
        self._problems.work_on_unfinished(self.trainer.max_steps)
        self._follow_roster()
        progress = self._step_progress
        progress.total.completed = progress.total.ready = self.iteration
        if not self.states:
            self.trainer.should_stop = True

    @property
    def _step_progress(self) -> Any:
        return self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress

    def _block_end(self, start: int) -> int:
        """Blocks end on multiples of their length, at evaluations, where the steps ask, and at the last iteration."""
        grids = (self.block, self.evaluate_every, self.method.steps.grid)
        ends = [start - start % every + every for every in grids if every is not None]
        if self.trainer.max_steps != -1:
            ends.append(self.trainer.max_steps)
        return min(ends)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One block of gradient iterations of every unfinished batch."""
        start = self.iteration
        end = self._block_end(start)
        for state in self.states[:]:
            if self.stopped_by:
                break  # the batches of a run may be many: they need not be equally far to go on later
            before = time.perf_counter()
            at = state.iteration
            try:
                diverged = state.advance(max(0, end - at))
            except OutOfMemoryError as error:
                self._split(state, error)
                continue  # the halves take their turn in the next step
            if len(self.states) > 1:
                state.release()
            seconds = (time.perf_counter() - before) / len(state)
            for k, name in enumerate(state.problems.names):
                record = self.records[name]
                record.seconds += seconds
                record.iteration = at if k in diverged else state.iteration
            if diverged:
                reached, state.iteration = state.iteration, at  # they are scored where they stand again
                evaluation = state.evaluate()
                state.iteration = reached
                self._end(state, dict.fromkeys(diverged, "diverged"), evaluation)
        for state in [state for state in self.states if state.iteration == end]:
            if finished := state.finished():
                for k in finished:
                    self.records[state.problems.names[k]].ended = True
                self._end(state, finished, state.evaluate())
        last = end == self.trainer.max_steps
        reached = end if not self.states else min(end, self.iteration)
        if reached == end and (last or end % self.evaluate_every == 0):
            self._evaluate(last)
        self._step_progress.total.increment_by(reached - start)
        self._step_progress.current.increment_by(reached - start)
        if not self.states:
            self.trainer.should_stop = True

    def _split(self, state: State, error: OutOfMemoryError) -> None:
        """Go on with smaller batches; a problem comes out the same in any of them."""
        if len(state) == 1:
            raise ValueError(
                f"{state.problems.names[0]}: {error}; an image takes less in tiles (data.init_args.tile, or "
                "--tile of dop recover), and with a smaller width"
            ) from error
        print(f"\n{error}: going on with half of them at a time", file=sys.stderr)
        self._problems.split(state)
        self._follow_roster()
        if state.problems.device.type == "cuda":
            torch.cuda.empty_cache()

    def _evaluate(self, last: bool) -> None:
        """Score every unfinished problem and let the callbacks look; the last time, end them all."""
        sums: dict[str, list[float]] = {}
        end = self.iteration
        for state in self.states[:]:
            records = [self.records[name] for name in state.problems.names]
            if state.iteration != end or records[0].evaluated == end:
                continue  # it went ahead in an earlier run
            for record in records:
                record.evaluated = end
            evaluation = state.evaluate()
            scores = self._scorers[id(state)].curves(
                evaluation.signal, evaluation.corruption, evaluation.loss, evaluation.average
            )
            for of_problem in scores:
                for tag, value in of_problem.items():
                    sums.setdefault(tag, []).append(value)
            self._stopping, self._going_back = {}, {}
            for callback in self.recovery_callbacks:
                callback.on_evaluation(self.trainer, self, state.problems, evaluation, scores)
            ends: dict[int, Status] = {}
            for k, name in enumerate(state.problems.names):
                if name in self._stopping or last:
                    ends[k] = self._stopping.get(name, "done")
            if ends:
                self._end(state, ends, self._go_back(state, evaluation))
        self.mean_scores = {tag: sum(values) / len(values) for tag, values in sums.items()}
        if self._has_readers():
            for tag, value in self.mean_scores.items():
                self.log(tag, value, batch_size=1)

    def _has_readers(self) -> bool:
        """Whether a logger or a foreign callback (early stopping, say) reads what is logged.

        Lightning's log takes a millisecond a value, as long as forty iterations of a small matrix.
        """
        ours = (RecoveryCallback, pl.callbacks.ProgressBar, pl.callbacks.Timer)
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return bool(self.trainer.loggers) or not all(isinstance(callback, ours) for callback in callbacks)

    def stop_problem(self, name: str, status: Status, state: Mapping[str, Any] | None = None) -> None:
        """To be called from ``on_evaluation``: the problem called ``name`` leaves the work after this evaluation.

        It ends as it is, or in a state that ``problem_state`` of its batch gave earlier: then everything that is
        written of it, its number of iterations included, is of that iteration.
        """
        self._stopping[name] = status
        if state is not None:
            self._going_back[name] = state

    def _go_back(self, state: State, evaluation: Evaluation) -> Evaluation:
        """Put the problems that end in an earlier state into it; the evaluation with theirs in its place."""
        if not self._going_back:
            return evaluation
        rows: dict[str, Any] = {field.name: getattr(evaluation, field.name) for field in fields(evaluation)}
        rows = {key: value.clone() for key, value in rows.items() if isinstance(value, torch.Tensor)}
        for k, name in enumerate(state.problems.names):
            if name in self._going_back:
                earlier = self._going_back[name]
                alone = state.select([k])
                alone.load_problem_state(0, earlier)
                alone.iteration = self.records[name].iteration = earlier["iteration"]
                state.load_problem_state(k, earlier)
                then = alone.evaluate()
                for key, of_problems in rows.items():
                    of_problems[k] = getattr(then, key)[0]
        return replace(evaluation, **rows)

    def _end(self, state: State, ends: Mapping[int, Status], evaluation: Evaluation) -> None:
        """Let the problems at the positions of ``ends`` leave their batch, each with its status."""
        for k, status in ends.items():
            self.records[state.problems.names[k]].status = status
        for outcome in self._outcomes(state, evaluation, list(ends)):
            for callback in self.recovery_callbacks:
                callback.on_problem_end(self.trainer, self, outcome)
        self._problems.leave(state, list(ends))
        self._follow_roster()

    def _outcomes(self, state: State, evaluation: Evaluation, which: Iterable[int]) -> Iterator[Outcome]:
        scores = self._scorer(state).final(evaluation.signal, evaluation.corruption, evaluation.loss)
        for k in which:
            problem = state.problems[k]
            record = self.records[problem.name]
            yield Outcome(
                problem=problem,
                status=record.status,
                iteration=record.iteration,
                seconds=record.seconds,
                tau=state.tau[k],
                alpha=state.alpha[k] if state.own_corruption else None,
                signal=evaluation.signal[k].cpu(),
                corruption=evaluation.corruption[k].cpu(),
                scores=scores[k],
            )

    def on_train_end(self) -> None:
        """Hand out what there is of problems that were stopped on the way: a signal, a time limit."""
        for state in self.states:
            for name in state.problems.names:
                self.records[name].status = "interrupted"
            for outcome in self._outcomes(state, state.evaluate(), range(len(state))):
                for callback in self.recovery_callbacks:
                    callback.on_problem_end(self.trainer, self, outcome)
            state.release()

    # ---------------------------------------------------------------------------------------------- score and write

    def outcome_of(self, name: str) -> Outcome:
        """What is recovered of one problem, or of an image in tiles, at its present state."""
        mosaic = self.trainer.datamodule.mosaics.get(name)  # type: ignore[attr-defined]
        if mosaic is not None:
            return combine(mosaic, {place: self.outcome_of(tile.name) for place, tile in mosaic.tiles.items()})
        alone = self._problems.alone(name)
        return next(self._outcomes(alone, alone.evaluate(), [0]))

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
        checkpoint["batches"] = self._problems.save()
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
        self._problems.load(problems)
        self._follow_roster()
        for name in set(problems) & set(self.records):
            for callback in self.recovery_callbacks:
                callback.load_problem_state(name, problems[name]["callbacks"].get(callback.name, {}))
        # the rest of Lightning's own state is empty: the step counter follows the problems, see on_fit_start
        checkpoint.setdefault("state_dict", {})
        checkpoint.setdefault("optimizer_states", [])
        checkpoint.setdefault("lr_schedulers", [])


def _positive_numbers(name: str, value: float | list[float]) -> float | list[float]:
    return [positive(name, v) for v in value] if isinstance(value, list) else positive(name, value)
