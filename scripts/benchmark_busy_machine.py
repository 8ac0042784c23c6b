"""Time `dop recover` on a machine whose cores are kept busy by other processes.

    python scripts/benchmark_busy_machine.py

The script recovers a photograph of 256×256 pixels, half of whose values are 0 or 255, while three other processes
keep the cores busy: with one thread, and with the number of threads that `dop` chooses. Compare the two times with each
other only, because other load on the machine slows both down.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from dop_lightning.images.formats import find_images, read_image
from dop_lightning.images.presets import PRESETS

BY_ITSELF = "auto"
"""Value of ``--threads`` that leaves the number of threads to `dop`."""


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep this many cores busy inside the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def make_picture(path: Path, size: int) -> None:
    """Write a crop of the sample `astronaut` with 50 % salt-and-pepper noise."""
    clean = read_image(find_images(["astronaut"])[0]).values[:, :size, :size].numpy()
    generator = np.random.default_rng(0)
    corrupted = np.where(generator.random(clean.shape) < 0.5, np.round(generator.random(clean.shape)), clean)
    Image.fromarray(np.round(255 * corrupted).astype(np.uint8).transpose(1, 2, 0)).save(path)


def recover(picture: Path, out: Path, preset: str, iterations: int | None, threads: str) -> tuple[float, int]:
    """Recover a picture in a separate process. Return its seconds, and the number of threads that it used."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if threads != BY_ITSELF:
        environment["OMP_NUM_THREADS"] = threads
    command = [sys.executable, "-m", "dop_lightning", "recover", str(picture), "--out", str(out), "--preset", preset]
    command += [] if iterations is None else ["--iterations", str(iterations)]
    begin = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    return seconds, json.loads((out / "manifest.json").read_text())["threads"]


def main() -> None:
    """Measure and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=3, help="number of busy processes; default: %(default)s")
    parser.add_argument("--size", type=int, default=256, help="side of the picture in pixels; default: %(default)s")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="quick", help="default: %(default)s")
    parser.add_argument("--iterations", type=int, help="default: as in the preset")
    parser.add_argument(
        "--threads",
        nargs="+",
        default=["1", BY_ITSELF],
        help="numbers of threads to compare; the first one is the reference; default: 1 auto",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        picture = Path(made) / "picture.png"
        make_picture(picture, options.size)
        first = 0.0
        for threads in options.threads:
            with busy_processes(options.busy):
                out = Path(made) / f"out-{threads}"
                seconds, taken = recover(picture, out, options.preset, options.iterations, threads)
            first = first or seconds
            print(
                f"threads {threads}: used {taken}, {seconds:.1f} s with {options.busy} busy processes, "
                f"{seconds / first:.2f} times the first",
                flush=True,
            )


if __name__ == "__main__":
    main()
