"""The presets of ``dop recover``, and how long each of them takes on this machine."""

from dataclasses import dataclass
from functools import partial

import torch

from dop_lightning.corruption import HadamardCorruption
from dop_lightning.cost import in_words, seconds_an_iteration
from dop_lightning.engine import BatchState, Method
from dop_lightning.objective import SquaredLoss
from dop_lightning.problems import Problem, ProblemBatch
from dop_lightning.signals import SkipUNet


@dataclass(frozen=True)
class Preset:
    """A setting of ``dop recover``.

    Attributes:
        width: channels of the network.
        iterations: gradient iterations.
        alpha: ratio of the rates; ``None`` follows the size of the image, see
            :func:`~dop_lightning.engine.default_alpha`.
        text: what it is for.
    """

    width: int
    iterations: int
    alpha: float | None
    text: str


PRESETS = {
    "quick": Preset(32, 1500, None, "a first look"),
    "default": Preset(64, 3000, None, "better, for small images and tiles"),
    "paper": Preset(128, 150_000, 500.0, "that of the paper, for a GPU"),
}

PROBE = 128
"""Side of the image that presets are timed with, in pixels."""


def describe_presets(side: int = 512) -> str:
    """What the presets are, with the time of each on this machine for a colour image of ``side``×``side`` pixels."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if device == "cuda" else f"this CPU, {threads} thread{'s' * (threads > 1)}"
    lines = [f"presets, with their time for {side}×{side} pixels in colour on {where}:"]
    for name, preset in PRESETS.items():
        seconds = preset.iterations * (side / PROBE) ** 2 * _probe(preset.width, device)
        setting = f"width {preset.width}, {preset.iterations} iterations"
        lines.append(f"  {name:<8} {setting:<30} {in_words(seconds):<18} {preset.text}")
    lines += ["", "Ctrl-C writes what is recovered so far; the same command goes on from there."]
    return "\n".join(lines)


def _probe(width: int, device: str) -> float:
    """Seconds of an iteration at ``PROBE``×``PROBE`` pixels."""
    method = Method(
        partial(SkipUNet, width=width),
        partial(HadamardCorruption, scale=1e-5, tied=False),
        loss=SquaredLoss("mean"),
    )
    image = torch.rand(3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    return seconds_an_iteration(BatchState(method, ProblemBatch([Problem("probe", image)], device), 1.0), least=0.2)
