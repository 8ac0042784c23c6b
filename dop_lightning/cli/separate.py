"""``dop separate DATA --out DIR``: a matrix, or the frames of a scene, into a low-rank and a sparse part."""

import argparse
from collections.abc import Sequence

from dop_lightning.cli.options import DEVICES, METHODS, OptionParser
from dop_lightning.foundation.user_paths import out_folder


def parser() -> argparse.ArgumentParser:
    """The options of ``dop separate``."""
    result = OptionParser(
        prog="dop separate",
        usage="dop separate DATA [DATA …] --out DIR [options]",
        description="Take matrices apart into a low-rank and a sparse part, and videos into background and "
        "foreground. Neither the rank nor the amount of what is sparse needs to be known. Ctrl-C writes what there is "
        "so far; the same command goes on from there.",
        epilog="dop separate lobby.avi --out scene",
    )
    result.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="matrices: .npy, .npz, .csv, .tsv, .csv.gz, .mat, .parquet, .h5, .hdf5, .zarr or .zarr.zip, NaN being "
        "missing; file.h5::/path/of/array chooses an array of several. Scenes of a camera that stands still: videos, "
        "and folders of pictures of one size, a folder being a scene",
    )
    result.add_argument("--out", required=True, type=out_folder, metavar="DIR", help="folder of the results")
    result.add_argument(
        "--alpha",
        type=float,
        metavar="A",
        help="ratio of the learning rates, above 0: a larger one leaves less in the low-rank part. Default: chosen by "
        "entries that are held out for matrices, 1 to 2 times √max(pixels, frames) for scenes",
    )
    result.add_argument(
        "--rank", type=int, metavar="R", help="bound on the rank, at least 1, of scenes at most 16; default: found"
    )
    result.add_argument("--iterations", type=int, default=500, metavar="N", help="at most; default: %(default)s")
    result.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")
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
        help="memory for the data. Long or large videos are recovered from some of their frames; .npy, HDF5 "
        "and Zarr matrices and tables above a quarter of it are read and written in pieces, by projections alone. "
        "Default: %(default)s",
    )
    matrices = result.add_argument_group("matrices")
    matrices.add_argument(
        "--method",
        default="auto",
        metavar="M",
        help=f"one of {', '.join(METHODS)}. auto: alternating projections if entries that they have not seen confirm "
        "them, else DOP; dop: double over-parameterization; convex: min ‖L‖_* + ‖S‖₁/α. Default: %(default)s, and dop "
        "with --alpha",
    )
    matrices.add_argument("--key", metavar="NAME", help="which array of .npz, .mat, HDF5 and Zarr files")
    matrices.add_argument(
        "--index", nargs="+", metavar="NAME", help="columns of tables that hold labels; default: a first column of text"
    )
    matrices.add_argument(
        "--truth", nargs="+", metavar="FILE", help="clean matrices, one a file or one for all, for scores alone"
    )
    scenes = result.add_argument_group(
        "scenes",
        "Written for each scene: background.mp4, foreground.mp4 (the frame where something moves, black elsewhere), "
        "mask.mp4 (white where something moves), comparison.mp4, and one PNG per frame in folders of the first three "
        "names. result.json has the threshold and the share of the mask.",
    )
    scenes.add_argument("--grey", action="store_true", help="make frames grey")
    scenes.add_argument("--no-pictures", action="store_true", help="write videos only, no PNG per frame")
    return result


def run(_: str, arguments: Sequence[str]) -> int:
    """Take the data apart.

    Raises:
        ValueError: an option is unknown, missing or out of range, or the data are of two kinds.
    """
    options = parser().parse_args(arguments)
    from dop_lightning.foundation.launched import outer_place

    place = outer_place()
    if place is not None or options.devices is not None:  # without Lightning, which takes memory in each process
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
