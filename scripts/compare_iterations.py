"""Compare optimizers of θ and s by the iterations and seconds that they need to reach the PSNR of the paper's method.

    python scripts/compare_iterations.py --out curves.csv --candidates reference adam default
    python scripts/compare_iterations.py --list
    python scripts/compare_iterations.py --out curves.csv --candidates adam default --levels 0.1 0.7 --seeds 0 1

All candidates recover the same photographs with the same corruption and are evaluated every few iterations; evaluations
are not timed. For each candidate, the table lists the iterations and seconds until it reaches the final PSNR of the
baselines on the same problem, and its own final PSNR. The baselines are those of `--against`: by default “reference”,
the paper's method, and “adam”, the previous default. “>” means that some runs did not reach it; they count with all of
their iterations.

The curves are saved in the CSV file. The same command continues an interrupted comparison and skips finished runs. It
uses one thread unless OMP_NUM_THREADS is set.
"""

import argparse
import csv
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from interleaved import clock
from torch import Tensor
from torch.nn.functional import interpolate
from torch.optim import SGD, Adam, RMSprop

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.factory import ThetaOptimizer
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.steps import GradientDescent, Refinement
from dop_lightning.lightning.data import ImageDataModule
from dop_lightning.model.corruption import HadamardCorruption, HyperbolicCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.noise import GaussianNoise, Mixture, Noise, SaltAndPepper
from dop_lightning.problems.problem import Problem, ProblemBatch

FIELDS = ("settings", "candidate", "image", "level", "seed", "iteration", "seconds", "psnr", "average")


