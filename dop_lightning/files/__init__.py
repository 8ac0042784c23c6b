"""Users' files in and results out: images, matrices, pictures for people, and writing that is never half done."""

from dop_lightning.files.arrays import MATRIX_SUFFIXES, read_matrix
from dop_lightning.files.atomic import atomic_json, atomic_text, write_atomically
from dop_lightning.files.find import find_files
from dop_lightning.files.images import (
    IMAGE_SUFFIXES,
    Channels,
    ImageFormat,
    LoadedImage,
    find_images,
    image_shape,
    read_image,
    read_mask,
    sample_folder,
    sample_names,
    write_image,
    write_pixels,
)
from dop_lightning.files.pictures import comparison, corruption_map, heatmap, recovery_pictures

__all__ = [
    "IMAGE_SUFFIXES",
    "MATRIX_SUFFIXES",
    "Channels",
    "ImageFormat",
    "LoadedImage",
    "atomic_json",
    "atomic_text",
    "comparison",
    "corruption_map",
    "find_files",
    "find_images",
    "heatmap",
    "image_shape",
    "read_image",
    "read_mask",
    "read_matrix",
    "recovery_pictures",
    "sample_folder",
    "sample_names",
    "write_atomically",
    "write_image",
    "write_pixels",
]
