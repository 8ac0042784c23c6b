"""Read images as tensors, and write them: an unmodified image is written with the same samples and the same format.

See :func:`read_image` for the supported inputs and :func:`write_image` for the outputs.

Shapes: C channels, H × W pixels.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dop_lightning.foundation.atomic import atomic_bytes, write_atomically
from dop_lightning.foundation.checks import one_of
from dop_lightning.foundation.thread_count import set_threads_here
from dop_lightning.images.formats.image_format import ImageFormat, LoadedImage, flags_to_tensor
from dop_lightning.images.formats.kinds import raster_shape, read_raster, write_raster
from dop_lightning.images.formats.measured import is_measured
from dop_lightning.images.formats.outliers import MAX_EXCESS
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
    """Read an image upright (its EXIF orientation is applied), and scale its values v to (v − lo)/(hi − lo).

    Missing values are pixels with alpha 0 or with the transparent colour of a PNG; NaN; the value of GDAL's nodata tag
    in TIFF; and the value of BLANK in FITS (the last three only in their channel). Partly transparent pixels are
    observed.

    Args:
        path: PNG, JPEG, WebP, BMP, TIFF, FITS, ``.npy`` or ``.npz`` file of any depth; the format is detected by the
            content, not the name. Images are grey, RGB or indexed, optionally with alpha. TIFF, FITS and NumPy files
            may have any number of channels: samples per pixel or pages of one size in TIFF, planes of a cube in FITS,
            the shorter of the first and the last axis in NumPy. ``frame.fits[1]``, ``[SCI]`` or ``[SCI,2]`` selects an
            HDU of a FITS file, by default the first image.
        resize: an integer is the new longer side, with the aspect ratio kept (at least 1 pixel); ``(H, W)`` is the new
            size. Uses Lanczos, in 8 bits for 8-bit images.
        crop: size (H, W) of the centre crop, or an integer for a square; applied after resizing.
        channels: ``grey`` or ``rgb`` to convert the image if necessary (ITU-R 601 luma).
        value_range: lo and hi in the units of the file (0 … 255 if ``channels`` converts fewer than 8 bits to 8); by
            default they are estimated, see :func:`~dop_lightning.images.formats.value_range.value_range`.

    Returns:
        The values, the mask, and the format that :func:`write_image` requires.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is a folder, empty, damaged, of an unsupported format, too large (more than
            ``PIL.Image.MAX_IMAGE_PIXELS``), an animation, neither grey nor RGB, or complex; it contains infinite
            values or no observed value; an argument is out of range; or the crop is larger than the image.
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
    """Do what :func:`read_image` does for an image in memory.

    Raises:
        Unsuitable: the image is not supported; the caller adds its name to the message.
        ValueError: an argument is out of range.
    """
    raster = with_channels(raster.upright(), channels)
    colours, observed = raster.colours(), raster.observed()
    _check_observed(observed)
    value_range = value_range or _estimate_range(raster, observed)
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
    return LoadedImage(_normalise(colours, observed, value_range), mask, format)


def image_shape(path: str | Path) -> tuple[int, int, int]:
    """Return the shape (C, H, W) that :func:`read_image` returns for a file, using only its header.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the errors of :func:`read_image` that the header reveals.
    """
    return raster_shape(path)


