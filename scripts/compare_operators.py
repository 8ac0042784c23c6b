"""Compare DOP with an oracle-stopped network on outliers in measurements of an image.

    python scripts/compare_operators.py [--size 96] [--width 32] [--iterations 3000] [--config NAME=FILE[,FILE]]

The measurements are a 2× super-resolution and a known blur (configs/superresolution.yaml, configs/blur.yaml), with 20 %
of them set to 0 or 1. The rival is the same network with the squared loss and without g and h; it is scored at the best
PSNR of the run, which only an oracle knows. DOP is scored at the end. Further methods are YAML files that override
these configs. Running the same command again completes unfinished runs.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from dop_lightning.cli.experiments import lightning_cli as lightning
from dop_lightning.foundation.find import existing_file
from dop_lightning.runs.results import read_results, render_table

CONFIGS = Path(__file__).parents[1] / "configs"
CASES = {"2x super-resolution": "superresolution", "known blur": "blur"}
ORACLE, DOP = "no corruption, oracle stop", "DOP"
COLUMNS = [
    ("case", "case", ""),
    ("method", "method", ""),
    ("psnr", "PSNR", ".2f"),
    ("best_psnr", "best", ".2f"),
    ("best_iteration", "at", ".0f"),
    ("gain", "over the oracle", "+.2f"),
    ("density", "density", ".3f"),
    ("true_density", "true", ".3f"),
    ("alpha", "alpha", ".4g"),
    ("seconds", "s", ".0f"),
]


def method(text: str) -> tuple[str, list[Path]]:
    """Parse ``NAME=FILE,FILE``: the name of a method, and the files that override the config of each case."""
    name, sign, files = text.partition("=")
    if not name or not sign or not files:
        raise argparse.ArgumentTypeError(f"must be NAME=FILE[,FILE], got {text!r}")
    try:
        return name, [existing_file(file) for file in files.split(",")]
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def fit(run: Path, configs: Sequence[Path], arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Run or resume a run, and read its results."""
    print(run, file=sys.stderr)
    files = [argument for path in configs for argument in ("--config", str(path))]
    with contextlib.redirect_stdout(io.StringIO()):
        status = lightning.run("fit", [*files, *arguments, "--trainer.default_root_dir", str(run)])
    if status:
        sys.exit(status)
    return read_results(run)


def summary(case: str, name: str, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the seeds, without scores that are unknown for a method."""
    keys = ("psnr", "best_psnr", "best_iteration", "corruption_density", "true_density", "alpha", "seconds")
    means = {key: fmean(r[key] for r in results) for key in keys if all(r.get(key) is not None for r in results)}
    return {"case": case, "method": name, "density": means.pop("corruption_density", None), **means}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="astronaut", help="a bundled photograph or a file; default: %(default)s")
    parser.add_argument("--size", type=int, default=96, help="side of the truth in pixels, even; default: %(default)s")
    parser.add_argument("--width", type=int, default=32, help="width of the network; default: %(default)s")
    parser.add_argument("--iterations", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--every", type=int, default=50, help="iterations between two evaluations; default: %(default)s"
    )
    parser.add_argument(
        "--config",
        type=method,
        action="append",
        default=[],
        metavar="NAME=FILE[,FILE]",
        help="additional method; repeatable",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/compare_operators"), help="default: %(default)s")
    options = parser.parse_args()
    arguments = [
        *("--data.images", options.image, "--data.resize", f"[{options.size}, {options.size}]"),
        *("--data.seeds", str(options.seeds), "--model.signal.init_args.width", str(options.width)),
        *("--model.evaluate_every", str(options.every), "--trainer.max_steps", str(options.iterations)),
        *("--tensorboard.most_runs", "0", "--trainer.enable_progress_bar", "false"),
    ]
    methods: dict[str, list[Path]] = {ORACLE: [CONFIGS / "dip.yaml"], DOP: [], **dict(options.config)}
    rows = []
    for case, config in CASES.items():
        for name, overlays in methods.items():
            run = options.out / config / name.replace(" ", "-").replace(",", "")
            row = summary(case, name, fit(run, [CONFIGS / f"{config}.yaml", *overlays], arguments))
            if name == ORACLE:
                oracle = row["best_psnr"]
            rows.append({**row, "gain": (row["best_psnr"] if name == ORACLE else row["psnr"]) - oracle})
    print(render_table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
