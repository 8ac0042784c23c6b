"""Which images hold measurements, of cameras for science rather than for the eye."""

from dop_lightning.images.formats.raster import Raster

SCIENTIFIC = (".fits",)
"""Kinds of files whose values are measurements, of whatever depth."""


def is_measured(raster: Raster, value_range: tuple[float, float]) -> bool:
    """Whether the values of an image are measurements: FITS, more than 8 bits, or floats whose range is not 0 … 1."""
    if raster.palette is not None:
        return False
    deep = raster.samples.dtype.kind in "iu" and raster.bits > 8
    real = raster.samples.dtype.kind == "f" and value_range != (0.0, 1.0)
    return raster.suffix in SCIENTIFIC or deep or real
