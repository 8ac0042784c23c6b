"""Read image files of all supported formats as tensors, and write them.

``image_files`` has the main functions, ``kinds`` detects the format of a file by its first bytes, and ``raster`` is the
common representation of all formats.
"""

from dop_lightning.images.formats.image_files import (
    check_writable,
    encode_pixels,
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
    "encode_pixels",
    "find_images",
    "image_shape",
    "read_image",
    "read_mask",
    "sample_folder",
    "sample_names",
    "write_image",
    "write_pixels",
]
