"""``dop separate DATA --out DIR``: split matrices and scenes into a low-rank and a sparse part."""

import argparse
from collections.abc import Sequence

from dop_lightning.cli.options import DEVICES, METHODS, OptionParser
from dop_lightning.foundation.user_paths import out_folder


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop separate``."""
    result = OptionParser(
        prog="dop separate",
        usage="dop separate DATA [DATA …] --out DIR [options]",
        description="Split matrices into a low-rank and a sparse part, and videos into background and foreground. The "
        "rank and the fraction of sparse entries are estimated. Ctrl-C saves the current result; the same command "
        "resumes.",
        epilog="dop separate lobby.avi --out scene",
    )
    result.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="matrices: .npy, .npz, .csv, .tsv, .csv.gz, .mat, .parquet, .h5, .hdf5, .zarr or .zarr.zip; NaN is "
        "missing; file.h5::/path/of/array selects one of several arrays. Scenes of a static camera: videos, or "
        "folders of pictures of one size, one scene per folder",
    )
    result.add_argument("--out", required=True, type=out_folder, metavar="DIR", help="folder of the results")
    result.add_argument(
        "--alpha",
        type=float,
        metavar="A",
        help="ratio of the learning rates (> 0); a larger one leaves less in the low-rank part. Default: chosen by "
        "held-out entries for matrices, 1 to 2 times √max(pixels, frames) for scenes",
    )
    result.add_argument(
        "--rank", type=int, metavar="R", help="maximum rank (≥ 1; ≤ 16 for scenes); estimated by default"
    )
    result.add_argument("--iterations", type=int, default=500, metavar="N", help="maximum; default: %(default)s")
    result.add_argument("--seed", type=int, default=0, metavar="S", help="random seed; default: %(default)s")
    result.add_argument("--device", default="auto", metavar="D", help=f"{', '.join(DEVICES)}; default: %(default)s")
    result.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="spread the rows of matrices over N processes on this machine, one per GPU or core. Matrices that are "
        "read in pieces are also spread over the processes of torchrun and srun. The parts are .npy files. Default: 1",
    )
    result.add_argument(
        "--max-memory",
        default="1G",
        metavar="SIZE",
        help="memory for the data. The background of long videos is estimated from some of their frames; .npy, HDF5 "
        "and Zarr matrices and tables above a quarter of it are read and written in pieces, with projections only. "
        "Default: %(default)s",
    )
    matrices = result.add_argument_group("matrices")
    matrices.add_argument(
        "--method",
        default="auto",
        metavar="M",
        help=f"one of {', '.join(METHODS)}. auto: alternating projections if held-out entries confirm them, otherwise "
        "DOP; dop: double over-parameterization; convex: min ‖L‖_* + ‖S‖₁/α. Default: %(default)s, or dop with --alpha",
    )
    matrices.add_argument("--key", metavar="NAME", help="array to read from .npz, .mat, HDF5 and Zarr files")
    matrices.add_argument(
        "--index", nargs="+", metavar="NAME", help="label columns of tables; default: the first column, if it is text"
    )
    matrices.add_argument(
        "--truth", nargs="+", metavar="FILE", help="clean matrices, one per file or one for all; only used for scores"
    )
    scenes = result.add_argument_group(
        "scenes",
        "Files per scene: background.mp4, foreground.mp4 (moving objects on black), mask.mp4 (moving objects in "
        "white), comparison.mp4, and one PNG per frame in the folders background, foreground and mask. result.json has "
        "the threshold of the mask and its fraction of the pixels.",
    )
    scenes.add_argument("--grey", action="store_true", help="convert frames to grey")
    scenes.add_argument("--no-pictures", action="store_true", help="write videos only, without one PNG per frame")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Split the data.

    Raises:
        ValueError: an option is unknown, missing or out of range, or matrices and scenes are mixed.
    """
    options = parser().parse_args(arguments)
    from dop_lightning.foundation.launched import outer_place

    place = outer_place()
    if place is not None or options.devices is not None:  # without Lightning, to save memory in each process
        from dop_lightning.cli import ranks

        if spread := ranks.spread_files(options, place):
            return ranks.run(options, arguments, spread, place)
    from dop_lightning.cli.configs.separate import config
    from dop_lightning.cli.experiments import lightning_cli as lightning  # torch is imported from here on
    from dop_lightning.cli.experiments import runner
    from dop_lightning.cli.pieces import large_matrices, separate_files
    from dop_lightning.foundation.parsing import parse_once

    runner.prepare()
    if files := large_matrices(options):
        return separate_files(options, files)
    with parse_once():  # the search of α and the run read the same files
        settings, notes = config(options)
        return lightning.fit_config(settings, "\n".join(notes))
