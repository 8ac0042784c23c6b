"""Fillers from OpenCV."""

from typing import Any

import numpy as np

from dop_lightning.engine.rivals.base import Filler, Flags, Image, optional
from dop_lightning.foundation.checks import positive

PACKAGE = "opencv-contrib-python-headless"


class Telea(Filler):
    """Fast marching from the boundary of the holes, with ``cv2.inpaint``.

    Telea, *An image inpainting technique based on the fast marching method*, Journal of Graphics Tools 9, 2004.
    Computed in 16 bits.

    Args:
        radius: radius of the neighbourhood in pixels, above 0.

    Raises:
        ValueError: ``radius`` is out of range.
        ImportError: OpenCV is not installed.
    """

    def __init__(self, radius: float = 2.0) -> None:
        self.radius = positive("radius", radius)
        optional("cv2", PACKAGE, type(self).__name__)

    def fill_channel(self, channel: Image, missing: Flags) -> Image:
        """Return the filled channel."""
        cv2: Any = optional("cv2", PACKAGE, type(self).__name__)
        source = np.rint(np.clip(channel, 0, 1) * 65535).astype(np.uint16)
        filled = cv2.inpaint(source, missing.astype(np.uint8), self.radius, cv2.INPAINT_TELEA)
        return np.asarray(filled, dtype=np.float64) / 65535


class FrequencySelective(Filler):
    """Frequency selective reconstruction (FSR), with ``cv2.xphoto.inpaint`` in its fast mode.

    Genser, Seiler, Schilling, Kaup, *Signal and loss geometry aware frequency selective extrapolation for error
    concealment*, PCS 2018. Computed in 8 bits because OpenCV 5.0 returns an empty image for 16.

    Raises:
        ImportError: OpenCV is not installed, or lacks its contributed modules.
    """

    def __init__(self) -> None:
        self._xphoto()

    def _xphoto(self) -> Any:
        cv2: Any = optional("cv2", PACKAGE, type(self).__name__)
        if not hasattr(cv2, "xphoto"):
            raise ImportError(
                f"{type(self).__name__} requires cv2.xphoto, which the installed OpenCV lacks: uninstall it, then run "
                'pip install "dop_lightning[rivals]"'
            )
        return cv2.xphoto

    def fill_channel(self, channel: Image, missing: Flags) -> Image:
        """Return the filled channel."""
        xphoto = self._xphoto()
        source = np.rint(np.clip(channel, 0, 1) * 255).astype(np.uint8)
        filled = np.zeros_like(source)
        xphoto.inpaint(source, np.where(missing, 0, 255).astype(np.uint8), filled, xphoto.INPAINT_FSR_FAST)
        return filled / 255.0
