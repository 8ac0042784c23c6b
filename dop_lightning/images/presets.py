"""The presets by which images are recovered, at the command line and in Python: settings that belong together."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from dop_lightning.engine.instant import Interpolation
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.recipe import FilterRecipe, Piece, Recipe
from dop_lightning.engine.rivals import FilterMethod
from dop_lightning.engine.steps import Dense, Refinement
from dop_lightning.engine.steps.clean_entries import Sign, check_damage
from dop_lightning.engine.steps.clean_entries.joint import Per
from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.model.corruption import HadamardCorruption, PixelCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet

Precision = Literal["auto", "bf16", "fp32"]

MUON_RATE = 0.02
"""The learning rate of θ where it is refined; see docs/speed.md."""

TAU = 1.0
"""The learning rate of θ where it is not, and what α is the ratio to."""

IMAGE_START = 1e-5
"""The scale of g and h at the start."""

BLOCK = 10
"""Gradient iterations of a training step, unless the size of an image says otherwise; it changes no result."""

EVALUATE_EVERY = 100
"""Iterations between two evaluations of a run."""


@dataclass(frozen=True)
class Preset:
    """A setting of ``dop recover`` and :func:`~dop_lightning.images.recover.recover_image`.

    Attributes:
        width: channels of the network; 0 without one: :class:`~dop_lightning.engine.instant.Interpolation` restores.
        iterations: gradient iterations; 1 without a network.
        alpha: ratio of the rates; ``None`` follows the size of the image, see :mod:`dop_lightning.engine.alpha`.
        refined: Muon on θ, refinement once the corruption is known (:class:`~dop_lightning.engine.steps.Refinement`),
            and no biases before batch norms; else gradient descent and plain operations, as in the paper.
        text: what it is for.
        tile: side of the tiles in which images are recovered that are more than a quarter larger; ``None`` recovers
            them whole. A network of 32 channels represents a photograph of 192×192 pixels well, and one of 512×512
            badly.
    """

    width: int
    iterations: int
    alpha: float | None
    refined: bool
    text: str
    tile: int | None = None

    @property
    def has_network(self) -> bool:
        """Whether a network is fitted."""
        return self.width > 0

    def size(self, width: int | None, iterations: int | None) -> tuple[int, int]:
        """Return the width of the network and the number of iterations, as they are asked for or those of the preset.

        Raises:
            ValueError: one is less than 1, or there is no network.
        """
        if not self.has_network:
            for name, value in (("width", width), ("iterations", iterations)):
                if value is not None:
                    raise ValueError(
                        f"{name} is not supported by the preset instant, which has no network, got {value!r}"
                    )
            return self.width, self.iterations
        return (
            at_least("width", self.width if width is None else width, 1),
            at_least("iterations", self.iterations if iterations is None else iterations, 1),
        )

    def tile_for(self, side: int) -> int | None:
        """Return the side of the tiles for an image whose larger side this is, ``None`` if it is recovered whole."""
        return self.tile if self.tile is not None and side > LARGE * self.tile else None

    def recipe(
        self,
        width: int | None = None,
        precision: Precision = "auto",
        per: Per = "auto",
        outliers: Sign = "auto",
        alpha: float | None = None,
        block: int = BLOCK,
        damage: str = "auto",
        dense: Dense = "auto",
    ) -> Recipe | FilterRecipe:
        """Return all settings of the recovery.

        Args:
            width: channels of the network, at least 1; by default :attr:`width`.
            precision: of the network, and of the products in its optimizer.
            per: whether each channel of a pixel is corrupted independently, or the whole pixel; ``auto`` estimates it.
            outliers: their sign.
            alpha: ratio of the rates, above 0; by default :attr:`alpha`.
            block: gradient iterations of a training step.
            damage: what is damaged besides isolated entries.
            dense: what becomes of dense noise.

        Raises:
            ValueError: ``outliers`` is no sign; nothing is refined and there is a sign or such damage to look for; or
                there is a setting of networks without one.
        """
        check_damage(damage)
        one_of("outliers", outliers, get_args(Sign))
        if not self.refined and damage not in ("auto", "points"):
            raise ValueError(f"damage must be auto or points with the preset paper, got {damage!r}")
        if outliers != "auto" and not self.refined:
            raise ValueError(f"outliers must be auto with the preset paper, which knows no sign, got {outliers!r}")
        one_of("dense", dense, get_args(Dense))
        if dense != "auto" and not self.refined:
            raise ValueError(f"dense must be auto with the preset paper, which keeps no values, got {dense!r}")
        if not self.has_network:
            for name, value in (("alpha", alpha), ("precision", None if precision == "auto" else precision)):
                if value is not None:
                    raise ValueError(
                        f"{name} is not supported by the preset instant, which has no network, got {value!r}"
                    )
            if dense == "remove":
                raise ValueError("dense must be auto or keep with the preset instant, got 'remove'")
            own = {"per": per, "damage": damage, "sign": outliers}
            defaults = {"per": "auto", "damage": "auto", "sign": "auto"}
            return FilterRecipe(Piece(Interpolation, {k: v for k, v in own.items() if v != defaults[k]}))
        told = {"damage": damage, "sign": outliers, "dense": dense}
        steps = {name: value for name, value in told.items() if value != "auto"}
        if per == "entry":
            steps["per"] = per
        network: dict[str, Any] = {"bias": False} if self.refined else {"fused": False}
        products = {} if precision == "auto" else {"precision": precision}
        return Recipe(
            signal=Piece(
                SkipUNet, {"width": self.width if width is None else width, "precision": precision, **network}
            ),
            corruption=Piece(HadamardCorruption, {"scale": IMAGE_START, "tied": False})
            if per != "pixel"
            else Piece(PixelCorruption, {"scale": IMAGE_START}),
            loss=Piece(SquaredLoss, {"reduction": "mean"}),
            theta_optimizer=Piece(Muon, {"lr": MUON_RATE, **products}) if self.refined else None,
            steps=Piece(Refinement, steps) if self.refined else None,
            tau=TAU,
            alpha=self.alpha if alpha is None else alpha,
            block=block,
            evaluate_every=EVALUATE_EVERY,
        )

    def method(
        self,
        width: int | None = None,
        precision: Precision = "auto",
        per: Per = "auto",
        outliers: Sign = "auto",
        damage: str = "auto",
        dense: Dense = "auto",
    ) -> Method | FilterMethod:
        """Return the parts of the engine; arguments as those of :meth:`recipe`."""
        return self.recipe(width, precision, per, outliers, damage=damage, dense=dense).method()


LARGE = 1.25
"""Images whose larger side is at most this many tiles are recovered whole."""

PRESETS = {
    "instant": Preset(0, 1, None, True, "without a network", tile=512),
    "quick": Preset(16, 200, None, True, "a first look", tile=192),
    "default": Preset(32, 300, None, True, "refined, for a laptop", tile=192),
    "best": Preset(128, 2000, None, True, "refined, for a GPU"),
    "paper": Preset(128, 150_000, 500.0, False, "that of the paper, for a GPU"),
}
