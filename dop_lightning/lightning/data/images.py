"""Images: files, folders, globs, and the photographs that come with the package."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dop_lightning.foundation.names import legible
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
    """An image as it was read."""

    image: LoadedImage


class ImageFile(Source):
    """One image file, read when it is needed; 0 and 1 are the ends of its range.

    Args:
        path: the file.
        truth: the clean image, where it is known; of the same size, or of the size that follows from the sensing.
        mask: which of its entries were observed, see :func:`~dop_lightning.images.formats.read_mask`.
        value_range: see :class:`ImageDataModule`.
        resize: see :class:`ImageDataModule`.
        crop: see :class:`ImageDataModule`.
        channels: see :class:`ImageDataModule`.
        undamaged: which of its entries are known to be undamaged, a file like that of the mask.
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
        self._sizes = resize, crop
        self._channels: Literal["as_is", "grey", "rgb"] = channels
        self._read: _Read | None = None
        self._released: weakref.ref[_Read] | None = None
        self._formats: dict[tuple[int, ...], ImageFormat] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._path)

    @property
    def _reading(self) -> dict[str, Any]:
        return {"resize": self._sizes[0], "crop": self._sizes[1], "channels": self._channels}

    def _load(self) -> LoadedImage:
        read = self._read or (None if self._released is None else self._released())
        if read is None:
            image = read_image(self.path, value_range=self._value_range, **self._reading)
            check_writable(self.path, image)
            if self._value_range is not None:
                try:
                    check_range_given(image)
                except Unsuitable as error:
                    raise ValueError(f"{self.path}: {error}") from None
            read = self._read = _Read(image)
        return read.image

    def release(self) -> object:
        """Let go of the image, and return it: until nobody holds it, the file is not read again."""
        read = self._read or (None if self._released is None else self._released())
        self._read, self._released = None, None if read is None else weakref.ref(read)
        self._formats = None
        return read

    @property
    def format(self) -> ImageFormat:
        """What the recovered image is written back as."""
        return self._load().format

    def format_of(self, signal_shape: Sequence[int]) -> ImageFormat:
        """What a recovered image of this shape is written back as: where the file is what was measured, not its size.

        Raises:
            ValueError: no image of this kind has such a shape.
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
        """As of any source; what could not be written is refused. Noise that is added is that of no detector."""
        problem = super().problem(noise, seed, sensing)
        self.format_of(problem.signal_shape)
        if self._undamaged is not None:
            problem = replace(problem, undamaged=read_mask(self._undamaged, self._load()))
        as_it_is = isinstance(noise, NoNoise) and sensing is None
        return as_measured(problem, self._load()) if as_it_is else problem

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``image``: the name of the file."""
        return {"image": legible(self.name)}

    def signal(self, seed: int) -> Tensor:
        """The image, whatever the seed; outliers within reach."""
        return within_reach(self._load())

    def mask(self) -> Tensor | None:
        """What was observed: not transparent, not NaN, and not left out by the file of the mask.

        Raises:
            ValueError: the mask has another size than the image, or leaves nothing.
        """
        own = self._load().mask
        if self._mask is None:
            return own
        given = read_mask(self._mask, self._load())
        mask = given if own is None else own & given
        if not mask.any():
            raise ValueError(f"{self._mask}: the mask must leave an observed entry of {self.path}, got none")
        return mask

    def truth(self, signal_shape: Sequence[int] = ()) -> Tensor | None:
        """The clean image, in the range of the image.

        Args:
            signal_shape: (C, H, W) of what is to be recovered; by default that of the image.

        Raises:
            ValueError: it has another size or other channels, or is not known everywhere.
        """
        if self._truth is None:
            return None
        truth = read_image(self._truth, value_range=self.format.value_range, **self._reading)
        image = self._load().values.shape
        expected = tuple(signal_shape or image)
        if truth.values.shape != expected:
            measured = "" if expected == image else "what was measured as "
            raise ValueError(
                f"{self._truth}: the truth must have the size and channels of {measured}{self.path}, "
                f"{_describe(expected)}, got {_describe(truth.values.shape)}"
            )
        if truth.mask is not None:
            missing = int((~truth.mask).sum())
            raise ValueError(
                f"{self._truth}: the truth must be known everywhere, got {missing} NaN or transparent entries"
            )
        return truth.values


def _describe(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}×{height} with {channels} channel{'s' if channels > 1 else ''}"


