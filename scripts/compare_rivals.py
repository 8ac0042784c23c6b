"""Compare the PSNR of DOP with that of classical filters and of DIP on the same images. Resumable.

    python scripts/compare_rivals.py --subset --out rivals          # at most 20 minutes on two cores
    python scripts/compare_rivals.py --out rivals                   # all of it, overnight
    python scripts/compare_rivals.py --out rivals --images FOLDER   # and pairs of files: NAME.png, NAME_50.png
    python scripts/compare_rivals.py --out rivals --list            # finished cells, and the estimated time of the rest

Cases: `natural` is salt and pepper on full-resolution crops of pictures of scikit-image; `random` has corruptions of
any value, and `pixels` the same in all channels of a pixel; `dense` is `natural` with Gaussian noise, whose standard
deviation is known to `bm3d-told`; `impulse` reads pairs of files, with NAME.png as the truth and NAME_LEVEL.png as the
observation. The filters detect corruption at the ends of the range, or by a robust threshold for `random` and `pixels`.
Only DIP on the known mask knows the corrupted entries. Each cell of the table has the mean PSNR of the whole image, and
without its outer 4 pixels. Values are clipped to the range and not rounded.

Each row is a JSON file in --out, and the same command continues an interrupted comparison. Several processes may share
the folder.
"""

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from crops import crop_tensor
from PIL import Image
from torch import Tensor

from dop_lightning import recover_image
from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.instant import Interpolation
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.rivals import (
    NAMF,
    AdaptiveMedian,
    Biharmonic,
    BM3DAfterFill,
    CubicScattered,
    DetectAndFill,
    Detector,
    ExtremeValues,
    Filler,
    FilterMethod,
    FrequencySelective,
    ImageFilter,
    NormalisedConvolution,
    RobustThreshold,
    Telea,
)
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.runners import run_batches, run_to_end
from dop_lightning.engine.steps import GradientDescent
from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.images.presets import MUON_RATE, PRESETS
from dop_lightning.lightning.hyperparameters import plain
from dop_lightning.model.losses import AbsoluteLoss, SquaredLoss
from dop_lightning.model.signals import SkipUNet
from dop_lightning.problems.noise import Corrupted, GaussianNoise, Mixture, Noise, RandomValuedImpulse, SaltAndPepper
from dop_lightning.problems.problem import Problem, ProblemBatch

KINDS = ("natural", "random", "pixels", "dense", "impulse")
IMAGES = ("astronaut", "chelsea", "coffee", "rocket")
LEVELS = {"natural": (0.1, 0.3, 0.5, 0.7), "random": (0.3, 0.5), "pixels": (0.3, 0.5), "dense": (0.3,)}
DENSE = 0.05

RIM = 4
"""Pixels that are excluded at each edge for the second PSNR."""

ITERATIONS = {"dop": PRESETS["default"].iterations, "dip-mask": 1000, "dip-l1": 4000}
WIDTH = PRESETS["default"].width


@dataclass(frozen=True)
class Case:
    """A restoration problem.

    Attributes:
        kind: one of KINDS.
        image: name of the image.
        level: fraction of corrupted entries.
        size: side of the crop, 0 for whole files.
        folder: folder of the files of `impulse`.
        std: standard deviation of the Gaussian noise of `dense`.
    """

    kind: str
    image: str
    level: float
    size: int
    folder: Path | None = None
    std: float = DENSE

    @property
    def name(self) -> str:
        return "-".join([self.kind, self.image, f"{100 * self.level:.0f}", f"{self.size}", *self._std])

    @property
    def title(self) -> str:
        """Description without the image, for the table."""
        size = f", {self.size}×{self.size}" if self.size else ""
        return f"{self.kind}, {100 * self.level:.0f} %{size}{''.join(f', σ = {std}' for std in self._std)}"

    @property
    def _std(self) -> list[str]:
        return [f"{self.std:g}"] if self.kind == "dense" else []

    @property
    def entries(self) -> int:
        """Number of entries of the image."""
        if self.folder is None:
            return crop_tensor(self.image, self.size).numel()
        with Image.open(self.folder / f"{self.image}.png") as image:
            return len(image.getbands()) * image.width * image.height

    def problem(self) -> Problem:
        """Return the observation, with its truth."""
        if self.folder is not None:
            truth = read(self.folder / f"{self.image}.png")
            observed = read(self.folder / f"{self.image}_{round(100 * self.level)}.png")
        else:
            truth = crop_tensor(self.image, self.size)
            observed = self.corrupted(truth).observation
        return Problem(self.name, observed, truth=truth, data_range=1.0)

    def corrupted(self, truth: Tensor) -> Corrupted:
        """Corrupt a crop, with the same random draw for all levels."""
        seed = zlib.crc32(f"{self.image} {self.size}".encode())
        return self.noise().corrupt(truth, torch.Generator().manual_seed(seed))

    def noise(self) -> Noise:
        salt = SaltAndPepper(self.level)
        return {
            "natural": salt,
            "random": RandomValuedImpulse(self.level),
            "pixels": RandomValuedImpulse(self.level, per="pixel"),
            "dense": Mixture([GaussianNoise(self.std), salt]),
        }[self.kind]


