"""The presets of ``dop recover``, and how long each of them takes on this machine."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from dop_lightning.amounts import in_words
from dop_lightning.corruption import HadamardCorruption
from dop_lightning.cost import seconds_an_iteration
from dop_lightning.engine import BatchState, Method
from dop_lightning.graphs import iterations_ahead
from dop_lightning.muon import Muon
from dop_lightning.objective import SquaredLoss
from dop_lightning.problems import Problem, ProblemBatch
from dop_lightning.signals import SkipUNet
from dop_lightning.steps import GradientDescent, Refinement


@dataclass(frozen=True)
class Preset:
    """A setting of ``dop recover``.

    Attributes:
        width: channels of the network.
        iterations: gradient iterations.
        alpha: ratio of the rates; ``None`` follows the size of the image, see :mod:`dop_lightning.alpha`.
        refined: Muon on θ, refinement once the corruption is known (:class:`~dop_lightning.steps.Refinement`), and no
            biases before batch norms; else gradient descent and plain operations, as in the paper.
        text: what it is for.
    """

    width: int
    iterations: int
    alpha: float | None
    refined: bool
    text: str

    @property
    def network(self) -> dict[str, Any]:
        """Settings of ``SkipUNet``."""
        return {"bias": False} if self.refined else {"fused": False}

    def model(self, precision: str) -> dict[str, Any]:
        """The settings of ``model`` in a config of ``dop fit`` that say how θ moves, and α.

        Args:
            precision: ``fp32``, ``bf16`` or ``auto``, as the network's.
        """
        if not self.refined:
            return {"tau": 1.0, "alpha": self.alpha}
        muon: dict[str, Any] = {"lr": MUON_RATE, **({} if precision == "auto" else {"precision": precision})}
        return {
            "theta_optimizer": {"class_path": "dop_lightning.muon.Muon", "init_args": muon},
            "steps": {"class_path": "Refinement"},
            "tau": 1.0,
            "alpha": self.alpha,
        }


PRESETS = {
    "quick": Preset(16, 400, None, True, "a first look"),
    "default": Preset(32, 1000, None, True, "refined, for a laptop"),
    "best": Preset(128, 2000, None, True, "refined, for a GPU"),
    "paper": Preset(128, 150_000, 500.0, False, "that of the paper, for a GPU"),
}

MUON_RATE = 0.02
"""The learning rate of θ where it is refined; see docs/speed.md."""

PROBE = 128
"""Side of the image that presets are timed with, in pixels."""


def describe_presets(side: int = 512) -> str:
    """What the presets are, with the time of each on this machine for a colour image of ``side``×``side`` pixels."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"this CPU, {threads} thread{'s' * (threads > 1)}"
    lines = [f"presets, with their time for {side}×{side} pixels in colour on {where}:"]
    for name, preset in PRESETS.items():
        seconds = preset.iterations * (side / PROBE) ** 2 * _probe(preset, device)
        setting = f"width {preset.width}, {preset.iterations} iterations"
        lines.append(f"  {name:<8} {setting:<30} {in_words(seconds):<18} {preset.text}")
    lines += ["", "Ctrl-C writes what is recovered so far; the same command goes on from there."]
    return "\n".join(lines)


def _probe(preset: Preset, device: str) -> float:
    """Seconds of an iteration at ``PROBE``×``PROBE`` pixels."""
    method = Method(
        partial(SkipUNet, width=preset.width, **preset.network),
        partial(HadamardCorruption, scale=1e-5, tied=False),
        loss=SquaredLoss("mean"),
        theta_optimizer=partial(Muon, lr=MUON_RATE) if preset.refined else None,
        steps=Refinement() if preset.refined else GradientDescent(),
    )
    image = torch.rand(3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    state = BatchState(method, ProblemBatch([Problem("probe", image)], device), 1.0)
    return seconds_an_iteration(state, least=0.2, ahead=iterations_ahead(device))
