"""Compare RobustReconstructor with deepinv's DeepImagePrior under salt-and-pepper noise, with ``deepinv.test``.

It needs deepinv: ``pip install "dop_lightning[physics]"``. A photograph is measured through the identity, a mask that
keeps half of the pixels, and a blur. Then a fraction of the measurements is set to 0 or 1. DeepImagePrior runs once for
each number of iterations and learning rate; the table has the best result, which only an oracle could choose.
"""

import argparse
import itertools
from typing import Any

import torch
from torch import Tensor
from torchvision_for_cpu import make_importable

make_importable()

import deepinv  # noqa: E402
from deepinv.physics.functional.blur import gaussian_blur  # noqa: E402

from dop_lightning.images.formats import read_image, sample_folder  # noqa: E402
from dop_lightning.integrations.deepinv import RobustReconstructor  # noqa: E402


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="astronaut", help="name of a sample (default: astronaut)")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: 64)")
    parser.add_argument("--share", type=float, default=0.2, help="fraction of corrupted measurements (default: 0.2)")
    parser.add_argument("--preset", default="default", help="preset of RobustReconstructor (default: default)")
    parser.add_argument("--iterations", type=int, help="iterations of RobustReconstructor (default: as in the preset)")
    parser.add_argument(
        "--prior", type=int, nargs="+", default=[100, 300, 1000], help="numbers of iterations of DeepImagePrior"
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.01, 0.001], help="learning rates of DeepImagePrior"
    )
    parser.add_argument(
        "--channels", type=int, default=64, help="channels of the decoder of DeepImagePrior (default: 64)"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def ways(size: int, seed: int) -> dict[str, Any]:
    """Return the forward operators by name."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(1, 1, size, size, generator=generator) < 0.5).float().expand(1, 3, size, size)
    return {
        "identity": deepinv.physics.Denoising(),
        "half of the pixels missing": deepinv.physics.Inpainting(img_size=(3, size, size), mask=mask),
        "Gaussian blur, std 1.6": deepinv.physics.Blur(filter=gaussian_blur(sigma=(1.6, 1.6)), padding="circular"),
    }


def with_salt_and_pepper(y: Tensor, share: float, seed: int) -> Tensor:
    """Apply salt-and-pepper noise to a fraction of the entries."""
    generator = torch.Generator().manual_seed(seed + 1)
    salt = (torch.rand(y.shape, generator=generator) < 0.5).to(y)
    return torch.where(torch.rand(y.shape, generator=generator) < share, salt, y)


def prior(size: int, channels: int, rate: float, iterations: int, seed: int) -> Any:
    """Return a new DeepImagePrior with its recommended network."""
    torch.manual_seed(seed)
    decoder = deepinv.models.ConvDecoder(img_size=(3, size, size), in_size=(4, 4), channels=channels)
    return deepinv.models.DeepImagePrior(decoder, img_size=(channels, 4, 4), iterations=iterations, learning_rate=rate)


def main() -> None:
    """Print the table."""
    options = arguments()
    x = read_image(sample_folder() / f"{options.image}.png", resize=(options.size, options.size)).values[None]
    settings = list(itertools.product(options.rates, options.prior))
    print("| PSNR in dB | observed | DeepImagePrior, oracle | RobustReconstructor |")
    print("| --- | --- | --- | --- |")
    for name, physics in ways(options.size, options.seed).items():
        y = with_salt_and_pepper(physics.A(x), options.share, options.seed)
        data = torch.utils.data.DataLoader([{"x": x[0], "y": y[0]}])
        models = [prior(options.size, options.channels, *setting, options.seed) for setting in settings]
        models.append(RobustReconstructor(preset=options.preset, iterations=options.iterations, seed=options.seed))
        quiet = {"verbose": False, "show_progress_bar": False, "non_blocking_transfers": False}
        *priors, ours = (deepinv.test(model, data, physics, **quiet) for model in models)
        best, (rate, iterations) = max(zip((scores["PSNR"] for scores in priors), settings, strict=True))
        prior_said = f"{best:.2f} (rate {rate:g}, {iterations} iterations)"
        print(f"| {name} | {ours['PSNR no learning']:.2f} | {prior_said} | {ours['PSNR']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
