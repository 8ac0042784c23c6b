"""Frames from a folder of pictures."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dop_lightning.foundation.find import find_files
from dop_lightning.foundation.names import safe_name, unique_names
from dop_lightning.images.formats import IMAGE_SUFFIXES, Channels, ImageFormat, LoadedImage, read_image
from dop_lightning.matrices.scenes.frames import Frames

RANGES = 32
"""Approximate number of pictures whose range is determined; each of them must be read."""


class FolderFrames(Frames):
    """Pictures of equal size, in any format that :func:`~dop_lightning.images.formats.read_image` reads.

    All pictures are scaled by a common range, so that brightness is comparable. For more than 8 bits, it is the widest
    range of an evenly spaced sample of the pictures, because the first one may be dark.

    Args:
        path: the folder.
        grey: whether to convert frames to grey.

    Raises:
        ValueError: there are no pictures, or the first one is neither grey nor RGB.
    """

    def __init__(self, path: Path, grey: bool = False) -> None:
        self.path = path
        self.files = sorted(find_files(path, IMAGE_SUFFIXES), key=lambda file: _natural_key(file.name))
        self._channels: Channels = "grey" if grey else "as_is"
        first = read_image(self.files[0], channels=self._channels)
        if first.format.channels not in (1, 3):
            raise ValueError(f"{self.files[0]}: a frame must be grey or RGB, got {first.format.channels} channels")
        deep = _is_deep(first)
        self.format: ImageFormat = self._widest_format(first.format) if deep else first.format
        self.shape = (first.format.channels, *first.format.size)
        self.dtype = np.dtype(np.uint8 if first.format.value_range == (0, 255) and not deep else np.float32)
        self._names = unique_names([safe_name(file.stem) for file in self.files])

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        for file in self.files:
            yield self._to_array(file, self._read(file))

    @property
    def is_plain(self) -> bool:
        """Whether an 8-bit PNG without metadata preserves all of the information in these files."""
        raster = self.format.raster
        plain = raster.palette is None and raster.alpha is None and raster.key is None and raster.nodata is None
        same = raster.bits == 8 and raster.orientation == 1 and not any(raster.metadata.values())
        return self.dtype == np.uint8 and self.format.suffix == ".png" and plain and same

    def _widest_format(self, format: ImageFormat) -> ImageFormat:
        """Return the format of the first picture, with the widest range of a sample of the pictures."""
        every = max(1, len(self.files) // RANGES)
        some = [read_image(file, channels=self._channels).format for file in self.files[::every]]
        lows, highs = zip(*(found.value_range for found in some), strict=True)
        return replace(format, value_range=(min(lows), max(highs)))

    def _read(self, file: Path) -> LoadedImage:
        return read_image(file, channels=self._channels, value_range=self.format.value_range)

    def _to_array(self, file: Path, image: LoadedImage) -> np.ndarray:
        if tuple(image.values.shape) != self.shape:
            (c, h, w), (other_c, other_h, other_w) = self.shape, image.values.shape
            raise ValueError(
                f"{file}: frames must have the size of {self.files[0].name}, {w}×{h} with {c} channels, "
                f"got {other_w}×{other_h} with {other_c}"
            )
        if image.mask is not None:
            raise ValueError(f"{file}: frames must not have missing entries, got {int((~image.mask).sum())}")
        values = image.values.numpy()
        return np.round(values.clip(0, 1) * 255).astype(np.uint8) if self.dtype == np.uint8 else values

    def frame_name(self, index: int) -> str:
        """Return the file name of a frame, without suffix."""
        return self._names[index]


def _is_deep(image: LoadedImage) -> bool:
    """Return whether the range of a picture depends on its values, not on its type."""
    raster = image.format.raster
    return raster.palette is None and (raster.samples.dtype.kind in "fi" or raster.limits[1] > 255)


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key for sorting names with numbers in numerical order.

    >>> sorted(["f10.png", "f9.png", "F1.png"], key=_natural_key)
    ['F1.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
