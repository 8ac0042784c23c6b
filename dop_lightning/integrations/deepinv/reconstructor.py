"""Recovery from observations with outliers as a deepinv reconstructor.

Shapes: B images of a batch, C channels, H×W pixels, observations ``(B, *m)``.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome
from dop_lightning.engine.steps import Dense
from dop_lightning.engine.steps.clean_entries import Sign
from dop_lightning.images.presets import Per, Precision
from dop_lightning.images.progress import progress_bar
from dop_lightning.images.restoration import recover_problems
from dop_lightning.images.settings import Settings
from dop_lightning.images.tiles import Tile
from dop_lightning.integrations.deepinv.given import Measurement, measurements
from dop_lightning.integrations.deepinv.missing import import_deepinv
from dop_lightning.problems.problem import Problem

deepinv = import_deepinv()


class RobustReconstructor(deepinv.models.Reconstructor):  # type: ignore[name-defined]
    """Recover ``X`` and the outliers ``s`` from ``y = A(X) + s`` (Eq. 1), for any linear physics A of deepinv.

    Like ``deepinv.models.DeepImagePrior``, it fits a network to each observation and requires no training. A batch is
    recovered in one run. Each image has a separate network with the same seed, so its result depends neither on the
    batch nor on its position. The noise model of the physics is not used.

    If A is the identity or a mask (denoising, inpainting), the recovery is that of
    :func:`~dop_lightning.recover_image`: clean entries are kept bit for bit, and large images are recovered in tiles.
    NaN entries, and entries where A is always 0, such as masked ones, are missing. If the scale of A (the RMS of the
    entries of A(1)) is below 0.5 or above 2, the observation is divided by it before the recovery.

    Args:
        preset: preset of the recovery, see ``dop recover --help``. ``instant`` supports only the identity and masks.
        iterations: number of gradient iterations, at least 1; by default that of the preset.
        width: channels of the network, at least 1; by default that of the preset.
        alpha: ratio of the learning rates, positive; by default that of the preset, or chosen by the size of the image.
        seed: random seed; a sequence has one seed per image of the batch.
        value_range: minimum and maximum value of clean images.
        per: whether corruption is detected per entry of y or per pixel.
        damage: damage to detect in addition to isolated entries, see :func:`~dop_lightning.recover_image`.
        outliers: sign of the outliers: ``positive``, ``negative``, ``both`` or ``auto``.
        dense: ``keep`` or ``remove`` dense noise; ``auto`` decides.
        device: device of the computation; by default that of ``y``.
        precision: precision of the network: ``fp32``, ``bf16`` or ``auto``.
        tile: side of the tiles in pixels, or (height, width), at least 8, if A is the identity or a mask; by default
            chosen by the preset.
        verbose: whether to show a progress bar.

    Attributes:
        outcomes: outcomes of the last call, one per image, scaled to a value range of [0, 1] and divided by the scale
            of A if it is unusual; ``corruption_probability`` is the map of the outliers.

    Raises:
        ValueError: an argument is out of range.
    """

    outcomes: list[Outcome]

    def __init__(
        self,
        preset: Literal["instant", "quick", "default", "best", "paper"] = "default",
        iterations: int | None = None,
        width: int | None = None,
        alpha: float | None = None,
        seed: int | Sequence[int] = 0,
        value_range: tuple[float, float] = (0.0, 1.0),
        per: Per = "auto",
        damage: str = "auto",
        outliers: Sign = "auto",
        dense: Dense = "auto",
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        tile: Tile | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__()
        self.seed, self.device, self.verbose = seed, device, verbose
        self._options: dict[str, Any] = {
            "preset": preset,
            "iterations": iterations,
            "width": width,
            "alpha": alpha,
            "value_range": value_range,
            "per": per,
            "damage": damage,
            "outliers": outliers,
            "dense": dense,
            "precision": precision,
            "tile": tile,
            "max_memory": None,
        }
        self._settings(torch.device("cpu")).method()  # checks the arguments
        self.outcomes = []

    def _settings(self, device: torch.device) -> Settings:
        chosen = device if self.device is None else self.device
        seed = self.seed if isinstance(self.seed, int) else 0
        return Settings.checked(None, seed=seed, device=chosen, **self._options)

    def forward(self, y: Tensor, physics: Any, **kwargs: Any) -> Tensor:
        """Return X̂ ``(B, C, H, W)`` with the type and device of ``y``, without gradients.

        Args:
            y: real observations ``(B, *m)``.
            physics: a linear physics of deepinv.
            **kwargs: ignored, as by the other reconstructors of deepinv.

        Raises:
            ValueError: y or physics is not supported, an observation is infinite, or the number of seeds is not B.
        """
        if not isinstance(y, Tensor) or not y.is_floating_point() or y.dim() < 2 or y.numel() == 0:
            kind = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"y must be a real tensor (B, *m) with at least one image, got {kind}")
        settings = self._settings(y.device)
        single = y.detach() if y.dtype in (torch.float32, torch.float64) else y.detach().float()
        measured = measurements(physics, single)
        problems = [
            self._problem(k, one, how, seed)
            for k, (one, how, seed) in enumerate(zip(single, measured, self._seeds(len(y)), strict=True))
        ]
        with progress_bar(self.verbose, settings.maximum * len(problems)) as report:
            found = recover_problems(problems, settings, lambda: False, report)
        self.outcomes = [outcome for outcome, _ in found if outcome is not None]  # never interrupted
        low, high = settings.value_range or (0.0, 1.0)
        recovered = torch.stack([outcome.signal for outcome in self.outcomes])
        return recovered.mul(high - low).add(low).to(y)

    def _seeds(self, count: int) -> list[int]:
        if isinstance(self.seed, int):
            return [self.seed] * count
        if len(self.seed) != count:
            raise ValueError(f"seed must have one entry per image, {count}, got {len(self.seed)}")
        return [int(seed) for seed in self.seed]

    def _problem(self, k: int, y: Tensor, measured: Measurement, seed: int) -> Problem:
        """Scale image k to the range [0, 1]: ``y' = (y − A(low·1))/((high − low)·scale)``."""
        low, high = self._options["value_range"]
        if (low, high) != (0, 1):
            y = (y - low * measured.of_ones) / (high - low)
        if measured.scale != 1.0:
            y = y / measured.scale
        known = ~y.isnan()
        if measured.mask is not None:
            known &= measured.mask
        return Problem(
            f"image {k}",
            y.cpu(),
            mask=None if bool(known.all()) else known.cpu(),
            seed=seed,
            data_range=1.0,
            signal_shape=tuple(y.shape) if measured.sensing is None else measured.sensing.signal,
            sensing=measured.sensing,
        )
