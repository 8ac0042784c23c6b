"""Detect corrupted entries and fill them from the others."""

from dop_lightning.engine.rivals.base import Detector, Filler, Flags, Image, ImageFilter
from dop_lightning.foundation.signatures import require_part


class DetectAndFill(ImageFilter):
    """Fill the entries found by a detector, and unobserved entries; all others are unchanged.

    Args:
        detector: finds the corrupted entries.
        filler: fills them.

    Raises:
        ValueError: an argument has the wrong type.
    """

    def __init__(self, detector: Detector, filler: Filler) -> None:
        require_part("detector", detector, Detector)
        require_part("filler", filler, Filler)
        self.detector = detector
        self.filler = filler

    def restore(self, image: Image, missing: Flags) -> Image:
        """Return the filled image."""
        return self.filler.fill(image, missing | self.detector.corrupted(image, missing))

    @property
    def name(self) -> str:
        """Names of the detector and the filler."""
        return f"{type(self.detector).__name__} {type(self.filler).__name__}"
