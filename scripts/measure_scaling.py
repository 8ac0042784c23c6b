"""Measure the constants of the model of docs/scaling.md for the time of a grid, and compare its predictions with grids.

    OMP_NUM_THREADS=1 python scripts/measure_scaling.py

The model, for grids of similar problems:

    T = start(devices) + ⌈problems / devices⌉ · (each + iterations · (step + evaluation / evaluate_every))

The constants are those of one process with OMP_NUM_THREADS threads, or of one GPU (`--device cuda`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from interleaved import clock

from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.roster import Roster
from dop_lightning.engine.steps import Refinement
from dop_lightning.foundation.machine import set_threads
from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule, RecoveryDataModule
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet, SymmetricFactor
from dop_lightning.problems.noise import GrossOutliers, SaltAndPepper
from dop_lightning.problems.scoring import Scorer

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass
class Kind:
    """A kind of problem, and its recovery in plain PyTorch and with the command."""

    name: str
    method: Method
    tau: float
    configs: tuple[str, ...]
    settings: tuple[str, ...]

    def data(self, size: int, problems: int) -> RecoveryDataModule:
        if self.name == "matrices":
            data: RecoveryDataModule = MatrixDataModule(n=size, rank=5, noise=GrossOutliers(0.3), seeds=problems)
        else:
            data = ImageDataModule("astronaut", SaltAndPepper(0.5), resize=size, seeds=problems, batch_size=1)
        data.setup()
        return data

    def roster(self, size: int, problems: int, device: str) -> Roster:
        data = self.data(size, problems)
        names = [problem.name for problem in data.problems]
        return Roster(self.method, data.batches, self.tau, None, names, torch.device(device))

    def step(self, size: int, problems: int, device: str) -> tuple[float, float]:
        """Return the seconds of an iteration, and of an evaluation, of one problem."""
        state = self.roster(size, problems, device).states[0]
        state.advance(3)
        begin, done = clock(device), 0
        while clock(device) - begin < 1.0:
            state.advance(10)
            done += 10
        step = (clock(device) - begin) / done
        scorer = Scorer(state.problems, True)
        begin, seen = clock(device), 0
        while clock(device) - begin < 0.5:
            evaluation = state.evaluate()
            scorer.curves(evaluation.signal, evaluation.corruption, evaluation.loss, evaluation.average)
            seen += 1
        return step / len(state), (clock(device) - begin) / seen / len(state)

    def command(self, run: Path, size: int, problems: int, iterations: int, options: argparse.Namespace) -> list[str]:
        files = [part for name in self.configs for part in ("--config", str(CONFIGS / f"{name}.yaml"))]
        shape = ["--data.n" if self.name == "matrices" else "--data.resize", str(size), "--data.seeds", str(problems)]
        where = ["--trainer.accelerator", "gpu" if options.device == "cuda" else "cpu"]
        where += ["--trainer.default_root_dir", str(run), "--trainer.max_steps", str(iterations)]
        return [sys.executable, "-m", "dop_lightning", "fit", *files, *shape, *where, *self.settings]


def kinds(width: int) -> list[Kind]:
    corruption = partial(HadamardCorruption, scale=1e-5, tied=False)
    network = Method(
        partial(SkipUNet, width=width, bias=False), corruption, loss=SquaredLoss("mean"),
        theta_optimizer=partial(Muon, lr=0.02), steps=Refinement(),
    )  # fmt: skip
    settings = ("--model.signal.init_args.width", str(width), "--model.block", "5", "--data.batch_size", "1")
    return [
        Kind("images", network, 1.0, ("image", "refine"), settings),
        Kind(
            "matrices", Method(partial(SymmetricFactor, scale=1e-4)), 1e-4, ("matrix",), ("--files.most_pictures", "10")
        ),
    ]


ARRAYS = 6.24
"""Number of n×n arrays that gradient descent keeps (scripts/measure_matrix_memory.py)."""


def sharded(n: int, rank: int, devices: int) -> str:
    """Return the cost of one matrix in blocks of rows: memory per device, and communication per iteration."""
    rows = n / devices
    kept = ARRAYS * 4 * n * rows + 3 * 4 * n * rank
    products = 3 * 2 * rows * n * rank  # U_p Uᵀ, R_p U and R_pᵀ U_p
    sent = 2 * 4 * n * rank * (devices - 1) / devices  # gathering U, and summing R_pᵀ U_p
    return (
        f"{n}×{n}, r' = {rank}, {devices} devices: {kept / 2**30:.1f} GiB per device, {products / 1e9:.0f} GFLOP and "
        f"{sent / 2**20:.0f} MiB sent per iteration, {products / max(sent, 1):.0f} operations per byte"
    )


def seconds(command: list[str], *more: str) -> float:
    begin = time.perf_counter()
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - begin


def iterations_of(run: Path) -> int:
    """Return the total number of iterations of the problems of a run, which may have ended early."""
    return sum(json.loads(path.read_text())["iterations"] for path in run.glob("*/result.json"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--kinds", nargs="+", choices=("images", "matrices"), default=["images", "matrices"])
    parser.add_argument("--width", type=int, default=32, help="width of the networks; default: %(default)s")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 128, 256], help="sides of images; default: 64 128 256"
    )
    parser.add_argument(
        "--n", type=int, nargs="+", default=[50, 100, 200], help="sides of matrices; default: 50 100 200"
    )
    parser.add_argument("--batch", type=int, default=100, help="matrices per batch; default: %(default)s")
    parser.add_argument("--grid", type=int, nargs=2, default=(16, 200), help="problems and iterations; default: 16 200")
    parser.add_argument("--matrix-grid", type=int, nargs=2, default=(200, 5000), help="default: 200 5000")
    parser.add_argument(
        "--devices", type=int, nargs="+", default=[1, 2], help="numbers of devices of the grids; default: 1 2"
    )
    parser.add_argument(
        "--shard", type=int, nargs=3, metavar=("N", "RANK", "DEVICES"), help="only print the cost of this matrix"
    )
    options = parser.parse_args()
    if options.shard:
        print(sharded(*options.shard))
        return 0
    threads = set_threads()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    unit = "GPU" if options.device == "cuda" else f"process with {threads} threads"
    print(f"one {unit}, torch {torch.__version__}")
    for kind in [kind for kind in kinds(options.width) if kind.name in options.kinds]:
        sizes, batch = (options.sizes, 1) if kind.name == "images" else (options.n, options.batch)
        problems, iterations = options.grid if kind.name == "images" else options.matrix_grid
        print(f"\n{kind.name:<10}{'step':>12}{'evaluation':>12}")
        found = {}
        for size in sizes:
            found[size] = kind.step(size, batch, options.device)
            print(f"{size:<10}{1e3 * found[size][0]:>9.4g} ms{1e3 * found[size][1]:>9.4g} ms", flush=True)
        size, every = sizes[0], 100 if kind.name == "images" else 1000
        step, evaluation = found[size]
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            few, many = 1, 1 + problems // 2
            walls = [seconds(kind.command(home / str(k), size, k, 1, options)) for k in (few, many)]
            each = max(0.0, (walls[1] - walls[0]) / (many - few))
            start = walls[0] - each
            print(f"start {start:.2f} s on one device, each problem {1e3 * each:.1f} ms")
            for devices in options.devices:
                run = home / f"grid-{devices}"
                command = kind.command(run, size, problems, iterations, options)
                more = ["--trainer.devices", str(devices)]
                more += ["--data.batch_size", str(-(-problems // devices))] if kind.name == "matrices" else []
                wall = seconds(command, *more)
                done = iterations_of(run) / problems
                share = -(-problems // devices)
                if devices > 1:  # the other processes start after the first one has read its problems
                    alone = kind.command(home / f"start-{devices}", size, devices, 1, options)
                    start = seconds(alone, "--trainer.devices", str(devices), "--data.batch_size", "1") - each
                predicted = start + share * (each + done * (step + evaluation / every))
                print(
                    f"{problems} {kind.name} of {size}, {done:.0f} iterations, {devices} devices: predicted "
                    f"{predicted:.1f} s, took {wall:.1f} s ({wall / predicted - 1:+.0%})",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
