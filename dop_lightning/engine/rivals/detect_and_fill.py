"""Detect the corrupted entries, then fill them from the others."""

from dop_lightning.engine.rivals.base import Detector, Filler, Flags, Image, ImageFilter
from dop_lightning.foundation.signatures import require_part


class DetectAndFill(ImageFilter):
    """Entries that the detector finds are filled, as are those that were not observed; all others stay as they are.

    Args:
        detector: finds the corrupted entries.
        filler: fills them.

    Raises:
        ValueError: a part is of another kind.
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
        """The names of both parts."""
        return f"{type(self.detector).__name__} {type(self.filler).__name__}"
