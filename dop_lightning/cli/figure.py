"""``dop figure NAME --out DIR``: reproduce figures of the paper, with their tables."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dop_lightning.cli.options import DEVICES, OptionParser
from dop_lightning.foundation.user_paths import out_folder
from dop_lightning.paper.figures import FIGURES, load_figure

if TYPE_CHECKING:  # the help must not import torch
    from dop_lightning.paper.figures.base import Fit


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``dop figure``."""
    names = "\n".join(f"  {name:<12}{entry.text:<62}{entry.times}" for name, entry in FIGURES.items())
    result = OptionParser(
        prog="dop figure",
        description="Reproduce a figure of the paper: its runs, its table (CSV) and its drawing (PNG and PDF).",
        epilog=f"figures, with their approximate time on one core at scale small and paper:\n{names}\n\n"
        "The same command resumes and redraws the figure. The runs use the configs of\n"
        "configs/paper/NAME/, which dop fit accepts too. Figures of images at scale paper\nrequire a GPU.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("name", choices=FIGURES, metavar="NAME", help="see below")
    result.add_argument("--out", required=True, type=out_folder, metavar="DIR", help="folder of the results")
    result.add_argument(
        "--scale",
        choices=["small", "paper"],
        default="small",
        help="reduced size, or that of the paper; default: %(default)s",
    )
    result.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder with F16.png, Peppers.png, Baboon.png and kodim03.png, required by figures of images at scale "
        "paper; scripts/fetch_images.py downloads them to the default, data/standard",
    )
    result.add_argument(
        "--rivals",
        nargs="+",
        default=[],
        metavar="NAME",
        help="add configs/rivals/NAME.yaml to figure grid, on the same problems",
    )
    result.add_argument(
        "--runs",
        nargs="+",
        default=[],
        type=Path,
        metavar="RUN",
        help="add finished runs of dop fit on the same problems to figure grid; folders are searched at any depth",
    )
    result.add_argument("--device", choices=DEVICES, default="auto", help="device of the runs; default: %(default)s")
    return result


def fitter(device: str) -> Fit:
    """Return a function that runs a config of a figure with ``dop fit``, without printing its table."""
    from dop_lightning.cli.experiments import lightning_cli as lightning

    def fit(name: str, configs: Sequence[Path], folder: Path, options: Sequence[str] = ()) -> int:
        print(f"{name}: {folder}", file=sys.stderr)
        files = [argument for path in configs for argument in ("--config", str(path))]
        trainer = ["--trainer.default_root_dir", str(folder), "--trainer.accelerator", DEVICES[device]]
        with contextlib.redirect_stdout(io.StringIO()):
            return lightning.run("fit", [*files, *options, *trainer])

    return fit


def run(_: str, arguments: Sequence[str], make_fit: Callable[[str], Fit] = fitter) -> int:
    """Run the unfinished parts of a figure, then write and print it.

    Raises:
        ValueError: an option is invalid, or the folder contains something else.
        ImportError: matplotlib is not installed.
    """
    options = parser().parse_args(arguments)
    from dop_lightning.foundation.plotting import require_matplotlib  # torch is imported from here on

    require_matplotlib()
    figure = load_figure(options.name)
    if options.images is not None:
        figure.use_images(options.images)
    if options.rivals or options.runs:
        figure.use_rivals(options.rivals, options.runs)
    if status := figure.compute(options.out, options.scale, make_fit(options.device)):
        print("Stopped: the same command resumes", file=sys.stderr)
        return status
    rows = figure.table(options.out)
    figure.write(rows, options.out)
    print(figure.summary(rows))
    print("\n".join(["", *figure.verdict(rows, options.out)]))
    print(f"Files: {', '.join(str(options.out / f'{figure.name}.{kind}') for kind in ('csv', 'png', 'pdf'))}")
    return 0
