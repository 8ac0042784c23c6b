"""Figure 3: four images with half of their values corrupted, recovered by DIP, DIP-ℓ1 and DOP."""

from collections.abc import Mapping
from typing import Any

from dop_lightning.paper.figures.image_figures import image_title
from dop_lightning.paper.figures.mosaic import MosaicFigure


class Figure3(MosaicFigure):
    """Pictures of four images at 50 % salt-and-pepper."""

    name = "3"
    title = "Four images, 50 % salt-and-pepper"

    def label(self, row: Mapping[str, Any]) -> str:
        """Return the name of the image."""
        return image_title(row["image"])