def read(path: Path) -> Tensor:
    """Read an 8-bit file as `(C, H, W)` in [0, 1]."""
    with Image.open(path) as image:
        pixels = np.array(image.convert("L" if image.mode == "L" else "RGB"))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous() / 255


def cases(options: argparse.Namespace, method: str | None = None) -> list[Case]:
    """Return the selected cases, or those of them that a method applies to."""
    found: list[Case] = []
    for kind in options.cases:
        if method is not None and kind not in METHODS[method].kinds:
            continue
        levels = options.levels or LEVELS.get(kind)
        if kind == "impulse":
            found += list(pairs(options.images, levels))
        else:
            stds = options.std if kind == "dense" else [DENSE]
            each = product(stds, options.sizes, levels, options.photographs)
            found += [Case(kind, i, p, s, std=std) for std, s, p, i in each]
    return found


def pairs(folder: Path, levels: Sequence[float] | None) -> Iterator[Case]:
    """Yield the pairs of files in a folder."""
    for path in sorted(folder.glob("*_[0-9]*.png")):
        name, _, share = path.stem.rpartition("_")
        if share.isdigit() and (folder / f"{name}.png").is_file() and (not levels or int(share) / 100 in levels):
            yield Case("impulse", name, int(share) / 100, 0, folder)


# ------------------------------------------------------------------------------------------------------------- methods

Result = dict[str, Tensor]
"""Recovered images `(C, H, W)`: `end`, and `oracle` at the iteration with the best PSNR, if any."""


def detector(case: Case) -> Detector:
    return RobustThreshold() if case.kind in ("random", "pixels") else ExtremeValues()


def fill(filler: Callable[[], Filler], case: Case) -> ImageFilter:
    return DetectAndFill(detector(case), filler())


def by_filter(make: Callable[[Case], ImageFilter], case: Case) -> Result:
    ending = run_to_end(FilterMethod(make(case)), case.problem(), 1, block=1)
    return {"end": next(ending.outcomes()).signal}


def by_dop(case: Case, options: argparse.Namespace) -> Result:
    """Run the package with its defaults."""
    array = case.problem().observation.permute(1, 2, 0).numpy()
    settings = {"width": options.width, "iterations": options.iterations}
    recovery = recover_image(
        array, value_range=(0.0, 1.0), device="cpu", progress=False, **{k: v for k, v in settings.items() if v}
    )
    return {"end": torch.from_numpy(np.asarray(recovery.image)).permute(2, 0, 1)}


class Best(Listener):
    """Keep the output or running average with the largest PSNR."""

    def __init__(self, truth: Tensor) -> None:
        self.truth = truth
        self.kept: Tensor | None = None
        self.last = truth

    def on_evaluation(self, run: Run, batch: EvaluatedBatch) -> None:
        seen = batch.evaluation
        self.last = seen.signal[0].clone()
        for signal in (seen.signal, seen.average):
            if signal is not None and (self.kept is None or psnr(signal[0], self.truth) > psnr(self.kept, self.truth)):
                self.kept = signal[0].clone()


def by_network(name: str, case: Case, options: argparse.Namespace) -> Result:
    """Run DIP-ℓ1 as in configs/dip_l1.yaml, or DIP on the known mask with the network and optimizer of the default."""
    problem = case.problem()
    clean = problem.truth
    assert clean is not None
    network = partial(SkipUNet, width=options.width or WIDTH)
    average = GradientDescent(average=0.98)
    if name == "dip-l1":
        method = Method(network, None, loss=AbsoluteLoss("mean"), steps=average)
    else:
        problem = Problem(case.name, problem.observation, truth=clean, mask=known(case), data_range=1.0)
        muon = partial(Muon, lr=MUON_RATE)
        network = partial(network, bias=False)
        method = Method(network, None, loss=SquaredLoss("mean"), theta_optimizer=muon, steps=average)
    best = Best(clean)
    iterations = options.iterations or ITERATIONS[name]
    run_batches(
        method,
        [ProblemBatch([problem])],
        iterations,
        block=10,
        listeners=[best],
        tau=1.0,
        evaluate_every=min(50, iterations),
    )
    results = {"end": best.last, "oracle": best.kept if best.kept is not None else best.last}
    if problem.mask is not None and case.kind != "dense":  # as for the filters
        results = {key: torch.where(problem.mask, problem.observation, X) for key, X in results.items()}
    return results


