"""Result of :func:`~dop_lightning.images.recover.recover_image`: image, corruption and history."""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dop_lightning.engine.outcome import Outcome, Status
from dop_lightning.foundation.units import format_duration
from dop_lightning.images.formats import ImageFormat, write_image
from dop_lightning.images.history import History
from dop_lightning.images.pictures import recovery_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("before", "after", "corruption", "curve")
"""Panels of :meth:`Recovery.plot`, from left to right."""


SHOWN_WIDTH = 900
"""Maximum number of pixels per side of the picture in notebooks."""


@dataclass(frozen=True, eq=False, repr=False)
class Recovery:
    """A recovered image.

    ``corruption``, ``corruption_probability`` and ``mask`` have the layout of the image, with one entry per value. For
    PIL images and files, they are NumPy arrays ``(H, W)`` or ``(H, W, C)``, where C does not include alpha.

    Attributes:
        image: the recovered image, with the type, layout, mode, size and device of the input. For a file, an upright
            array ``(H, W)`` or ``(H, W, C)`` in the number format of the file, with palettes resolved and without
            alpha.
        corruption: the estimated corruption ŝ, observation minus clean value, in the units of the image; float32, or
            float64 if the number format of the image requires it. 0 for unobserved values.
        corruption_probability: probability in [0, 1] that a value is corrupted, by any amount; float32. 0 for
            unobserved values. ``None`` with the preset ``paper``, or if the run was interrupted before the corruption
            was known (in any tile, for images in tiles).
        mask: boolean, true where a value was detected as corrupted: it is off by more than a tenth of the range, or, in
            a frame limited by noise, by more than five standard deviations of the noise. False for unobserved values.
            (The argument ``mask`` differs: it marks the observed values.)
        history: lists of numbers by tag, all of the same length: ``iteration``, ``loss``, ``corruption_density`` (the
            fraction of the observed values that are corrupted, as in ``mask``); with a truth also ``relative_error``,
            ``psnr`` in dB and ``ssim``. For images in tiles, the mean over the tiles.
        status: ``done``; ``stable`` if it stopped early because it no longer improved; ``interrupted``; or
            ``diverged``, in which case a smaller α may help.
        iterations: number of gradient iterations; for images in tiles, the minimum over the tiles.
        alpha: ratio of the learning rates; for images in tiles, that of the first tile.
        seconds: duration of the recovery in seconds.
    """

    image: Any
    corruption: Any
    corruption_probability: Any
    mask: Any
    history: History
    status: Status
    iterations: int
    alpha: float | None
    seconds: float
    _outcome: Outcome = field(repr=False)
    _format: ImageFormat = field(repr=False)
    _from_file: bool = field(repr=False)

    def __repr__(self) -> str:
        channels, (height, width) = self._format.channels, self._format.size
        return (
            f"Recovery({type(self.image).__name__} of {width}×{height} with {channels} "
            f"channel{'s' * (channels > 1)}, {self.status} after {self.iterations} "
            f"iteration{'s' * (self.iterations != 1)} in {format_duration(self.seconds)}, "
            f"{self._share_corrupted:.1%} of the values corrupted)"
        )

    def _repr_html_(self) -> str:
        """Return the display of notebooks: the comparison, and a table of the main numbers."""
        sheet = Image.fromarray(recovery_pictures(self._outcome)["comparison"])
        sheet.thumbnail((SHOWN_WIDTH, SHOWN_WIDTH))
        buffer = io.BytesIO()
        sheet.save(buffer, format="PNG", optimize=True)
        picture = base64.b64encode(buffer.getvalue()).decode("ascii")
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self._main_numbers().items())
        return (
            f'<div><img alt="before, after and the corruption" src="data:image/png;base64,{picture}">'
            f"<table>{rows}</table></div>"
        )

    def _main_numbers(self) -> dict[str, str]:
        """Return the main numbers by name."""
        (height, width), channels = self._format.size, self._format.channels
        numbers = {
            "size": f"{width}×{height}, {channels} channel{'s' * (channels > 1)}",
            "status": f"{self.status} after {self.iterations} iteration{'s' * (self.iterations != 1)}",
            "time": format_duration(self.seconds),
            "corrupted": f"{self._share_corrupted:.1%} of the values",
        }
        if "psnr" in self.history:
            numbers["PSNR"] = f"{self.history['psnr'][-1]:.2f} dB"
        return numbers

    @property
    def _share_corrupted(self) -> float:
        height, width = self._format.size
        return float(self.mask.sum()) / (self._format.channels * height * width)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recovered file as ``dop recover`` does, with the depth, alpha channel, profile, … of the input.

        Args:
            path: path with the suffix of the input file, or ``.png`` if that is a JPEG.

        Raises:
            ValueError: the path has another suffix, or the image was not read from a file. In that case, save
                :attr:`image` with NumPy, PIL or torch.
        """
        if not self._from_file:
            raise ValueError(
                f"save supports only images that were read from a file, got {type(self.image).__name__}; save .image "
                "with NumPy, PIL or torch instead"
            )
        write_image(Path(path), self._outcome.signal, self._format)

    def plot(self, axes: "Sequence[Axes] | None" = None) -> "Figure":
        """Plot the image before and after, the corruption (white is off by the whole range), and a curve.

        The curve shows the PSNR if the truth is known, otherwise the loss. Unobserved values are grey.

        Args:
            axes: four matplotlib axes to draw into; by default those of a new pyplot figure.

        Returns:
            The figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the number of axes is not four.
        """
        try:
            import matplotlib as mpl
            from matplotlib import pyplot as plt
        except ImportError as error:
            raise ImportError('plot requires matplotlib: pip install "dop_lightning[figures]"') from error
        from dop_lightning.foundation.plotting import BLUE, SETTINGS

        pictures = recovery_pictures(self._outcome)
        with mpl.rc_context(SETTINGS):
            if axes is None:
                height, width = self._format.size
                inches = min(5.0, max(1.8, 2.6 * height / width)) + 0.7
                _, drawn = plt.subplots(1, len(PANELS), figsize=(11.5, inches), layout="constrained")
                axes = list(drawn)
            axes = list(axes)
            if len(axes) != len(PANELS):
                raise ValueError(f"axes must contain {len(PANELS)} axes ({', '.join(PANELS)}), got {len(axes)}")
            for axis, title, key in zip(axes, PANELS, ("observation", "recovered", "corruption"), strict=False):
                axis.imshow(pictures[key], cmap="gray", vmin=0, vmax=255)
                axis.set(title=title, xticks=[], yticks=[])
                axis.grid(visible=False)
                axis.spines[:].set_visible(False)
            self._draw_curve(axes[-1], BLUE)
        return axes[0].get_figure(root=True)  # type: ignore[return-value]

    def _draw_curve(self, axis: "Axes", colour: str) -> None:
        tag = "psnr" if "psnr" in self.history else "loss"
        axis.plot(self.history["iteration"], self.history[tag], color=colour)
        axis.set(title="PSNR in dB" if tag == "psnr" else "loss", xlabel="iteration")
        if tag == "loss" and min(self.history[tag]) > 0:
            axis.set_yscale("log")