class ImageDataModule(RecoveryDataModule):
    """Images × noises × seeds.

    Without noise the files are taken as they are: corrupted already, with ``truth`` for scores where it is known.

    Args:
        images: files, folders, globs, or names of bundled photographs (astronaut, camera, chelsea, coffee,
            rocket).
        noise: what is done to each image; ``None`` adds nothing.
        seeds: seeds, or how many.
        truth: clean images, one an image in the same order, or one for all; only without noise.
        mask: files of what was observed (above half of the file's largest value), one an image or one for all. NaN and
            transparent pixels are missing without it. A mask has the size of its image after resizing and cropping.
        value_range: the least and the largest clean value in the units of the files, which become 0 and 1; by default
            that of the type for 8 bits, else found in each file, see :mod:`dop_lightning.images.formats.value_range`.
        tile: side of the tiles in pixels that larger images are recovered in, at least 8; ``None`` takes images whole.
        overlap: pixels that neighbouring tiles share at least, at most half of ``tile``; by default an eighth of it.
        resize: Lanczos; a number is the longer side, ``[height, width]`` is exactly that.
        crop: centred, after resizing: a number for a square, or ``[height, width]``.
        channels: ``as_is``, ``grey`` or ``rgb``.
        batch_size: images of one size in one batch, at most; ``auto`` takes as many as memory allows on a GPU, and
            one elsewhere, where the networks of a batch run one after the other.
        sensing: how each image is measured, in one or several ways: the noise comes to the measurements then, and the
            truth is the image. Without noise the files hold what was measured, and what is recovered may have another
            size, that of ``truth`` as well; files of a ``mask`` go with them.
        max_memory: what a batch may take with ``auto``, such as ``8G``; by default three fifths of what is free.
        undamaged: files of what is known to be undamaged, like those of ``mask``; only without noise and sensing, and
            for methods that use it: ``Refinement`` and ``Interpolation``.

    Raises:
        ValueError: a pattern matches nothing, a file is not an image, an argument is out of range, or one does not go
            with ``sensing``.
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
        tile: int | None = None,
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
            raise ValueError(f"truth must not be given together with noise: the image is the truth then, got {truth!r}")
        self.mask = mask
        if undamaged is not None and (noise is not None or sensing is not None):
            raise ValueError(f"undamaged must not be given together with noise or sensing, got {undamaged!r}")
        self.undamaged = undamaged
        self.value_range = value_range
        self.tile = tile
        self.overlap = overlap
        if tile is not None:
            cover((1, 1), tile, overlap)  # a mistake shows before files are read
        elif overlap is not None:
            raise ValueError(f"overlap must be given together with tile, got {overlap}")
        self.resize = resize
        self.crop = crop
        self.channels: Literal["as_is", "grey", "rgb"] = channels
        if sensing is not None:
            self._check_sensing()

    def _check_sensing(self) -> None:
        """Refuse what has no meaning, or another one, where images are measured."""
        if self.tile is not None:
            raise ValueError(f"tile must be null with sensing, which does not end where a tile ends, got {self.tile}")
        found = [isinstance(noise, NoNoise) for noise in self.noises]
        for name, value in (("resize", self.resize), ("crop", self.crop)):
            if any(found) and value is not None:
                raise ValueError(
                    f"{name} must be null with sensing and without noise: the files hold what was measured, and would "
                    f"be measurements of another kind, got {value}"
                )
        if self.mask is not None and not all(found):
            raise ValueError(
                "mask must be null with sensing and noise, since what is masked are measurements (for some that are "
                f"missing there is the noise MissingEntries), got {self.mask!r}"
            )

    def sources(self) -> Sequence[Source]:
        """One source a file, in the order of the patterns."""
        paths = find_images(self.images)
        truths = one_file_each("truth", paths, self.truth, find_images)
        masks = one_file_each("mask", paths, self.mask, find_images)
        known = one_file_each("undamaged", paths, self.undamaged, find_images)
        return [
            ImageFile(path, truth, mask, self.value_range, self.resize, self.crop, self.channels, undamaged)
            for path, truth, mask, undamaged in zip(paths, truths, masks, known, strict=True)
        ]

    def cut(self, problem: Problem) -> Mosaic | None:
        """Tiles, where ``tile`` is given and the image is larger."""
        return None if self.tile is None else cut(problem, self.tile, self.overlap)
