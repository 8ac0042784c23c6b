"""Convert NumPy arrays, PIL images, torch tensors and files to rasters, and back.

Each class of :data:`KINDS` handles one kind of image. It reads an image as a
:class:`~dop_lightning.images.formats.raster.Raster`, and converts rasters and arrays of entries to the kind and layout
of the image.

Shapes: H × W pixels, C channels.
"""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dop_lightning.images.formats import find_images
from dop_lightning.images.formats.kinds import checked_raster, read_raster
from dop_lightning.images.formats.numpy_files import channel_axis, check_array
from dop_lightning.images.formats.raster import Palette, Raster, Unsuitable, check_size

ImageLike = str | os.PathLike[str] | np.ndarray | Image.Image | Tensor
"""Types that are accepted as an image."""

Axis = int | Literal["auto"] | None
"""Axis of the channels; ``None`` without channels."""


class ImageObject(ABC):
    """An image passed by the user.

    Args:
        given: the image.
        name: name of the argument, for errors.
        axis: axis of the channels of an array or tensor, ``None`` without channels; ``auto`` detects it.

    Attributes:
        name: name of the image in errors.
        raster: samples of the image, as stored.

    Raises:
        ValueError: the object is not a supported image.
    """

    accepts: ClassVar[Any]

    def __init__(self, given: Any, name: str, axis: Axis = "auto") -> None:
        self.given = given
        self.name = name
        self.axis = axis
        try:
            self.raster = checked_raster(self._read())
        except Unsuitable as error:
            raise ValueError(f"{self.name}: {error}") from None

    @abstractmethod
    def _read(self) -> Raster:
        """Return the image as a raster; may update ``name``."""

    @abstractmethod
    def like(self, raster: Raster) -> Any:
        """Return an image of the same kind, type, size and device with the samples of an upright raster."""

    @abstractmethod
    def entries(self, values: np.ndarray) -> Any:
        """Convert an array with one entry per value of the image from ``(H, W, C)`` to the layout of the image."""

    def entry_dtype(self) -> np.dtype:
        """Return the floating-point type for differences of values: float32, or float64 if float32 is too coarse."""
        return np.result_type(self.raster.colours().dtype, np.float32)


class NumpyImage(ImageObject):
    """An array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, as in ``.npy`` files."""

    accepts = np.ndarray

    def _read(self) -> Raster:
        check_array(self.given.shape, self.given.dtype)
        self.channels = channel_axis(self.given.shape) if self.axis == "auto" else self.axis
        array = np.array(self.given, dtype=self.given.dtype.newbyteorder("="), order="C", subok=False)
        samples = array[..., None] if self.channels is None else np.moveaxis(array, self.channels, 2)
        check_size(samples.shape[2], samples.shape[0], samples.shape[1])
        return Raster(".npy", samples, 8 * array.dtype.itemsize)

    def like(self, raster: Raster) -> np.ndarray:
        """Return an array of the same type, layout, memory order and byte order."""
        return self.entries(raster.samples).astype(self.given.dtype, copy=False)

    def entries(self, values: np.ndarray) -> np.ndarray:
        """Return an array in the layout of the image."""
        array = values[..., 0] if self.channels is None else np.moveaxis(values, 2, self.channels)
        fortran = self.given.flags.f_contiguous and not self.given.flags.c_contiguous
        return np.array(array, order="F" if fortran else "C")


class TorchImage(ImageObject):
    """A tensor ``(H, W)`` or ``(C, H, W)`` on any device."""

    accepts = Tensor

    def _read(self) -> Raster:
        tensor = self.given.detach()
        if tensor.dim() not in (2, 3):
            raise Unsuitable(f"a tensor must have shape (H, W) or (C, H, W), got {tuple(tensor.shape)}; pass one image")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise Unsuitable(f"a tensor must be dense, got {tensor.layout} of {tensor.dtype}")
        if tensor.dtype == torch.bfloat16 or str(tensor.dtype).startswith("torch.float8"):
            tensor = tensor.float()  # NumPy has no such types
        array = tensor.cpu().resolve_conj().resolve_neg().numpy().copy()
        check_array(array.shape, array.dtype)
        self.channels = (None if array.ndim == 2 else 0) if self.axis == "auto" else self.axis
        samples = array[..., None] if self.channels is None else np.moveaxis(array, self.channels, 2)
        check_size(samples.shape[2], samples.shape[0], samples.shape[1])
        return Raster(".npy", samples, 8 * array.dtype.itemsize)

    def like(self, raster: Raster) -> Tensor:
        """Return a tensor of the same type, shape and device."""
        return self.entries(raster.samples).to(self.given.dtype)

    def entries(self, values: np.ndarray) -> Tensor:
        """Return a tensor in the layout of the image, on its device."""
        array = values[..., 0] if self.channels is None else np.moveaxis(values, 2, self.channels)
        return torch.from_numpy(np.array(array, order="C")).to(self.given.device)


