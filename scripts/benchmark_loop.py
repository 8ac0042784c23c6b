"""Measure the overhead of the framework: the time of an iteration of ``dop fit`` over that of a bare loop.

    python scripts/benchmark_loop.py [--rounds 5]

The two are interleaved block by block in one run, so that drifts of the speed of the machine affect both alike.
“Framework” is the Trainer with the standard callbacks (scores and curves at every evaluation, TensorBoard, progress),
without the result files and the checkpoint, which are written once at the end. “Bare” is a loop written by hand: in
place and without autograd for matrices; the same network and optimizer with autograd for the U-Net.
"""

import argparse
import statistics
import sys
from functools import partial

import torch
from interleaved import time_interleaved

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.optim.discrepant_sgd import DiscrepantSGD, parameter_groups
from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet, SymmetricFactor
from dop_lightning.problems.noise import GrossOutliers, SaltAndPepper
from dop_lightning.problems.problem import ProblemBatch


def bare_matrices(problems: ProblemBatch, tau: float = 1e-4):
    """Return a function of k that runs k iterations of Eq. 6, batched and in place."""
    y = problems.observation
    n = y.shape[-1]
    U = problems.normal((n, n), 1e-4, "init")
    g = problems.normal((n, n), 1e-4, "init", 1)
    h = g.clone()
    r = torch.empty_like(y)
    rate = n**0.5 * tau
    if len(problems) == 1:
        y, U, g, h, r = (t[0] for t in (y, U, g, h, r))
    single = U.dim() == 2

    @torch.no_grad()
    def run(iterations: int) -> None:
        for _ in range(iterations):
            if single:
                torch.neg(y, out=r).addmm_(U, U.T)
            else:
                torch.neg(y, out=r).baddbmm_(U, U.mT)
            r.addcmul_(g, g).addcmul_(h, h, value=-1)
            step = (r @ U).addmm_(r.T, U) if single else torch.bmm(r, U).baddbmm_(r.mT, U)
            U.add_(step, alpha=-tau / 2)
            g.addcmul_(r, g, value=-rate)
            h.addcmul_(r, h, value=rate)

    return run


def bare_network(problems: ProblemBatch, width: int):
    """Return a function of k that runs k iterations of Eq. 10 with autograd."""
    signal = SkipUNet(problems, width=width)
    corruption = HadamardCorruption(problems, scale=1e-5, tied=False)
    theta, both = list(signal.parameters()), list(corruption.parameters())
    optimizer = DiscrepantSGD(parameter_groups(theta, both, tau=1.0, alpha=400.0))

    @torch.enable_grad()
    def run(iterations: int) -> None:
        for i in range(iterations):
            optimizer.zero_grad(set_to_none=True)
            loss = (signal(i) + corruption.g**2 - corruption.h**2 - problems.observation).square().mean()
            loss.backward()
            optimizer.step()

    return run


def cases():
    """Yield ``(name, allowed ratio, function)``; the function returns the seconds of framework and bare loop."""
    for count, allowed in ((1, 1.25), (100, 1.1), (1000, 1 / 0.7)):
        data = MatrixDataModule(n=50, rank=5, noise=GrossOutliers(0.3), seeds=count)
        data.setup()
        module = partial(DoubleOverparameterization, signal=SymmetricFactor, block=1000, evaluate_every=1000)
        iterations = {1: 20_000, 100: 10_000, 1000: 3000}[count]
        yield f"matrix n=50, K={count}", allowed, partial(time_interleaved, module, data, bare_matrices, iterations)
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
    bare = partial(bare_network, width=32)
    yield "U-Net 64×64, width 32", 1.1, partial(time_interleaved, module, data, bare, 1000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds; default: %(default)s")
    rounds = parser.parse_args().rounds
    prepare()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds, medians")
    print(f"{'case':<24}{'bare':>12}{'framework':>12}{'ratio':>8}{'allowed':>9}  ratios of all rounds")
    failed = False
    for name, allowed, measure in cases():
        times = [measure() for _ in range(rounds)]
        ours, bare = (statistics.median(t) * 1e6 for t in zip(*times, strict=True))
        ratios = sorted(framework / by_hand for framework, by_hand in times)
        ratio = statistics.median(ratios)
        failed |= ratio > allowed
        every = " ".join(f"{r:.3f}" for r in ratios)
        print(f"{name:<24}{bare:>9.1f} µs{ours:>9.1f} µs{ratio:>8.3f}{allowed:>9}  {every}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