def write_image(path: str | Path, tensor: Tensor, format: ImageFormat) -> None:
    """Write ``tensor`` in the format of the original file, atomically.

    x becomes lo + clamp(x, 0, 1)·(hi − lo), rounded for integers. The file has the format of the input if that is
    lossless, otherwise PNG. These properties of the input are kept: stored size and orientation, mode, depth, number
    format, alpha, palette (values become the nearest of its colours), transparent colour, order of axes and samples,
    lossless compression, colour profile (unless the channels were converted), EXIF data, resolution, and the origin and
    georeference of a TIFF. See :mod:`~dop_lightning.images.formats.bmp` and
    :mod:`~dop_lightning.images.formats.tiff_writing` for exceptions.

    Args:
        path: path that ends in ``format.suffix``.
        tensor: ``(C, H, W)``, floating point, on any device.
        format: format of the original image.

    Raises:
        ValueError: the tensor does not have the shape of ``format``, or is not finite; or ``path`` has another suffix.
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
            f"{path}: image must be finite, got {int((~torch.isfinite(tensor)).sum())} infinite or NaN entries"
        )
    raster = repainted(tensor, format).as_stored()
    write_atomically(path, lambda file: write_raster(file, raster))


PIXELS_AT_ONCE = 2**20
"""Number of pixels that a thread converts at a time: temporary arrays are several times as large as 8-bit images."""

MAX_STRIPS = 4
"""Maximum number of threads that convert pixels, which limits the memory."""

CORNER = 512
"""Number of rows and columns that suffice to test whether an image can be written."""


def check_writable(path: str | Path, image: LoadedImage) -> None:
    """Test whether an image can be written, before a run of hours: write a corner of it to memory.

    Raises:
        ValueError: the image cannot be written.
    """
    image = _first_pixels(image)
    try:
        write_raster(io.BytesIO(), repainted(image.values, image.format).as_stored())
    except Exception as error:  # encoders raise errors of any kind
        raise ValueError(
            f"{path}: images of this kind cannot be written ({error}); convert it to PNG or TIFF first"
        ) from error


def _first_pixels(image: LoadedImage) -> LoadedImage:
    """Return the first rows and columns of an image, which are written like the whole image, but faster."""
    rows = columns = slice(CORNER)
    part = _window(image.format.raster, rows, columns)
    return LoadedImage(
        image.values[:, rows, columns],
        None if image.mask is None else image.mask[:, rows, columns],
        replace(image.format, size=part.size, raster=part),
    )


def _window(raster: Raster, rows: slice, columns: slice = slice(None)) -> Raster:
    """Return a window of an upright image."""
    alpha = None if raster.alpha is None else raster.alpha[rows, columns]
    return replace(raster, samples=raster.samples[rows, columns], alpha=alpha)


def repainted(tensor: Tensor, format: ImageFormat) -> Raster:
    """Return the original image, upright, with the values of ``tensor``, converted as by :func:`write_image`.

    Where ``tensor`` equals the observation, the original samples are kept bit for bit in any number format, even if
    they are clamped in the observation: the core of a star may be far beyond the range.

    Args:
        tensor: ``(C, H, W)``, floating point, finite.
        format: format of the original image.
    """
    samples = np.empty_like(format.raster.samples)
    height, width = format.size
    strip = max(1, PIXELS_AT_ONCE // width)

    def repaint_strip(top: int) -> None:
        rows = slice(top, top + strip)
        samples[rows] = _repaint_rows(tensor[:, rows], _window(format.raster, rows), format.value_range).samples

    tops, threads = range(0, height, strip), torch.get_num_threads()
    if len(tops) == 1 or threads == 1:
        for top in tops:
            repaint_strip(top)
    else:
        with ThreadPoolExecutor(min(threads, MAX_STRIPS), "strip", set_threads_here, (1,)) as pool:
            list(pool.map(repaint_strip, tops))  # raises the errors of the threads
    return replace(format.raster, samples=samples)


def _repaint_rows(tensor: Tensor, raster: Raster, value_range: tuple[float, float]) -> Raster:
    """Do :func:`repainted` for some rows."""
    # Single precision suffices for 8 bits; it is kept so that results do not change.
    precision = torch.float32 if raster.limits == (0, 255) else torch.float64
    x = tensor.detach().to("cpu", torch.float32)
    colours = inverse(x.clamp(0, 1).to(precision).permute(1, 2, 0).numpy(), value_range)  # (C, H, W) -> (H, W, C)
    observed = raster.observed()
    before = _normalise(raster.colours(), observed, value_range)
    kept = (x == before.clamp(-MAX_EXCESS, 1 + MAX_EXCESS)).permute(1, 2, 0).numpy()
    return repaint(raster, colours, kept if observed is None else kept & observed)


def write_pixels(path: str | Path, pixels: np.ndarray) -> None:
    """Write a picture as PNG, atomically.

    Args:
        path: path that ends in ``.png``.
        pixels: uint8, ``(H, W)`` or ``(H, W, 3)``.

    Raises:
        ValueError: ``path`` has another suffix.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as .png, got suffix {Path(path).suffix!r}")
    atomic_bytes(path, encode_pixels(pixels))


def encode_pixels(pixels: np.ndarray) -> bytes:
    """Encode a picture as PNG with the fastest compression, which makes files slightly larger.

    Threads can encode several pictures at the same time.

    Args:
        pixels: uint8, ``(H, W)`` or ``(H, W, 3)``.
    """
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, format="PNG", compress_level=1)
    return content.getvalue()


def _estimate_range(raster: Raster, observed: np.ndarray | None) -> tuple[float, float]:
    """Estimate the range of the image, including its noise if its values are measurements."""
    found = range_of(raster)
    if not is_measured(raster, found):
        return found
    step = 1.0 if raster.samples.dtype.kind in "iu" else 0.0
    return range_with_noise(raster.colours(), observed, found, step)


def _check_observed(observed: np.ndarray | None) -> None:
    if observed is not None and not observed.any():
        raise Unsuitable("an image must have at least one observed value, got only missing ones")


def _normalise(colours: np.ndarray, observed: np.ndarray | None, value_range: tuple[float, float]) -> Tensor:
    """Scale values to fractions of the range, 0 if missing: ``(H, W, C)`` -> ``(C, H, W)``, float32."""
    values = np.empty((colours.shape[2], *colours.shape[:2]), dtype=np.float32)
    largest = float(np.finfo(np.float32).max)
    for k in range(len(values)):
        # in double precision, which rounds to the same float32 values as single precision for 8 bits
        with np.errstate(over="ignore", invalid="ignore"):
            x = forward(colours[..., k], value_range)
        values[k] = (
            np.clip(x, -largest, largest)
            if observed is None
            else np.where(observed[..., k], np.clip(x, -largest, largest), 0)
        )
    return torch.from_numpy(values)
