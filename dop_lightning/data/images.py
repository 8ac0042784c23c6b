"""Images: files, folders, globs, and the photographs that come with the package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from dop_lightning.data.base import RecoveryDataModule, Source, one_truth_each
from dop_lightning.files.images import ImageFormat, LoadedImage, find_images, read_image
from dop_lightning.noise import Noise
from dop_lightning.problems import Attribute

Size = int | tuple[int, int] | None


class ImageFile(Source):
    """One image file, read when it is needed; values in [0, 1].

    Args:
        path: the file.
        truth: the clean image of the same size, where it is known.
        resize: see :class:`ImageDataModule`.
        crop: see :class:`ImageDataModule`.
        channels: see :class:`ImageDataModule`.
    """

    data_range = 1.0

    def __init__(
        self,
        path: Path,
        truth: Path | None = None,
        resize: Size = None,
        crop: Size = None,
        channels: Literal["as_is", "grey", "rgb"] = "as_is",
    ) -> None:
        self.path = path
        self.name = path.stem
        self._truth = truth
        self._reading = {"resize": resize, "crop": crop, "channels": channels}
        self._read: LoadedImage | None = None

    def _load(self) -> LoadedImage:
        if self._read is None:
            self._read = read_image(self.path, **self._reading)  # type: ignore[arg-type]
        return self._read

    @property
    def format(self) -> ImageFormat:
        """What the recovered image is written back as."""
        return self._load().format

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``image``: the name of the file."""
        return {"image": self.name}

    def signal(self, seed: int) -> Tensor:
        """The image, whatever the seed."""
        return self._load().values

    def truth(self) -> Tensor | None:
        """The clean image.

        Raises:
            ValueError: it has another size or other channels than the image.
        """
        if self._truth is None:
            return None
        truth = read_image(self._truth, **self._reading).values  # type: ignore[arg-type]
        if truth.shape != self.signal(0).shape:
            raise ValueError(
                f"{self._truth}: the truth must have the size and channels of {self.path}, "
                f"{_describe(self.signal(0))}, got {_describe(truth)}"
            )
        return truth


def _describe(image: Tensor) -> str:
    channels, height, width = image.shape
    return f"{width}×{height} with {channels} channel{'s' if channels > 1 else ''}"


class ImageDataModule(RecoveryDataModule):
    """Images × noises × seeds.

    Without noise the files are taken as they are: corrupted already, with ``truth`` for scores where it is known.

    Args:
        images: files, folders, globs, or names of bundled photographs (astronaut, camera, chelsea, coffee).
        noise: what is done to each image; ``None`` adds nothing.
        seeds: seeds, or how many.
        truth: clean images, one an image in the same order, or one for all; only without noise.
        resize: Lanczos; a number is the longer side, ``[height, width]`` is exactly that.
        crop: centred, after resizing: a number for a square, or ``[height, width]``.
        channels: ``as_is``, ``grey`` or ``rgb``.
        batch_size: images of one size in one batch, at most.

    Raises:
        ValueError: a pattern matches nothing, a file is not an image, or an argument is out of range.
    """

    def __init__(
        self,
        images: str | list[str],
        noise: Noise | list[Noise] | None = None,
        seeds: int | list[int] = 1,
        truth: str | list[str] | None = None,
        resize: int | tuple[int, int] | None = None,
        crop: int | tuple[int, int] | None = None,
        channels: Literal["as_is", "grey", "rgb"] = "as_is",
        batch_size: int | None = 1,
    ) -> None:
        super().__init__(noise, seeds, batch_size)
        self.images = images
        self.truth = truth
        if truth is not None and noise is not None:
            raise ValueError(f"truth must not be given together with noise: the image is the truth then, got {truth!r}")
        self.resize = resize
        self.crop = crop
        self.channels: Literal["as_is", "grey", "rgb"] = channels

    def sources(self) -> Sequence[Source]:
        """One source a file, in the order of the patterns."""
        paths = find_images(self.images)
        truths = one_truth_each(paths, self.truth, find_images)
        return [
            ImageFile(path, truth, self.resize, self.crop, self.channels)
            for path, truth in zip(paths, truths, strict=True)
        ]
