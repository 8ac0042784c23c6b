"""Call ``recover_image`` and ``RobustPCA`` from several threads, and compare the results with sequential calls.

    python scripts/check_thread_safety.py --threads 8 --calls 50

Every thread makes the same calls in a different order: whole images of two sizes, tiles, a preset without a network,
and tables with and without missing entries. The exit status is 1 if a result differs in any bit, or if a call has
changed the global random generators, the default type, the number of threads or the warning filters.
"""

import argparse
import hashlib
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from dop_lightning import recover_image
from dop_lightning.matrices.robust_pca import RobustPCA

Work = Callable[[], bytes]


def image(side: int, seed: int) -> np.ndarray:
    """Return a smooth picture with salt-and-pepper noise."""
    draw = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 3, side), np.linspace(0, 2, side))
    clean = 128 + 100 * np.sin(x[..., None] * (1 + np.arange(3)) + y[..., None] ** 2)
    damaged = draw.random(clean.shape)
    return np.where(damaged < 0.15, 0, np.where(damaged > 0.85, 255, clean)).astype(np.uint8)


def recovered(side: int, seed: int, **options: object) -> bytes:
    """Return the bytes of a recovered image and of its corruption."""
    options = {"preset": "quick", "iterations": 8, "width": 4, **options}
    got = recover_image(image(side, seed), seed=seed, device="cpu", progress=False, **options)  # type: ignore[arg-type]
    return np.asarray(got.image).tobytes() + np.asarray(got.corruption).tobytes()


def separated(seed: int, gaps: bool) -> bytes:
    """Return the bytes of a fitted table."""
    draw = np.random.default_rng(seed)
    X = draw.standard_normal((60, 3)) @ draw.standard_normal((3, 12))
    X[draw.random(X.shape) < 0.05] += 20
    if gaps:
        X[draw.random(X.shape) < 0.05] = np.nan
        X[:, -1] = np.nan
    fitted = RobustPCA(max_iter=200).fit(X)
    return fitted.low_rank_.tobytes() + fitted.components_.tobytes()


WORKS: Sequence[Work] = (
    lambda: recovered(20, 1),
    lambda: recovered(48, 2),
    lambda: recovered(40, 3, tile=32),
    lambda: recovered(40, 4, preset="instant", iterations=None, width=None),
    lambda: recovered(33, 5, alpha=0.5),
    lambda: separated(6, gaps=False),
    lambda: separated(7, gaps=True),
)


def state() -> tuple[object, ...]:
    """Return the global state that calls must not change."""
    generators = torch.default_generator.get_state().numpy().tobytes(), repr(np.random.get_state())  # noqa: NPY002
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))  # the number of a new thread
    thread.start()
    thread.join()
    settings = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), found[0]
    random_state = hashlib.sha256(repr(random.getstate()).encode()).hexdigest()
    return *generators, random_state, *settings, tuple(warnings.filters), torch.is_grad_enabled()


def differing(threads: int, calls: int, works: Sequence[Work] = WORKS) -> list[str]:
    """Return descriptions of all differences.

    Args:
        threads: number of parallel threads.
        calls: number of calls per thread.
        works: functions to call.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about too few iterations
        expected = [work() for work in works]
        before = state()
        wrong: list[str] = []
        begin = threading.Barrier(threads)

        def call(thread: int) -> None:
            order = [k % len(works) for k in range(calls)]
            random.Random(thread).shuffle(order)
            begin.wait()
            for k in order:
                if works[k]() != expected[k]:
                    wrong.append(f"work {k} in thread {thread}")

        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(call, thread) for thread in range(threads)]:
                done.result()
        if state() != before:
            wrong.append("the settings of the process")
    return wrong


def main() -> int:
    """Print the number of calls, and the differences."""
    parser = argparse.ArgumentParser(
        description="Check that recover_image and RobustPCA return identical results in threads."
    )
    parser.add_argument("--threads", type=int, default=8, help="number of parallel threads; default: %(default)s")
    parser.add_argument("--calls", type=int, default=50, help="calls per thread; default: %(default)s")
    options = parser.parse_args()
    start = time.monotonic()
    wrong = differing(options.threads, options.calls)
    number = options.threads * options.calls
    print(f"{number} calls in {options.threads} threads, {time.monotonic() - start:.0f} s: {len(wrong)} differ")
    print("\n".join(wrong[:20]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
