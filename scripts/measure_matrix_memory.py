"""Peak memory of robust PCA of one large matrix, in arrays of n² float32, the observation included.

Each step rule runs in a process of its own: start, blocks of iterations, evaluation. Large matrices are for
SemiImplicit, which keeps to 6 arrays; the others have an array for the residual, Nesterov its momentum besides.

    python scripts/measure_matrix_memory.py [--n 10000] [--rank 100] [--iterations 3]

``--command`` measures ``dop separate X.npy`` instead, beyond a process that only imports ``dop_lightning.cli``, and
beyond one that also imports the libraries of the command:

    python scripts/measure_matrix_memory.py --command [--n 4000]
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import GradientDescent, Nesterov, SemiImplicit
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch

RULES = {"GradientDescent": GradientDescent, "SemiImplicit": SemiImplicit, "Nesterov": Nesterov}


def observation(n: int) -> torch.Tensor:
    """Rank 10, and 10 % of the entries off, made row by row: nothing as large as itself beside it."""
    generator = torch.Generator().manual_seed(0)
    U = torch.randn(n, 10, generator=generator)
    Y = torch.empty(n, n)
    for row, left in zip(Y, U, strict=True):
        torch.mv(U, left, out=row)
        hit = torch.rand(n, generator=generator) < 0.1
        row += torch.where(hit, 10 * torch.randn(n, generator=generator), 0.0)
    return Y


def peak(name: str, n: int, rank: int, iterations: int, answers: multiprocessing.SimpleQueue) -> None:
    """Bytes at the peak beyond what the process had before."""
    prepare()
    torch.mm(torch.randn(64, 64), torch.randn(64, 64))  # the library's own threads and buffers
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    problems = ProblemBatch([Problem("large", observation(n))])
    state = BatchState(
        Method(partial(SymmetricFactor, rank=rank), HadamardCorruption, steps=RULES[name]()), problems, "auto"
    )
    for _ in range(2):
        state.advance(iterations)
    evaluation = state.evaluate()
    answers.put((_status("VmHWM") - before, bool(torch.isfinite(evaluation.loss).all())))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def command_peak(n: int) -> tuple[int, int, str]:
    """Bytes at the peak of ``dop separate`` beyond imports, and beyond those of its libraries too; what it prints."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", observation(n).numpy())
        empty, _ = _peak_of("dop_lightning.cli.main", [])
        libraries, _ = _peak_of("dop_lightning.cli.configs.separate, dop_lightning.cli.experiments.lightning_cli", [])
        options = ["--out", f"{folder}/out", "--max-memory", "64G"]  # else it is read in pieces
        whole, said = _peak_of("dop_lightning.cli.main", ["separate", f"{folder}/X.npy", *options])
    return whole - empty, whole - libraries, said


def _peak_of(modules: str, arguments: list[str]) -> tuple[int, str]:
    """Peak of the resident memory of a process that imports modules and runs a command, and what it prints."""
    # read by the process itself: what wait4 returns includes the memory of this one, from before the start
    code = (
        f"import {modules}; import sys; from pathlib import Path; from dop_lightning.cli.main import main; "
        "status = main(sys.argv[1:]) if sys.argv[1:] else 0; "
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]); sys.exit(status)"
    )
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"dop {' '.join(arguments)} has failed: {process.stderr}")
    *said, peak_kib = process.stdout.strip().splitlines()
    return 1024 * int(peak_kib), "\n".join([*process.stderr.strip().splitlines(), *said])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, help="side of the matrix; default: 10000, and 4000 with --command")
    parser.add_argument("--command", action="store_true", help="measure dop separate in place of the step rules")
    parser.add_argument("--rank", type=int, default=100, help="the bound r'")
    parser.add_argument("--iterations", type=int, default=3, help="of each of two blocks")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES), help="which step rules")
    parser.add_argument("--allowed", type=float, default=6.0, help="arrays, above which the exit status is 1")
    options = parser.parse_args()
    options.n = options.n or (4000 if options.command else 10_000)
    if options.command:
        whole, size, said = command_peak(options.n)
        arrays = size / (4 * options.n**2)
        print(
            f"dop separate, n = {options.n}: {whole / 2**20:.0f} MiB beyond imports, {size / 2**20:.0f} MiB beyond "
            f"libraries, {arrays:.2f} arrays of n² float32"
        )
        print(said.strip())
        return int(arrays > options.allowed)
    context = multiprocessing.get_context("spawn")
    failed = False
    print(f"n = {options.n}, r' = {options.rank}: an array has {4 * options.n**2 / 2**20:.0f} MiB")
    for name in options.rules:
        answers = context.SimpleQueue()
        process = context.Process(target=peak, args=(name, options.n, options.rank, options.iterations, answers))
        process.start()
        process.join()
        size, finite = answers.get()
        arrays = size / (4 * options.n**2)
        failed |= not finite or arrays > options.allowed
        print(f"{name:<18}{size / 2**20:>8.0f} MiB {arrays:>6.2f} arrays (allowed {options.allowed:g})", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
