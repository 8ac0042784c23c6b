"""Images as Python has them, NumPy arrays, PIL images and torch tensors, as what the files of images become, and back.

Each of :data:`KINDS` is one of them, or a file. It knows the :class:`~dop_lightning.images.formats.raster.Raster` of an
image, and how another raster and arrays of its entries become objects of its own kind and layout.

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
"""What an image may be given as."""

Axis = int | Literal["auto"] | None
"""The axis of the channels."""


class ImageObject(ABC):
    """An image as a user has it.

    Args:
        given: the object.
        name: of the argument, for errors.
        axis: of the channels of an array or tensor, ``None`` without such an axis; ``auto`` finds it.

    Attributes:
        name: what errors call it.
        raster: its samples, as stored.

    Raises:
        ValueError: it is no image.
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
        """The image as a raster; ``name`` may become another one."""

    @abstractmethod
    def like(self, raster: Raster) -> Any:
        """An image of the same kind, type, size and device with the samples of ``raster``, which is upright."""

    @abstractmethod
    def entries(self, values: np.ndarray) -> Any:
        """One number for each value of the image, ``(H, W, C)`` -> the layout of the image."""

    def entry_dtype(self) -> np.dtype:
        """The floating point type for differences of its values: float32, float64 where that is not enough."""
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
        """An array of the same type, layout, order in memory and order of bytes."""
        return self.entries(raster.samples).astype(self.given.dtype, copy=False)

    def entries(self, values: np.ndarray) -> np.ndarray:
        """An array in the layout of the image."""
        array = values[..., 0] if self.channels is None else np.moveaxis(values, 2, self.channels)
        fortran = self.given.flags.f_contiguous and not self.given.flags.c_contiguous
        return np.array(array, order="F" if fortran else "C")


class TorchImage(ImageObject):
    """A tensor ``(H, W)`` or ``(C, H, W)`` on any device."""

    accepts = Tensor

    def _read(self) -> Raster:
        tensor = self.given.detach()
        if tensor.dim() not in (2, 3):
            raise Unsuitable(f"a tensor must have shape (H, W) or (C, H, W), got {tuple(tensor.shape)}; give one image")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise Unsuitable(f"a tensor must be dense, got {tensor.layout} of {tensor.dtype}")
        if tensor.dtype == torch.bfloat16 or str(tensor.dtype).startswith("torch.float8"):
            tensor = tensor.float()  # NumPy knows none of them
        array = tensor.cpu().resolve_conj().resolve_neg().numpy().copy()
        check_array(array.shape, array.dtype)
        self.channels = (None if array.ndim == 2 else 0) if self.axis == "auto" else self.axis
        samples = array[..., None] if self.channels is None else np.moveaxis(array, self.channels, 2)
        check_size(samples.shape[2], samples.shape[0], samples.shape[1])
        return Raster(".npy", samples, 8 * array.dtype.itemsize)

    def like(self, raster: Raster) -> Tensor:
        """A tensor of the same type, shape and device."""
        return self.entries(raster.samples).to(self.given.dtype)

    def entries(self, values: np.ndarray) -> Tensor:
        """A tensor in the layout of the image, on its device."""
        array = values[..., 0] if self.channels is None else np.moveaxis(values, 2, self.channels)
        return torch.from_numpy(np.array(array, order="C")).to(self.given.device)


class PillowImage(ImageObject):
    """An image of PIL, its pixels as they are; of several frames the one that it stands at."""

    accepts = Image.Image

    MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")

    def _read(self) -> Raster:
        image: Image.Image = self.given
        if image.mode not in self.MODES:
            known = "RGBA" if image.mode in ("La", "PA", "RGBa", "RGBX") else "RGB"
            raise Unsuitable(
                f"an image of PIL must have one of the modes {', '.join(self.MODES)}, got {image.mode}; "
                f'.convert("{known}") makes one'
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
        """An image of the same mode, with the palette and the ``info`` of before."""
        planes = raster.samples if raster.alpha is None else np.dstack([raster.samples, raster.alpha])
        image = self.given.copy()
        if image.mode == "1":
            image.paste(Image.fromarray(np.ascontiguousarray(planes[..., 0])))
        else:
            image.frombytes(np.ascontiguousarray(planes.astype(self.stored, copy=False)).tobytes())
        return image

    def entries(self, values: np.ndarray) -> np.ndarray:
        """An array ``(H, W)``, or ``(H, W, C)`` of the colours."""
        return np.array(values[..., 0] if values.shape[2] == 1 else values, order="C")


class FileImage(ImageObject):
    """An image in a file of any kind that ``dop recover`` reads."""

    accepts = (str, os.PathLike)

    def _read(self) -> Raster:
        paths = find_images(os.fspath(self.given))
        if len(paths) != 1:
            raise ValueError(f"{self.name} must be one file, got {str(self.given)!r}, which names {len(paths)}")
        self.path: Path = paths[0]
        self.name = str(self.path)
        return read_raster(self.path)

    def like(self, raster: Raster) -> np.ndarray:
        """An array of its values in the number format of the file, upright."""
        return self.entries(raster.colours())

    def entries(self, values: np.ndarray) -> np.ndarray:
        """An array ``(H, W)``, or ``(H, W, C)`` of the colours."""
        return np.array(values[..., 0] if values.shape[2] == 1 else values, order="C")


KINDS: tuple[type[ImageObject], ...] = (NumpyImage, PillowImage, TorchImage, FileImage)


def image_object(given: object, name: str = "image", axis: Axis = "auto") -> ImageObject:
    """An image of any kind.

    Args:
        given: the image.
        name: of the argument, for errors.
        axis: of the channels of an array or tensor, ``None`` without such an axis; ``auto`` finds it.

    Raises:
        ValueError: it is of no kind that is known, or no image.
    """
    for kind in KINDS:
        if isinstance(given, kind.accepts):
            return kind(given, name, axis)
    raise ValueError(
        f"{name} must be a path, a NumPy array, an image of PIL or a torch tensor, got {type(given).__name__}"
    )


def _palette(image: Image.Image, least: int) -> Palette:
    """The colours and alphas of an image of PIL; indices beyond them, which PIL shows as black, have an entry too."""
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
