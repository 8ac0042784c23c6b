"""Photographs in and out: 8-bit PNG and JPEG, grey or RGB, as tensors in [0, 1].

A file that is read and written again has equal pixels. What cannot be given back as it came (transparency, palettes, 16
bits) is refused by name rather than changed in silence.

Shapes: C = 1 or 3 channels, H × W pixels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from dop_lightning.checks import at_least, one_of
from dop_lightning.files.atomic import write_atomically
from dop_lightning.files.find import Patterns, existing_file, find_files

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

Channels = Literal["as_is", "grey", "rgb"]
Mode = Literal["L", "RGB"]

_MODE_OF = {"grey": "L", "rgb": "RGB"}
_KINDS = {
    "1": "black and white",
    "P": "a palette",
    "PA": "a palette with transparency",
    "LA": "grey with transparency",
    "RGBA": "RGB with transparency",
    "CMYK": "colours for print",
}


@dataclass(frozen=True)
class ImageFormat:
    """What a tensor needs to become a file again.

    Attributes:
        mode: ``L``, one channel, or ``RGB``, three.
        size: (H, W) of the tensor: after orientation, resizing and cropping.
        suffix: ``.png`` or ``.jpg``, by the content of the file, not by its name.
        icc_profile: what its numbers mean as colours, if the file says so; without it they would be shown otherwise.
    """

    mode: Mode
    size: tuple[int, int]
    suffix: str
    icc_profile: bytes | None = field(default=None, repr=False)


class LoadedImage(NamedTuple):
    """An image as a problem takes it.

    Attributes:
        values: ``(C, H, W)``, float32 in [0, 1].
        mask: boolean ``(C, H, W)``, true where observed; ``None`` where all of it is.
        format: what :func:`write_image` needs to write another image as this one was.
    """

    values: Tensor
    mask: Tensor | None
    format: ImageFormat


def output_suffix(format: ImageFormat) -> str:
    """The suffix a recovered image is written with: ``.png`` for JPEG too, which would add errors of its own."""
    assert format.suffix in IMAGE_SUFFIXES
    return ".png"


def read_image(
    path: str | Path,
    resize: int | Sequence[int] | None = None,
    crop: int | Sequence[int] | None = None,
    channels: Channels = "as_is",
) -> LoadedImage:
    """Read an image, upright (its EXIF orientation is applied), its values v as v/255.

    Args:
        path: an 8-bit PNG or JPEG, grey or RGB.
        resize: a whole number is the new longer side, the other follows (at least 1 pixel); ``(H, W)`` is exactly
            that size. Lanczos, on the 8-bit image.
        crop: the H × W pixels in the centre, a whole number for a square; after resizing.
        channels: ``grey`` and ``rgb`` convert where needed (ITU-R 601 luma).

    Returns:
        Its values, its mask and what :func:`write_image` needs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a folder, empty, damaged, no PNG or JPEG, too large, or has another mode or depth; an
            argument is out of its range, or the crop is larger than the image.
    """
    one_of("channels", channels, get_args(Channels))
    path = existing_file(path)
    image, suffix = _decode(path)
    profile = image.info.get("icc_profile")
    mode = _MODE_OF.get(channels, image.mode)
    if mode != image.mode:
        # The profile describes other channels than the converted ones.
        image, profile = image.convert(mode), None
    if resize is not None:
        height, width = _new_size(resize, image.height, image.width)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    if crop is not None:
        height, width = _pair("crop", crop)
        if height > image.height or width > image.width:
            raise ValueError(
                f"{path}: crop must be at most the image, {image.height}×{image.width} (height × width), "
                f"got {height}×{width}"
            )
        top, left = (image.height - height) // 2, (image.width - width) // 2
        image = image.crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1)
    tensor = pixels.permute(2, 0, 1).to(torch.float32).div(255).contiguous()  # (H, W, C) -> (C, H, W)
    format = ImageFormat("L" if mode == "L" else "RGB", (image.height, image.width), suffix, profile or None)
    return LoadedImage(tensor, None, format)


def write_image(path: str | Path, tensor: Tensor, format: ImageFormat) -> None:
    """Write ``tensor`` as an 8-bit PNG, its values x as round(255·clamp(x, 0, 1)); atomically.

    Args:
        path: ends in ``.png``.
        tensor: ``(C, H, W)``, floating point, on any device.
        format: of the image it was recovered from.

    Raises:
        ValueError: the tensor has another shape than ``format`` says, or entries that are not finite; or ``path``
            has another suffix.
    """
    shape = (1 if format.mode == "L" else 3, *format.size)
    if tuple(tensor.shape) != shape or not tensor.is_floating_point():
        raise ValueError(
            f"{path}: image must be floating point of shape {shape}, got {tensor.dtype} of {tuple(tensor.shape)}"
        )
    if not torch.isfinite(tensor).all():
        raise ValueError(
            f"{path}: image must be finite, got {int((~torch.isfinite(tensor)).sum())} entries that are not"
        )
    pixels = tensor.detach().to("cpu", torch.float32).clamp(0, 1).mul(255).round().to(torch.uint8)
    write_pixels(path, pixels.permute(1, 2, 0).squeeze(2).numpy(), format.icc_profile)  # (C, H, W) -> (H, W[, 3])


def write_pixels(path: str | Path, pixels: np.ndarray, icc_profile: bytes | None = None) -> None:
    """Write a picture as PNG, atomically.

    Args:
        path: ends in ``.png``.
        pixels: uint8, ``(H, W)`` or ``(H, W, 3)``.
        icc_profile: see :class:`ImageFormat`.

    Raises:
        ValueError: ``path`` has another suffix.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: a picture is written as .png, got suffix {Path(path).suffix!r}")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    write_atomically(path, lambda file: image.save(file, format="PNG", icc_profile=icc_profile))


