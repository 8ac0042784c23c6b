"""Images in and out, as tensors: what is read and written again has the same samples, in a file like the one before.

See :func:`read_image` for what is read and :func:`write_image` for what comes back.

Shapes: C channels, H × W pixels.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dop_lightning.foundation.atomic import write_atomically
from dop_lightning.foundation.checks import one_of
from dop_lightning.images.formats.image_format import ImageFormat, LoadedImage, flags_to_tensor
from dop_lightning.images.formats.kinds import raster_shape, read_raster, write_raster
from dop_lightning.images.formats.measured import is_measured
from dop_lightning.images.formats.outliers import BEYOND
from dop_lightning.images.formats.raster import Raster, Unsuitable
from dop_lightning.images.formats.repaint import repaint
from dop_lightning.images.formats.resampling import Channels, resized, with_channels
from dop_lightning.images.formats.sizes import centre, new_size, pair
from dop_lightning.images.formats.stretch import forward, inverse, range_with_noise
from dop_lightning.images.formats.value_range import check_resolution, checked_range
from dop_lightning.images.formats.value_range import value_range as range_of


def read_image(
    path: str | Path,
    resize: int | Sequence[int] | None = None,
    crop: int | Sequence[int] | None = None,
    channels: Channels = "as_is",
    value_range: tuple[float, float] | None = None,
) -> LoadedImage:
    """Read an image, upright (its EXIF orientation is applied), its values v as (v − lo)/(hi − lo).

    Missing are pixels with alpha 0 or the colour that a PNG declares transparent; of floating point, NaN; of TIFF, the
    value that GDAL's nodata tag declares; of FITS, that of BLANK (the last three in their channel alone). Partly
    transparent pixels are there.

    Args:
        path: PNG, JPEG, WebP, BMP, TIFF, FITS, ``.npy`` or ``.npz``; its content decides, not its name. Of any depth;
            grey, RGB, with a palette, with alpha, or, in TIFF and FITS and of NumPy, with any number of channels: as
            samples of a pixel or as pages of one size; as planes of a cube; as the shorter of the first and the last
            axis. ``frame.fits[1]``, ``[SCI]`` or ``[SCI,2]`` names an HDU of a FITS file, by default the first image.
        resize: a whole number is the new longer side, the other follows (at least 1 pixel); ``(H, W)`` is exactly
            that size. Lanczos, on the 8-bit image where it has 8 bits.
        crop: the H × W pixels in the centre, a whole number for a square; after resizing.
        channels: ``grey`` and ``rgb`` convert where needed (ITU-R 601 luma).
        value_range: lo and hi in the units of the file (of 0 … 255, where ``channels`` makes 8 bits of fewer); by
            default they are found, see :func:`~dop_lightning.images.formats.value_range.value_range`.

    Returns:
        Its values, its mask and what :func:`write_image` needs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a folder, empty, damaged, of another kind, too large (more than
            ``PIL.Image.MAX_IMAGE_PIXELS``), an animation, of colours that are neither grey nor RGB, of complex
            numbers, holds an infinite value or none that is observed; an argument is out of its range, or the crop is
            larger than the image.
    """
    one_of("channels", channels, get_args(Channels))
    given = None if value_range is None else checked_range(value_range)
    try:
        return load_raster(read_raster(path), resize, crop, channels, given)
    except Unsuitable as error:
        raise ValueError(f"{path}: {error}") from None


def load_raster(
    raster: Raster,
    resize: int | Sequence[int] | None = None,
    crop: int | Sequence[int] | None = None,
    channels: Channels = "as_is",
    value_range: tuple[float, float] | None = None,
) -> LoadedImage:
    """:func:`read_image` of an image that is in memory already, wherever it is from.

    Raises:
        Unsuitable: it cannot be taken; whoever knows its name adds that.
        ValueError: an argument is out of its range.
    """
    raster = with_channels(raster.upright(), channels)
    colours, observed = raster.colours(), raster.observed()
    _check_observed(observed)
    value_range = value_range or _found_range(raster, observed)
    check_resolution(raster, value_range)
    if resize is not None:
        raster, colours, observed = resized(raster, new_size(resize, *raster.size))
    if crop is not None:
        rows, columns = centre(pair("crop", crop), raster.size)
        raster = _window(raster, rows, columns)
        colours, observed = colours[rows, columns], None if observed is None else observed[rows, columns]
    _check_observed(observed)
    mask = None if observed is None or observed.all() else flags_to_tensor(observed)
    format = ImageFormat(raster.suffix, raster.mode, raster.channels, raster.size, value_range, raster)
    return LoadedImage(_normalised(colours, observed, value_range), mask, format)


def image_shape(path: str | Path) -> tuple[int, int, int]:
    """(C, H, W) of the tensor that :func:`read_image` makes of a file, by its header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as :func:`read_image`, as far as the header tells.
    """
    return raster_shape(path)


def write_image(path: str | Path, tensor: Tensor, format: ImageFormat) -> None:
    """Write ``tensor`` as the file was that it was recovered from; atomically.

    x becomes lo + clamp(x, 0, 1)·(hi − lo), rounded for integers. The file gets the kind of the input where that loses
    nothing, else PNG, and of the input: the size and orientation as stored, mode and depth, number format, alpha,
    palette (the nearest of its colours) and transparent colour, order of axes and samples, compression where it is
    lossless, colour profile (unless the channels were converted), EXIF data, resolution, and what a TIFF says of its
    origin and place. What is not kept is said in :mod:`~dop_lightning.images.formats.bmp` and
    :mod:`~dop_lightning.images.formats.tiff_writing`.

    Args:
        path: ends in ``format.suffix``.
        tensor: ``(C, H, W)``, floating point, on any device.
        format: of the image it was recovered from.

    Raises:
        ValueError: the tensor has another shape than ``format`` says, or entries that are not finite; or ``path``
            has another suffix.
    """
    if Path(path).suffix.lower() != format.suffix:
        raise ValueError(f"{path}: the image is written as {format.suffix}, got suffix {Path(path).suffix!r}")
    shape = (format.channels, *format.size)
    if tuple(tensor.shape) != shape or not tensor.is_floating_point():
        raise ValueError(
            f"{path}: image must be floating point of shape {shape}, got {tensor.dtype} of {tuple(tensor.shape)}"
        )
    if not torch.isfinite(tensor).all():
        raise ValueError(
            f"{path}: image must be finite, got {int((~torch.isfinite(tensor)).sum())} entries that are not"
        )
    raster = repainted(tensor, format).as_stored()
    write_atomically(path, lambda file: write_raster(file, raster))


PIXELS_AT_ONCE = 2**20
"""Pixels that take new values at once: the arrays in between are several times as large as an image of 8 bits."""

CORNER = 512
"""Rows and columns of an image that are enough to try whether it can be written."""


def check_writable(path: str | Path, image: LoadedImage) -> None:
    """Write a corner of an image as it was read, to memory: what cannot come back should not be worked on for hours.

    Raises:
        ValueError: it cannot be written.
    """
    image = _corner(image)
    try:
        write_raster(io.BytesIO(), repainted(image.values, image.format).as_stored())
    except Exception as error:  # encoders raise errors of any kind
        raise ValueError(
            f"{path}: an image like this cannot be written ({error}); convert it to PNG or TIFF first"
        ) from error


def _corner(image: LoadedImage) -> LoadedImage:
    """The first rows and columns of an image, which are written like the whole in a fraction of the time."""
    rows = columns = slice(CORNER)
    part = _window(image.format.raster, rows, columns)
    return LoadedImage(
        image.values[:, rows, columns],
        None if image.mask is None else image.mask[:, rows, columns],
        replace(image.format, size=part.size, raster=part),
    )


def _window(raster: Raster, rows: slice, columns: slice = slice(None)) -> Raster:
    """A part of an image, upright."""
    alpha = None if raster.alpha is None else raster.alpha[rows, columns]
    return replace(raster, samples=raster.samples[rows, columns], alpha=alpha)


def repainted(tensor: Tensor, format: ImageFormat) -> Raster:
    """What an image held, upright, with the colours of ``tensor``, as :func:`write_image` says.

    Values of the tensor that are those of the image, within reach, get its samples, to the bit, whatever their number
    format: the core of a star may be far beyond the range.

    Args:
        tensor: ``(C, H, W)``, floating point, finite.
        format: of the image it was recovered from.
    """
    samples = np.empty_like(format.raster.samples)
    height, width = format.size
    strip = max(1, PIXELS_AT_ONCE // width)
    for top in range(0, height, strip):
        rows = slice(top, top + strip)
        samples[rows] = _repainted(tensor[:, rows], _window(format.raster, rows), format.value_range).samples
    return replace(format.raster, samples=samples)


def _repainted(tensor: Tensor, raster: Raster, value_range: tuple[float, float]) -> Raster:
    """Some rows of :func:`repainted`."""
    # Single precision is enough for 8 bits, and has always given their pixels.
    precision = torch.float32 if raster.limits == (0, 255) else torch.float64
    x = tensor.detach().to("cpu", torch.float32)
    colours = inverse(x.clamp(0, 1).to(precision).permute(1, 2, 0).numpy(), value_range)  # (C, H, W) -> (H, W, C)
    observed = raster.observed()
    before = _normalised(raster.colours(), observed, value_range)
    kept = (x == before.clamp(-BEYOND, 1 + BEYOND)).permute(1, 2, 0).numpy()
    return repaint(raster, colours, kept if observed is None else kept & observed)


def write_pixels(path: str | Path, pixels: np.ndarray) -> None:
    """Write a picture as PNG, atomically.

    Args:
        path: ends in ``.png``.
        pixels: uint8, ``(H, W)`` or ``(H, W, 3)``.

    Raises:
        ValueError: ``path`` has another suffix.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: a picture is written as .png, got suffix {Path(path).suffix!r}")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    write_atomically(path, lambda file: image.save(file, format="PNG"))


