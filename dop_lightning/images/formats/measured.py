"""Detect images whose values are measurements rather than photographs."""

from dop_lightning.images.formats.raster import Raster

SCIENTIFIC = (".fits",)
"""Suffixes of formats whose values are measurements at any depth."""


def is_measured(raster: Raster, value_range: tuple[float, float]) -> bool:
    """Return whether the values are measurements: FITS, more than 8 bits, or floats whose range is not 0 … 1."""
    if raster.palette is not None:
        return False
    deep = raster.samples.dtype.kind in "iu" and raster.bits > 8
    real = raster.samples.dtype.kind == "f" and value_range != (0.0, 1.0)
    return raster.suffix in SCIENTIFIC or deep or real
