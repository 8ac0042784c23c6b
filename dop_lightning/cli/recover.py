"""Options and help of ``dop recover``. PyTorch is imported only after the help, to measure the times of the presets."""

import argparse
import importlib
from collections.abc import Sequence

from dop_lightning.cli.options import DEVICES, OptionParser
from dop_lightning.foundation.collection import import_frozen
from dop_lightning.foundation.user_paths import out_folder

PRESET_NAMES = ("instant", "quick", "default", "best", "paper")
"""Names of the presets of :mod:`dop_lightning.images.presets`, which imports PyTorch."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop recover``."""
    result = OptionParser(
        prog="dop recover",
        usage="dop recover IMAGE [IMAGE …] --out DIR [options]",
        description="Restore photographs with dead or random pixels, which are detected automatically. Ctrl-C saves "
        "the current result; the same command resumes.",
        epilog="dop recover photo.png --out restored",
    )
    result.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="PNG, JPEG, TIFF, WebP, BMP, FITS or NumPy files, 8 or 16 bits or floats, any number of channels; "
        "folders; globs; 'frame.fits[SCI]' for one HDU. Transparent pixels and NaN are missing values",
    )
    result.add_argument("--out", required=True, type=out_folder, metavar="DIR", help="folder of the results")
    result.add_argument(
        "--truth", nargs="+", metavar="FILE", help="clean images, one per IMAGE or one for all; only used for scores"
    )
    result.add_argument(
        "--mask",
        nargs="+",
        metavar="FILE",
        help="masks, white where observed, black where missing; one per IMAGE or one for all",
    )
    result.add_argument(
        "--undamaged",
        nargs="+",
        metavar="FILE",
        help="white where values are known to be undamaged; one per IMAGE or one for all. They are never marked as "
        "corrupted; not with --preset paper",
    )
    result.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="minimum and maximum clean value, in the units of the files; default: 0 255 for 8 bits, else estimated",
    )
    result.add_argument(
        "--per",
        choices=["auto", "entry", "pixel"],
        default="auto",
        help="detect corruption per value (each channel of a pixel) or whole pixel; estimated by default",
    )
    result.add_argument(
        "--damage",
        metavar="KINDS",
        default="auto",
        help="damage to detect in addition to isolated values. points: none; lines: dead rows and columns; scratches, "
        "rectangles, dust or text: these and lines; join several as in scratches+dust; auto: lines, with a warning if "
        "other damage is likely. Default: %(default)s",
    )
    result.add_argument(
        "--outliers",
        choices=["auto", "both", "positive", "negative"],
        default="auto",
        help="sign of the outliers, positive for cosmic rays and hot pixels; default: %(default)s, estimated in frames "
        "limited by noise, otherwise both",
    )
    result.add_argument(
        "--dense",
        choices=["auto", "keep", "remove"],
        default="auto",
        help="keep dense noise in undamaged values, or remove it; default: %(default)s, strong noise is removed from "
        "8-bit images",
    )
    result.add_argument("--preset", choices=PRESET_NAMES, default="default", help="see below; default: %(default)s")
    result.add_argument("--iterations", type=int, metavar="N", help="number of gradient iterations (≥ 1)")
    result.add_argument("--alpha", type=float, metavar="A", help="ratio of the learning rates (> 0)")
    result.add_argument("--width", type=int, metavar="W", help="channels of the network (≥ 1)")
    result.add_argument("--seed", type=int, default=0, metavar="S", help="random seed; default: %(default)s")
    result.add_argument(
        "--tile", type=int, metavar="N", help="recover images in overlapping tiles of N×N pixels; default: if needed"
    )
    result.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="memory limit, such as 8G; larger images are recovered in tiles; default: four fifths of the free memory",
    )
    result.add_argument("--device", default="auto", metavar="D", help=f"{', '.join(DEVICES)}; default: %(default)s")
    result.add_argument(
        "--precision",
        choices=["auto", "bf16", "fp32"],
        default="auto",
        help="precision of the network; default: %(default)s",
    )
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Print the help, or restore the images.

    Raises:
        ValueError: an option is unknown or missing, or a file is not an image.
    """
    if "-h" not in arguments and "--help" not in arguments:
        options = parser().parse_args(arguments)  # before slow imports
        return int(import_frozen("dop_lightning.cli.configs.recover").run(options))
    print(parser().format_help(), flush=True)
    presets = importlib.import_module("dop_lightning.cli.configs.preset_times")  # seconds
    for line in presets.preset_lines():
        print(line, flush=True)
    return 0