def _found_range(raster: Raster, observed: np.ndarray | None) -> tuple[float, float]:
    """The range of the image, with its noise where its values are measurements."""
    found = range_of(raster)
    if not is_measured(raster, found):
        return found
    step = 1.0 if raster.samples.dtype.kind in "iu" else 0.0
    return range_with_noise(raster.colours(), observed, found, step)


def _check_observed(observed: np.ndarray | None) -> None:
    if observed is not None and not observed.any():
        raise Unsuitable("an image must have at least one observed value, got missing ones alone")


def _normalised(colours: np.ndarray, observed: np.ndarray | None, value_range: tuple[float, float]) -> Tensor:
    """Shares of the range, and 0 where missing: ``(H, W, C)`` -> ``(C, H, W)``, float32."""
    values = np.empty((colours.shape[2], *colours.shape[:2]), dtype=np.float32)
    largest = float(np.finfo(np.float32).max)
    for k in range(len(values)):
        # In double precision, which gives the same float32 for 8 bits as single precision does.
        with np.errstate(over="ignore", invalid="ignore"):
            x = forward(colours[..., k], value_range)
        values[k] = (
            np.clip(x, -largest, largest)
            if observed is None
            else np.where(observed[..., k], np.clip(x, -largest, largest), 0)
        )
    return torch.from_numpy(values)