def known(case: Case) -> Tensor:
    """Return the mask of uncorrupted entries, which only DIP on the known mask uses."""
    if case.folder is not None:
        problem = case.problem()
        assert problem.truth is not None
        return problem.observation == problem.truth
    return case.corrupted(crop_tensor(case.image, case.size)).corruption == 0


@dataclass(frozen=True)
class Rival:
    """A method: a filter, or a network.

    Attributes:
        cost: estimated seconds per million entries on one core, used before the first measurement.
        make: creates the filter for a case.
        run: runs the network on a case.
        kinds: kinds of cases that it applies to.
    """

    cost: float
    make: Callable[[Case], ImageFilter] | None = None
    run: Callable[[Case, argparse.Namespace], Result] | None = None
    kinds: Sequence[str] = KINDS


METHODS = {
    "biharmonic": Rival(6, partial(fill, Biharmonic)),
    "convolution": Rival(0.5, partial(fill, NormalisedConvolution)),
    "cubic": Rival(9, partial(fill, CubicScattered)),
    "telea": Rival(0.5, partial(fill, Telea)),
    "adaptive-median": Rival(12, lambda _: AdaptiveMedian()),
    "namf": Rival(1, lambda _: NAMF()),
    "bm3d": Rival(50, lambda case: BM3DAfterFill(fill(Biharmonic, case))),
    "bm3d-told": Rival(50, lambda case: BM3DAfterFill(fill(Biharmonic, case), sigma=case.std), kinds=("dense",)),
    "fsr": Rival(55, partial(fill, FrequencySelective)),
    "instant": Rival(6, lambda _: Interpolation()),
    "dop": Rival(600, run=by_dop),
    "dip-mask": Rival(740, run=partial(by_network, "dip-mask")),
    "dip-l1": Rival(2800, run=partial(by_network, "dip-l1")),
}


# ---------------------------------------------------------------------------------------------------------------- rows


def psnr(signal: Tensor, truth: Tensor, rim: int = 0) -> float:
    """Return the PSNR in dB of values clipped to [0, 1], without `rim` pixels at each edge."""
    inside = np.s_[..., rim : signal.shape[-2] - rim, rim : signal.shape[-1] - rim]
    error = (signal.double().clamp(0, 1) - truth.double())[inside].square().mean()
    return float(-10 * torch.log10(error.clamp(min=1e-12)))


