"""Image data: files, folders, globs, and bundled photographs."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dop_lightning.foundation.names import printable
from dop_lightning.images.formats import ImageFormat, LoadedImage, check_writable, find_images, read_image, read_mask
from dop_lightning.images.formats.outliers import check_range_given, within_reach
from dop_lightning.images.formats.raster import Unsuitable
from dop_lightning.images.formats.samples import image_name
from dop_lightning.images.measured import as_measured
from dop_lightning.images.tiles import Mosaic, cover, cut
from dop_lightning.lightning.data.base import RecoveryDataModule, Source, one_file_each
from dop_lightning.problems.noise import Noise, NoNoise
from dop_lightning.problems.problem import Attribute, Problem, Sensing

Size = int | tuple[int, int] | None


@dataclass(slots=True, weakref_slot=True)
class _Read:
    """An image that was read."""

    image: LoadedImage


class ImageFile(Source):
    """An image file, which is read when needed. The ends of its value range become 0 and 1.

    Args:
        path: path of the file.
        truth: clean image, if known; of the same size, or of the size required by the sensing.
        mask: mask of the observed entries, see :func:`~dop_lightning.images.formats.read_mask`.
        value_range: see :class:`ImageDataModule`.
        resize: see :class:`ImageDataModule`.
        crop: see :class:`ImageDataModule`.
        channels: see :class:`ImageDataModule`.
        undamaged: mask of the entries that are known to be undamaged, in the same format.
    """

    data_range = 1.0

    def __init__(
        self,
        path: Path,
        truth: Path | None = None,
        mask: Path | None = None,
        value_range: tuple[float, float] | None = None,
        resize: Size = None,
        crop: Size = None,
        channels: Literal["as_is", "grey", "rgb"] = "as_is",
        undamaged: Path | None = None,
    ) -> None:
        self._path = str(path)
        self.name = image_name(path)
        self._truth = truth
        self._mask = mask
        self._undamaged = undamaged
        self._value_range = value_range
        self._resize = resize
        self._crop = crop
        self._channels: Literal["as_is", "grey", "rgb"] = channels
        self._read: _Read | None = None
        self._released: weakref.ref[_Read] | None = None
        self._formats: dict[tuple[int, ...], ImageFormat] | None = None

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(self._path)

    @property
    def _read_options(self) -> dict[str, Any]:
        return {"resize": self._resize, "crop": self._crop, "channels": self._channels}

    def _load(self) -> LoadedImage:
        read = self._read or (None if self._released is None else self._released())
        if read is None:
            image = read_image(self.path, value_range=self._value_range, **self._read_options)
            check_writable(self.path, image)
            if self._value_range is not None:
                try:
                    check_range_given(image)
                except Unsuitable as error:
                    raise ValueError(f"{self.path}: {error}") from None
            read = self._read = _Read(image)
        return read.image

    def release(self) -> object:
        """Drop the image, and return it. It is not read again while the caller holds it."""
        read = self._read or (None if self._released is None else self._released())
        self._read, self._released = None, None if read is None else weakref.ref(read, self._forget)
        self._formats = None
        return read

    def _forget(self, read: "weakref.ref[_Read]") -> None:
        """Drop a reference to an image that has been released."""
        if self._released is read:
            self._released = None

    @property
    def format(self) -> ImageFormat:
        """Format in which the recovered image is written."""
        return self._load().format

    def format_of(self, signal_shape: Sequence[int]) -> ImageFormat:
        """Return the format of a recovered image, whose shape may differ from that of a file with measurements.

        Raises:
            ValueError: an image of this format cannot have this shape.
        """
        shape = tuple(signal_shape)
        own = self.format
        if shape == (own.channels, *own.size):
            return own
        formats = self._formats = {} if self._formats is None else self._formats
        if shape not in formats:
            if len(shape) != 3 or shape[0] not in (own.channels, 1, 3):
                raise ValueError(f"{self.path}: a signal of shape {shape} cannot be written as an image like this one")
            as_is = self._channels if shape[0] == own.channels else "grey" if shape[0] == 1 else "rgb"
            reading = {"resize": shape[1:], "channels": as_is, "value_range": own.value_range}
            other = read_image(self.path, **reading)  # type: ignore[arg-type]
            check_writable(self.path, other)
            formats[shape] = other.format
        return formats[shape]

    def problem(self, noise: Noise, seed: int, sensing: Sensing | None = None) -> Problem:
        """Create a problem, see :meth:`~dop_lightning.lightning.data.Source.problem`.

        Without added noise and sensing, the noise of images that are measurements, such as FITS files, is estimated.

        Raises:
            ValueError: the signal could not be written as an image, or a file is damaged.
        """
        problem = super().problem(noise, seed, sensing)
        self.format_of(problem.signal_shape)
        if self._undamaged is not None:
            problem = replace(problem, undamaged=read_mask(self._undamaged, self._load()))
        as_it_is = isinstance(noise, NoNoise) and sensing is None
        return as_measured(problem, self._load()) if as_it_is else problem

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``image``: the name of the file."""
        return {"image": printable(self.name)}

    def signal(self, seed: int) -> Tensor:
        """Return the image, independent of the seed, with outliers clipped to half a range beyond the value range."""
        return within_reach(self._load())

    def mask(self) -> Tensor | None:
        """Return the mask of entries that are neither transparent, NaN, nor excluded by the mask file.

        Raises:
            ValueError: the mask has another size than the image, or excludes all entries.
        """
        own = self._load().mask
        if self._mask is None:
            return own
        given = read_mask(self._mask, self._load())
        mask = given if own is None else own & given
        if not mask.any():
            raise ValueError(f"{self._mask}: the mask must leave at least one observed entry of {self.path}, got none")
        return mask

    def truth(self, signal_shape: Sequence[int] = ()) -> Tensor | None:
        """Return the clean image, scaled by the value range of the image.

        Args:
            signal_shape: (C, H, W) of the signal; by default that of the image.

        Raises:
            ValueError: the size or channels differ, or entries are missing.
        """
        if self._truth is None:
            return None
        truth = read_image(self._truth, value_range=self.format.value_range, **self._read_options)
        image = self._load().values.shape
        expected = tuple(signal_shape or image)
        if truth.values.shape != expected:
            measured = "" if expected == image else "the signal measured as "
            raise ValueError(
                f"{self._truth}: the truth must have the size and channels of {measured}{self.path}, "
                f"{_format_shape(expected)}, got {_format_shape(truth.values.shape)}"
            )
        if truth.mask is not None:
            missing = int((~truth.mask).sum())
            raise ValueError(f"{self._truth}: the truth must be complete, got {missing} NaN or transparent entries")
        return truth.values


