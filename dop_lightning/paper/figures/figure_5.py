"""Figure 5: one image with 10 to 70 % of its values corrupted, recovered by DIP, DIP-ℓ1 and DOP."""

from collections.abc import Mapping
from typing import Any

from dop_lightning.paper.figures.image_figures import percent
from dop_lightning.paper.figures.mosaic import MosaicFigure


class Figure5(MosaicFigure):
    """Pictures of one image at four levels of salt-and-pepper."""

    name = "5"
    title = "One image, 10 to 70 % salt-and-pepper"

    def label(self, row: Mapping[str, Any]) -> str:
        """Return the fraction of corrupted values."""
        return percent(row["ratio"])
