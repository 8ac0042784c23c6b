"""Settings of :func:`~dop_lightning.images.recover.recover_image`, checked once for all images of a call."""

from dataclasses import dataclass
from typing import Any, Self, get_args

import torch

from dop_lightning.engine.state import Procedure
from dop_lightning.engine.steps.clean_entries import check_damage
from dop_lightning.foundation.checks import one_of, positive
from dop_lightning.foundation.devices import resolve_device
from dop_lightning.foundation.units import parse_bytes
from dop_lightning.images.cost import RecoveryCost, Shape
from dop_lightning.images.formats.value_range import checked_range
from dop_lightning.images.presets import PRESETS, Per, Precision, Preset
from dop_lightning.images.tiles import Tile, sides_of


@dataclass(frozen=True)
class Settings:
    """Settings of the recovery of images.

    Attributes:
        preset: method, and defaults of iterations and width.
        width: channels of the network.
        maximum: maximum number of gradient iterations.
        alpha: ratio of the learning rates; ``None`` chooses it by the size of the image.
        seed: random seed.
        tile: side of the tiles in pixels, or (height, width); ``None`` to choose it by preset and memory.
        memory: memory limit in bytes, if any.
        device: device of the computation.
        precision: precision of the network.
        value_range: minimum and maximum clean value, if specified.
        options: ``per``, ``outliers``, ``damage`` and ``dense``.
    """

    preset: Preset
    width: int
    maximum: int
    alpha: float | None
    seed: int
    tile: Tile | None
    memory: int | None
    device: torch.device
    precision: Precision
    value_range: tuple[float, float] | None
    options: dict[str, Any]

    @classmethod
    def checked(
        cls,
        data: object,
        *,
        value_range: tuple[float, float] | None,
        preset: str,
        iterations: int | None,
        alpha: float | None,
        width: int | None,
        seed: int,
        tile: Tile | None,
        max_memory: str | None,
        device: str | torch.device,
        precision: Precision,
        **options: Any,
    ) -> Self:
        """Check the arguments. The device of ``data``, the images, is the default if it is a GPU.

        Raises:
            ValueError: an argument is out of range.
        """
        chosen = PRESETS[one_of("preset", preset, PRESETS)]
        width, maximum = chosen.size(width, iterations)
        one_of("per", options["per"], get_args(Per))
        check_damage(options["damage"])
        one_of("precision", precision, ["auto", "bf16", "fp32"])
        if tile is not None:
            sides_of(tile)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed must be a whole number, got {seed!r}")
        return cls(
            chosen,
            width,
            maximum,
            chosen.alpha if alpha is None else positive("alpha", alpha),
            seed,
            tile,
            None if max_memory is None else parse_bytes(max_memory, "max_memory"),
            resolve_device(device, data),
            precision,
            None if value_range is None else checked_range(value_range),
            options,
        )

    def method(self) -> Procedure:
        """Return the method of the preset with these settings."""
        options = self.options
        return self.preset.method(
            self.width, self.precision, options["per"], options["outliers"], options["damage"], options["dense"]
        )

    def tile_for(self, shape: Shape) -> Tile | None:
        """Return the size of the tiles of an image of shape (C, H, W); ``None`` to recover it whole.

        Raises:
            ValueError: the image does not fit in memory.
        """
        cost = RecoveryCost(
            [shape],
            self.width,
            self.preset,
            self.precision,
            self.device,
            option="max_memory",
            subject="this image",
        )
        return cost.choose_tile(self.memory) if self.tile is None else cost.check_tile(self.tile, self.memory)
