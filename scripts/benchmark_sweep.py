"""Time a sweep of small points, and the same points as separate processes.

    OMP_NUM_THREADS=1 python scripts/benchmark_sweep.py

A point is robust PCA of `configs/matrix.yaml`, 50×50, with 2000 iterations of gradient descent: about 0.05 s of work.
Some of the points also run as `dop fit` in separate processes. Their results must be bit for bit equal to those of
the sweep. The exit status is 1 if they are not, or if the sweep takes longer than `--limit`.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "matrix.yaml"

SETTINGS = ["--data.seeds", "1", "--trainer.max_steps", "2000", "--trainer.accelerator", "cpu"]


def run(*arguments: str) -> tuple[float, float]:
    """Run a command of `dop`. Return its seconds, and the processor seconds of the command and its children."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "dop_lightning", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        sys.exit(f"{' '.join(arguments)} ended with status {process.returncode}:\n{process.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begin, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def recovered(folder: Path) -> bytes:
    (file,) = folder.glob("*/recovered.npy")
    return file.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20, help="default: %(default)s")
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[1, 2], help="numbers of parallel points; default: %(default)s"
    )
    parser.add_argument(
        "--alone", type=int, default=3, help="number of points to run as separate processes; default: %(default)s"
    )
    parser.add_argument("--limit", type=float, default=45.0, help="maximum seconds of a sweep; default: %(default)s")
    options = parser.parse_args()
    alphas = [f"{5 + 0.25 * point:g}" for point in range(options.points)]
    base = ["--config", str(CONFIG), *SETTINGS]
    is_good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = []
        for alpha in alphas[: options.alone]:
            where = ["--model.alpha", alpha, "--trainer.default_root_dir", str(folder / f"alone-{alpha}")]
            alone.append(run("fit", *base, *where))
        if alone:
            each, work = (sum(times) / len(alone) for times in zip(*alone, strict=True))
            print(
                f"separate processes: {each:.1f} s per point ({work:.1f} s of processor time), "
                f"{each * options.points:.0f} s for {options.points}"
            )
        for jobs in options.jobs:
            out = folder / f"sweep-{jobs}"
            axis = ["--axis", f"model.alpha={','.join(alphas)}"]
            seconds, work = run("sweep", *base, *axis, "--out", str(out), "--jobs", str(jobs))
            equal = [
                recovered(out / f"alpha-{alpha}") == recovered(folder / f"alone-{alpha}")
                for alpha in alphas[: options.alone]
            ]
            print(
                f"sweep, {jobs} at a time: {seconds:.1f} s for {options.points} points (required: below "
                f"{options.limit:g}; {work:.1f} s of processor time); {sum(equal)} of {len(equal)} equal bit for bit",
                flush=True,
            )
            is_good = is_good and all(equal) and seconds < options.limit
    print(f"cores: {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
