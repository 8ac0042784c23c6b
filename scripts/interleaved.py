"""Run two implementations of the same iterations interleaved, block by block, for the benchmarks in this folder.

Drifts of the speed of the machine affect both alike.
"""

import tempfile
import time
from collections.abc import Callable

import pytorch_lightning as pl
import torch

from dop_lightning.lightning.callbacks import ProcessHeartbeat, RecoveryCallback, standard_callbacks
from dop_lightning.lightning.data import RecoveryDataModule
from dop_lightning.problems.problem import ProblemBatch

Loop = Callable[[int], object]
"""Run this number of iterations."""


def clock(device: str) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class InterleavedLoop(RecoveryCallback):
    """After each block of the framework, run as many iterations of the bare loop, and time both separately."""

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


def time_interleaved(
    make_module: Callable[[], pl.LightningModule],
    data: RecoveryDataModule,
    make_bare: Callable[[ProblemBatch], Loop],
    iterations: int,
    device: str = "cpu",
    warm_up: int | None = None,
) -> tuple[float, float]:
    """Return seconds per iteration through the Trainer, and of the bare loop.

    Args:
        make_module: creates the module of the framework.
        data: data module after setup; the bare loop uses its first batch.
        make_bare: creates the bare loop for a batch.
        iterations: iterations of each; those of the last block are not counted.
        device: ``cpu`` or ``cuda``.
        warm_up: blocks of the framework that begin before this iteration are not counted, and the bare loop first runs
            this number of iterations. By default all blocks count, and the bare loop first runs 200.

    Raises:
        ValueError: no block is counted.
    """
    bare = make_bare(data.batches[0].to(device))
    bare(min(200 if warm_up is None else warm_up, iterations))
    loop = InterleavedLoop(bare, device, warm_up or 0)
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
            callbacks=[loop, *standard_callbacks(), ProcessHeartbeat()],
        )
        trainer.fit(make_module(), datamodule=data)
    if loop.iterations == 0:
        raise ValueError(f"`iterations` must exceed two blocks and the warm-up, got {iterations}")
    return loop.seconds["framework"] / loop.iterations, loop.seconds["bare"] / loop.iterations
