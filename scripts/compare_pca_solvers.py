"""Compare solvers of robust PCA by the time to relative errors of 1e-3 and 1e-6, in processor seconds of one thread.

    python scripts/compare_pca_solvers.py --sizes 500 --out race        # minutes
    python scripts/compare_pca_solvers.py --out race                    # all of it, overnight
    python scripts/compare_pca_solvers.py --out race --table            # only the table of finished rows

Matrices are L = UVᵀ with normal U and V (or UUᵀ with --positive), with a fraction p of outliers in ±5·mean|L|; the
cases with noise also have dense noise. The solvers take turns on the same matrix, with the same data type. The time for
computing errors is not counted. The column `given` lists the information that a solver gets: r is the rank, 2r twice
the rank, p the fraction of outliers, and ≥ 0 that X is positive semidefinite. AccAltProj [Cai, Cai and Wei, 2019],
IRCUR [Cai, Hamm, Huang, Li and Wang, 2021] and ScaledGD [Tong, Ma and Chi, 2021] are implemented here from their
papers, with the settings of the papers. `default` is the method of `dop separate`: it gets no information, and its time
includes the certificate.

Each row is a JSON file in --out, and the same command continues an interrupted comparison. A solver stops at 1e-6, by
its own criterion, or after --limit seconds.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import numpy as np
import torch
from benchmark_robust_pca import tensorly
from torch import Tensor
from torch.nn.functional import hardshrink

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.convex import ConvexState, InexactALM
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.projections import ProjectionsMethod
from dop_lightning.engine.steps import SemiImplicit
from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.matrices.robust_separation import RobustSeparation
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream

TARGETS = (1e-3, 1e-6)
TALL = ((200_000, 50), (50, 200_000))
NOISES = (0.001, 0.01, 0.1)


@dataclass(frozen=True)
class Case:
    """An n×m matrix of rank r, with a fraction p of outliers and noise relative to the root mean square of L."""

    n: int
    m: int
    r: int
    p: float
    noise: float = 0.0
    positive: bool = False

    @property
    def name(self) -> str:
        """Name of the case in its rows."""
        noise = f"-noise{self.noise:g}" if self.noise else ""
        return f"{self.n}x{self.m}-r{self.r}-p{self.p:g}{noise}" + ("-positive" if self.positive else "")

    def matrix(self, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return L and D."""
        generator = stream(seed, "truth")
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        U = draw(self.n, self.r)
        L = U @ (U if self.positive else draw(self.m, self.r)).mT
        generator = stream(seed, "corruption")
        size = 5 * float(L.abs().mean())
        where = torch.rand(L.shape, generator=generator) < self.p
        D = L + where * (2 * torch.rand(L.shape, generator=generator, dtype=torch.float64) - 1) * size
        if self.noise:
            rms = float(torch.linalg.vector_norm(L)) / L.numel() ** 0.5
            D += self.noise * rms * torch.randn(L.shape, generator=generator, dtype=torch.float64)
        return L.to(dtype), D.to(dtype)


Factors = tuple[Tensor, Tensor]
"""A and B of an estimate A·B."""

Estimates = Iterator[Factors | Tensor]


