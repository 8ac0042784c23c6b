"""Measure the PSNR as a function of α for sizes × widths × levels × photographs, as in docs/alpha.md.

    python scripts/measure_alpha.py --out alpha --sizes 64 --alphas 380 1520
    python scripts/measure_alpha.py --out alpha --sizes 64 --alphas 100 400 --config image --iterations 3000

Each point is a run of ``dop fit`` with one of the bundled configs; the same command continues an interrupted
measurement. The first command uses the method of dop recover, the second one the method of the paper.
"""

import argparse
import contextlib
import importlib
import io
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from omegaconf import OmegaConf

from dop_lightning.cli.experiments import lightning_cli as lightning
from dop_lightning.cli.experiments import runner
from dop_lightning.engine.alpha import default_alpha
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.paper.figures.configs import config_folder
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.runs.results import read_results, render_table

DEFAULT = "default"

NOISE = "dop_lightning.problems.noise.SaltAndPepper"


def default(config: dict[str, Any], side: int) -> float:
    """Return the default α of a colour image with this side, for a config."""
    made = config.get("theta_optimizer")
    optimizer = None
    if made is not None:
        module, _, name = made["class_path"].rpartition(".")
        optimizer = partial(getattr(importlib.import_module(module), name), **made.get("init_args", {}))
    problems = ProblemBatch([Problem("probe", torch.zeros(3, side, side), data_range=1.0)])
    corruption = HadamardCorruption(problems, scale=1e-5, tied=False)
    return default_alpha(problems, 0, SquaredLoss("mean"), 1.0, corruption, optimizer)


def measure(options: argparse.Namespace, config: dict[str, Any], side: int, width: int, alpha: float) -> Path:
    """Run one size, width and α, and return the folder of the run."""
    folder: Path = options.out / f"{options.config}-{side}-{width}-{alpha:g}"
    model = {
        **config["model"],
        "alpha": alpha,
        "signal": {
            "class_path": "SkipUNet",
            "init_args": {**config["model"].get("signal", {}).get("init_args", {}), "width": width},
        },
        "evaluate_every": options.iterations,
    }
    data = {
        "images": options.images,
        "resize": [side, side],
        "channels": "rgb",
        "noise": [{"class_path": NOISE, "init_args": {"ratio": level}} for level in options.levels],
        "seeds": 1,
    }
    run = {
        "model": model,
        "data": {"class_path": "ImageDataModule", "init_args": data},
        "trainer": {"max_steps": options.iterations, "default_root_dir": str(folder)},
        "files": {"most_pictures": 1},
    }
    print(folder, file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(io.StringIO()):
        if status := lightning.fit_config(run):
            sys.exit(status)
    return folder


def table(options: argparse.Namespace, side: int, width: int, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """Return one row per level: the mean PSNR at each α, and the loss of the default against the best of each case."""
    found = {alpha: read_results(folder) for alpha, folder in folders.items()}
    rows = []
    for level in options.levels:
        values = {
            alpha: {
                r["attributes"]["image"]: float(r.get("psnr", math.nan))
                for r in results
                if r["attributes"]["ratio"] == level
            }
            for alpha, results in found.items()
        }
        losses = [max(v[image] for v in values.values()) - own for image, own in values[DEFAULT].items()]
        row: dict[str, Any] = {"side": side, "width": width, "level": level}
        row |= {alpha: mean(v.values()) for alpha, v in values.items()}
        rows.append({**row, "loss": mean(losses), "most": max(losses)})
    return rows


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--config", default="refine", choices=["refine", "image"], help="config in configs/; default: %(default)s"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--widths", type=int, nargs="+", default=[32])
    parser.add_argument("--levels", type=float, nargs="+", default=[0.1, 0.5, 0.7])
    parser.add_argument("--images", nargs="+", default=["astronaut", "chelsea", "coffee"])
    parser.add_argument("--alphas", type=float, nargs="*", default=[], help="values of α in addition to the default")
    parser.add_argument("--iterations", type=int, default=1000)
    return parser.parse_args(arguments)


def main() -> int:
    """Run the missing points, and print the table."""
    runner.prepare()
    options = parse()
    files = [config_folder() / f"{name}.yaml" for name in dict.fromkeys(("image", options.config))]
    config: Any = OmegaConf.to_container(OmegaConf.merge(*[OmegaConf.load(path) for path in files]))
    for side in options.sizes:
        own = default(config["model"], side)
        alphas = {DEFAULT: own, **{f"{alpha:g}": alpha for alpha in sorted(options.alphas)}}
        rows = []
        for width in options.widths:
            folders = {name: measure(options, config, side, width, alpha) for name, alpha in alphas.items()}
            rows += table(options, side, width, folders)
        columns = [("side", "side", "d"), ("width", "width", "d"), ("level", "level", ".1f")]
        columns += [(name, f"α={alpha:.0f}", ".2f") for name, alpha in alphas.items()]
        columns += [("loss", f"loss of {own:.0f}, the default", ".2f"), ("most", "at most", ".2f")]
        print(render_table(rows, columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
