"""Compare stopping rules that do not know the truth with the best output of a run.

    python scripts/compare_stopping.py --noise salt_and_pepper              # or gaussian
    python scripts/compare_stopping.py --noise both --method refine         # the default of dop recover

The method is a deep image prior on a bundled photograph, evaluated every few iterations; all rules see the same run.
For each rule, the table lists the PSNR at its iteration, the iteration, and the difference from the best PSNR of the
run. “…” marks a rule that had not stopped at the end, with its choice so far.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import torch

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.steps import Refinement
from dop_lightning.engine.stopping import VARIANCES, LeastVariance
from dop_lightning.images.presets import MUON_RATE
from dop_lightning.lightning.data import ImageDataModule
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import AbsoluteLoss, SquaredLoss
from dop_lightning.model.signals import SkipUNet
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.noise import GaussianNoise, Mixture, Noise, SaltAndPepper
from dop_lightning.problems.problem import ProblemBatch

NOISES: dict[str, Noise] = {"salt_and_pepper": SaltAndPepper(0.3), "gaussian": GaussianNoise(0.1)}
NOISES["both"] = Mixture([SaltAndPepper(0.3), GaussianNoise(0.05)])
METHODS = {
    "dip": {"corruption": None, "loss": SquaredLoss("mean")},
    "dip_l1": {"corruption": None, "loss": AbsoluteLoss("mean")},
    "dop": {"corruption": partial(HadamardCorruption, scale=1e-5, tied=False), "loss": SquaredLoss("mean")},
    "refine": {
        "corruption": partial(HadamardCorruption, scale=1e-5, tied=False),
        "loss": SquaredLoss("mean"),
        "theta_optimizer": partial(Muon, lr=MUON_RATE),
        "steps": Refinement(patience=None),
    },
}
HELD_OUT = "held-out error"
"""Stopping rule of the refinement, with its default patience."""
RULES = [(kind, window, patience) for kind in VARIANCES for window, patience in ((100, 1000), (50, 500))]


def follow(
    problems: ProblemBatch, method: Method, iterations: int, every: int
) -> tuple[dict[int, float], dict[str, tuple[int, bool]]]:
    """Return the PSNR by iteration, and for each rule its iteration and whether it has stopped."""
    truth = problems[0].truth
    assert truth is not None
    rules = {f"{kind} {w}, {p}": LeastVariance(VARIANCES[kind](w // every), p) for kind, w, p in RULES}
    taken: dict[str, tuple[int, bool]] = {}
    curve: dict[int, float] = {}
    state = BatchState(method, problems, tau=1.0)
    patience = Refinement().patience
    assert patience is not None
    while state.iteration < iterations:
        state.advance(every)
        X, t = state.evaluate().signal, state.iteration
        curve[t] = float(psnr(X, truth[None], 1.0)[0])
        for name, rule in rules.items():
            if not taken.get(name, (0, False))[1]:
                rule.update(X[0], t)
                taken[name] = (rule.iteration, rule.is_due(t))
        if isinstance(method.steps, Refinement) and not taken.get(HELD_OUT, (0, False))[1]:
            began = bool(state.memory["least_error"].isfinite().all())
            taken[HELD_OUT] = (t, began and t - int(state.memory["least_at"]) >= patience)
    return curve, taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", choices=sorted(NOISES), default="salt_and_pepper")
    parser.add_argument("--method", choices=sorted(METHODS), default="dip")
    parser.add_argument("--image", default="astronaut")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=2500)
    parser.add_argument("--every", type=int, default=5, help="iterations between two evaluations")
    options = parser.parse_args()
    prepare()
    data = ImageDataModule(
        options.image, NOISES[options.noise], resize=(options.size, options.size), seeds=options.seeds, batch_size=1
    )
    data.setup()
    bias = options.method != "refine"  # as in the presets
    signal: Callable[[ProblemBatch], SkipUNet] = partial(SkipUNet, width=options.width, bias=bias, precision="fp32")
    method = Method(signal, **METHODS[options.method])  # type: ignore[arg-type]
    losses: dict[str, list[float]] = {}
    print(
        f"{'PSNR (iteration)':<24}" + "".join(f"{f'seed {batch[0].seed}':>18}" for batch in data.batches) + "    lost"
    )
    table: dict[str, list[str]] = {}
    for batch in data.batches:
        curve, taken = follow(batch, method, options.iterations, options.every)
        best = max(curve, key=curve.__getitem__)
        rows = {"best": (best, True), "last": (options.iterations, True), **taken}
        for name, (t, stopped) in rows.items():
            at = curve.get(t, torch.nan)
            table.setdefault(name, []).append(f"{at:.2f} ({t}{'' if stopped else '…'})")
            losses.setdefault(name, []).append(curve[best] - at)
    for name, cells in table.items():
        lost = sum(losses[name]) / len(losses[name])
        print(f"{name:<24}" + "".join(f"{cell:>18}" for cell in cells) + f"{lost:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
