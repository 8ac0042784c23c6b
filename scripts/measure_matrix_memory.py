"""Measure the peak memory of robust PCA of one large matrix, in arrays of n² float32, including the observation.

    python scripts/measure_matrix_memory.py [--n 10000] [--rank 100] [--iterations 3]

Each step rule runs in a separate process: start, blocks of iterations, evaluation. SemiImplicit is meant for large
matrices and needs at most 6 arrays. The others also store the residual, and Nesterov its momentum.

``--command`` measures ``dop separate X.npy`` instead, relative to a process that only imports ``dop_lightning.cli``,
and relative to one that also imports the libraries of the command:

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
    """Return a matrix of rank 10 with 10 % outliers, generated row by row so that no temporary is as large."""
    generator = torch.Generator().manual_seed(0)
    U = torch.randn(n, 10, generator=generator)
    Y = torch.empty(n, n)
    for row, left in zip(Y, U, strict=True):
        torch.mv(U, left, out=row)
        hit = torch.rand(n, generator=generator) < 0.1
        row += torch.where(hit, 10 * torch.randn(n, generator=generator), 0.0)
    return Y


def peak(name: str, n: int, rank: int, iterations: int, answers: multiprocessing.SimpleQueue) -> None:
    """Measure the peak memory in bytes, less the memory of the process before."""
    prepare()
    torch.mm(torch.randn(64, 64), torch.randn(64, 64))  # start threads and allocate buffers of the library
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
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
    """Return the peak bytes of ``dop separate`` beyond imports, and beyond imports and libraries; and its output."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", observation(n).numpy())
        empty, _ = _peak_of("dop_lightning.cli.main", [])
        libraries, _ = _peak_of("dop_lightning.cli.configs.separate, dop_lightning.cli.experiments.lightning_cli", [])
        options = ["--out", f"{folder}/out", "--max-memory", "64G"]  # otherwise the file is read in pieces
        whole, output = _peak_of("dop_lightning.cli.main", ["separate", f"{folder}/X.npy", *options])
    return whole - empty, whole - libraries, output


def _peak_of(modules: str, arguments: list[str]) -> tuple[int, str]:
    """Return the peak resident memory of a process that imports modules and runs a command, and its output."""
    # the process reads it from /proc: wait4 would include the memory of this process before exec
    code = (
        f"import {modules}; import sys; from pathlib import Path; from dop_lightning.cli.main import main; "
        "status = main(sys.argv[1:]) if sys.argv[1:] else 0; "
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]); sys.exit(status)"
    )
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"dop {' '.join(arguments)} failed: {process.stderr}")
    *output, peak_kib = process.stdout.strip().splitlines()
    return 1024 * int(peak_kib), "\n".join([*process.stderr.strip().splitlines(), *output])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, help="side of the matrix; default: 10000, and 4000 with --command")
    parser.add_argument("--command", action="store_true", help="measure dop separate instead of the step rules")
    parser.add_argument("--rank", type=int, default=100, help="maximum rank r'; default: %(default)s")
    parser.add_argument(
        "--iterations", type=int, default=3, help="iterations of each of two blocks; default: %(default)s"
    )
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES), help="step rules; default: all")
    parser.add_argument(
        "--allowed", type=float, default=6.0, help="maximum number of arrays, above which the exit status is 1"
    )
    options = parser.parse_args()
    options.n = options.n or (4000 if options.command else 10_000)
    if options.command:
        whole, size, output = command_peak(options.n)
        arrays = size / (4 * options.n**2)
        print(
            f"dop separate, n = {options.n}: {whole / 2**20:.0f} MiB beyond imports, {size / 2**20:.0f} MiB beyond "
            f"libraries, {arrays:.2f} arrays of n² float32"
        )
        print(output.strip())
        return int(arrays > options.allowed)
    context = multiprocessing.get_context("spawn")
    failed = False
    print(f"n = {options.n}, r' = {options.rank}: one array is {4 * options.n**2 / 2**20:.0f} MiB")
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
