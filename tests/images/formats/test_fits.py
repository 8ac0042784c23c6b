"""Reading and writing FITS files."""

import gzip
import re
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
def test_numbers_survive_a_round_trip_to_the_bit(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
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


def test_coordinates_are_dropped_by_a_crop(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(frame("float32"))
    hdu.header["CRPIX1"], hdu.header["CD1_2"], hdu.header["OBJECT"] = 4.5, 0.1, "M 31"
    hdu.writeto(tmp_path / "in.fits")
    values, _, format = read_image(tmp_path / "in.fits", crop=8)
    write_image(tmp_path / "back.fits", values, format)
    header = fits.getheader(tmp_path / "back.fits")
    assert "CRPIX1" not in header
    assert "CD1_2" not in header
    assert header["OBJECT"] == "M 31"


def test_scaled_integers_are_converted(tmp_path: Path) -> None:
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
def test_blank_values_are_preserved(dtype: str, tmp_path: Path) -> None:
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
    with pytest.raises(ValueError, match="must contain a FITS image"):
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
        (lambda: fits.PrimaryHDU(), "must contain an image with two or three axes, got none"),
        (lambda: fits.PrimaryHDU(np.zeros(5)), "must contain an image with two or three axes, got none"),
        (lambda: fits.PrimaryHDU(np.zeros((2, 2, 9, 9))), "must have two axes, or three with bands first"),
    ],
)
def test_refusals(make: Any, message: str, tmp_path: Path) -> None:
    make().writeto(tmp_path / "in.fits")
    with pytest.raises(ValueError, match=message):
        read_raster(tmp_path / "in.fits")


def test_missing_astropy_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits.PrimaryHDU(frame("float32")).writeto(tmp_path / "in.fits")
    monkeypatch.setitem(__import__("sys").modules, "astropy.io", None)
    with pytest.raises(ValueError, match=r'in\.fits: FITS files require astropy: pip install "dop_lightning\[astro\]"'):
        read_raster(tmp_path / "in.fits")


def test_truncated_file(tmp_path: Path) -> None:
    fits.PrimaryHDU(frame("float32", (60, 60))).writeto(tmp_path / "whole.fits")
    (tmp_path / "in.fits").write_bytes((tmp_path / "whole.fits").read_bytes()[:8000])
    with pytest.raises(ValueError, match="damaged or truncated"):
        read_raster(tmp_path / "in.fits")


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A file of a table and four images, two of one name."""
    science = frame("float32")
    science[3, 4] = 900.0
    table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=np.arange(3.0))], name="CAT")
    images = [
        fits.ImageHDU(science, name="SCI", ver=1),
        fits.ImageHDU(frame("int16", (8, 10)), name="DQ"),
        fits.ImageHDU(science + 1000, name="SCI", ver=2),
        fits.CompImageHDU(frame("int32", (3, 40, 50)), name="CUBE"),
    ]
    images[0].header["FILTER"] = "R"
    fits.HDUList([fits.PrimaryHDU(), table, *images]).writeto(tmp_path / "in.fits")
    return tmp_path / "in.fits"


@pytest.mark.parametrize(
    ("brackets", "number"),
    [("", 2), ("[2]", 2), ("[3]", 3), ("[SCI]", 2), ("[sci,2]", 4), ("[SCI, 2]", 4), ("[DQ]", 3), ("[CUBE]", 5)],
)
def test_an_hdu_by_number_or_name(several: Path, brackets: str, number: int, tmp_path: Path) -> None:
    named = Path(f"{several}{brackets}")
    assert find_images(str(named)) == [named]
    with fits.open(several) as hdus:
        data, name = [hdu.data for hdu in hdus], [hdu.name for hdu in hdus]
    assert image_shape(named)[1:] == data[number].shape[-2:]
    values, _, format = read_image(named)
    assert np.array_equal(np.moveaxis(format.raster.samples, 2, 0), data[number].reshape(values.shape))
    write_image(tmp_path / "back.fits", values * 0, format)  # another image in its place, all else as it was
    with fits.open(tmp_path / "back.fits") as hdus:
        assert [hdu.name for hdu in hdus] == name
        for place, hdu in enumerate(hdus):
            if place == number:
                assert len(np.unique(hdu.data)) == 1
                assert "dop_lightning" in str(hdu.header["HISTORY"])
            elif hdu.data is not None:
                assert np.array_equal(hdu.data, data[place])
        assert hdus["SCI", 1].header["FILTER"] == "R"
        assert hdus["SCI", 2].ver == 2


@pytest.mark.parametrize("brackets", ["[0]", "[1]", "[9]", "[CAT]", "[SCI,3]", "[1:5,2:3]"])
def test_hdu_without_an_image(several: Path, brackets: str) -> None:
    known = r"one of the images 2 \(SCI,1\), 3 \(DQ,1\), 4 \(SCI,2\), 5 \(CUBE,1\), got "
    with pytest.raises(ValueError, match=r"in\.fits: the HDU must be " + known + re.escape(brackets)):
        read_image(f"{several}{brackets}")


def test_brackets_in_names_of_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^in\.fits: no such file or folder"):
        find_images("in.fits[1]")
    with pytest.raises(FileNotFoundError, match=r"^in\.fits: no such file"):
        read_image("in.fits[1]")
    array = frame("float32")
    fits.PrimaryHDU(array).writeto("in.fits")
    Path("photo.fits").write_bytes(b"BM no FITS")
    with pytest.raises(ValueError, match=r"photo\.fits: only FITS files have HDUs, got \[0\]"):
        read_image("photo.fits[0]")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(array + 1)]).writeto("other.fits")
    names = find_images(["in.fits[0]", "in.fits[0]", "*r.fits[1]", "in.fit[s]"])  # the last one is a pattern
    assert [str(path) for path in names] == ["in.fits[0]", "other.fits[1]", "in.fits"]
    fits.PrimaryHDU(array + 2).writeto("in.fits[0]")  # a file of that name comes first
    assert [str(path) for path in find_images("in.fits[0]")] == ["in.fits[0]"]
    assert np.array_equal(read_raster("in.fits[0]").samples[..., 0], array + 2)


def test_one_hdu_is_recovered(several: Path, dop: Any, tmp_path: Path) -> None:
    settings = {"preset": "quick", "width": 4, "iterations": 5, "device": "cpu"}
    found = recover_image(f"{several}[SCI,2]", progress=False, **settings)
    found.save(tmp_path / "back.fits")
    options = [f"--{key}={value}" for key, value in settings.items()]
    said = dop("recover", f"{several}[SCI,2]", f"{several}[2]", "--out", str(tmp_path / "out"), *options)
    assert said.status == 0, said.err
    assert {path.parent.name for path in (tmp_path / "out").glob("*/recovered.fits")} == {"in_SCI_2", "in_2"}
    with fits.open(several) as before, fits.open(tmp_path / "out" / "in_SCI_2" / "recovered.fits") as after:
        assert np.array_equal(after[4].data, fits.getdata(tmp_path / "back.fits", 4))
        assert np.array_equal(after[2].data, before[2].data)
    said = dop("recover", f"{several}[7]", "--out", str(tmp_path / "none"), *options)
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "the HDU must be one of the images" in said.err
