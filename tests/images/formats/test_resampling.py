from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from dop_lightning.images.formats import image_shape, read_image, write_image
from dop_lightning.images.formats.kinds import read_raster
from tests.images.formats.builders import GREY, KINDS, RGB, build, chunk, png, ramp


class TestResize:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [(5, 7), (30, 40)])
    def test_every_kind_keeps_its_kind(self, tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
        path = build(tmp_path, kind, 20, 24)
        values, mask, format = read_image(path, resize=size)
        assert values.shape == (format.channels, *size)
        assert values.isfinite().all()
        assert mask is None or mask.any()
        out = tmp_path / f"out{format.suffix}"
        write_image(out, values, format)
        before, after = read_raster(path), read_raster(out)
        if "palette" in kind:
            assert after.mode == ("RGBA" if "alpha" in kind or "of-200" in kind else "RGB")
        elif "key" in kind:
            assert after.mode == f"{before.mode.replace('1', 'L')}A"
        else:
            assert (after.mode, after.bits) == (before.mode, before.bits)
        assert image_shape(out) == tuple(values.shape)
        again = read_image(out, value_range=format.value_range if before.bits == after.bits else None)
        assert (again.mask is None) == (mask is None)
        if mask is not None:
            assert torch.equal(again.mask, mask)

    def test_16_bits_equal_8_bits(self, tmp_path: Path) -> None:
        eight, sixteen = ramp(20, 30, 3), ramp(20, 30, 3).astype(np.uint16) * 257
        for name, array, bits in (("8.png", eight, 8), ("16.png", sixteen, 16)):
            (tmp_path / name).write_bytes(png(array, bits, RGB))
        one = read_image(tmp_path / "8.png", resize=(7, 9)).values
        other = read_image(tmp_path / "16.png", resize=(7, 9)).values
        assert (one - other).abs().max() < 1.1 / 255

    @pytest.mark.parametrize("scale", [1.0, 1e-30, 1e200])
    def test_stays_within_the_values(self, tmp_path: Path, scale: float) -> None:
        array = np.zeros((20, 20))
        array[:, 10:] = scale
        np.save(tmp_path / "a.npy", array)
        values = read_image(tmp_path / "a.npy", resize=50, value_range=(0, scale)).values
        assert values.min() == 0
        assert values.max() == 1

    @pytest.mark.parametrize("name", ["a.png", "a.tif", "b.tif", "a.npy"])
    def test_missing_values_do_not_bleed(self, tmp_path: Path, name: str) -> None:
        """An image of one value but for its last rows, with holes in which other values stand."""
        path, hole = tmp_path / name, np.zeros((48, 30), bool)
        hole[5:15, 7:20] = hole[20, 3] = True
        grey = np.where(hole, 255, 100).astype(np.uint8)
        grey[-4:-2], grey[-2:] = 0, 120  # what is resized is clipped to the values that there are
        if name == "a.png":
            Image.fromarray(np.dstack([grey, np.where(hole, 0, 200).astype(np.uint8)])).save(path)
        elif name == "a.tif":
            rgb = np.dstack([grey, grey, grey, ~hole * 60]).astype(np.uint16) * 200
            tifffile.imwrite(path, rgb, photometric="rgb", extrasamples=(2,))
        else:
            array = np.where(hole, -9999 if name == "b.tif" else np.nan, grey.astype(np.float32))
            tags = [(42113, 2, 0, "-9999", True)]
            tifffile.imwrite(path, array, extratags=tags) if name == "b.tif" else np.save(path, array)
        for size in ((24, 15), (48, 30), (120, 60), (12, 8)):
            values, mask, format = read_image(path, resize=size, value_range=(0, 30000 if name == "a.tif" else 120))
            expected = 2 / 3 if name == "a.tif" else 100 / 120
            upper = size[0] // 2
            assert values[:, :upper][mask[:, :upper]].numpy() == pytest.approx(expected, abs=1e-6)
            assert (values[~mask] == 0).all()
            assert 0 < (~mask).float().mean() < 0.5
            whole = np.array(Image.fromarray((~hole).astype(np.float32)).resize(size[::-1], Image.Resampling.LANCZOS))
            assert np.array_equal(mask[0].numpy(), whole >= 0.5)
            write_image(tmp_path / f"out{format.suffix}", values, format)
            if name != "a.npy":
                assert torch.equal(read_image(tmp_path / f"out{format.suffix}", value_range=(0, 9)).mask, mask)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_nearly_transparent_pixels_stay_so(self, tmp_path: Path, dtype: Any) -> None:
        alpha = np.full((8, 24), np.iinfo(dtype).max, dtype=dtype)
        alpha[:, 8:16] = 1
        planes = np.dstack([ramp(8, 24, 1, dtype, 200), alpha])
        (tmp_path / "a.png").write_bytes(png(planes, 8 * alpha.itemsize, 4))
        _, mask, format = read_image(tmp_path / "a.png", resize=31)
        assert mask is None
        assert format.raster.alpha.min() == 1

    def test_channel_without_values(self, tmp_path: Path) -> None:
        array = ramp(9, 9, 2, np.float32)
        array[..., 1] = np.nan
        np.save(tmp_path / "a.npy", array)
        values, mask, _ = read_image(tmp_path / "a.npy", resize=(9, 5))
        assert mask[0].all()
        assert not mask[1].any()
        assert values.isfinite().all()

    def test_an_upright_image_is_resized(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(ramp(8, 20, 3)).save(tmp_path / "a.png", exif=exif)
        values, _, format = read_image(tmp_path / "a.png", resize=10, crop=(6, 4))
        assert values.shape == (3, 6, 4)
        write_image(tmp_path / "b.png", values, format)
        assert read_raster(tmp_path / "b.png").size == (4, 6)
        assert torch.equal(read_image(tmp_path / "b.png").values, values)


@pytest.mark.parametrize("kind", KINDS)
def test_crop_is_a_part_of_the_whole(tmp_path: Path, kind: str) -> None:
    path = build(tmp_path, kind, 20, 24)
    whole = read_image(path)
    values, mask, format = read_image(path, crop=(8, 10))
    assert format.value_range == whole.format.value_range
    assert torch.equal(values, whole.values[:, 6:14, 7:17])
    if mask is not None:
        assert torch.equal(mask, whole.mask[:, 6:14, 7:17])
    write_image(tmp_path / f"out{format.suffix}", values, format)
    again = read_image(tmp_path / f"out{format.suffix}", value_range=format.value_range)
    assert (again.format.mode, again.values.shape) == (whole.format.mode, values.shape)
    # 24 bits in the tensor, and 11 of half precision in the file
    assert torch.allclose(again.values, values.clamp(0, 1), rtol=0, atol=1e-3 if "float16" in kind else 1e-6)


BANDS = ("bands", "pages", "rgb-x", "tiff-int8", "npy-int32", "npy-float32", "npz-compressed")
OF_1_OR_3 = [kind for kind in KINDS if not any(word in kind for word in BANDS)]


class TestChannels:
    @pytest.mark.parametrize("kind", OF_1_OR_3)
    @pytest.mark.parametrize("channels", ["grey", "rgb"])
    def test_of_every_kind(self, tmp_path: Path, kind: str, channels: Any) -> None:
        path = build(tmp_path, kind, 9, 12)
        before = read_image(path, value_range=(-1, 70000))
        values, mask, format = read_image(path, channels=channels, value_range=(-1, 70000))
        assert values.shape == (1 if channels == "grey" else 3, 9, 12)
        if len(values) == len(before.values):
            assert torch.equal(values, before.values)
            assert format == before.format
            return
        assert (mask is None) == (before.mask is None)
        if mask is not None:
            assert torch.equal(mask[0], before.mask.all(0))
        write_image(tmp_path / f"out{format.suffix}", values, format)
        assert read_raster(tmp_path / f"out{format.suffix}").alpha is None or mask is not None
        if not (format.suffix == ".webp" or (format.suffix == ".bmp" and mask is not None)):  # which have no such grey
            assert read_image(tmp_path / f"out{format.suffix}").format.channels == len(values)

    def test_grey_of_8_bits_is_pillows(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        image.save(tmp_path / "a.png")
        values = read_image(tmp_path / "a.png", channels="grey").values
        assert np.array_equal(values[0].mul(255).round().numpy(), np.asarray(image.convert("L")))

    @pytest.mark.parametrize(("dtype", "top"), [("u2", 60000), ("f4", 1.0), ("i4", 10**6), ("f8", 1e-4)])
    def test_grey_of_other_depths_is_the_luma(self, tmp_path: Path, dtype: str, top: float) -> None:
        array = ramp(9, 8, 3, dtype, top)
        np.save(tmp_path / "a.npy", array)
        values = read_image(tmp_path / "a.npy", channels="grey", value_range=(0, top)).values[0].numpy()
        rounding = 1e-6 * top + (0.5 if dtype[0] in "iu" else 0)
        assert values * top == pytest.approx(array @ np.array([0.299, 0.587, 0.114]), abs=rounding)

    def test_missing_in_one_channel_is_missing_in_grey(self, tmp_path: Path) -> None:
        array = ramp(9, 8, 3, np.float32)
        array[2, 3, 1] = np.nan
        np.save(tmp_path / "a.npy", array)
        assert (~read_image(tmp_path / "a.npy", channels="grey").mask).nonzero().tolist() == [[0, 2, 3]]
        array[2, 3, 1] = -1
        tags = [(42113, 2, 0, "-1", True)]
        tifffile.imwrite(tmp_path / "a.tif", array.astype(np.int16), photometric="rgb", extratags=tags)
        assert (~read_image(tmp_path / "a.tif", channels="grey").mask).nonzero().tolist() == [[0, 2, 3]]

    def test_a_transparent_colour_becomes_alpha(self, tmp_path: Path) -> None:
        levels = np.array([[0, 1, 2, 3]])[..., None]
        (tmp_path / "a.png").write_bytes(png(levels, 2, GREY, chunk(b"tRNS", b"\0\2")))
        values, mask, format = read_image(tmp_path / "a.png", channels="rgb")
        assert mask[0].tolist() == [[True, True, False, True]]
        write_image(tmp_path / "b.png", values, format)
        with Image.open(tmp_path / "b.png") as image:
            assert image.mode == "RGBA"
            assert np.array(image)[0].tolist() == [[0, 0, 0, 255], [85, 85, 85, 255], [0, 0, 0, 0], [255] * 4]
