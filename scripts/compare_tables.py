"""Compare PCA variants on tables with bad cells: the angle to the principal subspace of the clean table.

    OMP_NUM_THREADS=1 python scripts/compare_tables.py
    OMP_NUM_THREADS=1 python scripts/compare_tables.py --standardize
    python scripts/compare_tables.py --save before.json         # at another commit, then compare here:
    python scripts/compare_tables.py --before before.json

There are twelve tables of scikit-learn and statsmodels. Five percent of the cells are shifted by 3 to 8, or by 10 to 30
standard deviations of their column, with random signs. k is the number of components before the largest gap of the
clean spectrum, at most 5: argmax s_k / s_{k+1}. All methods use this k. The error is the largest principal angle in
degrees between their first k components and those of PCA on the clean table. Both are in the units of the table, or in
standard deviations of the clean columns with --standardize.

`clipped` is PCA after clipping each cell to the median ± 3·1.4826·MAD of its column (columns with MAD 0 are not
clipped). A case is one table, magnitude and seed. The script needs statsmodels.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from scipy.linalg import subspace_angles
from sklearn import datasets
from sklearn.decomposition import PCA

from dop_lightning import RobustPCA
from dop_lightning.foundation.machine import set_threads

SKLEARN = ("breast_cancer", "wine", "digits", "diabetes")
STATSMODELS = ("macrodata", "longley", "fair", "star98", "stackloss", "spector", "grunfeld", "engel")
MAGNITUDES = {"3-8": (3.0, 8.0), "10-30": (10.0, 30.0)}
BAD = 0.05
MOST = 5
ROUNDING = 1e-3
"""Tolerance in degrees below which two angles count as equal."""


def load(name: str) -> np.ndarray:
    """Return the numeric columns of a table."""
    if name in SKLEARN:
        return getattr(datasets, f"load_{name}")().data.astype(float)
    import statsmodels.api as sm

    return getattr(sm.datasets, name).load_pandas().data.select_dtypes("number").to_numpy(float)


def damage(clean: np.ndarray, magnitude: tuple[float, float], seed: int) -> np.ndarray:
    """Return the table with bad cells."""
    rng = np.random.default_rng(seed)
    bad = rng.random(clean.shape) < BAD
    shift = rng.uniform(*magnitude, clean.shape) * rng.choice([-1.0, 1.0], clean.shape)
    return clean + bad * shift * clean.std(axis=0)


def gap(clean: np.ndarray) -> int:
    """Return the number of components before the largest gap of the spectrum."""
    values = np.linalg.svd(clean - clean.mean(axis=0), compute_uv=False)
    most = min(MOST, len(values) - 1)
    return 1 + int(np.argmax(values[:most] / np.maximum(values[1 : most + 1], 1e-12 * values[0])))


def plain(X: np.ndarray, k: int) -> np.ndarray:
    return PCA(k).fit(X).components_


def clipped(X: np.ndarray, k: int) -> np.ndarray:
    center = np.median(X, axis=0)
    reach = 3 * 1.4826 * np.median(np.abs(X - center), axis=0)
    reach[reach == 0] = np.inf
    return PCA(k).fit(np.clip(X, center - reach, center + reach)).components_


def robust(X: np.ndarray, k: int) -> np.ndarray:
    return RobustPCA(k).fit(X).components_


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"PCA": plain, "clipped": clipped, "RobustPCA": robust}


def angle(components: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest principal angle in degrees; 90 if there are fewer components than in the truth."""
    if len(components) < len(truth):
        return 90.0
    return float(np.degrees(subspace_angles(components[: len(truth)].T, truth.T).max()))


def measure(name: str, standardize: bool, seeds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the angles of all methods, and the seconds of RobustPCA, for each case of one table."""
    clean = load(name)
    if standardize:
        spread = clean.std(axis=0)
        clean = clean / np.where(spread == 0, 1, spread)
    k = gap(clean)
    truth = plain(clean, k)
    for label, magnitude in MAGNITUDES.items():
        for seed in range(seeds):
            X = damage(clean, magnitude, seed)
            row: dict[str, float] = {"k": k}
            for method, fit in METHODS.items():
                begin = time.perf_counter()
                row[method] = angle(fit(X, k), truth)
                row["seconds"] = time.perf_counter() - begin
            yield f"{name} {label} {seed}", row


def main() -> None:
    """Print one line per table and magnitude, with medians over seeds; then the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=[*SKLEARN, *STATSMODELS], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--standardize", action="store_true", help="divide by the standard deviations of the clean table"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the angles of each case as JSON")
    parser.add_argument(
        "--before", type=Path, metavar="FILE", help="compare with the RobustPCA results of a saved file"
    )
    options = parser.parse_args()
    set_threads()
    warnings.simplefilter("ignore")  # about too few iterations on some tables, and of datasets of statsmodels
    before = json.loads(options.before.read_text()) if options.before else {}
    rivals = ["PCA", "clipped", *(["before"] if before else [])]
    print(
        f"{'table':14}{'sd':>7}{'k':>3}" + "".join(f"{method:>11}" for method in [*rivals, "RobustPCA"]) + "    seconds"
    )
    cases: dict[str, dict[str, float]] = {}
    for name in options.tables:
        rows = dict(measure(name, options.standardize, options.seeds))
        for case, row in rows.items():
            row |= {"before": before[case]["RobustPCA"]} if before else {}
            cases[case] = row
        for label in MAGNITUDES:
            some = [row for case, row in rows.items() if f" {label} " in case]
            cells = [median(row[method] for row in some) for method in [*rivals, "RobustPCA"]]
            print(f"{name:14}{label:>7}{some[0]['k']:3.0f}" + "".join(f"{cell:11.2f}" for cell in cells), end="")
            print(f"{median(row['seconds'] for row in some):11.2f}", flush=True)
    if options.save:
        options.save.write_text(json.dumps(cases))
    summarize(cases, rivals)


def summarize(cases: dict[str, dict[str, float]], rivals: list[str]) -> None:
    for rival in [*rivals, "best rival"]:
        differences = [
            row["RobustPCA"] - (min(row[r] for r in rivals) if rival == "best rival" else row[rival])
            for row in cases.values()
        ]
        wins = sum(difference <= ROUNDING for difference in differences)
        worst = max(cases, key=lambda case: cases[case]["RobustPCA"] - min(cases[case][r] for r in rivals))
        print(
            f"RobustPCA ≤ {rival} in {wins} of {len(cases)} cases; largest difference {max(differences):+.2f} degrees"
        )
    medians = {method: median(row[method] for row in cases.values()) for method in [*rivals, "RobustPCA"]}
    print("median angle: " + ", ".join(f"{method} {value:.3f}" for method, value in medians.items()), end="")
    print(f"; worst case: {worst}")


if __name__ == "__main__":
    main()
