"""Image files of any kind, as tensors and back.

``image_files`` is the entrance, ``kinds`` finds what a file is by its first bytes, ``raster`` is what all kinds become.
"""

from dop_lightning.images.formats.image_files import (
    check_writable,
    image_shape,
    read_image,
    write_image,
    write_pixels,
)
from dop_lightning.images.formats.image_format import ImageFormat, LoadedImage
from dop_lightning.images.formats.masks import read_mask
from dop_lightning.images.formats.resampling import Channels
from dop_lightning.images.formats.samples import IMAGE_SUFFIXES, find_images, sample_folder, sample_names

__all__ = [
    "IMAGE_SUFFIXES",
    "Channels",
    "ImageFormat",
    "LoadedImage",
    "check_writable",
    "find_images",
    "image_shape",
    "read_image",
    "read_mask",
    "sample_folder",
    "sample_names",
    "write_image",
    "write_pixels",
]
