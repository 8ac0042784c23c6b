"""Compare one matrix on one process with the same matrix distributed by rows: time, memory, communication, error.

    OMP_NUM_THREADS=1 python scripts/measure_distributed_matrix.py --size 4000 --ranks 2

Times are those of the solver, from the open file to L, without the start of Python. Process time is that of rank 0.
Cores share caches and memory bandwidth. For comparison, the script also measures several processes that each do the
whole work at the same time. Memory is the increase after the process has separated a small matrix: anonymous memory,
and resident memory, which includes mapped pages of the matrix. The system may reclaim these pages when it needs memory.

    python scripts/measure_distributed_matrix.py --paper 100000 100000 20 64

prints the memory of each rank and the communication of one pass by the formulas of docs/scaling.md, without running
anything.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure_mapped_matrix import ROWS, write

from dop_lightning.engine.projections import AlternatingProjections
from dop_lightning.engine.projections.ranks import Ranks
from dop_lightning.engine.projections.solver import SAMPLE
from dop_lightning.foundation.launched import Place
from dop_lightning.foundation.process_group import Meeting, joined
from dop_lightning.matrices.mapped import separate_mapped

SMALL = 400
"""Rows and columns of the matrix that each process separates before the measurement."""

TOUCHES, CALLS = 8, 7
"""Number of reads or writes of an array of the size of D per pass, and number of collective calls per pass."""

BANDWIDTH, LINK, LATENCY = 2e12, 2.5e10, 5e-5
"""Assumptions for a GPU: memory and network bandwidth in bytes per second, seconds per collective call."""


def silent(_: str) -> None:
    """Print nothing."""


class Memory:
    """Increase of the peak anonymous and resident memory of this process since the creation of the object."""

    def __init__(self) -> None:
        self.start, self.peak = self._now(), (0, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @staticmethod
    def _now() -> tuple[int, int]:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.startswith(("Rss", "VmRSS"))}
        return sizes["RssAnon"], sizes["VmRSS"]

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            now = self._now()
            self.peak = max(self.peak[0], now[0]), max(self.peak[1], now[1])

    def end(self) -> tuple[int, int]:
        """Stop watching, and return both peaks in bytes."""
        self._ended.set()
        self._thread.join()
        return self.peak[0] - self.start[0], self.peak[1] - self.start[1]


def take_part(file: Path, out: Path, rank: int, size: int, watched: bool) -> None:
    """Separate the matrix as one of the ranks, and print its measurements as JSON."""
    found: dict[str, float] = {}

    def work(small: Ranks | None, ranks: Ranks | None) -> None:
        # a small matrix first, so that libraries are loaded and buffers of fixed size are allocated
        other = out.with_name(f"{out.name}-small")
        separate_mapped(file.with_name("small.npy"), other, AlternatingProjections(), say=silent, ranks=small)
        watch = Memory() if watched else None
        cpu, wall = time.process_time(), time.perf_counter()

        def say(line: str) -> None:
            if ": writing " in line:
                found.update(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall)

        result = separate_mapped(file, out, AlternatingProjections(), say=say, ranks=ranks)
        found.update(written=time.process_time() - cpu, passes=result["iterations"])
        if watch is not None:
            found["anonymous"], found["resident"] = watch.end()
        if ranks is not None:
            found.update(sent=ranks.sent, waited=ranks.seconds, calls=ranks.calls)

    if size == 1:
        work(None, None)
    else:
        with joined(Meeting(out.parent, Place(rank, size, rank, size)), torch.device("cpu")):
            work(Ranks(), Ranks())
    print(json.dumps(found), flush=True)


def measure(file: Path, outs: Sequence[Path], size: int, watched: bool = False) -> dict[str, float]:
    """Separate the matrix once into each folder, all at the same time.

    Args:
        file: file of the matrix.
        outs: folders for the results.
        size: number of ranks of each separation.
        watched: whether to measure memory, which takes time.

    Returns:
        The maximum of each number over the processes.
    """
    processes = []
    for out in outs:
        for old in (out, out.with_name(f"{out.name}-small")):
            shutil.rmtree(old, ignore_errors=True)
        command = [sys.executable, __file__, "--part", str(file), str(out), "--ranks", str(size)]
        command += ["--watched"] if watched else []
        processes += [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(size)
        ]
    each: list[dict[str, float]] = []
    for process in processes:
        text, _ = process.communicate()
        if process.returncode:
            sys.exit(process.returncode)
        each.append(json.loads(text))
    return {name: max(one.get(name, 0.0) for one in each) for name in each[0]}


def modelled_costs(n: int, m: int, rank: int, size: int) -> dict[str, float]:
    """Return the bytes that a rank holds and sends per pass, and the operations per pass, by docs/scaling.md.

    Args:
        n: number of rows.
        m: number of columns.
        rank: rank of L.
        size: number of ranks.
    """
    k, own, bytes_of = rank + 4, -(-n // size), 4
    share = (size - 1) / size
    thin = 2 * share * m * k * bytes_of
    small = 2 * (2 * k + 1) * 2 * k * bytes_of + (4 * k + 2) * 2 * k * 8
    sample = 2 * share * SAMPLE * bytes_of
    return {
        "rows": own * m * bytes_of,
        "factors": (10 * own + 5 * m) * k * bytes_of,
        "thin": thin,
        "small": small,
        "sample": sample,
        "operations": 2 * own * m * (rank + 2 * k),
        "work": TOUCHES * own * m * bytes_of / BANDWIDTH,
        "talk": (thin + small + sample) / LINK + CALLS * LATENCY,
    }


def error(file: Path, U: np.ndarray, V: np.ndarray) -> float:
    """Return the relative error of L."""
    found, off, size = np.load(file, mmap_mode="r"), 0.0, 0.0
    for start in range(0, len(U), ROWS):
        L = U[start : start + ROWS] @ V.T
        off += float(np.square(found[start : start + ROWS] - L).sum(dtype=np.float64))
        size += float(np.square(L).sum(dtype=np.float64))
    return (off / size) ** 0.5


def difference(one: Path, other: Path) -> float:
    """Return the relative difference of two results in the Frobenius norm."""
    a, b = np.load(one, mmap_mode="r"), np.load(other, mmap_mode="r")
    off = size = 0.0
    for start in range(0, len(a), ROWS):
        rows = slice(start, start + ROWS)
        off += float(np.square(a[rows] - b[rows]).sum(dtype=np.float64))
        size += float(np.square(a[rows]).sum(dtype=np.float64))
    return (off / size) ** 0.5


def main() -> int:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000, help="rows and columns; default: %(default)s")
    parser.add_argument("--low-rank", type=int, default=5, help="rank of L; default: %(default)s")
    parser.add_argument("--ranks", type=int, default=2, help="number of processes; default: %(default)s")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, in turns; 0: only measure memory; default: %(default)s"
    )
    parser.add_argument("--folder", type=Path, default=Path("ranks"), help="folder for the files; default: %(default)s")
    parser.add_argument(
        "--paper", type=int, nargs=4, metavar=("N", "M", "RANK", "RANKS"), help="only evaluate the formulas"
    )
    parser.add_argument("--part", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        take_part(*options.part, options.rank, options.ranks, options.watched)
    elif options.paper:
        print(format_costs(*options.paper))
    else:
        compare(options)
    return 0


def format_costs(n: int, m: int, rank: int, size: int) -> str:
    """Format the numbers of :func:`modelled_costs` as one line."""
    of = modelled_costs(n, m, rank, size)
    sent = of["thin"] + of["small"] + of["sample"]
    parts = f"{1e3 * of['work']:.2f} ms of work and {1e3 * of['talk']:.2f} ms of communication"
    return (
        f"{n}×{m}, rank {rank}, {size} ranks: {of['rows'] / 2**30:.2f} GiB of D and {of['factors'] / 2**20:.0f} MiB of "
        f"factors per rank; per pass {of['operations'] / 1e9:.0f} GFLOP, {of['thin'] / 2**20:.1f} MiB in thin sums, "
        f"{of['small'] / 2**10:.0f} KiB in small ones, {of['sample'] / 2**10:.0f} KiB of samples; "
        f"{of['operations'] / sent:.0f} operations per byte sent; {parts}"
    )


def compare(options: argparse.Namespace) -> None:
    """Measure one process, several independent processes, and ranks in turns, and print the results."""
    options.folder.mkdir(parents=True, exist_ok=True)
    file, size = options.folder / "matrix.npy", options.ranks
    write(options.folder / "small.npy", SMALL, SMALL, 2)
    U, V = write(file, options.size, options.size, options.low_rank)
    alone, spread = options.folder / "alone", options.folder / "spread"
    kinds = {
        "one process": ([alone], 1),
        f"one of {size} independent processes": ([alone.with_name(f"beside{k}") for k in range(size)], 1),
        f"one of {size} ranks": ([spread], size),
    }
    best: dict[str, dict[str, float]] = {}
    for kind, (outs, ranks) in list(kinds.items()) * options.rounds:
        found = measure(file, outs, ranks)
        best[kind] = {name: min(value, best.get(kind, found)[name]) for name, value in found.items()}
    for kind, found in best.items():
        print(
            f"{kind}: {found['passes']:.0f} passes, process time {found['cpu']:.2f} s, "
            f"{found['written']:.2f} s including writing, wall time {found['wall']:.2f} s"
        )
    if best:
        one, beside, several = best.values()
        print(
            f"speedup {one['cpu'] / several['cpu']:.2f} over one process in process time, "
            f"{beside['cpu'] / several['cpu']:.2f} over one of the independent processes; "
            f"in wall time {one['wall'] / several['wall']:.2f} and {beside['wall'] / several['wall']:.2f}"
        )
        print(
            f"each rank sent {several['sent'] / 2**20:.2f} MiB in {several['calls']:.0f} calls, and spent "
            f"{several['waited']:.2f} s in them"
        )
    memory = [measure(file, *kinds[kind], watched=True) for kind in (next(iter(kinds)), list(kinds)[-1])]
    for name in ("anonymous", "resident"):
        before, after = (found[name] for found in memory)
        print(f"{name} memory: {before / 2**20:.1f} MiB, per rank {after / 2**20:.1f} MiB ({after / before:.2f})")
    print(
        f"relative error {error(alone / 'recovered.npy', U, V):.1e} and {error(spread / 'recovered.npy', U, V):.1e}; "
        f"L differs by {difference(alone / 'recovered.npy', spread / 'recovered.npy'):.1e}"
    )


if __name__ == "__main__":
    sys.exit(main())
