"""Separate a matrix file that is larger than its memory limit, and measure time, peak anonymous memory and error.

    python scripts/measure_mapped_matrix.py --rows 28000 --columns 28000 --folder /tmp/mapped   # 3 GiB

The results take twice the space of the matrix, which has rank 5 and 10 % gross outliers. Anonymous memory is memory
that the system cannot reclaim. Mapped files do not count, because the system drops their pages when it needs memory.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RANK, SHARE, ROWS = 5, 0.1, 1000


def write(file: Path, n: int, m: int, rank: int = RANK) -> tuple[np.ndarray, np.ndarray]:
    """Write the matrix, and return its factors."""
    draw = np.random.default_rng(0)
    U, V = (draw.standard_normal((side, rank), dtype=np.float32) for side in (n, m))
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(n, m))
    for start in range(0, n, ROWS):
        L = U[start : start + ROWS] @ V.T
        outliers = draw.random(L.shape, dtype=np.float32) < SHARE
        mapped[start : start + ROWS] = L + outliers * (18 * draw.random(L.shape, dtype=np.float32) - 9)
    mapped.flush()
    return U, V


def anonymous(process: int) -> int:
    """Return the anonymous memory of a process in bytes, or 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def main() -> int:
    """Measure one separation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8000, help="default: %(default)s")
    parser.add_argument("--columns", type=int, default=8000, help="default: %(default)s")
    parser.add_argument(
        "--folder", type=Path, default=Path("mapped"), help="folder for the files; default: %(default)s"
    )
    parser.add_argument("--max-memory", default="256M", help="memory limit of the command; default: %(default)s")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file, out = options.folder / "matrix.npy", options.folder / "out"
    U, V = write(file, options.rows, options.columns)
    command = [sys.executable, "-m", "dop_lightning", "separate", str(file), "--out", str(out)]
    start, peak = time.monotonic(), 0
    with subprocess.Popen([*command, "--max-memory", options.max_memory]) as running:
        while running.poll() is None:
            peak = max(peak, anonymous(running.pid))
            time.sleep(0.02)
    if running.returncode:
        return running.returncode
    seconds = time.monotonic() - start
    found = np.load(out / "matrix" / "recovered.npy", mmap_mode="r")
    error = size = 0.0
    for first in range(0, options.rows, ROWS):
        L = U[first : first + ROWS] @ V.T
        error += float(np.square(found[first : first + ROWS] - L).sum(dtype=np.float64))
        size += float(np.square(L).sum(dtype=np.float64))
    print(
        f"{file.stat().st_size / 2**30:.2f} GiB, {seconds:.0f} s, peak anonymous memory {peak / 2**20:.0f} MiB, ",
        end="",
    )
    print(f"relative error {(error / size) ** 0.5:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
