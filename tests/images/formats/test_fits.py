"""FITS files: what is read of them, and what comes back."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dop_lightning import recover_image
from dop_lightning.images.formats import find_images, image_shape, read_image, write_image
from dop_lightning.images.formats.kinds import read_raster

fits = pytest.importorskip("astropy.io.fits")

FORMATS = ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]


def frame(dtype: Any, shape: tuple[int, ...] = (9, 12)) -> np.ndarray:
    values = np.random.default_rng(0).uniform(3, 120, shape)
    return (values if np.dtype(dtype).kind == "f" else np.rint(values)).astype(dtype)


def there_and_back(path: Path) -> Any:
    """Write a file as it was read; returns the parts of the new one."""
    values, _, format = read_image(path)
    out = path.parent / f"back{format.suffix}"
    write_image(out, values, format)
    with fits.open(out, memmap=False) as hdus:
        for hdu in hdus:
            _ = hdu.data  # read before the file is closed
        return hdus


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", [(9, 12), (1, 9, 12), (4, 9, 12), (1, 1, 9, 12), (1, 2, 9, 12)])
def test_numbers_come_back_to_the_bit(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = frame(dtype, shape)
    fits.PrimaryHDU(array).writeto(tmp_path / "in.fits")
    raster = read_raster(tmp_path / "in.fits")
    assert raster.samples.dtype == np.dtype(dtype)
    assert np.array_equal(np.moveaxis(raster.samples, 2, 0), array.reshape(-1, 9, 12))
    assert image_shape(tmp_path / "in.fits") == (array.size // 108, 9, 12)
    back = there_and_back(tmp_path / "in.fits")[0].data
    assert back.shape == shape
    assert back.dtype.newbyteorder("=") == np.dtype(dtype)
    assert np.array_equal(back, array)


def test_header_and_other_parts_are_kept(tmp_path: Path) -> None:
    first = fits.PrimaryHDU()
    first.header["TELESCOP"] = "a tube"
    image = fits.ImageHDU(frame("float32"), name="SCI")
    image.header["CRPIX1"], image.header["FILTER"] = 4.5, "R"
    table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=np.arange(3.0))])
    fits.HDUList([first, image, table]).writeto(tmp_path / "in.fits", checksum=True)
    back = there_and_back(tmp_path / "in.fits")
    assert [type(hdu).__name__ for hdu in back] == ["PrimaryHDU", "ImageHDU", "BinTableHDU"]
    assert back[0].header["TELESCOP"] == "a tube"
    assert (back[1].name, back[1].header["CRPIX1"], back[1].header["FILTER"]) == ("SCI", 4.5, "R")
    assert "dop_lightning" in str(back[1].header["HISTORY"])
    assert np.array_equal(back[2].data["flux"], np.arange(3.0))
    with fits.open(tmp_path / "back.fits", checksum=True) as hdus:  # a wrong sum is a warning, an error here
        assert hdus[1].header["CHECKSUM"]


def test_coordinates_do_not_outlive_a_crop(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(frame("float32"))
    hdu.header["CRPIX1"], hdu.header["CD1_2"], hdu.header["OBJECT"] = 4.5, 0.1, "M 31"
    hdu.writeto(tmp_path / "in.fits")
    values, _, format = read_image(tmp_path / "in.fits", crop=8)
    write_image(tmp_path / "back.fits", values, format)
    header = fits.getheader(tmp_path / "back.fits")
    assert "CRPIX1" not in header
    assert "CD1_2" not in header
    assert header["OBJECT"] == "M 31"


def test_scaled_integers_are_what_they_stand_for(tmp_path: Path) -> None:
    stored = frame("int16")
    stored[2, 3] = -7
    hdu = fits.PrimaryHDU(stored)
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.25, 1000.0, -7
    hdu.writeto(tmp_path / "in.fits")
    values, mask, format = read_image(tmp_path / "in.fits")
    assert mask is not None
    assert (~mask).nonzero().tolist() == [[0, 2, 3]]
    lo, hi = format.value_range
    expected = torch.from_numpy(stored * 0.25 + 1000)[None].float()
    assert torch.allclose((values * (hi - lo) + lo)[mask], expected[mask])
    write_image(tmp_path / "back.fits", values, format)
    with fits.open(tmp_path / "back.fits", do_not_scale_image_data=True) as hdus:
        header, back = hdus[0].header, hdus[0].data
    assert (header["BITPIX"], header["BSCALE"], header["BZERO"], header["BLANK"]) == (16, 0.25, 1000, -7)
    known = stored != -7
    assert np.array_equal(back[known], stored[known])


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
def test_blank_stays_blank(dtype: str, tmp_path: Path) -> None:
    array = frame(dtype)
    array[2, 3] = 119
    hdu = fits.PrimaryHDU(array)
    hdu.header["BLANK"] = 119 - (32768 if dtype == "uint16" else 0)
    hdu.writeto(tmp_path / "in.fits")
    _, mask, format = read_image(tmp_path / "in.fits")
    assert mask is not None
    assert torch.equal(~mask[0], torch.from_numpy(array == 119))
    write_image(tmp_path / "back.fits", torch.full((1, 9, 12), 0.5), format)
    with fits.open(tmp_path / "back.fits", do_not_scale_image_data=True) as hdus:
        assert hdus[0].header["BLANK"] == hdu.header["BLANK"]
        assert int(hdus[0].data[2, 3]) == hdu.header["BLANK"]


@pytest.mark.parametrize("dtype", ["int32", "uint16", "float32"])
def test_compressed_images(dtype: str, tmp_path: Path) -> None:
    array = frame(dtype, (40, 50))
    image = fits.CompImageHDU(array, quantize_level=0, compression_type="GZIP_1")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "in.fits.fz")
    back = there_and_back(tmp_path / "in.fits.fz")
    assert np.array_equal(back[1].data, array)
    assert back[1].data.dtype.newbyteorder("=") == np.dtype(dtype)
    assert isinstance(back[1], fits.CompImageHDU) == (dtype != "float32")


def test_gzip_and_names(tmp_path: Path) -> None:
    array = frame(">f4")
    fits.PrimaryHDU(array).writeto(tmp_path / "in.fits.gz")
    fits.PrimaryHDU(array).writeto(tmp_path / "other.fts")
    assert [path.name for path in find_images(tmp_path)] == ["in.fits.gz", "other.fts"]
    assert read_raster(tmp_path / "in.fits.gz").samples.dtype == np.float32
    assert np.array_equal(there_and_back(tmp_path / "in.fits.gz")[0].data, array)
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"no image"))
    with pytest.raises(ValueError, match="must hold a FITS image"):
        read_raster(tmp_path / "text.gz")


def test_missing_values_are_filled(tmp_path: Path) -> None:
    array = frame("float32")
    array[4, 5] = np.nan
    fits.PrimaryHDU(array).writeto(tmp_path / "in.fits")
    found = recover_image(tmp_path / "in.fits", preset="quick", width=4, iterations=5, device="cpu", progress=False)
    assert np.isfinite(found.image).all()
    found.save(tmp_path / "back.fits")
    assert np.array_equal(fits.getdata(tmp_path / "back.fits"), found.image)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fits.PrimaryHDU(), "must hold an image of two axes or three, got none"),
        (lambda: fits.PrimaryHDU(np.zeros(5)), "must hold an image of two axes or three, got none"),
        (lambda: fits.PrimaryHDU(np.zeros((2, 2, 9, 9))), "must have two axes or three"),
    ],
)
def test_refusals(make: Any, message: str, tmp_path: Path) -> None:
    make().writeto(tmp_path / "in.fits")
    with pytest.raises(ValueError, match=message):
        read_raster(tmp_path / "in.fits")


def test_without_astropy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits.PrimaryHDU(frame("float32")).writeto(tmp_path / "in.fits")
    monkeypatch.setitem(__import__("sys").modules, "astropy.io", None)
    with pytest.raises(
        ValueError, match=r'in\.fits: FITS files are read by astropy: pip install "dop_lightning\[astro\]"'
    ):
        read_raster(tmp_path / "in.fits")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    fits.PrimaryHDU(frame("float32", (60, 60))).writeto(tmp_path / "whole.fits")
    (tmp_path / "in.fits").write_bytes((tmp_path / "whole.fits").read_bytes()[:8000])
    with pytest.raises(ValueError, match="damaged or cut off"):
        read_raster(tmp_path / "in.fits")
