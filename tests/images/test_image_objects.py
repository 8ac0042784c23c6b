"""Arrays, images of PIL, tensors and files as rasters, and back: the same object where nothing was changed."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.images.formats.image_files import load_raster, repainted
from dop_lightning.images.image_objects import FileImage, image_object

RNG = np.random.default_rng(0)


def through(given: Any) -> Any:
    """Expected result of a recovery that changes no value."""
    image = image_object(given)
    loaded = load_raster(image.raster)
    return image.like(repainted(loaded.values, loaded.format))


def array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Of smooth values, so that those at the ends of the range are no outliers, and few enough for float32."""
    kind, ramp = np.dtype(dtype).kind, np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    low, high = {"b": (0, 1), "u": (0, 255), "i": (-100, 100), "f": (0.0, 1.0)}[kind]
    return (ramp > 0.5) if kind == "b" else (low + ramp * (high - low)).astype(dtype)


# ---------------------------------------------------------------------------------------------------------------- NumPy


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"],
)
@pytest.mark.parametrize("shape", [(8, 9), (9, 8, 3), (3, 8, 9), (12, 11, 7), (8, 8, 1)])
def test_arrays_are_returned(dtype: str, shape: tuple[int, ...]) -> None:
    given = array(shape, dtype)
    back = through(given)
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape) == (given.dtype, shape)
    np.testing.assert_allclose(
        back.astype(float), given.astype(float), rtol=0, atol=1e-6 if given.dtype.kind == "f" else 0
    )


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", ">i4", ">f8"])
def test_byte_order_is_preserved(dtype: str) -> None:
    given = array((10, 12), dtype)
    back = through(given)
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_allclose(back, given, rtol=0, atol=1e-5)


def test_memory_layout_is_preserved_and_input_unchanged() -> None:
    given = np.asfortranarray(array((10, 12, 3), "uint8"))
    given.flags.writeable = False
    back = through(given)
    assert back.flags.f_contiguous
    assert back.flags.writeable
    assert (back == given).all()


def test_arrays_need_not_be_contiguous() -> None:
    whole = array((20, 30, 4), "uint8")
    for view in (whole[::2, ::-3, 1:], whole[..., 0].T, np.broadcast_to(whole[:1], (9, 30, 4))):
        assert (through(view) == view).all()


