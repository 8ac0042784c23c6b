"""What the framework costs: an iteration of ``dop fit`` over an iteration of a bare loop.

Both run in turn in one process, on the same problem. «Framework» is the Trainer with the standard callbacks: scores and
curves at every evaluation, TensorBoard, progress; from the first iteration to the last block, whose end (result files,
checkpoint) comes once a run and is not counted. «Bare» is the loop that one would write by hand:
for matrices in place and without autograd, for the U-Net the same network and optimizer by autograd.

    python scripts/benchmark_loop.py [--rounds 5]
"""

import argparse
import statistics
import sys
import tempfile
import time
from functools import partial

import pytorch_lightning as pl
import torch

from dop_lightning.commands.session import prepare, standard_callbacks
from dop_lightning.corruption import HadamardCorruption
from dop_lightning.data import ImageDataModule, MatrixDataModule, RecoveryDataModule
from dop_lightning.module import DoubleOverparameterization
from dop_lightning.noise import GrossOutliers, SaltAndPepper
from dop_lightning.objective import SquaredLoss
from dop_lightning.optim import DiscrepantSGD, parameter_groups
from dop_lightning.problems import ProblemBatch
from dop_lightning.signals import SkipUNet, SymmetricFactor


class Clock(pl.Callback):
    """Seconds and iterations from the start to the last block."""

    def on_train_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seconds, self.iterations = time.perf_counter() - self.start, trainer.global_step


def framework(make_module, data: RecoveryDataModule, iterations: int) -> float:
    """Seconds an iteration through the Trainer."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=iterations,
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[*standard_callbacks(), clock],
        )
        trainer.fit(make_module(), datamodule=data)
    return clock.seconds / clock.iterations


@torch.no_grad()
def bare_matrices(problems: ProblemBatch, iterations: int, tau: float = 1e-4) -> float:
    """Seconds an iteration of Eq. 6, batched and in place."""
    y = problems.observation
    n = y.shape[-1]
    U = problems.normal((n, n), 1e-4, "init")
    g = problems.normal((n, n), 1e-4, "init", 1)
    h = g.clone()
    r = torch.empty_like(y)
    rate = n**0.5 * tau
    if len(problems) == 1:
        y, U, g, h, r = (t[0] for t in (y, U, g, h, r))
    matrices = U.dim() == 2
    start = time.perf_counter()
    for _ in range(iterations):
        if matrices:
            torch.neg(y, out=r).addmm_(U, U.T)
        else:
            torch.neg(y, out=r).baddbmm_(U, U.mT)
        r.addcmul_(g, g).addcmul_(h, h, value=-1)
        step = (r @ U).addmm_(r.T, U) if matrices else torch.bmm(r, U).baddbmm_(r.mT, U)
        U.add_(step, alpha=-tau / 2)
        g.addcmul_(r, g, value=-rate)
        h.addcmul_(r, h, value=rate)
    return (time.perf_counter() - start) / iterations


def bare_network(problems: ProblemBatch, iterations: int, width: int) -> float:
    """Seconds an iteration of Eq. 10 by autograd."""
    signal = SkipUNet(problems, width=width)
    corruption = HadamardCorruption(problems, scale=1e-5, tied=False)
    theta, both = list(signal.parameters()), list(corruption.parameters())
    optimizer = DiscrepantSGD(parameter_groups(theta, both, tau=1.0, alpha=400.0))
    start = time.perf_counter()
    for i in range(iterations):
        optimizer.zero_grad(set_to_none=True)
        loss = (signal(i) + corruption.g**2 - corruption.h**2 - problems.observation).square().mean()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - start) / iterations


def cases():
    """``(name, allowed ratio, framework, bare)``; each function takes a number of iterations."""
    for count, allowed in ((1, 1.25), (100, 1.1)):
        data = MatrixDataModule(n=50, rank=5, noise=GrossOutliers(0.3), seeds=count)
        data.setup()
        module = partial(DoubleOverparameterization, signal=SymmetricFactor, block=1000, evaluate_every=1000)
        bare = partial(bare_matrices, data.batches[0])
        yield f"matrix n=50, K={count}", allowed, 20_000 if count == 1 else 5000, partial(framework, module, data), bare
    data = ImageDataModule("astronaut", noise=SaltAndPepper(0.5), resize=64)
    data.setup()
    module = partial(
        DoubleOverparameterization,
        signal=partial(SkipUNet, width=32),
        corruption=partial(HadamardCorruption, scale=1e-5, tied=False),
        loss=SquaredLoss("mean"),
        tau=1.0,
        alpha=400.0,
        block=10,
        evaluate_every=100,
    )
    bare = partial(bare_network, data.batches[0], width=32)
    yield "U-Net 64×64, width 32", 1.1, 500, partial(framework, module, data), bare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run, in turn")
    rounds = parser.parse_args().rounds
    prepare()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds, medians")
    print(f"{'case':<24}{'bare':>12}{'framework':>12}{'ratio':>8}{'allowed':>9}")
    failed = False
    for name, allowed, iterations, ours, bare in cases():
        bare(min(200, iterations))  # warm up
        times = [(bare(iterations), ours(iterations)) for _ in range(rounds)]
        slow = statistics.median(t for t, _ in times), statistics.median(t for _, t in times)
        ratio = statistics.median(framework / by_hand for by_hand, framework in times)
        failed |= ratio > allowed
        print(f"{name:<24}{slow[0] * 1e6:>9.1f} µs{slow[1] * 1e6:>9.1f} µs{ratio:>8.3f}{allowed:>9}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
