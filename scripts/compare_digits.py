"""Compare RobustPCA with PCA on the digits of scikit-learn with outliers: 5 % of the entries are shifted by N(0, 50²).

    python scripts/compare_digits.py

PCA uses the number of components with the best PSNR, which requires the truth. RobustPCA uses its defaults. The range
of the digits is 16.
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from dop_lightning import RobustPCA
from dop_lightning.foundation.machine import set_threads


def main() -> None:
    """Print one line per seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="number of digits; default: all")
    options = parser.parse_args()
    set_threads()
    clean = load_digits().data[: options.rows]

    def psnr(estimate: np.ndarray) -> float:
        return float(10 * np.log10(16**2 / np.mean((estimate - clean) ** 2)))

    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        observed = clean + (rng.random(clean.shape) < 0.05) * rng.normal(0, 50, clean.shape)
        plain, count = max(
            (psnr((pca := PCA(count)).inverse_transform(pca.fit_transform(observed))), count) for count in range(1, 65)
        )
        begin = time.perf_counter()
        pca = RobustPCA(random_state=seed).fit(observed)
        seconds = time.perf_counter() - begin
        robust, theory = psnr(pca.low_rank_), psnr(RobustPCA(alpha=None, random_state=seed).fit(observed).low_rank_)
        unit = pca.alpha_ / max(clean.shape) ** 0.5
        print(f"seed {seed}: input {psnr(observed):.2f} dB, PCA with {count} components {plain:.2f}, ", end="")
        print(f"RobustPCA {robust:.2f} ({robust - plain:+.2f}; alpha {unit:.2g}·√n, {seconds:.1f} s), ", end="")
        print(f"with alpha=√n {theory:.2f}")


if __name__ == "__main__":
    main()
