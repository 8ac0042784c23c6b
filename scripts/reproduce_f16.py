"""Reproduce the published curve of F16 at 512×512 with half of its values corrupted, on a GPU.

    python scripts/reproduce_f16.py --image data/standard/F16.png --out f16 [--seconds 540]

The script first runs the preset `best` of `dop recover`, and compares it with the PSNR of the paper. Then it runs the
method of the paper (configs/paper/1b, width 192), and compares it with the published curve of the authors at 34, 48 and
74 thousand iterations. Runs are resumed: if time is limited, pass the limit of a call as `--seconds`, and repeat the
command until both runs are done.
"""

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dop_lightning.cli.experiments import lightning_cli as lightning
from dop_lightning.cli.experiments import runner
from dop_lightning.images.presets import PRESETS
from dop_lightning.paper.figures.configs import config_folder
from dop_lightning.runs.results import read_metrics, read_results

PUBLISHED = {34_000: 28.9, 48_000: 30.8, 74_000: 31.7}
"""Iteration and PSNR of the authors' curve at width 192, read from their plot, ±0.1 dB."""

WITHIN = 0.5
"""Allowed difference from the curve in dB."""

END = 31.6
"""PSNR of the paper for F16 at 50 % (width 128) in dB; the default should exceed it by 1 dB."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True, help="clean image F16, 512×512 pixels in colour")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=int, help="stop after about this time; the same command resumes")
    parser.add_argument("--accelerator", default="auto", help="default: %(default)s")
    parser.add_argument("--only", choices=["default", "paper"], help="run only one of the two")
    parser.add_argument(
        "--iterations", type=int, default=76_000, help="iterations of the method of the paper; default: %(default)s"
    )
    parser.add_argument("--width", type=int, help="width of both networks, for a test on a small machine")
    parser.add_argument("--resize", type=int, help="side of the image, for a test on a small machine")
    parser.add_argument("--preset-iterations", type=int, default=PRESETS["best"].iterations)
    return parser.parse_args(arguments)


def fit(options: argparse.Namespace, name: str, files: Sequence[str], iterations: int, width: int, left: float) -> Path:
    """Run or resume a run for at most this number of seconds, and return its folder."""
    folder: Path = options.out / name
    limit = [] if options.seconds is None else ["--trainer.max_time", f"00:{_clock(left)}"]
    arguments = [argument for file in files for argument in ("--config", str(config_folder() / f"{file}.yaml"))]
    settings = {
        "data.images": options.image,
        "data.resize": options.resize or "null",
        "data.seeds": 1,
        "model.signal.init_args.width": options.width or width,
        "model.evaluate_every": max(1, min(1000, iterations // 4)),
        "trainer.max_steps": iterations,
        "trainer.accelerator": options.accelerator,
        "trainer.default_root_dir": folder,
    }
    arguments += [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    with contextlib.redirect_stdout(io.StringIO()):
        if status := lightning.run("fit", [*arguments, *limit]):
            sys.exit(status)
    return folder


def _clock(seconds: float) -> str:
    whole = max(1, int(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def curve(folder: Path) -> dict[int, float]:
    """Return the PSNR by iteration."""
    return {entry.iteration: entry.value for entry in read_metrics(folder) if entry.tag == "psnr"}


def main() -> int:
    """Run both methods, and print comparisons."""
    runner.prepare()
    options = parse()
    begin = time.monotonic()

    def left() -> float:
        return float("inf") if options.seconds is None else options.seconds - (time.monotonic() - begin)

    if options.only != "paper":
        folder = fit(options, "default", ["image", "refine"], options.preset_iterations, PRESETS["best"].width, left())
        for result in read_results(folder):
            gain = result["psnr"] - END
            at = f"{result['iterations']} iterations, {result['seconds']:.0f} s"
            print(f"default: {result['psnr']:.2f} dB ({result['status']}, {at}), {gain:+.2f} dB over the paper's {END}")
    if options.only != "default" and left() > 5:
        folder = fit(options, "paper", ["paper/1b/dop_wide"], options.iterations, 192, left())
        reached = curve(folder)
        for iteration, published in PUBLISHED.items():
            if iteration in reached:
                off = reached[iteration] - published
                verdict = "yes" if abs(off) <= WITHIN else "NO "
                print(f"{verdict}  at {iteration}: {reached[iteration]:.2f} dB, published {published}, {off:+.2f}")
        last = max(reached, default=0)
        print(f"paper: {reached.get(last, float('nan')):.2f} dB at {last} of {options.iterations} iterations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
