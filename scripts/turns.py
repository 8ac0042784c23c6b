"""Two ways to do the same iterations, taking turns block by block in one run: a machine whose speed drifts slows both
alike. For the benchmarks beside this file."""

import tempfile
import time
from collections.abc import Callable

import pytorch_lightning as pl
import torch

from dop_lightning.lightning.callbacks import ProcessHeartbeat, RecoveryCallback, standard_callbacks
from dop_lightning.lightning.data import RecoveryDataModule
from dop_lightning.problems.problem import ProblemBatch

Loop = Callable[[int], object]
"""Does so many iterations."""


def clock(device: str) -> float:
    """Seconds, once the device has done all that it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Turns(RecoveryCallback):
    """Between two blocks of the framework, as many iterations of the bare loop; the time of each apart."""

    def __init__(self, bare: Loop, device: str = "cpu", warm_up: int = 0) -> None:
        self.bare = bare
        self.device = device
        self.warm_up = warm_up
        self.seconds = {"framework": 0.0, "bare": 0.0}
        self.iterations = 0
        self._seen = 0

    def on_train_start(self, trainer, pl_module):
        self.since = clock(self.device)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        done, self._seen = trainer.global_step - self._seen, trainer.global_step
        if done:
            now = clock(self.device)
            self.bare(done)
            end = clock(self.device)
            if trainer.global_step - done >= self.warm_up:
                self.seconds["framework"] += now - self.since
                self.seconds["bare"] += end - now
                self.iterations += done
            self.since = clock(self.device)


def take_turns(
    make_module: Callable[[], pl.LightningModule],
    data: RecoveryDataModule,
    make_bare: Callable[[ProblemBatch], Loop],
    iterations: int,
    device: str = "cpu",
    warm_up: int | None = None,
) -> tuple[float, float]:
    """Seconds an iteration through the Trainer, and of the bare loop.

    Args:
        make_module: of the framework.
        data: set up; its first batch is what the bare loop works on.
        make_bare: the bare loop of a batch.
        iterations: of each; those after the last turn but one are not counted.
        device: ``cpu`` or ``cuda``.
        warm_up: blocks of the framework that begin before this iteration are not counted, and the bare loop does as
            many ahead. By default all blocks count, and the bare loop does 200.

    Raises:
        ValueError: there is no turn to be counted.
    """
    bare = make_bare(data.batches[0].to(device))
    bare(min(200 if warm_up is None else warm_up, iterations))
    turns = Turns(bare, device, warm_up or 0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=iterations,
            max_epochs=-1,
            accelerator=device,
            devices=1,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[turns, *standard_callbacks(), ProcessHeartbeat()],
        )
        trainer.fit(make_module(), datamodule=data)
    if turns.iterations == 0:
        raise ValueError(f"iterations must be above two blocks and the warm-up, got {iterations}")
    return turns.seconds["framework"] / turns.iterations, turns.seconds["bare"] / turns.iterations
