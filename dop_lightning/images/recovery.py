"""The result of :func:`~dop_lightning.images.recover.recover_image`: image, corruption and history."""

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
"""What :meth:`Recovery.plot` draws, from left to right."""


SHOWN_WIDTH = 900
"""The most pixels of a side of the picture in notebooks."""


@dataclass(frozen=True, eq=False, repr=False)
class Recovery:
    """A recovered image.

    ``corruption``, ``corruption_probability`` and ``mask`` have the layout of the image, one entry for each of its
    values; for images of PIL, and for files, they are NumPy arrays ``(H, W)`` or ``(H, W, C)``, C without alpha.

    Attributes:
        image: of the kind, type, layout, mode, size and device of the image given. Of a file an array of its values in
            their number format, ``(H, W)`` or ``(H, W, C)``, upright; colours where it has a palette, and no alpha.
        corruption: ŝ, what was added to the clean values, in the units of the image; float32, or float64 where the
            values need that. 0 where nothing was observed.
        corruption_probability: the probability of each value that it is corrupted, however little, in [0, 1]; float32.
            0 where nothing was observed. ``None`` with the preset ``paper``, and where the run was interrupted before
            the corruption was known (a tile of it, of an image in tiles).
        mask: boolean, true where a value was found to be corrupted: off by more than a tenth of the range, or, in a
            frame that noise limits, by more than five standard deviations of it. False where nothing was observed. (The
            argument ``mask`` is another one: which values were observed.)
        history: numbers by tag, lists of one length: ``iteration``, ``loss``, ``corruption_density`` (the share of the
            observed values that is corrupted, as of ``mask``); where the truth is known ``relative_error``, ``psnr`` in
            dB and ``ssim`` as well. Of an image in tiles, the mean over them.
        status: ``done``; ``stable`` where it ended before all iterations, since it got no better; ``interrupted``;
            ``diverged``, which a smaller α may prevent.
        iterations: gradient iterations done; of an image in tiles, the fewest.
        alpha: the ratio of the learning rates; of an image in tiles, that of the first.
        seconds: what they took.
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
        """For notebooks: the main numbers, and before, after and the corruption side by side."""
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
        """What a reader wants to know first, by name."""
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
        """Write the image of a file as ``dop recover`` does: with the depth, alpha, profile, … that it had.

        Args:
            path: ends as the file that the image came from, and in ``.png`` where that was a JPEG.

        Raises:
            ValueError: it has another suffix, or the image did not come from a file: then NumPy, PIL or torch, where
                it is from, can save :attr:`image`.
        """
        if not self._from_file:
            raise ValueError(
                "save writes images that came from a file, as they were there, got one that came as "
                f"{type(self.image).__name__}; save .image as you save others of its kind"
            )
        write_image(Path(path), self._outcome.signal, self._format)

    def plot(self, axes: "Sequence[Axes] | None" = None) -> "Figure":
        """Draw the image before and after, the corruption (white is off by the whole range), and the curve.

        The curve is that of the PSNR where the truth is known, else that of the loss. Values that were never observed
        are grey.

        Args:
            axes: of matplotlib, four, to draw into; by default those of a new figure of pyplot.

        Returns:
            The figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is another number of axes.
        """
        try:
            import matplotlib as mpl
            from matplotlib import pyplot as plt
        except ImportError as error:
            raise ImportError('plot draws with matplotlib: pip install "dop_lightning[figures]"') from error
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
                raise ValueError(f"axes must be {len(PANELS)}, for {', '.join(PANELS)}, got {len(axes)}")
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
