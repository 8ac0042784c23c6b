"""Measure the memory of a process as a function of the number of problems of its run.

    python scripts/measure_problem_memory.py
    python scripts/measure_problem_memory.py --problems 200 2000 --side 12 --preset instant
    python scripts/measure_problem_memory.py --objects --problems 60 160 --preset instant

The script restores small images with `dop recover FOLDER` for one iteration, once for each number of problems. It
prints the peak anonymous memory of the process, which the system cannot reclaim without swap, its processor time, and
the slope between the first and the last number of problems in bytes per problem. That includes memory which Python
has freed and not returned. With `--objects`, it prints the bytes of all Python objects alive at the end of the fit
instead (tracemalloc, several times slower), and how many of them are names: file paths, names and labels of problems.
"""

import argparse
import contextlib
import gc
import re
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

INTERVAL = 0.02
"""Seconds between two samples of the memory."""

CHILD = "import sys; sys.path.insert(0, sys.argv.pop(1)); import measure_problem_memory; measure_problem_memory.{}()"

NAME = re.compile(r"image-\d{5}|batch-\d{4}")
"""Pattern of the names of files and batches."""


def anonymous() -> int:
    """Return the anonymous memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def recover() -> None:
    """Run `dop` with the arguments of this process; print its peak anonymous memory and its processor time."""
    from dop_lightning.cli.main import main as dop

    largest, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            largest[0] = max(largest[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with contextlib.redirect_stdout(sys.stderr):
        status = dop(sys.argv[1:])
    ended.set()
    watcher.join()
    print(max(largest[0], anonymous()), time.process_time())
    sys.exit(status)


def names() -> int:
    """Return the bytes of all strings alive that contain the name of a problem, or the label of its batch."""
    strings: dict[int, str] = {}
    for holder in gc.get_objects():
        strings |= {id(each): each for each in gc.get_referents(holder) if type(each) is str}
    return sum(sys.getsizeof(each) for each in strings.values() if len(each) < 200 and NAME.search(each))


def count() -> None:
    """Run `dop` with the arguments of this process; print the bytes alive at the end of the fit, and those of names."""
    import pytorch_lightning as pl

    from dop_lightning.cli.main import main as dop

    teardown, found = pl.Trainer._teardown, []

    def counted(trainer: pl.Trainer) -> None:
        gc.collect()
        found.append((tracemalloc.get_traced_memory()[0], names()))
        teardown(trainer)

    pl.Trainer._teardown = counted
    tracemalloc.start()
    with contextlib.redirect_stdout(sys.stderr):
        status = dop(sys.argv[1:])
    print(*found[-1])
    sys.exit(status)


def measure(problems: int, side: int, options: list[str], child: str) -> tuple[float, float]:
    """Return the two numbers that a child prints at the end of a run: bytes, and seconds or bytes of names."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for k in range(problems):
            Image.fromarray(draws.integers(0, 256, (side, side), dtype=np.uint8)).save(images / f"image-{k:05d}.png")
        command = [sys.executable, "-c", CHILD.format(child), str(Path(__file__).parent)]
        ended = subprocess.run(
            [*command, "recover", str(images), "--out", f"{folder}/out", "--device", "cpu", *options],
            capture_output=True,
            text=True,
            check=False,
        )
    if ended.returncode:
        sys.exit(ended.stderr)
    memory, other = ended.stdout.split()[-2:]
    return float(memory), float(other)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, nargs="+", default=[200, 2000], metavar="N")
    parser.add_argument("--side", type=int, default=12, metavar="PIXELS")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--width", type=int, default=4, help="width of networks; default: %(default)s")
    parser.add_argument("--objects", action="store_true", help="count the Python objects alive at the end of the fit")
    options = parser.parse_args()
    given = ["--preset", options.preset]
    if options.preset != "instant":
        given += ["--iterations", "1", "--width", str(options.width)]
    heads = ("objects, MiB", "names, KiB") if options.objects else ("peak anonymous memory, MiB", "processor seconds")
    print(f"| problems | {heads[0]} | {heads[1]} |\n| --- | --- | --- |")
    found = []
    for problems in options.problems:
        memory, other = measure(problems, options.side, given, "count" if options.objects else "recover")
        found.append((memory, other))
        print(f"| {problems} | {memory / 2**20:.2f} | {other / (1024 if options.objects else 1):.0f} |", flush=True)
    if len(found) > 1:
        more = options.problems[-1] - options.problems[0]
        memory, other = ((last - first) / more for first, last in zip(found[0], found[-1], strict=True))
        beyond = f", {memory - other:.0f} without names" if options.objects else ""
        print(f"\n{memory:.0f} bytes per problem{beyond}")


if __name__ == "__main__":
    main()
