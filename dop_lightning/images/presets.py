"""Presets of the recovery of images, for the command line and Python."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from dop_lightning.engine.instant import MAX_TILE, Interpolation
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim.muon import Muon
from dop_lightning.engine.recipe import FilterRecipe, Piece, Recipe
from dop_lightning.engine.rivals import FilterMethod
from dop_lightning.engine.steps import Dense, Refinement
from dop_lightning.engine.steps.clean_entries import Sign, check_damage
from dop_lightning.engine.steps.clean_entries.joint import Per
from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.images.tiles import MIN_TILE, Size, Tile, cheapest_tile
from dop_lightning.model.corruption import HadamardCorruption, PixelCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet

Precision = Literal["auto", "bf16", "fp32"]

MUON_RATE = 0.02
"""Learning rate of θ with refinement; see docs/speed.md."""

TAU = 1.0
"""Learning rate of θ without refinement; α is the ratio to it."""

IMAGE_START = 1e-5
"""Initial scale of g and h."""

BLOCK = 10
"""Default number of gradient iterations per training step; it does not affect results."""

EVALUATE_EVERY = 100
"""Iterations between two evaluations of a run."""


@dataclass(frozen=True)
class Preset:
    """A preset of ``dop recover`` and :func:`~dop_lightning.images.recover.recover_image`.

    Attributes:
        width: channels of the network; 0 uses :class:`~dop_lightning.engine.instant.Interpolation` instead of a
            network.
        iterations: gradient iterations; 1 without a network.
        alpha: ratio of the learning rates; ``None`` chooses it by the size of the image, see
            :mod:`dop_lightning.engine.alpha`.
        refined: whether to use Muon for θ, refinement once the corruption is known
            (:class:`~dop_lightning.engine.steps.Refinement`), and no biases before batch norms; otherwise, gradient
            descent and plain operations as in the paper.
        text: purpose of the preset.
        tile: maximum side of the tiles for images whose larger side exceeds it by more than a quarter; ``None``
            recovers images whole. A network of 32 channels represents a photograph of 192×192 pixels well, but not one
            of 512×512. The other side of such an image is divided only if it also exceeds ``tile`` by more than a
            quarter. Without a network, tiles have sides of up to :data:`~dop_lightning.engine.instant.MAX_TILE` pixels.
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
        """Return the width of the network and the number of iterations: the arguments, or by default the preset's.

        Raises:
            ValueError: an argument is less than 1, or the preset has no network.
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

    def tile_for(self, size: Size) -> Tile | None:
        """Return the size of the tiles for an image of this height and width, ``None`` to recover it whole."""
        if self.tile is None or max(size) <= LARGE * self.tile:
            return None
        if not self.has_network:
            return cheapest_tile(size, MAX_TILE)
        most = int(LARGE * self.tile)
        height, width = (max(side, MIN_TILE) if side <= most else self.tile for side in size)
        return height if height == width else (height, width)

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
            precision: precision of the network, and of the products in its optimizer that are not compiled.
            per: whether corruption is detected per entry (each channel of a pixel) or per pixel; ``auto`` estimates it.
            outliers: sign of the outliers.
            alpha: ratio of the learning rates, positive; by default :attr:`alpha`.
            block: gradient iterations per training step.
            damage: damage to detect in addition to isolated entries.
            dense: whether dense noise is kept or removed.

        Raises:
            ValueError: an argument is not one of its values; or ``damage``, ``outliers`` or ``dense`` is not supported
                without refinement; or ``alpha``, ``precision`` or ``dense`` is not supported without a network.
        """
        check_damage(damage)
        one_of("outliers", outliers, get_args(Sign))
        if not self.refined and damage not in ("auto", "points"):
            raise ValueError(f"damage must be auto or points with the preset paper, got {damage!r}")
        if outliers != "auto" and not self.refined:
            raise ValueError(f"outliers must be auto with the preset paper, which ignores signs, got {outliers!r}")
        one_of("dense", dense, get_args(Dense))
        if dense != "auto" and not self.refined:
            raise ValueError(f"dense must be auto with the preset paper, which has no refinement, got {dense!r}")
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
        options = {"damage": damage, "sign": outliers, "dense": dense}
        steps = {name: value for name, value in options.items() if value != "auto"}
        if per == "entry":
            steps["per"] = per
        network: dict[str, Any] = {"bias": False, "fast_noise": True} if self.refined else {"fused": False}
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
        """Return the parts of the engine; see :meth:`recipe` for the arguments."""
        return self.recipe(width, precision, per, outliers, damage=damage, dense=dense).method()


LARGE = 1.25
"""Images whose larger side is at most this multiple of the tile side are recovered whole."""

PRESETS = {
    "instant": Preset(0, 1, None, True, "without a network", tile=512),
    "quick": Preset(16, 175, None, True, "a first look", tile=192),
    "default": Preset(32, 275, None, True, "refined, for a laptop", tile=192),
    "best": Preset(128, 2000, None, True, "refined, for a GPU"),
    "paper": Preset(128, 150_000, 500.0, False, "the settings of the paper, for a GPU"),
}