class PillowImage(ImageObject):
    """A PIL image, with its pixels as stored; the current frame if there are several."""

    accepts = Image.Image

    MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")

    def _read(self) -> Raster:
        image: Image.Image = self.given
        if image.mode not in self.MODES:
            known = "RGBA" if image.mode in ("La", "PA", "RGBa", "RGBX") else "RGB"
            raise Unsuitable(
                f"a PIL image must have one of the modes {', '.join(self.MODES)}, got {image.mode}; "
                f'convert it with .convert("{known}")'
            )
        check_size(len(image.getbands()), image.height, image.width)
        array = np.array(image)
        self.stored = array.dtype
        array = array.astype(array.dtype.newbyteorder("=")).reshape(image.height, image.width, -1)
        palette, alpha, key = None, None, None
        if image.mode == "P":
            palette = _palette(image, int(array.max()) + 1)
        elif image.mode in ("LA", "RGBA"):
            array, alpha = array[..., :-1], array[..., -1]
        elif isinstance(transparent := image.info.get("transparency"), int | tuple):
            key = transparent if isinstance(transparent, tuple) else (transparent,)
        bits = 1 if image.mode == "1" else 8 * array.dtype.itemsize
        return Raster(".png", array, bits, alpha, palette, key if key and len(key) == array.shape[2] else None)

    def like(self, raster: Raster) -> Image.Image:
        """Return an image of the same mode, with the same palette and ``info``."""
        planes = raster.samples if raster.alpha is None else np.dstack([raster.samples, raster.alpha])
        image = self.given.copy()
        if image.mode == "1":
            image.paste(Image.fromarray(np.ascontiguousarray(planes[..., 0])))
        else:
            image.frombytes(np.ascontiguousarray(planes.astype(self.stored, copy=False)).tobytes())
        return image

    def entries(self, values: np.ndarray) -> np.ndarray:
        """Return an array ``(H, W)``, or ``(H, W, C)`` of the colours."""
        return np.array(values[..., 0] if values.shape[2] == 1 else values, order="C")


class FileImage(ImageObject):
    """An image file of any format that ``dop recover`` supports."""

    accepts = (str, os.PathLike)

    def _read(self) -> Raster:
        paths = find_images(os.fspath(self.given))
        if len(paths) != 1:
            raise ValueError(f"{self.name} must be one file, got {str(self.given)!r}, which matches {len(paths)}")
        self.path: Path = paths[0]
        self.name = str(self.path)
        return read_raster(self.path)

    def like(self, raster: Raster) -> np.ndarray:
        """Return an upright array of the values, in the number format of the file."""
        return self.entries(raster.colours())

    def entries(self, values: np.ndarray) -> np.ndarray:
        """Return an array ``(H, W)``, or ``(H, W, C)`` of the colours."""
        return np.array(values[..., 0] if values.shape[2] == 1 else values, order="C")


KINDS: tuple[type[ImageObject], ...] = (NumpyImage, PillowImage, TorchImage, FileImage)


def image_object(given: object, name: str = "image", axis: Axis = "auto") -> ImageObject:
    """Wrap an image of any supported kind.

    Args:
        given: the image.
        name: name of the argument, for errors.
        axis: axis of the channels of an array or tensor, ``None`` without channels; ``auto`` detects it.

    Raises:
        ValueError: the type is not supported, or the object is not an image.
    """
    for kind in KINDS:
        if isinstance(given, kind.accepts):
            return kind(given, name, axis)
    raise ValueError(f"{name} must be a path, a NumPy array, a PIL image or a torch tensor, got {type(given).__name__}")


def _palette(image: Image.Image, least: int) -> Palette:
    """Return the palette of a PIL image, padded with black to ``least`` entries, as PIL displays larger indices."""
    colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    colours = np.pad(colours, ((0, max(0, least - len(colours))), (0, 0)))
    alphas = np.full(len(colours), 255, dtype=np.uint8)
    transparent = image.info.get("transparency")
    if image.palette is not None and image.palette.mode == "RGBA":
        known = np.array(image.getpalette("RGBA"), dtype=np.uint8).reshape(-1, 4)[:, 3]
        alphas[: len(known)] = known
    elif isinstance(transparent, bytes):
        known = np.frombuffer(transparent, dtype=np.uint8)[: len(colours)]
        alphas[: len(known)] = known
    elif isinstance(transparent, int) and transparent < len(alphas):
        alphas[transparent] = 0
    return Palette(colours, None if (alphas == 255).all() else alphas)
