"""Progress in gradient iterations: iterations done, rate, remaining time and score."""

import sys
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from dop_lightning.engine.state import State
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.launched import gives_all_away
from dop_lightning.foundation.terminal import is_terminal
from dop_lightning.foundation.units import format_duration
from dop_lightning.lightning.callbacks.estimate import estimate_time
from dop_lightning.lightning.callbacks.load import OtherLoad, describe
from dop_lightning.lightning.callbacks.pace import Pace, Work
from dop_lightning.lightning.callbacks.progress_file import ProgressFile
from dop_lightning.lightning.data.base import data_of
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback

PAUSE = 1.0
"""Minimum time in seconds between two updates within a block of all batches."""

_SHOWN = {"psnr": "psnr {:.2f} dB", "relative_error": "error {:.3g}", "loss": "loss {:.3g}"}


class IterationProgress(RecoveryCallback, pl.callbacks.ProgressBar):
    """Progress bar on a terminal, or occasional lines in a log: iterations, rate, remaining time, and a score.

    The score is the mean PSNR of the active problems at the last evaluation, or else the relative error or the loss.
    The remaining time is estimated from the last blocks, see :class:`~.pace.Pace`. If they are much slower than
    expected and other processes use the machine, a line in a log reports this. If the environment variable
    ``DOP_PROGRESS`` is the path of a file, the progress is also written there, see
    :class:`~.progress_file.ProgressFile`.

    Args:
        lines: number of lines in the log of a whole run; 0 disables all output, including the bar.
        estimate: whether to time a few iterations of the largest problem before the start and print the estimated
            duration of the run. Useful for runs of minutes or longer. If ``max_steps`` is 1, the first problem is
            timed.
    """

    def __init__(self, lines: int = 20, estimate: bool = False) -> None:
        super().__init__()
        self.estimate = estimate
        self.lines = at_least("lines", lines, 0)
        self._bar: tqdm | None = None
        self._enabled = lines > 0
        self._start = (0.0, 0)
        self._next_line = 0.0
        self._shown_at = 0.0
        self._maximum = -1
        self._pace: Pace | None = None
        self._load: OtherLoad | None = None
        self._is_estimated = False
        self._file: ProgressFile | None = None

    def disable(self) -> None:
        """Disable all output."""
        self._enabled = False

    def enable(self) -> None:
        """Enable output again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the plan, and start at the iteration of a resumed run."""
        self._enabled = self._enabled and trainer.is_global_zero and not gives_all_away()
        if not self._enabled:
            return
        pl_module = recovery_module(pl_module)
        print(_announcement(trainer, pl_module), file=sys.stderr)
        idle = trainer.world_size - len(data_of(trainer).batches)
        if idle > 0:
            has = "has" if idle == 1 else "have"
            print(
                f"{idle} of {trainer.world_size} processes {has} no batch to work on; set a smaller "
                "data.init_args.batch_size, or auto, to form more batches",
                file=sys.stderr,
            )
        if hint := _hint(pl_module):
            print(hint, file=sys.stderr)
        self._maximum = pl_module.maximum
        expected = None
        if self.estimate and self._maximum > 1:  # with one iteration per problem, the first problem is timed
            estimate = estimate_time(pl_module, self._maximum)
            expected = estimate.rate
            print(estimate.text, file=sys.stderr)
        begin, now = pl_module.iteration, time.monotonic()
        self._start, self._shown_at = (now, begin), now
        self._is_estimated = False
        self._pace = Pace(self._maximum, _remaining_work(pl_module), expected, now) if self._maximum > 0 else None
        self._load = OtherLoad() if self.estimate else None
        self._file = ProgressFile.of_environment()
        self._write_file()
        self._next_line = begin + self._line_interval()
        if is_terminal(sys.stderr):
            form = "{n:.0f}/{total_fmt} iterations |{bar}|{postfix}"
            if self._maximum == 1:
                form = "{percentage:.0f} % |{bar}|{postfix}"
            total = self._maximum if self._maximum > 0 else None
            self._bar = tqdm(total=total, initial=begin, unit="it", bar_format=form if total else None, leave=True)

    def _line_interval(self) -> float:
        """Return the number of iterations between two lines."""
        if self._maximum < 1:
            return 1000
        return 1 / self.lines if self._maximum == 1 else max(1, -(-self._maximum // self.lines))

    def on_block(self, trainer: pl.Trainer, module: DoubleOverparameterization, state: State, iterations: int) -> None:
        """Measure a block of one batch, and update the output if a block of all batches takes long."""
        if not self._enabled or self._pace is None:
            return
        now = time.monotonic()
        self._pace.note(state, iterations, now)
        if self.estimate and self._maximum == 1 and not self._is_estimated:
            self._is_estimated = True
            if left := self._pace.seconds_left:
                tqdm.write(f"The remaining parts will take {format_duration(left)}", file=sys.stderr)
        self._write_file()
        if now - self._shown_at >= PAUSE:
            self._show(trainer, self._pace.done)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the output after a block of all batches."""
        if not self._enabled:
            return
        module = recovery_module(pl_module)
        if self._pace is not None:
            self._pace.renew(_remaining_work(module))
            self._write_file()
        done = trainer.global_step if self._pace is None or not module.states else self._pace.done
        self._show(trainer, done)

    def _write_file(self) -> None:
        if self._file is not None and self._pace is not None:
            self._file.write(self._pace.done, self._maximum, self._pace.seconds_left)

    def _show(self, trainer: pl.Trainer, done: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(
                ", ".join([*self._format_times(done), *filter(None, [_score(trainer)])]), refresh=False
            )
            self._bar.update(done - self._bar.n)
        elif done >= self._next_line or done == self._maximum:
            self._next_line = done + self._line_interval()
            print(self._format_line(trainer, done), file=sys.stderr, flush=True)
        else:
            return
        self._shown_at = time.monotonic()

    def _format_line(self, trainer: pl.Trainer, done: float) -> str:
        if self._maximum == 1:
            parts = [f"{100 * done:.0f} %"]
        else:
            parts = [f"{int(done)}/{self._maximum} iterations" if self._maximum > 0 else f"{done} iterations"]
        return ", ".join([*parts, *self._format_times(done), *filter(None, [_score(trainer), self._slow_reason()])])

    def _format_times(self, done: float) -> list[str]:
        """Return the rate and the remaining time."""
        since, begin = self._start
        rate = (done - begin) / max(time.monotonic() - since, 1e-9)
        parts = [f"{rate:.3g} it/s"] if self._maximum != 1 else []
        if self._pace is not None:
            left = self._pace.seconds_left if done < self._maximum else 0.0
            if left is not None:
                parts.append(f"{timedelta(seconds=round(left))} left")
        return parts

    def _slow_reason(self) -> str:
        if self._load is None or self._pace is None:
            return ""
        cores = self._load.measure()
        return describe(cores) if self._pace.is_slow else ""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _remaining_work(module: DoubleOverparameterization) -> list[Work]:
    """Return the unfinished batches."""
    return [Work(batch.entries, done) for batch, done in module.roster.unfinished()]


def _hint(module: DoubleOverparameterization) -> str | None:
    """Return the first warning of a signal about a problem that it can hardly fit."""
    signals = ((state.signal, problem) for state in module.states for problem in state.problems)
    return next((hint for signal, problem in signals if signal is not None and (hint := signal.hint(problem))), None)


def _announcement(trainer: pl.Trainer, module: DoubleOverparameterization) -> str:
    """Describe the run in one line."""
    problems = sum(len(batch) for batch, _ in module.roster.unfinished())
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


def _score(trainer: pl.Trainer) -> str:
    scores = recovery_module(trainer.lightning_module).mean_scores
    return next((form.format(scores[tag]) for tag, form in _SHOWN.items() if tag in scores), "")