def _format_shape(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}×{height} with {channels} channel{'s' if channels > 1 else ''}"


class ImageDataModule(RecoveryDataModule):
    """Images × noises × seeds.

    Without noise, the files are recovered as they are: already corrupted, with ``truth`` for scores, if known.

    Args:
        images: files, folders, globs, or names of bundled photographs (astronaut, camera, chelsea, coffee,
            rocket).
        noise: noise added to each image; ``None`` adds none.
        seeds: seeds, or their number.
        truth: clean images, one per image in the same order, or one for all; only without noise.
        mask: mask files, one per image or one for all; entries above half of the file's largest value are observed. NaN
            and transparent pixels are always missing. A mask has the size of its image after resizing and cropping.
        value_range: minimum and maximum clean value in the units of the files, which become 0 and 1; by default the
            range of the type for 8 bits, otherwise estimated from each file, see
            :mod:`dop_lightning.images.formats.value_range`.
        tile: side in pixels of the tiles in which larger images are recovered, or ``[height, width]``, at least 8;
            ``None`` disables tiles.
        overlap: minimum overlap of neighbouring tiles in pixels, at most half of the shorter side; by default an eighth
            of the height and of the width, at most 64.
        resize: resize with a Lanczos filter: the longer side, or exactly ``[height, width]``.
        crop: crop centrally after resizing: the side of a square, or ``[height, width]``.
        channels: ``as_is``, ``grey`` or ``rgb``.
        batch_size: maximum number of images of one size in a batch. ``auto`` uses the available memory on a GPU, and
            batches of one image elsewhere, where the networks of a batch run one after the other.
        sensing: one or several ways to measure each image. Noise is then added to the measurements, and the truth is
            the image. Without noise, the files contain measurements, and the signal and ``truth`` may have another
            size; ``mask`` refers to the files.
        max_memory: maximum memory of a batch with ``auto``, such as ``8G``; by default three fifths of the available
            memory.
        undamaged: mask files of entries that are known to be undamaged, in the format of ``mask``; only without noise
            and sensing, and for methods that use it: ``Refinement`` and ``Interpolation``.

    Raises:
        ValueError: a pattern matches no files, a file is not an image, an argument is out of range, or an argument
            cannot be combined with ``sensing``.
    """

    growing = RecoveryDataModule.growing | {"images", "truth", "mask", "undamaged", "tile", "overlap"}
    defers = True

    def __init__(
        self,
        images: str | list[str],
        noise: Noise | list[Noise] | None = None,
        seeds: int | list[int] = 1,
        truth: str | list[str] | None = None,
        mask: str | list[str] | None = None,
        value_range: tuple[float, float] | None = None,
        tile: int | tuple[int, int] | None = None,
        overlap: int | None = None,
        resize: int | tuple[int, int] | None = None,
        crop: int | tuple[int, int] | None = None,
        channels: Literal["as_is", "grey", "rgb"] = "as_is",
        batch_size: int | Literal["auto"] | None = 1,
        sensing: Sensing | list[Sensing] | None = None,
        max_memory: str | None = None,
        undamaged: str | list[str] | None = None,
    ) -> None:
        super().__init__(noise, seeds, batch_size, sensing, max_memory)
        self.images = images
        self.truth = truth
        if truth is not None and noise is not None:
            raise ValueError(f"truth cannot be combined with noise, because the image is then the truth, got {truth!r}")
        self.mask = mask
        if undamaged is not None and (noise is not None or sensing is not None):
            raise ValueError(f"undamaged cannot be combined with noise or sensing, got {undamaged!r}")
        self.undamaged = undamaged
        self.value_range = value_range
        self.tile = tile
        self.overlap = overlap
        if tile is not None:
            cover((1, 1), tile, overlap)  # reports errors before files are read
        elif overlap is not None:
            raise ValueError(f"overlap requires tile, got overlap {overlap} without tile")
        self.resize = resize
        self.crop = crop
        self.channels: Literal["as_is", "grey", "rgb"] = channels
        if sensing is not None:
            self._check_sensing()

    def _check_sensing(self) -> None:
        """Refuse arguments that have no meaning, or an ambiguous one, with sensing."""
        if self.tile is not None:
            raise ValueError(f"tile must be null with sensing, which crosses the borders of tiles, got {self.tile}")
        found = [isinstance(noise, NoNoise) for noise in self.noises]
        for name, value in (("resize", self.resize), ("crop", self.crop)):
            if any(found) and value is not None:
                raise ValueError(
                    f"{name} must be null with sensing and without noise, because the files contain measurements, "
                    f"which must not be changed, got {value}"
                )
        if self.mask is not None and not all(found):
            raise ValueError(
                "mask must be null with sensing and noise, because a mask refers to measurements (use the noise "
                f"MissingEntries for missing measurements), got {self.mask!r}"
            )

    def sources(self) -> Sequence[Source]:
        """Return one source per file, in the order of the patterns."""
        paths = find_images(self.images)
        truths = one_file_each("truth", paths, self.truth, find_images)
        masks = one_file_each("mask", paths, self.mask, find_images)
        known = one_file_each("undamaged", paths, self.undamaged, find_images)
        return [
            ImageFile(path, truth, mask, self.value_range, self.resize, self.crop, self.channels, undamaged)
            for path, truth, mask, undamaged in zip(paths, truths, masks, known, strict=True)
        ]

    def cut(self, problem: Problem) -> Mosaic | None:
        """Return the tiles of an image that is larger than ``tile``."""
        return None if self.tile is None else cut(problem, self.tile, self.overlap)