def test_a_subclass_becomes_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array((8, 8), "uint8"))
    assert type(through(np.load(tmp_path / "a.npy", mmap_mode="r"))) is np.ndarray


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            np.zeros((4, 4), complex),
            "image: an image must contain real numbers, got complex128; save its absolute value",
        ),
        (np.zeros((4, 4), "datetime64[s]"), "image: an image must contain numbers of at most 64 bits, got datetime64"),
        (np.array([["a", 1]], dtype=object), "image: an image must contain numbers, got Python objects"),
        (np.zeros(5), "image: an image must have shape (H, W), (H, W, C) or (C, H, W), got (5,)"),
        (np.zeros((1, 3, 4, 4)), "image: an image must have shape (H, W), (H, W, C) or (C, H, W), got (1, 3, 4, 4)"),
        (np.zeros((0, 4)), "image: an image must have at least one pixel, got 0×4 (height × width)"),
        (np.full((3, 4), np.inf), "image: values must be finite, or NaN if missing, got inf in row 1, column 1"),
        ([[1, 2], [3, 4]], "image must be a path, a NumPy array, a PIL image or a torch tensor, got list"),
        (None, "image must be a path, a NumPy array, a PIL image or a torch tensor, got NoneType"),
    ],
)
def test_non_images_are_refused(given: object, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        image_object(given)


# ---------------------------------------------------------------------------------------------------------------- torch


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.uint16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    ],
)
@pytest.mark.parametrize("shape", [(8, 9), (3, 8, 9), (1, 9, 8), (12, 8, 9)])
def test_tensors_are_returned(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    ramp = torch.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    given = (ramp > 0.5) if dtype == torch.bool else ramp.mul(1 if dtype.is_floating_point else 255).to(dtype)
    back = through(given)
    assert (back.dtype, back.shape, back.device) == (given.dtype, given.shape, given.device)
    torch.testing.assert_close(back.float(), given.float(), rtol=0, atol=1e-6 if dtype.is_floating_point else 0)


def test_the_first_axis_of_a_tensor_is_the_channels() -> None:
    assert image_object(torch.zeros(12, 4, 5)).raster.channels == 12


def test_tensor_with_gradient_is_detached() -> None:
    back = through(torch.rand(3, 8, 8, requires_grad=True))
    assert not back.requires_grad


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.zeros(2, 3, 4, 4),
            "image: a tensor must have shape (H, W) or (C, H, W), got (2, 3, 4, 4); pass one image",
        ),
        (torch.zeros(4, 4, dtype=torch.complex64), "image: an image must contain real numbers, got complex64"),
        (torch.zeros(4, 4).to_sparse(), "image: a tensor must be dense, got torch.sparse_coo"),
        (torch.zeros(3, 0, 4), "image: an image must have at least one pixel"),
    ],
)
def test_non_image_tensors_are_refused(given: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        image_object(given)


# ------------------------------------------------------------------------------------------------------------------ PIL


def picture(mode: str) -> Image.Image:
    """Of 13×9 pixels, with gradients."""
    grey = Image.fromarray(array((9, 13), "uint8"))
    if mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        image = Image.new(mode, (13, 9))
        image.frombytes(array((9, 13), ">u2" if mode == "I;16B" else "<u2").tobytes())
        return image
    if mode in ("LA", "RGBA"):
        image = Image.merge("RGB", (grey, grey.transpose(Image.Transpose.ROTATE_180), grey)).convert(mode)
        image.putalpha(grey.point(lambda v: v if v > 60 else 0))
        return image
    return grey.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"])
def test_pil_images_are_returned(mode: str) -> None:
    given = picture(mode)
    given.info["dpi"] = (300, 300)
    back = through(given)
    assert (back.mode, back.size, back.info) == (given.mode, given.size, given.info)
    assert back is not given
    if mode in ("LA", "RGBA"):  # what is invisible is not known
        assert (np.array(back)[..., -1] == np.array(given)[..., -1]).all()
        seen = np.array(given)[..., -1] > 0
        assert (np.array(back)[seen] == np.array(given)[seen]).all()
    else:
        np.testing.assert_allclose(np.array(back).astype(float), np.array(given).astype(float), rtol=0, atol=1e-4)
    if mode == "P":
        assert back.getpalette() == given.getpalette()


def test_transparent_pixels_of_pil_images_are_missing() -> None:
    grey = picture("L")
    observed = image_object(picture("RGBA")).raster.observed()
    assert observed is not None
    assert (observed == (np.array(picture("RGBA"))[..., 3:] > 0)).all()
    for transparency, expected in ((3, np.array(picture("P")) != 3), (b"\xff\x00\x80", np.array(picture("P")) != 1)):
        palette = picture("P")
        palette.info["transparency"] = transparency
        flags = image_object(palette).raster.observed()
        assert (np.ones((9, 13), bool) if flags is None else flags[..., 0]).tolist() == expected.tolist()
    grey.info["transparency"] = 0
    keyed = image_object(grey).raster.observed()
    assert keyed is not None
    assert (keyed[..., 0] == (np.array(grey) != 0)).all()


def test_indices_beyond_a_palette_are_black() -> None:
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 9)
    assert image_object(image).raster.colours()[1, 1].tolist() == [0, 0, 0]
    assert (np.array(through(image)) == np.array(image)).all()


@pytest.mark.parametrize(("mode", "better"), [("CMYK", "RGB"), ("YCbCr", "RGB"), ("PA", "RGBA"), ("RGBa", "RGBA")])
def test_other_modes_are_refused(mode: str, better: str) -> None:
    with pytest.raises(ValueError, match=rf'^image: .* got {mode}; convert it with \.convert\("{better}"\)$'):
        image_object(Image.new(mode, (4, 4)))


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_file_becomes_an_array_upright(tmp_path: Path) -> None:
    pixels = array((9, 13, 3), "uint8")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), os.fspath(tmp_path / "a.png")):
        back = through(given)
        assert back.dtype == np.uint8
        assert (back == np.rot90(pixels, -1)).all()


def test_a_file_with_a_palette_becomes_its_colours_and_one_of_grey_has_two_axes(tmp_path: Path) -> None:
    picture("P").save(tmp_path / "p.png")
    picture("I;16").save(tmp_path / "g.png")
    assert through(tmp_path / "p.png").shape == (9, 13, 3)
    grey = through(tmp_path / "g.png")
    assert (grey.shape, grey.dtype) == ((9, 13), np.uint16)


def test_samples_are_known_by_name() -> None:
    assert isinstance(image_object("camera"), FileImage)


def test_a_path_must_be_one_file(tmp_path: Path) -> None:
    for name in "ab":
        picture("L").save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"^image must be one file, got .*, which matches 2$"):
        image_object(tmp_path)
    with pytest.raises(ValueError, match=r"nothing\.png"):
        image_object(tmp_path / "nothing.png")
