"""The presets by which images are recovered, at the command line and in Python: settings that belong together."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.steps import GradientDescent, Refinement
from dop_lightning.model.corruption import HadamardCorruption, PixelCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet

Precision = Literal["auto", "bf16", "fp32"]

MUON_RATE = 0.02
"""The learning rate of θ where it is refined; see docs/speed.md."""

TAU = 1.0
"""The learning rate of θ where it is not, and what α is the ratio to."""

START = 1e-5
"""The scale of g and h at the start."""


@dataclass(frozen=True)
class Preset:
    """A setting of ``dop recover`` and :func:`~dop_lightning.images.recover.recover_image`.

    Attributes:
        width: channels of the network.
        iterations: gradient iterations.
        alpha: ratio of the rates; ``None`` follows the size of the image, see :mod:`dop_lightning.engine.alpha`.
        refined: Muon on θ, refinement once the corruption is known (:class:`~dop_lightning.engine.steps.Refinement`),
            and no biases before batch norms; else gradient descent and plain operations, as in the paper.
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
            return {"tau": TAU, "alpha": self.alpha}
        return {
            "theta_optimizer": {"class_path": "dop_lightning.engine.optim.muon.Muon", "init_args": _muon(precision)},
            "steps": {"class_path": "Refinement"},
            "tau": TAU,
            "alpha": self.alpha,
        }

    def method(
        self,
        width: int | None = None,
        precision: Precision = "auto",
        per: Literal["entry", "pixel"] = "entry",
    ) -> Method:
        """The same as parts of the engine.

        Args:
            width: channels of the network, at least 1; by default :attr:`width`.
            precision: of the network, and of the products in its optimizer.
            per: whether each channel of a pixel is corrupted by itself, or the whole pixel.
        """
        return Method(
            partial(SkipUNet, width=self.width if width is None else width, precision=precision, **self.network),
            partial(HadamardCorruption, scale=START, tied=False)
            if per == "entry"
            else partial(PixelCorruption, scale=START),
            loss=SquaredLoss("mean"),
            theta_optimizer=partial(Muon, **_muon(precision)) if self.refined else None,
            steps=Refinement() if self.refined else GradientDescent(),
        )


def _muon(precision: str) -> dict[str, Any]:
    return {"lr": MUON_RATE, **({} if precision == "auto" else {"precision": precision})}


PRESETS = {
    "quick": Preset(16, 400, None, True, "a first look"),
    "default": Preset(32, 1000, None, True, "refined, for a laptop"),
    "best": Preset(128, 2000, None, True, "refined, for a GPU"),
    "paper": Preset(128, 150_000, 500.0, False, "that of the paper, for a GPU"),
}