def leading(M: Tensor, k: int, rounds: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k leading singular triplets by randomised subspace iteration: U, s, V."""
    width = min(k + 10, *M.shape)
    Q = torch.linalg.qr(M @ torch.randn(M.shape[1], width, generator=torch.Generator().manual_seed(1)).to(M))[0]
    for _ in range(rounds):
        Q = torch.linalg.qr(M @ torch.linalg.qr(M.mT @ Q)[0])[0]
    V, s, Uh = torch.linalg.svd(M.mT @ Q, full_matrices=False)
    return (Q @ Uh.mT)[:, :k], s[:k], V[:, :k]


def accaltproj(D: Tensor, r: int, gamma: float) -> Estimates:
    """Run algorithms 2 and 3 of Cai, Cai and Wei, with β = 1/(2⁴√(nm)) and β_init = 4β, without trimming."""
    beta = 1 / (2 * (D.shape[0] * D.shape[1]) ** 0.25)
    S = hardshrink(D, 4 * beta * float(leading(D, 1)[1][0]))
    U, s, V = leading(D - S, r)
    S = hardshrink(D - (U * s) @ V.mT, beta * float(s[0]))
    t = 0
    while True:
        t += 1
        Z = D - S
        ZV, ZtU = Z @ V, Z.mT @ U
        M = U.mT @ ZV
        Q1, R1 = torch.linalg.qr(ZtU - V @ M.mT)
        Q2, R2 = torch.linalg.qr(ZV - U @ M)
        core = torch.cat([torch.cat([M, R1.mT], 1), torch.cat([R2, torch.zeros_like(R2)], 1)], 0)
        u, values, vh = torch.linalg.svd(core)
        U, V = torch.cat([U, Q2], 1) @ u[:, :r], torch.cat([V, Q1], 1) @ vh[:r].mT
        left = U * values[:r]
        threshold = beta * float(values[r] + gamma**t * values[0])
        S = hardshrink(torch.addmm(D, left, V.mT, alpha=-1), threshold)
        yield left, V.mT


def ircur(D: Tensor, r: int, gamma: float = 0.65, constant: float = 4.0) -> Estimates:
    """Run IRCUR with resampling: constant·r·log n rows, and similarly columns, in every iteration."""
    n, m = D.shape
    generator = torch.Generator().manual_seed(1)
    count = [min(side, int(constant * r * np.log(side))) for side in (n, m)]
    size = float(D.abs().max())
    threshold = size
    L_columns = L_rows = None
    while True:
        at, across = (torch.randperm(side, generator=generator)[:c] for side, c in zip((n, m), count, strict=True))
        rows, columns = D[at], D[:, across]
        if L_rows is not None and L_columns is not None:
            A, B = L_columns, L_rows
            rows = rows - hardshrink(rows - A[at] @ B, threshold)
            columns = columns - hardshrink(columns - A @ B[:, across], threshold)
        else:
            rows, columns = rows - hardshrink(rows, threshold), columns - hardshrink(columns, threshold)
        core = rows[:, across]
        U, s, Vh = torch.linalg.svd(core, full_matrices=False)
        L_columns = columns @ (Vh[:r].mT / s[:r])
        L_rows = U[:, :r].mT @ rows
        threshold *= gamma
        yield L_columns, L_rows


def scaled_gd(D: Tensor, r: int, p: float, step: float = 2 / 3) -> Estimates:
    """Run ScaledGD of Tong, Ma and Chi: the largest 2p of the entries of each row and column are outliers."""
    n, m = D.shape
    kept = min(0.98, 2 * p)

    def outliers(R: Tensor) -> Tensor:
        size = R.abs()
        rows = size.kthvalue(max(1, int((1 - kept) * m)), dim=1, keepdim=True).values
        columns = size.kthvalue(max(1, int((1 - kept) * n)), dim=0, keepdim=True).values
        return torch.where((size > rows) & (size > columns), R, 0)

    U, s, V = leading(D - outliers(D), r)
    A, B = U * s.sqrt(), V * s.sqrt()
    while True:
        E = A @ B.mT - D
        E += outliers(-E)
        A, B = (
            A - step * torch.linalg.solve(B.mT @ B, (E @ B).mT).mT,
            B - step * torch.linalg.solve(A.mT @ A, (E.mT @ A).mT).mT,
        )
        yield A, B.mT


def batch(D: Tensor) -> ProblemBatch:
    """Return the matrix as a batch of one problem."""
    return ProblemBatch([Problem("X", D)])


def convex(D: Tensor, positive: bool = False) -> Estimates:
    """Solve Eq. 8 by inexact ALM with partial decompositions."""
    precision = {torch.float32: "float32", torch.float64: "float64"}[D.dtype]
    solver = partial(InexactALM, svd="partial", positive=positive, precision=precision, tolerance=1e-9)
    state = ConvexState(solver, batch(D))
    while not state.finished():
        state.advance(1)
        yield state.evaluate().signal[0]


def dop(D: Tensor, positive: bool = False, stride: int = 5, most: int = 500) -> Estimates:
    """Run double over-parameterization with semi-implicit steps and the α of the theory."""
    unit = float(D.abs().median()) ** 0.5
    signal = partial(SymmetricFactor if positive else Factor, growing=True, scale=1e-5 * unit)
    state = BatchState(
        Method(signal, partial(HadamardCorruption, scale=1e-5 * unit), steps=SemiImplicit()), batch(D), "auto"
    )
    while state.iteration < most:
        state.advance(stride)
        yield state.signal(0).detach()[0]


def projections(D: Tensor) -> Estimates:
    """Run alternating projections without the rank."""
    state = ProjectionsMethod().begin(batch(D))
    while not state.finished():
        state.advance(1)
        estimate = state.recoveries[0].estimate
        yield estimate.scaled_left, estimate.right[:, : estimate.rank].mT


def default(D: Tensor) -> Estimates:
    """Run the method of `dop separate`: projections, and DOP if their certificate fails."""
    state = RobustSeparation().begin(batch(D))
    while not state.finished() and state.iteration < 700:
        state.advance(1)
        if hasattr(state.parts[0], "recoveries"):
            estimate = state.parts[0].recoveries[0].estimate
            yield estimate.scaled_left, estimate.right[:, : estimate.rank].mT
        elif state.iteration % 5 == 0:
            yield state.evaluate().signal[0]


def solvers(case: Case) -> dict[str, tuple[str, Callable[[Tensor], Estimates]]]:
    """Return the information that each solver gets, and a function that starts it, by name."""
    r, p = case.r, case.p
    chosen: dict[str, tuple[str, Callable[[Tensor], Estimates]]] = {
        "default": ("nothing", default),
        "projections": ("nothing", projections),
        "AccAltProj γ=.5": ("r", partial(accaltproj, r=r, gamma=0.5)),
        "AccAltProj γ=.7": ("r", partial(accaltproj, r=r, gamma=0.7)),
        "AccAltProj 2r": ("2r", partial(accaltproj, r=2 * r, gamma=0.7)),
        "IRCUR": ("r", partial(ircur, r=r)),
        "IRCUR 2r": ("2r", partial(ircur, r=2 * r)),
        "ScaledGD": ("r, p", partial(scaled_gd, r=r, p=p)),
        "ScaledGD 2r": ("2r, p", partial(scaled_gd, r=2 * r, p=p)),
        "IALM, partial SVD": ("nothing", convex),
        "DOP": ("nothing", dop),
    }
    if case.positive:
        chosen["IALM, partial SVD, X ≥ 0"] = ("≥ 0", partial(convex, positive=True))
        chosen["DOP, symmetric"] = ("≥ 0", partial(dop, positive=True))
    if (case.n, case.m) == (500, 500):
        chosen["TensorLy"] = ("nothing", lambda D: tensorly(batch(D)))
    return chosen


def error(estimate: Factors | Tensor, L: Tensor) -> float:
    """Return the relative error, computed by strips because a tall matrix is large."""
    if isinstance(estimate, Tensor):
        return float(torch.linalg.vector_norm(estimate - L) / torch.linalg.vector_norm(L))
    A, B = estimate
    total = sum(
        float(torch.linalg.vector_norm(A[i : i + 5000] @ B - L[i : i + 5000])) ** 2 for i in range(0, len(L), 5000)
    )
    return total**0.5 / float(torch.linalg.vector_norm(L))


def measure(begin: Callable[[Tensor], Estimates], D: Tensor, L: Tensor, limit: float, steps: int, end: float) -> dict:
    """Return processor seconds to each target, the best and the last error, and total seconds."""
    seconds, best, last, count = 0.0, float("inf"), float("inf"), 0
    reached: dict[str, float] = {}
    estimates = begin(D)
    while seconds < limit and count < steps:
        start = time.process_time()
        estimate = next(estimates, None)
        seconds += time.process_time() - start
        if estimate is None:
            break
        count += 1
        last = error(estimate, L)
        if not last < 1e6:
            break
        best = min(best, last)
        for target in TARGETS:
            if last <= target:
                reached.setdefault(f"{target:g}", seconds)
        if last <= end:
            break
    return {"reached": reached, "best": best, "last": last, "seconds": seconds, "estimates": count}


def cases(options: argparse.Namespace) -> list[Case]:
    """Return the selected cases."""
    square = [
        Case(n, n, r, p, positive=options.positive)
        for n in options.sizes
        for r in sorted({5, n // 50})
        for p in options.shares
    ]
    if options.positive:
        return square
    noisy = [Case(n, n, n // 50, 0.1, noise) for n in options.sizes for noise in options.noise]
    tall = [Case(n, m, 5, 0.1) for n, m in TALL] if options.tall else []
    return square + noisy + tall


def table(out: Path, dtype: str) -> str:
    """Return a table of medians over seeds."""
    rows: dict[tuple[str, str], list[dict]] = {}
    for file in sorted(out.glob(f"*--{dtype}--*.json")):
        row = json.loads(file.read_text())
        rows.setdefault((row["case"], row["solver"]), []).append(row)
    lines = [
        f"{'matrix':34} {'solver':26} {'given':8} {'1e-3':>9} {'1e-6':>9} {'error':>9} {'seconds':>8} {'seeds':>5}"
    ]
    for (case, solver), found in rows.items():
        cells = [_median_time(found, f"{target:g}") for target in TARGETS]
        key = "last" if solver in ("default", "projections") else "best"
        worst = statistics.median(row[key] for row in found)
        seconds = statistics.median(row["seconds"] for row in found)
        told = found[0]["told"]
        lines.append(
            f"{case:34} {solver:26} {told:8} {cells[0]:>9} {cells[1]:>9} {worst:9.1e} {seconds:8.3f} {len(found):5}"
        )
    return "\n".join(lines)


def _median_time(rows: list[dict], target: str) -> str:
    times = [row["reached"].get(target) for row in rows]
    known = [time for time in times if time is not None]
    return f"{statistics.median(known):.3f}" if len(known) > len(times) / 2 else "–"


def main() -> int:
    """Run the missing measurements, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("race"), help="folder of the rows; default: %(default)s")
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000], help="n; default: %(default)s")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 0.5], help="p; default: %(default)s")
    parser.add_argument("--noise", type=float, nargs="*", default=list(NOISES), help="at p = .1; default: %(default)s")
    parser.add_argument(
        "--no-tall", dest="tall", action="store_false", help="skip the matrices 200000×50 and 50×200000"
    )
    parser.add_argument("--positive", action="store_true", help="use L = UUᵀ, and add solvers that exploit it")
    parser.add_argument("--solvers", nargs="+", help="names of solvers; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="default: %(default)s")
    parser.add_argument(
        "--limit", type=float, default=60, help="maximum processor seconds per solver; default: %(default)s"
    )
    parser.add_argument("--steps", type=int, default=1000, help="maximum estimates per solver; default: %(default)s")
    parser.add_argument("--table", action="store_true", help="only print the table of finished rows")
    options = parser.parse_args()
    if not options.table:
        prepare()
        torch.set_num_threads(1)
        options.out.mkdir(parents=True, exist_ok=True)
        for case in cases(options):
            for seed in range(options.seeds):
                _compare(case, seed, options)
    print(table(options.out, options.dtype))
    return 0


def _compare(case: Case, seed: int, options: argparse.Namespace) -> None:
    dtype = getattr(torch, options.dtype)
    chosen = {name: row for name, row in solvers(case).items() if not options.solvers or name in options.solvers}
    files = {name: options.out / f"{case.name}--{options.dtype}--{seed}--{_slug(name)}.json" for name in chosen}
    if all(file.is_file() for file in files.values()):
        return
    L, D = case.matrix(seed, dtype)
    for name, (told, begin) in chosen.items():
        if files[name].is_file():
            continue
        # solvers with a stopping criterion run to their end, so that their total time is measured
        end = 0.0 if name in ("default", "projections") or case.noise else TARGETS[-1]
        steps = min(options.steps, 60) if case.noise and name.startswith(("Acc", "IRCUR")) else options.steps
        found = measure(begin, D, L, options.limit, steps, end)
        row = {**asdict(case), "case": case.name, "seed": seed, "solver": name, "told": told, **found}
        atomic_json(files[name], row)
        print(
            f"{case.name} {seed} {name}: {found['reached']} best {found['best']:.2e} in {found['seconds']:.2f} s",
            flush=True,
        )


def _slug(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)


if __name__ == "__main__":
    sys.exit(main())
