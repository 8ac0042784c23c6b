"""The options of ``dop recover``, and its help, at once; the times of the presets are measured beneath it."""

import argparse
import importlib
from collections.abc import Sequence

from dop_lightning.cli.options import DEVICES, OptionParser
from dop_lightning.foundation.user_paths import out_folder

PRESET_NAMES = ("instant", "quick", "default", "best", "paper")
"""Those of :mod:`dop_lightning.images.presets`, which imports PyTorch."""


def parser() -> argparse.ArgumentParser:
    """The options of ``dop recover``."""
    result = OptionParser(
        prog="dop recover",
        usage="dop recover IMAGE [IMAGE …] --out DIR [options]",
        description="Restore photographs with dead or random pixels. Nothing needs to be known of the damage. Ctrl-C "
        "writes what is recovered so far; the same command goes on from there.",
        epilog="dop recover photo.png --out restored",
    )
    result.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="PNG, JPEG, TIFF, WebP, BMP, FITS or NumPy files, of 8 or 16 bits or floats, of any number of channels; "
        "folders; globs; 'frame.fits[SCI]' for one HDU. Transparent pixels and NaN are missing",
    )
    result.add_argument("--out", required=True, type=out_folder, metavar="DIR", help="folder of the results")
    result.add_argument(
        "--truth", nargs="+", metavar="FILE", help="clean images, one an IMAGE or one for all, for scores alone"
    )
    result.add_argument(
        "--mask",
        nargs="+",
        metavar="FILE",
        help="white where observed, black where missing; one an IMAGE or one for all",
    )
    result.add_argument(
        "--undamaged",
        nargs="+",
        metavar="FILE",
        help="white where values are known to be undamaged; one an IMAGE or one for all. They are never marked as "
        "corrupted; not with --preset paper",
    )
    result.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="least and largest clean value, in the units of the files; default: that of 8 bits, else found in each",
    )
    result.add_argument(
        "--per",
        choices=["entry", "pixel"],
        default="entry",
        help="whether each channel of a pixel is corrupted by itself, or the whole pixel; default: %(default)s",
    )
    result.add_argument(
        "--damage",
        metavar="KINDS",
        default="auto",
        help="what is damaged besides isolated values: points, nothing; lines, dead rows and columns inside the image; "
        "scratches, rectangles, dust or text, these as well; join several as in scratches+dust; auto is lines, and "
        "suggests others where they are likely; default: %(default)s",
    )
    result.add_argument(
        "--outliers",
        choices=["auto", "both", "positive", "negative"],
        default="auto",
        help="their sign: positive for cosmic rays and hot pixels; default: %(default)s, found in frames that noise "
        "limits, else both",
    )
    result.add_argument(
        "--dense",
        choices=["auto", "keep", "remove"],
        default="auto",
        help="dense noise besides: keep it in undamaged values, or remove it; default: %(default)s, removed where "
        "there is much of it in an image of 8 bits",
    )
    result.add_argument("--preset", choices=PRESET_NAMES, default="default", help="see below; default: %(default)s")
    result.add_argument("--iterations", type=int, metavar="N", help="gradient iterations, at least 1")
    result.add_argument("--alpha", type=float, metavar="A", help="ratio of the learning rates, above 0")
    result.add_argument("--width", type=int, metavar="W", help="channels of the network, at least 1")
    result.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
    result.add_argument(
        "--tile", type=int, metavar="N", help="recover images in overlapping tiles of N×N pixels; default: where needed"
    )
    result.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="such as 8G: images that take more are recovered in tiles; default: four fifths of what is free",
    )
    result.add_argument("--device", default="auto", metavar="D", help=f"{', '.join(DEVICES)}; default: %(default)s")
    result.add_argument(
        "--precision",
        choices=["auto", "bf16", "fp32"],
        default="auto",
        help="of the network, and of the products in its optimizer",
    )
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Explain, or restore the images.

    Raises:
        ValueError: an option is unknown or missing, or a file is no image.
    """
    if "-h" not in arguments and "--help" not in arguments:
        options = parser().parse_args(arguments)  # a mistake shows at once
        return int(importlib.import_module("dop_lightning.cli.configs.recover").run(options))
    print(parser().format_help(), flush=True)
    presets = importlib.import_module("dop_lightning.cli.configs.preset_times")  # seconds
    for line in presets.preset_lines():
        print(line, flush=True)
    return 0
