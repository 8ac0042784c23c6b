"""Compare the estimated standard deviation of dense noise with the true one.

    OMP_NUM_THREADS=1 python scripts/measure_dense_noise.py
    OMP_NUM_THREADS=1 python scripts/measure_dense_noise.py --preset default --size 256

Full-resolution crops of photographs of scikit-image are corrupted by Gaussian noise, then by salt and pepper.
Photographs already contain noise, which `skimage.restoration.estimate_sigma` estimates from the clean crop (median of
wavelet coefficients; Donoho and Johnstone, 1994), averaged over the channels. The last column is the estimate divided
by the root of the sum of both variances. Values are fractions of the range.
"""

import argparse
import math
import zlib
from statistics import mean

import torch
from crops import crop_tensor
from skimage.restoration import estimate_sigma

from dop_lightning.engine.runners import run_to_end
from dop_lightning.images.presets import PRESETS, TAU
from dop_lightning.problems.noise import GaussianNoise, Mixture, SaltAndPepper
from dop_lightning.problems.problem import Problem

IMAGES = ("astronaut", "chelsea", "coffee", "rocket")


def estimated(preset_name: str, image: str, size: int, std: float, level: float) -> tuple[float, float]:
    """Return the noise of the photograph, and the estimate of the preset for the corrupted one."""
    clean = crop_tensor(image, size)
    noise = Mixture([GaussianNoise(std), SaltAndPepper(level)])
    generator = torch.Generator().manual_seed(zlib.crc32(f"{image} {size}".encode()))
    problem = Problem(image, noise.corrupt(clean, generator).observation, truth=clean, data_range=1.0)
    preset = PRESETS[preset_name]
    ending = run_to_end(preset.method(), problem, preset.iterations, block=10, tau=TAU, alpha=preset.alpha)
    own = mean(estimate_sigma(channel.numpy()) for channel in clean)
    return own, float(ending.state.memory["dense"][0])  # type: ignore[attr-defined]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", default=IMAGES, help=f"names in skimage.data; default: {IMAGES}")
    parser.add_argument("--size", type=int, default=128, help="side of the crops in pixels; default: 128")
    parser.add_argument(
        "--std", type=float, nargs="+", default=[0.05, 0.1], help="standard deviations of the added noise"
    )
    parser.add_argument("--level", type=float, default=0.3, help="fraction of salt and pepper; default: 0.3")
    parser.add_argument("--preset", choices=["quick", "default", "best"], default="quick")
    options = parser.parse_args()
    print("| image | added σ | noise of the photograph | total | estimated | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for std in options.std:
        for image in options.images:
            own, found = estimated(options.preset, image, options.size, std, options.level)
            both = math.hypot(std, own)
            print(f"| {image} | {std:g} | {own:.4f} | {both:.4f} | {found:.4f} | {found / both:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