def sample_folder() -> Path:
    """Where the bundled photographs are: inside an installed package, in ``data/`` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "samples"
    return installed if installed.is_dir() else package.parent / "data"


def sample_names() -> list[str]:
    """The names by which :func:`find_images` knows the bundled photographs.

    >>> sample_names()
    ['astronaut', 'camera', 'chelsea', 'coffee']
    """
    return sorted(path.stem for path in sample_folder().glob("*.png"))


def find_images(patterns: Patterns) -> list[Path]:
    """List the images that ``patterns`` name: files, folders, patterns with ``*``, names of samples.

    See :func:`~dop_lightning.files.find.find_files`; folders and patterns give ``.png``, ``.jpg`` and ``.jpeg``.

    Raises:
        ValueError: an entry names nothing.

    >>> [path.name for path in find_images(["camera", "coffee"])]
    ['camera.png', 'coffee.png']
    """
    folder = sample_folder()
    return find_files(patterns, IMAGE_SUFFIXES, {name: folder / f"{name}.png" for name in sample_names()})


def _decode(path: Path) -> tuple[Image.Image, str]:
    """The upright picture in memory, in mode L or RGB, and the suffix of its format."""
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, which we do not use; and of bombs, which are refused below.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as file:
                suffix = ".png" if file.format == "PNG" else ".jpg"
                unsuitable = _unsuitable(path, file)
                image = None if unsuitable else ImageOps.exif_transpose(file)  # a copy, decoded
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise ValueError(
                f"{path}: an image must have at most {Image.MAX_IMAGE_PIXELS} pixels, got more; make it smaller first"
            ) from None
        except UnidentifiedImageError:
            raise ValueError(f"{path}: must be a PNG or JPEG image, got a file that is neither, or damaged") from None
        except Exception as error:  # damaged bytes make decoders raise errors of any kind
            raise ValueError(f"{path}: the image cannot be read, it is damaged or cut off ({error!r})") from None
    if image is None:
        raise ValueError(
            f"{path}: an image must be 8-bit grey (mode L) or 8-bit RGB without transparency, got {unsuitable}; "
            "convert it to 8-bit grey or RGB first"
        )
    return image, suffix


def _unsuitable(path: Path, file: Image.Image) -> str:
    """What of an opened image cannot be given back as it came; empty where all can."""
    if file.mode in _KINDS:
        return f"mode {file.mode} ({_KINDS[file.mode]})"
    if file.format == "PNG":
        # Pillow reads 16-bit RGB as 8-bit RGB and says nothing. The depth is byte 24, in the header of every PNG.
        with path.open("rb") as raw:
            depth = raw.read(25)[24]
        if depth != 8:
            return f"{depth} bits a channel (mode {file.mode})"
        if getattr(file, "n_frames", 1) > 1:
            return f"an animation of {file.n_frames} frames"  # type: ignore[attr-defined]
        if "transparency" in file.info:
            return f"mode {file.mode} with a transparent colour"
    return "" if file.mode in get_args(Mode) else f"mode {file.mode}"


def _new_size(resize: int | Sequence[int], height: int, width: int) -> tuple[int, int]:
    if not isinstance(resize, int):
        return _pair("resize", resize)
    longer = at_least("resize", resize, 1)
    scale = longer / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of one whole number or two."""
    sides = [value, value] if isinstance(value, int) else list(value) if isinstance(value, Sequence) else [value]
    if len(sides) != 2 or isinstance(value, str):
        raise ValueError(f"{name} must be a whole number or (height, width), got {value!r}")
    return at_least(name, sides[0], 1), at_least(name, sides[1], 1)
