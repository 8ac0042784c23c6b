"""What ``test_ranks`` runs on each rank: ``python -m tests.engine.projections.on_ranks RANK RANKS FOLDER``."""

import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dop_lightning.engine.projections import AlternatingProjections, Recovery
from dop_lightning.engine.projections.ranks import SINGLE_PROCESS, Ranks, SingleProcess
from dop_lightning.engine.projections.sweep import Observation
from dop_lightning.foundation.launched import Place
from dop_lightning.foundation.process_group import Meeting, joined
from tests.engine.projections.builders import corrupted, low_rank

N, M = 151, 120


def vectors(count: int) -> Tensor:
    """Random values of at least 0, many of them equal."""
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).abs().mul(4).round().div(4)


def dependent() -> Tensor:
    """Return columns of which the second half nearly is a multiple of the first, as in a late step."""
    first = torch.linalg.qr(torch.randn(N, 5, generator=torch.Generator().manual_seed(0)))[0]
    return torch.cat([first, 30 * first + 1e-6 * first.roll(1, 0)], dim=1)


def matrix(kind: str) -> Tensor:
    """Return a matrix in which a row and a column are lost, and entries are missing, or one with noise."""
    if kind == "noisy":
        return corrupted(low_rank(N, M, 2, 1, torch.float64), 0.1, noise=0.02)
    D = corrupted(low_rank(N, M, 3, dtype=torch.float64), 0.1)
    D[7] *= 40
    column = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    D[: N // 3, 5] += 60 * column[: N // 3]
    D[torch.rand(D.shape, generator=torch.Generator().manual_seed(2)) < 0.1] = torch.nan
    return D


def recovered(kind: str, ranks: SingleProcess) -> tuple[Recovery, Tensor]:
    """Return a recovery at its end, and the rows of L."""
    D = matrix(kind)[ranks.own(N)]
    observation = Observation(D, None, torch.empty(0, dtype=torch.int64), kind == "missing")
    recovery = Recovery(AlternatingProjections(), observation, 0, ranks=ranks)
    while recovery.progress.phase != "ended":
        recovery.step()
    return recovery, recovery.rows_of_parts(slice(0, len(D)))[0]


def main() -> None:
    """Save what this rank has found."""
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    with joined(Meeting(folder, Place(rank, size, rank, size)), torch.device("cpu")):
        ranks = Ranks(N)
        own, columns = ranks.own(N), ranks.own(7)
        share = torch.arange(21.0).view(7, 3) * (rank + 1)
        rows, places = torch.tensor([150, 0, 75, 76]), torch.tensor([3, 2, 1, 0])
        Q, R = ranks.qr(dependent()[own])
        wide = ranks.qr(low_rank(6, 9, 6, dtype=torch.float64)[ranks.own(6)])
        found = {
            "own": (own.start, own.stop, columns.start, columns.stop),
            "listening": listening(),
            "scattered": ranks.scattered_sum(share.clone()),
            "whole": ranks.gather_rows(share[columns], 7),
            "median": [ranks.median(vectors(count)[ranks.own(count)]) for count in (N, 40)],
            "normal": ranks.normal(torch.Generator().manual_seed(5), 5001, 32),
            "collected": ranks.collect(rows, places, lambda i, j: matrix("noisy")[own][i, j]),
            "qr": (Q, R),
            "wide": (wide[0] @ wide[1], wide[0]),
            "same": ranks.broadcast(torch.full((2,), float(rank)), torch.tensor([[rank + 3]])),
            "every": ranks.every(rank, 2.5),
        }
        observation = Observation(matrix("noisy")[own], None, torch.empty(0, dtype=torch.int64))
        one = Recovery(AlternatingProjections(), observation, 0, ranks=ranks)
        width, before = one.progress.estimate.left.shape[1], ranks.sent
        one.step()
        found["pass"] = (ranks.sent - before, width, one.progress.estimate.left.shape[1])
        for kind in ("missing", "noisy"):
            recovery, L = recovered(kind, ranks)
            found[kind] = {
                "rows": L,
                "again": recovered(kind, ranks)[1],
                "report": recovery.report(),
                "fits": recovery.progress.fits,
                "observed": recovery.observed,
                "steps": recovery.steps_done,
                "right": recovery.progress.estimate.right,
            }
        torch.save(found, folder / f"found-{rank}.pt")


def listening() -> list[str]:
    """Return the addresses, in hexadecimal, at which this process listens."""
    table = Path("/proc/self/net/tcp")
    if not table.exists():
        return []
    sockets = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder itself
            sockets.add(str(entry.readlink()))
    others = Path("/proc/self/net/tcp6").read_text().splitlines()[1:]
    lines = [line.split() for line in [*table.read_text().splitlines()[1:], *others]]
    return [line[1].split(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]


def alone(kind: str) -> tuple[Recovery, Tensor]:
    """Return the same of one process."""
    return recovered(kind, SINGLE_PROCESS)


if __name__ == "__main__":
    main()