def settings_of(case: Case, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that determine a row, in addition to its case and method."""
    make = METHODS[method].make
    if make is not None:
        return {"filter": plain(make(case))}
    return {"iterations": options.iterations or ITERATIONS[method], "width": options.width or WIDTH}


def path_of(case: Case, method: str, options: argparse.Namespace) -> Path:
    folder: Path = options.out
    return folder / f"{case.name}--{method}.json"


def finished(case: Case, method: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the row of a case and a method if it exists with the same settings, else ``None``."""
    try:
        row: dict[str, Any] = json.loads(path_of(case, method, options).read_text(encoding="utf-8"))
        return row if row.get("settings") == settings_of(case, method, options) else None
    except (FileNotFoundError, ValueError, ImportError):  # missing, damaged, or of a filter that is not installed
        return None


def measure(case: Case, method: str, options: argparse.Namespace) -> None:
    """Compute and save one row."""
    truth = case.problem().truth
    assert truth is not None
    begin = time.perf_counter()
    make, run = METHODS[method].make, METHODS[method].run
    results = by_filter(make, case) if make is not None else run(case, options) if run is not None else {}
    row = {
        "case": case.name,
        "method": method,
        "seconds": round(time.perf_counter() - begin, 3),
        "entries": case.entries,
        "settings": settings_of(case, method, options),
        **{key: [round(psnr(X, truth, rim), 4) for rim in (0, RIM)] for key, X in results.items()},
    }
    atomic_json(path_of(case, method, options), row)
    scores_text = ", ".join(f"{key} {row[key][0]:.2f} / {row[key][1]:.2f} dB" for key in results)  # type: ignore[index]
    print(f"{case.name} {method}: {scores_text}, {row['seconds']:.1f} s", file=sys.stderr, flush=True)


def rows(options: argparse.Namespace) -> dict[tuple[Case, str], dict[str, Any]]:
    """Return all finished rows of the selected cases."""
    combinations = ((case, method) for method in options.methods for case in cases(options, method))
    return {(c, m): row for c, m in combinations if (row := finished(c, m, options)) is not None}


def table(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a Markdown table of means over the images."""
    found = rows(options)
    columns = [
        (method, key)
        for method in options.methods
        for key in ("end", "oracle")
        if any(m == method and key in row for (_, m), row in found.items())
    ]
    heads = [method if key == "end" else f"{method}, oracle" for method, key in columns]
    yield f"| {' | '.join(['case', 'images', *heads])} |"
    yield "|" + " --- |" * (len(columns) + 2)
    cells: dict[str, list[Case]] = {}
    for case in cases(options):
        cells.setdefault(f"{case.image}: {case.title}" if options.each else case.title, []).append(case)
    for cell, members in cells.items():
        line = [cell, str(len(members))]
        for method, key in columns:
            values = [found[case, method][key] for case in members if (case, method) in found]
            partly = "" if len(values) == len(members) else f" ({len(values)})"
            line.append(f"{' / '.join(f'{mean(v):.2f}' for v in zip(*values, strict=True))}{partly}" if values else "")
        yield f"| {' | '.join(line)} |"
    seconds = [f"{mean(r['seconds'] for (_, m), r in found.items() if m == method):.1f}" for method, _ in columns]
    yield f"| {' | '.join(['seconds per image', '', *seconds])} |"


def costs(options: argparse.Namespace) -> Iterator[str]:
    """Yield the time of each kind and method: measured for finished cases, and estimated for the others."""
    found = rows(options)
    yield f"{'kind':<10}{'method':<18}{'finished':>10}{'seconds':>10}{'left':>6}{'estimate':>12}"
    total = 0.0
    for kind in options.cases:
        for method in options.methods:
            of_kind = [case for case in cases(options, method) if case.kind == kind]
            done = [found[case, method] for case in of_kind if (case, method) in found]
            left = [case for case in of_kind if (case, method) not in found]
            rate = rate_of(method, (row for (_, m), row in found.items() if m == method), options)
            needed = sum(rate * case.entries for case in left)
            total += needed
            took = f"{sum(row['seconds'] for row in done):.0f} s"
            yield f"{kind:<10}{method:<18}{len(done):>10}{took:>10}{len(left):>6}{f'{needed:.0f} s':>12}"
    yield f"estimated time left: {total / 60:.0f} minutes"


def rate_of(method: str, known_rows: Iterable[dict[str, Any]], options: argparse.Namespace) -> float:
    """Return seconds per entry."""
    measured = list(known_rows)
    if measured:
        return float(sum(row["seconds"] for row in measured) / sum(row["entries"] for row in measured))
    shorter = 1.0
    if METHODS[method].run is not None and options.iterations:
        shorter = options.iterations / ITERATIONS[method]
    return METHODS[method].cost * shorter / 1e6


# ------------------------------------------------------------------------------------------------------------- options


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("rivals"), help="folder of the rows; default: %(default)s")
    parser.add_argument("--cases", nargs="+", choices=KINDS, help="default: all; impulse only with --images")
    parser.add_argument("--images", type=Path, metavar="DIR", help="pairs NAME.png and NAME_LEVEL.png for impulse")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="default: all")
    parser.add_argument("--photographs", nargs="+", help=f"names in skimage.data; default: {' '.join(IMAGES)}")
    parser.add_argument("--sizes", type=int, nargs="+", help="sides of the crops; default: 128 256")
    parser.add_argument(
        "--levels", type=float, nargs="+", help="fractions of corrupted entries; default: depends on the case"
    )
    parser.add_argument(
        "--std", type=float, nargs="+", help=f"standard deviations of the Gaussian noise of dense; default: {DENSE}"
    )
    parser.add_argument("--subset", action="store_true", help="two photographs, 96×96, 50 %% corrupted; no impulse")
    parser.add_argument("--iterations", type=int, help="iterations of the networks; default: depends on the method")
    parser.add_argument("--width", type=int, help=f"width of the networks; default: {WIDTH}")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--each", action="store_true", help="print one line per image instead of means")
    parser.add_argument("--list", action="store_true", help="print the time of each kind and method, and exit")
    options = parser.parse_args(arguments)
    if options.cases is None:
        options.cases = [kind for kind in KINDS if kind != "impulse" or (options.images and not options.subset)]
    if "impulse" in options.cases and (options.images is None or not options.images.is_dir()):
        parser.error(f"impulse needs --images, a folder with NAME.png and NAME_50.png, got {options.images}")
    options.photographs = options.photographs or (["astronaut", "coffee"] if options.subset else list(IMAGES))
    options.sizes = options.sizes or ([96] if options.subset else [128, 256])
    options.std = options.std or [DENSE]
    options.levels = options.levels or ([0.5] if options.subset else None)
    return options


def main() -> int:
    options = parse()
    if options.list:
        print(*costs(options), sep="\n")
        return 0
    prepare()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    for method in options.methods:  # fast ones first
        for case in cases(options, method):
            if finished(case, method, options) is not None:
                continue
            try:
                measure(case, method, options)
            except ImportError as error:
                print(f"{method} is skipped: {error}", file=sys.stderr)
                break
    print(*table(options), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