class PlainUNet(SkipUNet):
    """The network in plain PyTorch: eager, in float32 and in the default memory layout."""

    capturable = False

    def __init__(self, problems: ProblemBatch, **settings: Any) -> None:
        super().__init__(problems, **{**settings, "precision": "fp32"})
        self.networks.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(self, iteration: int = 0) -> Tensor:
        """Return ``φ(θ)``, ``(K, C, H, W)``."""
        top, left = ((w - s) // 2 for w, s in zip(self.working_size, self.image_size, strict=True))
        outputs = []
        for k, network in enumerate(self.networks):
            z = self._perturbed(k, iteration).permute(2, 0, 1)[None].contiguous()
            image = torch.sigmoid(network(z))
            outputs.append(image[..., top : top + self.image_size[0], left : left + self.image_size[1]])
        return torch.cat(outputs)


class EnlargedInputUNet(SkipUNet):
    """A network whose input is drawn at half the size and upsampled.

    With θ of a network for the half-size image, its output is the upsampled output of that network, approximately.
    """

    def draw_input(self, k: int) -> tuple[Tensor, ...]:
        """Return z, H'×W'×channels."""
        size, self.working_size = self.working_size, [side // 2 for side in self.working_size]
        (z,) = super().draw_input(k)
        self.working_size = size
        enlarged = interpolate(z.permute(2, 0, 1)[None], scale_factor=2.0, mode="bilinear")
        return (enlarged[0].permute(1, 2, 0).contiguous(),)


def constant(_: float) -> float:
    """Return 1: no schedule."""
    return 1.0


Calm = Callable[[float, float, bool], float]


def always(factor: float) -> Calm:
    """Return a constant factor."""
    return lambda *_: factor


STEADY = always(1.0)
"""The perturbation does not change."""

UNTIED = partial(HadamardCorruption, tied=False)
NETWORK = partial(SkipUNet, bias=False)
ENLARGED = partial(EnlargedInputUNet, bias=False)


@dataclass(frozen=True)
class Candidate:
    """A method of recovery.

    Attributes:
        text: description.
        iterations: number of iterations.
        optimizer: optimizer of θ; ``None`` is gradient descent with learning rate 1.
        alpha: ratio of the learning rates; ``None`` uses the rule, or ``revealed_at``.
        revealed_at: iteration at which s is revealed for an image of 128×128 pixels; determines α.
        refinement: settings of the refinement; ``None`` runs the iterations of the paper to the end.
        corruption: model of s.
        scale: γ.
        network: φ, and its settings.
        schedule: factor of the learning rate of θ, as a function of the fraction of finished iterations.
        calm: factor of the perturbation of the input after s is dropped, at each evaluation. Its arguments are the
            previous factor, the fraction of corrupted entries, and whether the held-out error has a new minimum.
            ``None`` is the rule of the refinement.
        coarse: initial iterations on every second pixel, each of which counts as a quarter of an iteration.
    """

    text: str
    iterations: int = 600
    optimizer: ThetaOptimizer | None = None
    alpha: float | None = None
    revealed_at: float | None = None
    refinement: dict[str, Any] | None = field(default_factory=lambda: {"every": 50})
    corruption: Callable[..., Any] = UNTIED
    scale: float = 1e-5
    network: Callable[..., SkipUNet] = NETWORK
    schedule: Callable[[float], float] = constant
    calm: Calm | None = STEADY
    coarse: int = 0

    def state(self, problems: ProblemBatch, width: int) -> BatchState:
        """Return the initial state."""
        if self.refinement is None:
            steps: Any = GradientDescent(average=0.98)
        else:
            steps = Refinement(**{"patience": None, **self.refinement})
        method = Method(
            partial(self.network, width=width),
            partial(self.corruption, scale=self.scale),
            loss=SquaredLoss("mean"),
            theta_optimizer=self.optimizer,
            steps=steps,
        )
        alpha = self.alpha
        if self.revealed_at is not None:
            entries = problems.observation[0].numel()
            later = min(math.sqrt(entries / (3 * 128**2)), 2.0)
            alpha = math.log(0.5 / self.scale) * entries / (self.revealed_at * later)  # see alpha.py, t = 1/4
        return BatchState(method, problems, 1.0, alpha)


ADAM, MUON = partial(Adam, lr=0.005), partial(Muon, lr=0.02)
BEFORE = Candidate(
    "Adam 0.005, revealed at 300, refined: the previous default", 2000, ADAM, revealed_at=300, network=SkipUNet
)
BEST = Candidate("Muon 0.02, revealed at 150, refined", 600, MUON, revealed_at=150)
ROUGHLY = replace(BEFORE, iterations=1000)


def muon(text: str, /, momentum: float = 0.9, **settings: Any) -> Candidate:
    """Return a variant of the best candidate, with other settings of the optimizer or of the candidate."""
    own = {name: settings.pop(name) for name in ("lr", "vector_lr", "betas") if name in settings}
    optimizer = partial(Muon, **{"lr": 0.02, "momentum": momentum, **own})
    return replace(BEST, text=f"Muon, {text}", **{"optimizer": optimizer, **settings})


def by_share(power: float) -> Calm:
    """Use a power of the corrupted fraction: the fewer entries are corrupted, the smaller the perturbation."""
    return lambda _, share, __: share**power


def by_error(down: float, up: float) -> Calm:
    """Decrease the factor while the held-out error decreases, and increase it otherwise."""
    return lambda before, _, better: before * down if better else min(1.0, before * up)


def adam(text: str, /, lr: float = 0.005, betas: tuple[float, float] = (0.9, 0.999), **settings: Any) -> Candidate:
    """Return a variant of Adam with half of its iterations."""
    return replace(ROUGHLY, text=f"Adam, {text}", **{"optimizer": partial(Adam, lr=lr, betas=betas), **settings})


def sgd(text: str, rate: float, momentum: float, revealed_at: float, nesterov: bool = False) -> Candidate:
    """Return gradient descent with momentum, refined."""
    optimizer = partial(SGD, lr=rate, momentum=momentum, nesterov=nesterov)
    return Candidate(text, 1500, optimizer, revealed_at=revealed_at)


def cosine(share: float) -> float:
    """Decay to 0."""
    return 0.5 + 0.5 * math.cos(math.pi * share)


def linear(share: float) -> float:
    """Decay linearly to a tenth."""
    return 1 - 0.9 * share


DEFAULT = muon("refined as in the package: the default", calm=None, refinement={}, iterations=1000)

CANDIDATES = {
    "reference": Candidate(
        "the paper's: gradient descent at 1, alpha 400, fp32", 3500, alpha=400, refinement=None, network=PlainUNet
    ),
    "adam": BEFORE,
    "muon": BEST,
    "muon-long": replace(BEST, iterations=2000),
    "muon-1000": replace(BEST, iterations=1000),
    # without refinement: the iterations of the paper to the end, with another optimizer of θ
    "adam-unrefined": replace(BEFORE, text="Adam 0.005, revealed at 300, unrefined", iterations=1000, refinement=None),
    "muon-unrefined": muon("revealed at 150, unrefined", refinement=None),
    "muon-unrefined-300": muon("revealed at 300, unrefined", refinement=None, revealed_at=300),
    # momentum
    "descent-refined": Candidate("gradient descent at 1, alpha 400, refined", 2000, alpha=400),
    "momentum-0.1": sgd("heavy ball 0.9 at 0.1, revealed at 1000, refined", 0.1, 0.9, 1000),
    "momentum-0.3": sgd("heavy ball 0.9 at 0.3, revealed at 450, refined", 0.3, 0.9, 450),
    "nesterov-0.95": sgd("Nesterov 0.95 at 0.2, revealed at 450, refined", 0.2, 0.95, 450, nesterov=True),
    # preconditioned
    "adam-betas-0.99": adam("betas 0.9, 0.99", betas=(0.9, 0.99)),
    "adam-betas-0.95": adam("betas 0.9, 0.95", betas=(0.9, 0.95)),
    "adam-betas-0.8": adam("betas 0.8, 0.99", betas=(0.8, 0.99)),
    "adam-0.01": adam("0.01, revealed at 150", lr=0.01, revealed_at=150),
    "adam-cosine": adam("cosine to 0", schedule=cosine),
    "adam-0.01-linear": adam("0.01, linear to a tenth, revealed at 150", lr=0.01, revealed_at=150, schedule=linear),
    "rmsprop": replace(ROUGHLY, text="RMSprop 0.003, refined", optimizer=partial(RMSprop, lr=0.003, alpha=0.99)),
    "muon-0.005": muon("0.005", lr=0.005),
    "muon-0.01": muon("0.01", lr=0.01),
    "muon-0.05": muon("0.05", lr=0.05),
    "muon-momentum-0": muon("momentum 0", momentum=0.0),
    "muon-momentum-0.8": muon("momentum 0.8", momentum=0.8),
    "muon-momentum-0.95": muon("momentum 0.95", momentum=0.95),
    "muon-vectors-0.002": muon("vectors at 0.002", vector_lr=0.002),
    "muon-vectors-0.01": muon("vectors at 0.01", vector_lr=0.01),
    "muon-linear": muon("linear to a tenth", schedule=linear),
    # the corruption
    "hyperbolic": muon("HyperbolicCorruption", corruption=HyperbolicCorruption),
    "muon-scale-1e-3": muon("γ = 1e-3", scale=1e-3),
    "muon-scale-1e-2": muon("γ = 1e-2", scale=1e-2),
    # refinement
    "muon-50": muon("revealed at 50", revealed_at=50),
    "muon-75": muon("revealed at 75", revealed_at=75),
    "muon-100": muon("revealed at 100", revealed_at=100),
    "muon-250": muon("revealed at 250", revealed_at=250),
    "adam-150": adam("revealed at 150", revealed_at=150),
    "muon-every-25": muon("weights every 25", refinement={"every": 25}),
    "muon-switch-0.15": muon("switched when 0.15 is revealed", refinement={"every": 50, "revealed": 0.15}),
    "muon-switch-0.4": muon("switched when 0.4 is revealed", refinement={"every": 50, "revealed": 0.4}),
    # the network's input and output
    "muon-not-perturbed": muon("no perturbation", network=partial(SkipUNet, bias=False, perturbation=0.0)),
    "muon-less-perturbed": muon("perturbation 0.01", network=partial(SkipUNet, bias=False, perturbation=0.01)),
    "muon-calm-0": muon("perturbation 0 once s is dropped", calm=always(0)),
    "muon-calm-0.003": muon("perturbation 0.003 once s is dropped", calm=always(0.1)),
    "muon-calm-0.01": muon("perturbation 0.01 once s is dropped", calm=always(0.3)),
    "muon-calm-0.02": muon("perturbation 0.02 once s is dropped", calm=always(0.6)),
    "muon-calm-share": muon("perturbation by the corrupted fraction once s is dropped", calm=by_share(1)),
    "muon-calm-square": muon("perturbation by the squared corrupted fraction once s is dropped", calm=by_share(2)),
    "muon-calm-error": muon("perturbation by the held-out error", calm=by_error(0.8, 1.6)),
    "adam-calm-both": adam("refined as in the package", calm=None, refinement={}),
    "default": DEFAULT,
    "default-fp32": replace(
        DEFAULT,
        text="Muon, refined as in the package, plain operations in fp32",
        optimizer=partial(Muon, lr=0.02, precision="fp32"),
        network=partial(PlainUNet, bias=False),
    ),
    "default-2000": replace(DEFAULT, iterations=2000),
    "adam-calm-square": adam("perturbation by the squared corrupted fraction once s is dropped", calm=by_share(2)),
    "muon-average-0.95": muon("average 0.95", refinement={"every": 50, "average": 0.95}),
    "muon-average-0.99": muon("average 0.99", refinement={"every": 50, "average": 0.99}),
    "muon-enlarged": muon("input of half the size, enlarged", network=ENLARGED),
    "muon-coarse": muon("200 on every second pixel first", network=ENLARGED, coarse=200, revealed_at=75),
}


def coarse_start(candidate: Candidate, fine: BatchState, width: int) -> float:
    """Initialize a state with θ fitted to every second pixel, and return the seconds of that fit."""
    problem = fine.problems[0]
    observation = problem.observation[:, ::2, ::2].contiguous()
    half = Problem(problem.name, observation, seed=problem.seed, data_range=problem.data_range)
    begin = time.perf_counter()
    state = replace(candidate, network=NETWORK, revealed_at=BEST.revealed_at).state(ProblemBatch([half]), width)
    state.advance(candidate.coarse)
    with torch.no_grad():
        for p, found in zip(fine.signal.parameters(), state.signal.parameters(), strict=True):
            p.copy_(found)
    return time.perf_counter() - begin


class Perturbation:
    """Factor of the perturbation of the input of a network, updated by the rule of a candidate."""

    def __init__(self, candidate: Candidate, state: BatchState) -> None:
        self.calm, self.state, self.least = candidate.calm, state, math.inf
        self.factors = torch.ones(1)
        if self.calm is not None:
            state.signal.scale_perturbation(self.factors)

    def look(self) -> None:
        """Update the factor, once s has been dropped."""
        memory = self.state.memory
        if self.calm is None or "refined_from" not in memory or self.state.iteration <= int(memory["refined_from"]):
            return
        weights = memory["clean"] * memory["held_out"]
        error = float((weights * (self.state.problems.observation - memory["average"]).abs()).sum() / weights.sum())
        self.factors[0] = self.calm(float(self.factors), 1 - float(memory["clean"].mean()), error < self.least)
        self.least = min(self.least, error)


def follow(
    candidate: Candidate, problems: ProblemBatch, width: int, every: int
) -> Iterable[tuple[int, float, float, float | None]]:
    """Yield iteration, seconds, PSNR, and PSNR of the running average (if any) at each evaluation."""
    truth = problems[0].truth
    assert truth is not None
    state = candidate.state(problems, width)
    seconds = coarse_start(candidate, state, width) if candidate.coarse else 0.0
    before = candidate.coarse // 4
    perturbation = Perturbation(candidate, state)
    groups = state.optimizers[0].param_groups
    rates = [{name: group[name] for name in ("lr", "vector_lr") if name in group} for group in groups]
    while state.iteration < candidate.iterations:
        passed = state.iteration / candidate.iterations
        for group, own in zip(groups, rates, strict=True):
            group.update({name: rate * candidate.schedule(passed) for name, rate in own.items()})
        begin = clock(problems.device.type)
        perturbation.look()
        state.advance(min(every, candidate.iterations - state.iteration))
        seconds += clock(problems.device.type) - begin
        found = state.evaluate()
        beside = None if found.average is None else float(psnr(found.average, truth[None], 1.0)[0])
        yield before + state.iteration, seconds, float(psnr(found.signal, truth[None], 1.0)[0]), beside


Key = tuple[str, str, str, str]
"""Candidate, image, level and seed."""


def settings(options: argparse.Namespace) -> str:
    """Return the other settings that a curve depends on."""
    parts = [f"{options.size}:{options.width}", options.device, f"every {options.every}"]
    parts += [f"dense {options.dense:g}"] if options.dense else []
    parts += [f"{options.iterations} iterations"] if options.iterations else []
    return ", ".join(parts)


def read(options: argparse.Namespace) -> dict[Key, list[dict[str, Any]]]:
    """Return the curves of the file with these settings; none if the file does not exist."""
    curves: dict[Key, list[dict[str, Any]]] = {}
    requested = settings(options)
    if options.out.exists():
        with options.out.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get("settings") == requested:
                    key = (row["candidate"], row["image"], row["level"], row["seed"])
                    numbers = {name: float(row[name]) if row[name] else None for name in FIELDS[5:]}
                    curves.setdefault(key, []).append(numbers)
    return curves


def measure(options: argparse.Namespace) -> None:
    """Run the missing runs one after the other; append each to the file when it has finished."""
    done = set(read(options))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for image, level, seed in itertools.product(options.images, options.levels, options.seeds):
        size = (options.size, options.size)
        noise: Noise = (
            Mixture([SaltAndPepper(level), GaussianNoise(options.dense)]) if options.dense else SaltAndPepper(level)
        )
        data = ImageDataModule(image, noise, resize=size, channels="rgb", seeds=[seed], batch_size=1)
        data.setup()
        for name in options.candidates:
            key = (name, Path(image).stem, str(level), str(seed))
            if key in done:
                continue
            candidate = CANDIDATES[name]
            if options.iterations is not None:
                candidate = replace(candidate, iterations=options.iterations)
            print(*key, file=sys.stderr, flush=True)
            looks = list(follow(candidate, data.batches[0].to(options.device), options.width, options.every))
            new = not options.out.exists()
            with options.out.open("a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(FIELDS)
                writer.writerows((settings(options), *key, *look) for look in looks)


def reached(curve: list[dict[str, Any]], target: float, what: str) -> tuple[float, bool]:
    """Return ``what`` at the first evaluation with PSNR ≥ ``target``, or at the last one; and whether it is reached."""
    return next(((look[what], True) for look in curve if look["psnr"] >= target), (curve[-1][what], False))


def spread(values: Sequence[float]) -> str:
    """Format mean ± standard deviation."""
    return f"{mean(values):.2f} ± {pstdev(values):.2f}"


def table(options: argparse.Namespace) -> list[str]:
    """Return one row per candidate, over the selected problems; comparisons use the problems that both have."""
    curves = read(options)
    requested = list(itertools.product([Path(i).stem for i in options.images], options.levels, options.seeds))
    cases = [(image, str(level), str(seed)) for image, level, seed in requested]
    against = [f"{name}: {what}" for name in options.against for what in ("iterations", "s")]
    head = ["candidate", *against, "iterations", "ms each", "PSNR", "of the average", "problems"]
    lines = [head, ["---"] * len(head)]
    for name in options.candidates:
        own = {case: curves[name, *case] for case in cases if (name, *case) in curves}
        if not own:
            continue
        cells = [CANDIDATES[name].text if options.texts else name]
        for other in options.against:
            common = {case: curves[other, *case][-1]["psnr"] for case in own if (other, *case) in curves}
            for what in ("iteration", "seconds"):
                found = [reached(own[case], target, what) for case, target in common.items()]
                missed = ">" if any(not there for _, there in found) else ""
                digits = 0 if what == "iteration" else 1
                cells.append(f"{missed}{mean(value for value, _ in found):.{digits}f}" if found else "")
        ends = [curve[-1] for curve in own.values()]
        averages = [end["average"] for end in ends if end["average"] is not None]
        each = mean(1000 * end["seconds"] / end["iteration"] for end in ends)
        cells += [f"{ends[0]['iteration']:.0f}", f"{each:.1f}", spread([end["psnr"] for end in ends])]
        lines.append([*cells, spread(averages) if averages else "", str(len(ends))])
    return [f"| {' | '.join(line)} |" for line in lines]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("curves.csv"))
    parser.add_argument("--candidates", nargs="+", choices=sorted(CANDIDATES), default=["reference", "adam", "default"])
    parser.add_argument("--against", nargs="+", choices=sorted(CANDIDATES), default=["reference", "adam"])
    parser.add_argument("--images", nargs="+", default=["astronaut"], help="files, or names of bundled photographs")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.5])
    parser.add_argument("--dense", type=float, default=0.0, help="standard deviation of additional Gaussian noise")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--iterations", type=int, help="iterations of every candidate; default: as listed")
    parser.add_argument("--every", type=int, default=25, help="iterations between two evaluations")
    parser.add_argument(
        "--texts", action="store_true", help="print descriptions of the candidates instead of their names"
    )
    parser.add_argument(
        "--table", action="store_true", help="only print the table of the file, without running anything"
    )
    parser.add_argument("--list", action="store_true", help="list the candidates and exit")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    if options.list:
        print(*(f"{name:<20} {c.iterations:>5}  {c.text}" for name, c in CANDIDATES.items()), sep="\n")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare()
    if not options.table:
        measure(options)
    print(*table(options), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
