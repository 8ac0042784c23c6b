"""Measure the overhead of a grid of problems, with one thread per process.

    OMP_NUM_THREADS=1 python scripts/benchmark_grid.py

Three parts: the speedup of two processes over one, the overhead of the Trainer over a bare loop, and the time from the
command to the first iteration of 1000 robust PCA problems.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from interleaved import clock
from kill_runs import environment

from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.roster import Roster
from dop_lightning.engine.steps import Refinement
from dop_lightning.lightning.callbacks import standard_callbacks
from dop_lightning.lightning.data import ImageDataModule, RecoveryDataModule
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet
from dop_lightning.problems.noise import SaltAndPepper

CONFIGS = Path(__file__).parents[1] / "configs"

IMAGES = ["astronaut", "chelsea", "coffee", "rocket"]

GRID = [
    *("--data.images", f"[{', '.join(IMAGES)}]"),
    *("--data.noise", "[{class_path: dop_lightning.problems.noise.SaltAndPepper, init_args: {ratio: 0.3}}, "
      "{class_path: dop_lightning.problems.noise.SaltAndPepper, init_args: {ratio: 0.5}}]"),
    *("--data.seeds", "2"),
]  # fmt: skip
"""16 problems of four different shapes."""


def command(configs: list[str], run: Path, *options: str) -> list[str]:
    files = [part for name in configs for part in ("--config", str(CONFIGS / f"{name}.yaml"))]
    where = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(run)]
    return [sys.executable, "-m", "dop_lightning", "fit", *files, *where, *options]


class Clocked:
    """A run in a separate process: its duration in seconds and its total number of iterations."""

    def __init__(self, arguments: list[str], run: Path) -> None:
        begin = time.time()
        subprocess.run(arguments, env=environment(), check=True, capture_output=True)
        self.whole = time.time() - begin
        results = [json.loads(path.read_text()) for path in run.glob("*/result.json")]
        self.iterations = sum(result["iterations"] for result in results)
        assert all(result["status"] == "done" for result in results), results


def throughput(options: argparse.Namespace, folder: Path) -> bool:
    """Measure iterations per second over all problems, with and without the start and end of the processes."""
    print(f"16 images of {options.size} pixels, width {options.width}, {options.iterations} iterations each")
    print(f"{'round':<6}{'processes':>10}{'seconds':>10}{'work':>14}{'it/s':>8}{'it/s work only':>19}")
    ratios: list[tuple[float, float]] = []
    for k in range(options.rounds):
        rates = []
        for devices in (1, 2):
            seconds = []
            for iterations in (1, options.iterations):  # a run of one iteration measures start and end
                run = folder / f"{k}-{devices}-{iterations}"
                settings = [*GRID, "--data.resize", str(options.size), "--trainer.devices", str(devices)]
                settings += ["--model.signal.init_args.width", str(options.width), "--model.steps.class_path"]
                settings += ["GradientDescent", "--model.block", "5", "--trainer.max_steps", str(iterations)]
                clocked = Clocked(command(["image", "refine", "image_grid"], run, *settings), run)
                seconds.append(clocked.whole)
            work = clocked.iterations
            rates.append((work / seconds[1], work / (seconds[1] - seconds[0])))
            print(
                f"{k + 1:<6}{devices:>10}{seconds[1]:>10.1f}{seconds[1] - seconds[0]:>14.1f}"
                f"{rates[-1][0]:>8.1f}{rates[-1][1]:>19.1f}",
                flush=True,
            )
        ratios.append((rates[1][0] / rates[0][0], rates[1][1] / rates[0][1]))
    whole, beyond = (statistics.median(ratio[i] for ratio in ratios) for i in (0, 1))
    print(f"2 processes over 1: {whole:.2f} times, without start and end {beyond:.2f} times (required: at least 1.7)")
    return beyond >= 1.7


class InterleavedLoop(pl.Callback):
    """After each step of the grid, advance the same problems by the same block with the bare engine."""

    def __init__(self, bare: Roster, block: int) -> None:
        self.bare, self.block = bare, block
        self.seconds: dict[str, list[float]] = {"grid": [], "bare": []}

    def on_train_start(self, trainer, pl_module):
        self.since = clock("cpu")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            return
        now = clock("cpu")
        for state in self.bare.states:
            state.advance(self.block)
        end = clock("cpu")
        self.seconds["grid"].append(now - self.since)
        self.seconds["bare"].append(end - now)
        self.since = clock("cpu")


def machinery(options: argparse.Namespace, folder: Path) -> bool:
    """Compare a step of the whole grid through the Trainer, with all callbacks, with the same problems in a loop."""
    signal = partial(SkipUNet, width=options.width, bias=False)
    corruption = partial(HadamardCorruption, scale=1e-5, tied=False)
    steps, block = Refinement(), 5
    optimizer = partial(Muon, lr=0.02)
    noise = [SaltAndPepper(0.3), SaltAndPepper(0.5)]
    data: RecoveryDataModule = ImageDataModule(IMAGES, noise, seeds=2, resize=options.size, batch_size="auto")
    module = DoubleOverparameterization(
        signal, corruption, loss=SquaredLoss("mean"), tau=1.0, theta_optimizer=optimizer, steps=steps, block=block,
        evaluate_every=100,
    )  # fmt: skip
    apart = ImageDataModule(IMAGES, noise, seeds=2, resize=options.size, batch_size=1)
    apart.setup()
    method = Method(signal, corruption, loss=SquaredLoss("mean"), theta_optimizer=optimizer, steps=Refinement())
    names = [problem.name for problem in apart.problems]
    loops = InterleavedLoop(Roster(method, apart.batches, 1.0, None, names, torch.device("cpu")), block)
    trainer = pl.Trainer(
        max_steps=options.iterations, max_epochs=-1, limit_val_batches=0, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=folder / "machinery",
        callbacks=[loops, *standard_callbacks()],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    grid, bare = (sum(loops.seconds[key][2:]) for key in ("grid", "bare"))
    steps_ = [g / b for g, b in zip(loops.seconds["grid"], loops.seconds["bare"], strict=True)]
    print(f"machinery: {grid:.2f} s, bare loop {bare:.2f} s, {grid / bare - 1:+.1%} (required: below 3 %);")
    print(f"  median step {statistics.median(steps_) - 1:+.1%}; only the first time includes evaluations and curves")
    return grid / bare < 1.03


def start(options: argparse.Namespace, folder: Path) -> bool:
    """Measure the seconds from the command to the first block of 1000 robust PCA problems of the paper's size."""
    run = folder / "start"
    arguments = command(["matrix"], run, "--data.seeds", str(options.problems), "--trainer.max_steps", "1000000")
    arguments += ["--model.block", "1", "--model.evaluate_every", "1"]
    begin, first = time.time(), None
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    curves = run / "metrics.csv"
    while process.poll() is None and first is None:
        if curves.is_file() and curves.stat().st_size > 1000:
            first = time.time() - begin
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert first is not None, "the run ended before its first iteration"
    print(
        f"{options.problems} robust PCA problems: first evaluation {first:.1f} s after the command (required: below 10)"
    )
    return first < 10


PARTS = {"start": start, "machinery": machinery, "throughput": throughput}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--size", type=int, default=96, help="longer side of the images; default: %(default)s")
    parser.add_argument("--width", type=int, default=32, help="width of the network; default: %(default)s")
    parser.add_argument("--iterations", type=int, default=200, help="default: %(default)s")
    parser.add_argument(
        "--problems", type=int, default=1000, help="number of problems for the part start; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the part throughput; default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        good = [PARTS[part](options, Path(folder)) for part in options.parts]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
