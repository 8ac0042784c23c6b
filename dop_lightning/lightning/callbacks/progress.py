"""Progress in gradient iterations: how many, how fast, how long still, how good."""

import sys
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from dop_lightning.engine.abreast import abreast
from dop_lightning.engine.graphs import iterations_ahead
from dop_lightning.engine.measure import seconds_an_iteration
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.units import format_duration
from dop_lightning.lightning.data.base import data_of
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module

_SHOWN = {"psnr": "psnr {:.2f} dB", "relative_error": "error {:.3g}", "loss": "loss {:.3g}"}


class IterationProgress(pl.callbacks.ProgressBar):
    """A bar on a terminal, and a line now and then in a log: iterations, rate, time left, and a score.

    The score is the mean PSNR, else relative error, else loss of the problems at work, at the last evaluation.

    Args:
        lines: how many lines a log gets over a whole run; 0 shows nothing, on a terminal neither.
        estimate: whether to time a few iterations of the largest problem before the start, and to say how long the run
            is going to take. Worth it where a run takes minutes.
    """

    def __init__(self, lines: int = 20, estimate: bool = False) -> None:
        super().__init__()
        self.estimate = estimate
        self.lines = at_least("lines", lines, 0)
        self._bar: tqdm | None = None
        self._enabled = lines > 0
        self._start = (0.0, 0)
        self._next_line = 0
        self._maximum = -1

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin where a resumed run begins."""
        self._enabled = self._enabled and trainer.is_global_zero
        if not self._enabled:
            return
        pl_module = recovery_module(pl_module)
        print(_announcement(trainer, pl_module), file=sys.stderr)
        idle = trainer.world_size - len(data_of(trainer).batches)
        if idle > 0:
            has = "has" if idle == 1 else "have"
            print(
                f"{idle} of {trainer.world_size} processes {has} nothing to do: there are no more batches; "
                "data.init_args.batch_size auto, or a smaller one, makes more",
                file=sys.stderr,
            )
        if hint := _hint(pl_module):
            print(hint, file=sys.stderr)
        self._maximum = pl_module.maximum
        if self.estimate and self._maximum > 0:
            print(_estimate(pl_module, self._maximum), file=sys.stderr)
        total = self._maximum if self._maximum > 0 else None
        begin = pl_module.iteration
        self._start = (time.monotonic(), begin)
        self._next_line = begin + self._stride()
        if sys.stderr.isatty():
            form = "{n_fmt}/{total_fmt} iterations |{bar}| {rate_fmt}, {remaining} left{postfix}"
            self._bar = tqdm(total=total, initial=begin, unit="it", bar_format=form if total else None, leave=True)

    def _stride(self) -> int:
        return max(1, -(-self._maximum // self.lines)) if self._maximum > 0 else 1000

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on by a block."""
        if not self._enabled:
            return
        done = trainer.global_step
        if self._bar is not None:
            self._bar.set_postfix_str(_score(trainer), refresh=False)
            self._bar.update(done - self._bar.n)
        elif done >= self._next_line or done == self._maximum:
            self._next_line = done + self._stride()
            print(self._line(trainer, done), file=sys.stderr, flush=True)

    def _line(self, trainer: pl.Trainer, done: int) -> str:
        since, begin = self._start
        rate = (done - begin) / max(time.monotonic() - since, 1e-9)
        parts = [f"{done}/{self._maximum} iterations" if self._maximum > 0 else f"{done} iterations"]
        parts.append(f"{rate:.3g} it/s")
        if self._maximum > 0:
            left = timedelta(seconds=round((self._maximum - done) / max(rate, 1e-9)))
            parts.append(f"{left} left")
        return ", ".join([*parts, *filter(None, [_score(trainer)])])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _hint(module: DoubleOverparameterization) -> str | None:
    """The first advice of a signal on a problem that it can hardly fit."""
    signals = ((state.signal, problem) for state in module.states for problem in state.problems)
    return next((hint for signal, problem in signals if signal is not None and (hint := signal.hint(problem))), None)


def _announcement(trainer: pl.Trainer, module: DoubleOverparameterization) -> str:
    """What is about to happen, in one line."""
    problems = sum(len(state) for state in module.states)
    device, threads = trainer.strategy.root_device, torch.get_num_threads()
    where = f"the CPU ({threads} thread{'s' if threads > 1 else ''})" if device.type == "cpu" else str(device)
    length = f"up to {module.maximum} iterations" if module.maximum > 0 else "as long as max_time allows"
    what = f"{problems} problem{'s' if problems != 1 else ''}"
    data = data_of(trainer)
    if trainer.world_size > 1:
        of_all = f"this process and {trainer.world_size - 1} more"
        what = f"{len(data.problems)} problems in {len(data.batches)} batches on {of_all}, {problems} of them here"
    elif data.mosaics:
        what = f"{len(data.wholes)} problem{'s' if len(data.wholes) != 1 else ''} in {problems} parts"
    return f"{what}, {length} on {where}, results in {trainer.default_root_dir}"


def _estimate(module: DoubleOverparameterization, last: int) -> str:
    """How long a run is going to take: by the largest problem, others in proportion to their entries."""
    sizes = [state.problems.observation[0].numel() for state in module.states]
    largest = module.states[sizes.index(max(sizes))]
    try:
        ahead, number = iterations_ahead(largest.problems.device), min(abreast(largest), sizes.count(max(sizes)))
        one, *beside = (largest.select([0]) for _ in range(number))
        seconds = seconds_an_iteration(one, stopped=lambda: module.stopped_by, ahead=ahead, beside=beside)
    except OutOfMemoryError as error:
        return f"{error}"  # the first step will say what to do
    work = sum(size * len(state) * (last - state.iteration) for size, state in zip(sizes, module.states, strict=True))
    return f"The iterations take {format_duration(seconds * work / max(sizes))}, {seconds:.2g} s each of the largest"


def _score(trainer: pl.Trainer) -> str:
    scores = recovery_module(trainer.lightning_module).mean_scores
    return next((form.format(scores[tag]) for tag, form in _SHOWN.items() if tag in scores), "")
