"""Measure the memory of a process as a function of the number of problems of its run.

    python scripts/measure_problem_memory.py
    python scripts/measure_problem_memory.py --problems 200 2000 --side 12 --preset instant

The script restores small images with `dop recover FOLDER` for one iteration, once for each number of problems. It
prints the peak anonymous memory of the process, which the system cannot reclaim without swap, its processor time, and
the slope between the first and the last number of problems in bytes per problem.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

INTERVAL = 0.02
"""Seconds between two samples of the memory."""

CHILD = "import sys; sys.path.insert(0, sys.argv.pop(1)); from measure_problem_memory import recover; recover()"


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


def measure(problems: int, side: int, options: list[str]) -> tuple[int, float]:
    """Return the peak anonymous memory in bytes, and the processor seconds of a run."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for k in range(problems):
            Image.fromarray(draws.integers(0, 256, (side, side), dtype=np.uint8)).save(images / f"{k:05d}.png")
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent)]
        ended = subprocess.run(
            [*command, "recover", str(images), "--out", f"{folder}/out", "--device", "cpu", *options],
            capture_output=True,
            text=True,
            check=False,
        )
    if ended.returncode:
        sys.exit(ended.stderr)
    memory, seconds = ended.stdout.split()[-2:]
    return int(memory), float(seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, nargs="+", default=[200, 2000], metavar="N")
    parser.add_argument("--side", type=int, default=12, metavar="PIXELS")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--width", type=int, default=4, help="width of networks; default: %(default)s")
    options = parser.parse_args()
    given = ["--preset", options.preset]
    if options.preset != "instant":
        given += ["--iterations", "1", "--width", str(options.width)]
    print("| problems | peak anonymous memory, MiB | processor seconds |\n| --- | --- | --- |")
    found = []
    for problems in options.problems:
        memory, seconds = measure(problems, options.side, given)
        found.append(memory)
        print(f"| {problems} | {memory / 2**20:.0f} | {seconds:.0f} |", flush=True)
    if len(found) > 1:
        slope = (found[-1] - found[0]) / (options.problems[-1] - options.problems[0])
        print(f"\n{slope:.0f} bytes per problem")


if __name__ == "__main__":
    main()
