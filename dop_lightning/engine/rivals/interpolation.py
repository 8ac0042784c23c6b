"""Fillers by interpolation: biharmonic, of scattered points, and by normalised convolution."""

import numpy as np

from dop_lightning.engine.rivals.base import Filler, Flags, Image, optional
from dop_lightning.foundation.checks import positive


class Biharmonic(Filler):
    """Solve ``Δ²X = 0`` at the missing entries with ``skimage.restoration.inpaint_biharmonic``.

    Damelin, Hoang, *On surface completion and image inpainting by biharmonic functions*, Int. J. Math. Math. Sci. 2018.

    Raises:
        ImportError: scikit-image is not installed.
    """

    def __init__(self) -> None:
        optional("skimage.restoration", "scikit-image", type(self).__name__)

    def fill_channel(self, channel: Image, missing: Flags) -> Image:
        """Return the solution, limited to the range of the known entries."""
        restoration = optional("skimage.restoration", "scikit-image", type(self).__name__)
        solved: Image = restoration.inpaint_biharmonic(channel, missing)
        return solved


class CubicScattered(Filler):
    """Interpolate the known entries as scattered points with piecewise cubic, C¹ functions on a Delaunay triangulation.

    This is the Clough–Tocher scheme of ``scipy.interpolate.griddata``. Entries outside the convex hull of the points
    take the value of the nearest point, as do all entries if the points do not span a triangle.

    Raises:
        ImportError: SciPy is not installed.
    """

    def __init__(self) -> None:
        optional("scipy.interpolate", "scipy", type(self).__name__)

    def fill_channel(self, channel: Image, missing: Flags) -> Image:
        """Return the interpolant at the missing entries."""
        interpolate = optional("scipy.interpolate", "scipy", type(self).__name__)
        spatial = optional("scipy.spatial", "scipy", type(self).__name__)
        points, wanted = np.argwhere(~missing), np.argwhere(missing)
        values = channel[~missing]
        try:
            estimate = interpolate.griddata(points, values, wanted, method="cubic")
        except (spatial.QhullError, ValueError):  # fewer than four points, or all collinear
            estimate = np.full(len(wanted), np.nan)
        outside = np.isnan(estimate)
        if outside.any():
            nearest = interpolate.NearestNDInterpolator(points, values) if len(points) > 1 else lambda _: values[0]
            estimate[outside] = nearest(wanted[outside])
        filled = channel.copy()
        filled[missing] = estimate
        return filled


class NormalisedConvolution(Filler):
    """Gaussian mean of the known entries, as narrow as their density allows.

    ``X = (G_σ ∗ (c·y)) / (G_σ ∗ c)`` with c = 1 at known entries (Knutsson, Westin, *Normalized and differential
    convolution*, CVPR 1993). For each entry, σ grows until the confidence ``G_σ ∗ c`` reaches a bound.

    Args:
        sigma: initial σ in pixels, above 0.
        growth: factor between successive σ, above 1.
        confidence: bound on the confidence, above 0 and below 1.

    Raises:
        ValueError: an argument is out of range.
        ImportError: SciPy is not installed.
    """

    def __init__(self, sigma: float = 0.5, growth: float = 1.25, confidence: float = 0.05) -> None:
        self.sigma = positive("sigma", sigma)
        self.growth = positive("growth", growth)
        if growth <= 1:
            raise ValueError(f"growth must be above 1, got {growth}")
        self.confidence = positive("confidence", confidence)
        if confidence >= 1:
            raise ValueError(f"confidence must be below 1, got {confidence}")
        optional("scipy.ndimage", "scipy", type(self).__name__)

    def fill_channel(self, channel: Image, missing: Flags) -> Image:
        """Return the Gaussian means."""
        smooth = optional("scipy.ndimage", "scipy", type(self).__name__).gaussian_filter
        known = (~missing).astype(np.float64)
        filled, open_, sigma = channel.copy(), missing.copy(), self.sigma
        while open_.any():
            confidence = smooth(known, sigma)
            # once sigma exceeds the image, every entry has some confidence
            last = sigma > max(channel.shape)
            enough = open_ & (confidence >= (np.finfo(float).tiny if last else min(self.confidence, known.mean() / 2)))
            filled[enough] = (smooth(channel, sigma)[enough]) / confidence[enough]
            open_ &= ~enough
            sigma *= self.growth
        return filled
