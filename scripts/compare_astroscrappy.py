"""Compare DOP with astroscrappy on the synthetic frame of astroscrappy: sky, 100 stars and 100 cosmic rays.

    python scripts/compare_astroscrappy.py                          the crop with the most cosmic rays, and others
    python scripts/compare_astroscrappy.py --crops 16 --side 256    16 crops of 256×256
    python scripts/compare_astroscrappy.py --whole                  all of the 1001×1001 pixels, in tiles

The frame and the settings of astroscrappy are those of its tests: detect_cosmics gets the read-out noise, the gain, and
a threshold that was chosen for this frame. DOP gets only the array; neither method sees the truth. ``--more SHARE``
adds cosmic rays to this fraction of the pixels.

The script prints precision and recall of the masks, and the errors of the filled entries with respect to the noise-free
frame, in photons.
"""

import argparse
import time

import numpy as np
import torch
from astroscrappy import detect_cosmics
from astroscrappy.tests.fake_data import gaussian, make_fake_data

from dop_lightning import recover_image
from dop_lightning.foundation.units import format_duration

SIDE = 1001
READ_OUT = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="default", help="preset of dop recover; default: %(default)s")
    parser.add_argument("--side", type=int, default=128, help="side of the crops in pixels; default: %(default)s")
    parser.add_argument(
        "--crops", type=int, default=4, help="number of crops, those with the most rays first; default: %(default)s"
    )
    parser.add_argument("--whole", action="store_true", help="use the whole frame instead of crops")
    parser.add_argument(
        "--more", type=float, default=0.0, metavar="SHARE", help="fraction of the pixels hit by additional rays"
    )
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    frame, hit, truth = make_frame(options.more)
    found, cleaned = detect_cosmics(frame, readnoise=READ_OUT, gain=1.0, sigclip=6, sigfrac=1.0)
    windows = [(0, 0)] if options.whole else crops(hit, options.side, options.crops)
    side = SIDE if options.whole else options.side
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {"astroscrappy": [], "DOP": []}
    for top, left in windows:
        place = np.s_[top : top + side, left : left + side]
        start = time.perf_counter()
        ours = recover_image(frame[place], preset=options.preset, device="cpu", progress=options.whole)
        seconds = time.perf_counter() - start
        parts["astroscrappy"].append((found[place], hit[place], cleaned[place], truth[place]))
        parts["DOP"].append((ours.mask, hit[place], ours.image, truth[place]))
        kept = np.array_equal(ours.image[~ours.mask], frame[place][~ours.mask])
        took = f"{ours.status} in {format_duration(seconds)}"
        print(f"rows {top}…, columns {left}…: {int(hit[place].sum())} rays, {took}; other pixels unchanged: {kept}")
    print(f"{'':14}{'precision':>10}{'recall':>10}{'RMSE':>10}{'MAE':>10}")
    for name, each in parts.items():
        print(f"{name:14}" + "".join(f"{score:10.4f}" for score in scores(each)))


def make_frame(more: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the frame of astroscrappy's tests, the mask of its cosmic rays, and the frame without rays and noise.

    astroscrappy generates the first two. For the third, we repeat its first random draws.
    """
    frame, hit = make_fake_data()
    np.random.seed(200)  # noqa: NPY002  as astroscrappy does
    truth = np.full((SIDE, SIDE), 200, dtype=np.float32)
    for _ in range(100):
        column, row = (np.random.uniform(low=0.0, high=SIDE) for _ in range(2))  # noqa: NPY002
        truth += gaussian(truth.shape, column, row, np.random.uniform(low=1000.0, high=30_000.0), 3.5)  # noqa: NPY002
    if np.abs((frame - truth)[~hit] / np.sqrt(truth + READ_OUT**2)[~hit]).max() > 8:
        raise SystemExit("this version of astroscrappy generates another frame: its stars are at other positions")
    random = np.random.default_rng(1)
    further = (random.random(frame.shape) < more) & ~hit
    frame[further] += random.uniform(1000.0, 30_000.0, int(further.sum())).astype(np.float32)
    return frame, hit | further, truth


def crops(hit: np.ndarray, side: int, number: int) -> list[tuple[int, int]]:
    """Return the corners of windows that do not overlap, those with the most cosmic rays first."""
    starts = range(0, SIDE - side + 1, side)
    places = [(top, left) for top in starts for left in starts]
    places.sort(key=lambda place: -hit[place[0] : place[0] + side, place[1] : place[1] + side].sum())
    return places[:number]


def scores(parts: list[tuple[np.ndarray, ...]]) -> tuple[float, float, float, float]:
    """Return precision, recall, and RMSE and MAE of the corrupted entries that were detected."""
    found, hit, filled, truth = (np.concatenate([part[k].ravel() for part in parts]) for k in range(4))
    right = found & hit
    error = filled[right] - truth[right]
    precision, recall = right.sum() / max(1, found.sum()), right.sum() / hit.sum()
    return precision, recall, float(np.sqrt(np.mean(error**2))), float(np.abs(error).mean())


if __name__ == "__main__":
    main()
