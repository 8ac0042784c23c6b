"""Every format, depth and mode of image files: a file that is read and written is equal up to its encoding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from dop_lightning.images.formats import image_shape, read_image, write_image
from dop_lightning.images.formats.kinds import read_raster
from dop_lightning.images.formats.raster import Raster
from tests.images.formats.builders import KINDS, PALETTE, build, chunk, colours, png, ramp

KEPT_SUFFIXES = {"jpeg": ".png", "webp-lossy": ".png", "webp": ".webp", "png": ".png", "bmp": ".bmp", "tiff": ".tif"}
PROFILE = b"a colour profile"


def units(raster: Raster) -> tuple[float, float] | None:
    """A range that holds every value, where the one that is found leaves outliers out."""
    small = min(raster.size) < 5
    if raster.palette is not None or (raster.samples.dtype.kind in "bu" and not (small and raster.bits == 16)):
        return (0, 2.0**24) if raster.bits == 32 else None
    low, high = float(raster.samples.min()), float(raster.samples.max())
    return (low, high) if low < high else None


def there_and_back(path: Path, value_range: Any = None) -> Path:
    values, _, format = read_image(path, value_range=value_range)
    out = path.parent / f"out{format.suffix}"
    write_image(out, values, format)
    return out


def assert_same(one: Raster, other: Raster) -> None:
    """Observed values are kept; missing values of floating-point images are filled."""
    assert (one.mode, one.bits, one.orientation) == (other.mode, other.bits, other.orientation)
    assert (one.key, one.nodata, one.samples.dtype) == (other.key, other.nodata, other.samples.dtype)
    assert one.samples.shape == other.samples.shape
    for plane, again in ((one.alpha, other.alpha), *zip(palette(one), palette(other), strict=True)):
        assert (plane is None) == (again is None)
        assert plane is None or (plane.dtype == again.dtype and np.array_equal(plane, again))
    observed = one.observed() if one.alpha is not None else None
    samples, again = (r.samples if observed is None else r.samples[observed] for r in (one, other))
    if one.samples.dtype.kind == "f":
        # The tensor is float32: its 24 bits are spread over the range.
        accuracy = max(float(np.ptp(one.samples)) * 2**-23, float(np.abs(samples).max()) * np.finfo(samples.dtype).eps)
        assert np.abs(samples.astype(float) - again.astype(float)).max() <= accuracy
    else:
        assert np.array_equal(samples, again)


def palette(raster: Raster) -> tuple[Any, Any]:
    return (None, None) if raster.palette is None else (raster.palette.colours, raster.palette.alphas)


class TestThereAndBack:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [(1, 1), (8, 8), (37, 51)])
    def test_samples_alpha_depth_and_mode(self, tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
        path = build(tmp_path, kind, *size)
        before = read_raster(path)
        assert image_shape(path) == (before.channels, *before.size)
        if not kind.startswith("np"):  # whose axes are known by their lengths
            assert before.size == size
        if before.observed() is not None and not before.observed().any():
            with pytest.raises(ValueError, match="at least one observed value"):
                read_image(path)
            return
        out = there_and_back(path, units(before))
        assert out.suffix == next((s for k, s in KEPT_SUFFIXES.items() if kind.startswith(k)), path.suffix)
        assert_same(before, read_raster(out))
        assert image_shape(out) == (before.channels, *before.size)

    @pytest.mark.parametrize(
        "kind", ["png-rgb-16", "tiff-uint16-tiled", "png-palette-8", "npy-uint16", "webp-lossless"]
    )
    def test_image_of_usual_size(self, tmp_path: Path, kind: str) -> None:
        path = build(tmp_path, kind, 301, 450)
        assert_same(read_raster(path), read_raster(there_and_back(path)))

    @pytest.mark.parametrize("kind", [k for k in KINDS if k.startswith("tiff")])
    def test_the_coding_of_a_tiff(self, tmp_path: Path, kind: str) -> None:
        path = build(tmp_path, kind, 33, 20)
        out = there_and_back(path, units(read_raster(path)))
        with tifffile.TiffFile(path) as one, tifffile.TiffFile(out) as other:
            assert (one.byteorder, one.is_bigtiff, len(one.pages)) == (
                other.byteorder,
                other.is_bigtiff,
                len(other.pages),
            )
            for page, again in zip(one.pages, other.pages, strict=True):
                names = ["shape", "dtype", "bitspersample", "planarconfig", "extrasamples", "predictor", "tile"]
                if kind != "tiff-jpeg":
                    names += ["photometric", "compression"]
                assert [getattr(page, name) for name in names] == [getattr(again, name) for name in names]
                assert 270 not in again.tags
        if kind == "tiff-jpeg":
            assert again.compression == tifffile.COMPRESSION.ADOBE_DEFLATE

    @pytest.mark.parametrize("kind", [k for k in KINDS if k.startswith("np")])
    def test_the_axes_of_an_array(self, tmp_path: Path, kind: str) -> None:
        path = build(tmp_path, kind, 9, 20)
        out = there_and_back(path, units(read_raster(path)))
        one, other = np.load(path), np.load(out)
        if path.suffix == ".npz":
            assert one.files == other.files
            assert one.zip.infolist()[0].compress_type == other.zip.infolist()[0].compress_type
            one, other = one[one.files[0]], other[other.files[0]]
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.flags.f_contiguous == other.flags.f_contiguous
        assert np.allclose(one, other, rtol=0, atol=2e-3 if one.dtype == np.float16 else 1e-6)

    @pytest.mark.parametrize(
        "kind", [k for k in KINDS if k.split("-")[0] in ("png", "bmp", "webp") and "lossy" not in k]
    )
    def test_other_programs_see_the_same(self, tmp_path: Path, kind: str) -> None:
        path = build(tmp_path, kind, 21, 30)
        out = there_and_back(path)
        with Image.open(path) as one, Image.open(out) as other:
            assert (one.mode, one.format, one.size) == (other.mode, other.format, other.size)
            assert one.info.get("transparency") == other.info.get("transparency")
            assert one.info.get("dpi") == other.info.get("dpi")
            assert one.getpalette() == other.getpalette()
            pixels, again = np.array(one), np.array(other)
        if "alpha" in kind and pixels.ndim == 3:
            assert np.array_equal(pixels[..., -1], again[..., -1])
            pixels, again = pixels[pixels[..., -1] != 0], again[pixels[..., -1] != 0]
        assert np.array_equal(pixels, again)
        if path.suffix != ".webp":  # depth and colour type
            where = slice(24, 26) if path.suffix == ".png" else slice(28, 30)
            assert path.read_bytes()[where] == out.read_bytes()[where]


class TestWhatIsRead:
    @pytest.mark.parametrize(
        "kind", ["jpeg-grey", "jpeg-rgb", "webp-lossy", "png-grey-8", "png-interlaced-rgb", "bmp-rgb"]
    )
    def test_8_bits_equal_pillow_divided_by_255(self, tmp_path: Path, kind: str) -> None:
        path = build(tmp_path, kind)
        values, mask, format = read_image(path)
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1)
        assert mask is None
        assert format.value_range == (0, 255)
        assert torch.equal(values, pixels.permute(2, 0, 1).float().div(255))

    @pytest.mark.parametrize("interlaced", [False, True])
    @pytest.mark.parametrize("colour", [0, 2, 4, 6])
    def test_16_bits_of_a_png_are_kept(self, tmp_path: Path, colour: int, interlaced: bool) -> None:
        pixels = np.random.default_rng(0).integers(1, 65536, (11, 6, {0: 1, 2: 3, 4: 2, 6: 4}[colour]), dtype=np.uint16)
        (tmp_path / "a.png").write_bytes(png(pixels, 16, colour, interlaced=interlaced))
        values = read_image(tmp_path / "a.png", value_range=(0, 65535)).values
        assert np.array_equal(values.mul(65535).round().numpy(), np.moveaxis(pixels, 2, 0)[: len(values)])

    @pytest.mark.parametrize(("depth", "top"), [(1, 1), (2, 3), (4, 15)])
    def test_few_bits_span_the_range(self, tmp_path: Path, depth: int, top: int) -> None:
        levels = np.arange(top + 1)[None, :, None]
        (tmp_path / "a.png").write_bytes(png(levels, depth, 0))
        values, _, format = read_image(tmp_path / "a.png")
        assert format.value_range == (0, top)
        assert values.flatten().tolist() == pytest.approx((np.arange(top + 1) / top).tolist())

    def test_a_palette_is_its_colours(self, tmp_path: Path) -> None:
        path = build(tmp_path, "png-palette-8")
        values, mask, format = read_image(path)
        with Image.open(path) as image:
            assert np.array_equal(values.permute(1, 2, 0).mul(255).round().numpy(), np.array(image.convert("RGB")))
        assert mask is None
        assert (format.mode, format.channels, format.value_range) == ("P", 3, (0, 255))

    def test_channels_are_on_the_shorter_of_the_outer_axes(self, tmp_path: Path) -> None:
        for shape, expected in [
            ((4, 5), (1, 4, 5)), ((4, 5, 3), (3, 4, 5)), ((3, 4, 5), (3, 4, 5)), ((9, 4, 9), (9, 9, 4)),
            ((1, 4, 5), (1, 4, 5)),
        ]:  # fmt: skip
            np.save(tmp_path / "a.npy", np.zeros(shape, dtype=np.uint8))
            assert read_image(tmp_path / "a.npy").values.shape == expected
            assert image_shape(tmp_path / "a.npy") == expected

    def test_extra_sample_is_alpha_if_a_tiff_specifies_it(self, tmp_path: Path) -> None:
        for kind, channels in ((0, 4), (1, 3), (2, 3)):
            tifffile.imwrite(tmp_path / "a.tif", ramp(8, 9, 4), photometric="rgb", extrasamples=(kind,))
            raster = read_raster(tmp_path / "a.tif")
            assert (raster.channels, raster.alpha is None) == (channels, kind == 0)

    def test_white_is_zero_tiff_is_inverted(self, tmp_path: Path) -> None:
        for dtype, white in ((np.uint8, 255), (bool, True)):
            pixels = np.array([[0, white]], dtype=dtype)
            tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
            assert read_image(tmp_path / "a.tif").values.tolist() == [[[1, 0]]]

    def test_thumbnails_and_overviews_of_a_tiff_are_skipped(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            writer.write(np.zeros((8, 9, 3), np.uint8), photometric="rgb", metadata=None)
            writer.write(np.zeros((4, 5, 3), np.uint8), photometric="rgb", metadata=None, subfiletype=1)
            writer.write(np.zeros((8, 9), bool), photometric="minisblack", metadata=None, subfiletype=4)
        assert read_image(tmp_path / "a.tif").values.shape == image_shape(tmp_path / "a.tif") == (3, 8, 9)

    def test_first_picture_of_a_phone_jpeg_is_used(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(ramp(8, 9, 3)), Image.fromarray(ramp(4, 4, 3))]
        frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
        assert read_image(tmp_path / "a.jpg").values.shape == image_shape(tmp_path / "a.jpg") == (3, 8, 9)

    def test_content_determines_the_format_not_the_name(self, tmp_path: Path) -> None:
        for kind in ("png-grey-8", "tiff-uint16", "bmp-rgb", "npy-uint8", "webp-lossless"):
            path = build(tmp_path, kind)
            path.rename(tmp_path / "a.jpg")
            assert read_image(tmp_path / "a.jpg").format.suffix == path.suffix


class TestMissing:
    @pytest.mark.parametrize("kind", [k for k in KINDS if "alpha" in k and "palette" not in k])
    def test_alpha_0_is_missing(self, tmp_path: Path, kind: str) -> None:
        path = build(tmp_path, kind)
        values, mask, _ = read_image(path)
        alpha = read_raster(path).alpha
        assert mask is not None
        assert alpha is not None
        assert np.array_equal(mask.numpy(), np.broadcast_to(alpha != 0, values.shape))
        assert (values[~mask] == 0).all()

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    def test_transparent_palette_entries_are_missing(self, tmp_path: Path, depth: int) -> None:
        path = build(tmp_path, f"png-palette-{depth}-alpha")
        mask = read_image(path).mask
        with Image.open(path) as image:
            assert np.array_equal(mask[0].numpy(), np.array(image) != 0)

    @pytest.mark.parametrize("kind", ["png-grey-4-key", "png-grey-16-key", "png-rgb-8-key", "png-rgb-16-key"])
    def test_transparent_colour_of_a_png_is_missing(self, tmp_path: Path, kind: str) -> None:
        raster = read_raster(build(tmp_path, kind))
        mask = read_image(tmp_path / f"in-{kind}.png").mask
        expected = ~(raster.samples == np.array(raster.key)).all(axis=2)
        assert not expected.all()
        assert np.array_equal(mask.numpy(), np.broadcast_to(expected, mask.shape))

    def test_nan_is_missing_in_its_channel_only(self, tmp_path: Path) -> None:
        array = ramp(9, 8, 3, np.float32)
        array[2, 3, 1] = np.nan
        np.save(tmp_path / "a.npy", array)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
        for name in ("a.npy", "a.tif"):
            values, mask, format = read_image(tmp_path / name, value_range=(0, 300))
            assert (~mask).nonzero().tolist() == [[1, 2, 3]]
            assert values[1, 2, 3] == 0
            write_image(tmp_path / f"out{format.suffix}", values + (~mask), format)
            again = read_raster(tmp_path / f"out{format.suffix}").samples
            assert again[2, 3, 1] == 300  # replaced by the recovered value
            assert np.allclose(again[mask.permute(1, 2, 0).numpy()], array[~np.isnan(array)], atol=1e-4)

    @pytest.mark.parametrize(
        ("dtype", "text", "value"),
        [("f4", "-3.4028234663852886e+38", np.finfo("f4").min), ("f4", "1e+20", 1e20), ("i2", "-9999", -9999)],
    )
    def test_nodata_value_of_gdal_is_preserved(self, tmp_path: Path, dtype: str, text: str, value: Any) -> None:
        array = ramp(30, 20, 1, dtype, 900)[..., 0]
        array[4:8, 5:15] = value
        tifffile.imwrite(tmp_path / "a.tif", array, metadata=None, extratags=[(42113, 2, 0, text, True)])
        values, mask, format = read_image(tmp_path / "a.tif")
        assert np.array_equal(mask[0].numpy(), array != value)
        assert format.value_range[0] >= 0
        assert (values[~mask] == 0).all()
        write_image(tmp_path / "b.tif", values + 0.5 * ~mask, format)
        again = tifffile.imread(tmp_path / "b.tif")
        assert np.array_equal(again == value, array == value)

    @pytest.mark.parametrize("text", ["none", "nan", "1e400", "70000", "0.5"])
    def test_nodata_value_out_of_range_is_ignored(self, tmp_path: Path, text: str) -> None:
        tifffile.imwrite(tmp_path / "a.tif", ramp(9, 9)[..., 0], metadata=None, extratags=[(42113, 2, 0, text, True)])
        assert read_image(tmp_path / "a.tif").mask is None


class TestRepainting:
    """New values in a file of few colours."""

    def test_the_nearest_colour_of_the_same_alpha(self, tmp_path: Path) -> None:
        table = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 250], [0, 0, 255], [9, 9, 9]], dtype=np.uint8)
        alphas = bytes([255, 255, 255, 128, 0])
        indices = np.array([[0, 1, 3, 4]])[..., None]
        chunks = chunk(b"PLTE", table.tobytes()), chunk(b"tRNS", alphas)
        (tmp_path / "a.png").write_bytes(png(indices, 4, PALETTE, *chunks))
        _, mask, format = read_image(tmp_path / "a.png")
        assert mask.tolist() == [[[True, True, True, False]]] * 3
        blue = torch.tensor([0.1, 0.0, 1.0])[:, None, None].expand(3, 1, 4)
        write_image(tmp_path / "b.png", blue, format)
        assert read_raster(tmp_path / "b.png").samples[..., 0].tolist() == [[2, 2, 3, 4]]

    def test_duplicate_palette_colours_stay_distinct(self, tmp_path: Path) -> None:
        table = np.repeat(colours(8), 2, axis=0)
        indices = np.arange(16).reshape(4, 4, 1)
        (tmp_path / "a.png").write_bytes(png(indices, 4, PALETTE, chunk(b"PLTE", table.tobytes())))
        assert np.array_equal(read_raster(there_and_back(tmp_path / "a.png")).samples, indices)

    def test_other_pixels_do_not_become_transparent(self, tmp_path: Path) -> None:
        for key in (0, 7, 255):
            pixels = np.array([[key, 100, 200]], dtype=np.uint8)[..., None]
            (tmp_path / "a.png").write_bytes(png(pixels, 8, 0, chunk(b"tRNS", bytes([0, key]))))
            values, _, format = read_image(tmp_path / "a.png")
            write_image(tmp_path / "b.png", torch.full_like(values, key / 255), format)
            again = read_raster(tmp_path / "b.png")
            assert again.samples[0, 0, 0] == again.key[0] == key
            assert np.abs(again.samples[0, 1:, 0].astype(int) - key).tolist() == [1, 1]

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [("png-grey-16", (0, 65535)), ("png-grey-4", (0, 15)), ("tiff-uint16-12-bits", (0, 4095)),
         ("tiff-bool", (0, 1)), ("npy-int32", (-(2**31), 2**31 - 1)), ("bmp-1", (0, 1)), ("tiff-int8", (-128, 127))],
    )  # fmt: skip
    def test_samples_are_clipped_to_their_range(self, tmp_path: Path, kind: str, expected: Any) -> None:
        path = build(tmp_path, kind, 6, 7)
        values, _, format = read_image(path, value_range=(-1e12, 1e12))
        values[:, :, 0], values[:, :, 1] = -3, 3
        write_image(tmp_path / f"out{format.suffix}", values, format)
        samples = read_raster(tmp_path / f"out{format.suffix}").samples
        assert (set(np.unique(samples[:, 0])), set(np.unique(samples[:, 1]))) == ({expected[0]}, {expected[1]})

    @pytest.mark.parametrize("dtype", ["u8", "i8"])
    def test_the_largest_integers_do_not_wrap_around(self, tmp_path: Path, dtype: str) -> None:
        least, largest = np.iinfo(dtype).min, np.iinfo(dtype).max
        np.save(tmp_path / "a.npy", np.array([[least, largest]], dtype=dtype))
        out = there_and_back(tmp_path / "a.npy", (float(least), float(largest)))
        assert np.load(out).tolist() == [[least, largest]]


class TestMetadata:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["png", "png-16", "jpg", "webp", "tif"])
    def test_orientation_is_applied_and_kept(self, tmp_path: Path, kind: str, orientation: int) -> None:
        array = ramp(4, 7, 3)
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif[0x010F] = "maker"
        path = tmp_path / f"a.{kind.split('-')[0]}"
        if kind == "tif":
            tifffile.imwrite(path, array, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
        elif kind == "png-16":
            path.write_bytes(png(array, 16, 2, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
        else:
            Image.fromarray(array).save(path, exif=exif, **({"lossless": True} if kind == "webp" else {}))
        values, _, format = read_image(path, value_range=(0, 255))
        assert image_shape(path) == tuple(values.shape) == ((3, 7, 4) if orientation > 4 else (3, 4, 7))
        if kind != "jpg":
            turn = getattr(Image.Transpose, TURNS[orientation], None)
            image = Image.fromarray(array)
            upright = np.array(image if turn is None else image.transpose(turn))
            assert np.array_equal(values.permute(1, 2, 0).mul(255).round().numpy(), upright)
        out = tmp_path / f"out{format.suffix}"
        write_image(out, values, format)
        assert_same(read_raster(path), read_raster(out))
        if kind != "tif":
            with Image.open(out) as image:
                assert dict(image.getexif()) == {0x0112: orientation, 0x010F: "maker"}

    @pytest.mark.parametrize("kind", ["png", "png-16", "jpg", "webp", "bmp", "tif"])
    def test_profile_and_resolution(self, tmp_path: Path, kind: str) -> None:
        array, path = ramp(5, 6, 3), tmp_path / f"a.{kind.split('-')[0]}"
        given: dict[str, Any] = {"dpi": (300, 150), "icc_profile": PROFILE}
        if kind == "tif":
            tifffile.imwrite(
                path, array, photometric="rgb", resolution=(300, 150), resolutionunit=2, iccprofile=PROFILE
            )
        else:
            Image.fromarray(array).save(path, **given, **({"lossless": True} if kind == "webp" else {}))
        if kind == "png-16":
            content = path.read_bytes()
            path.write_bytes(png(array, 16, 2, content[33 : content.index(b"IDAT") - 4]))
        values, _, format = read_image(path, value_range=(0, 255))
        write_image(tmp_path / f"out{format.suffix}", values, format)
        with Image.open(path) as one, Image.open(tmp_path / f"out{format.suffix}") as other:
            assert other.info.get("icc_profile") == (None if kind == "bmp" else PROFILE)
            if kind != "webp":  # which has no place for it
                assert tuple(map(float, other.info["dpi"])) == pytest.approx((300, 150), abs=0.02)
                assert tuple(map(float, other.info["dpi"])) == pytest.approx(
                    tuple(map(float, one.info["dpi"])), abs=0.02
                )
        if kind != "bmp":
            grey = read_image(path, channels="grey")
            write_image(tmp_path / f"grey{format.suffix}", grey.values, grey.format)
            with Image.open(tmp_path / f"grey{format.suffix}") as image:
                assert "icc_profile" not in image.info

    def test_text_of_a_png(self, tmp_path: Path) -> None:
        text = chunk(b"tEXt", b"Author\0me")
        damaged = chunk(b"tEXt", b"Title\0x")[:-1] + b"\0"
        whole = png(ramp(3, 3), 8, 0, text, chunk(b"gAMA", b"\0\0\xb1\x8f"))
        (tmp_path / "a.png").write_bytes(whole[:-12] + damaged + whole[-12:])
        content = there_and_back(tmp_path / "a.png").read_bytes()
        assert text in content
        assert b"Title" not in content
        assert content.index(b"gAMA") < content.index(b"tEXt") < content.index(b"IDAT")

    def test_tags_of_a_tiff(self, tmp_path: Path) -> None:
        tags = [
            (270, 2, 0, "Größe: 3".encode(), True), (271, 2, 0, "maker", True), (272, 2, 0, "model", True),
            (305, 2, 0, "program", True), (306, 2, 0, "2020:01:02 03:04:05", True), (315, 2, 0, "artist", True),
            (33432, 2, 0, "copyright", True), (700, 1, 5, b"<xmp>", True), (33550, 12, 3, (2.0, 2.0, 0.0), True),
            (33922, 12, 6, (0.0, 0.0, 0.0, 9.0, 8.0, 0.0), True), (34735, 3, 4, (1, 1, 0, 0), True),
            (34736, 12, 1, 6.5, True), (34737, 2, 0, "WGS 84|", True), (42112, 2, 0, "<GDALMetadata/>", True),
        ]  # fmt: skip
        tifffile.imwrite(tmp_path / "a.tif", ramp(5, 6)[..., 0], software="", metadata=None, extratags=tags)
        out = there_and_back(tmp_path / "a.tif")
        with tifffile.TiffFile(tmp_path / "a.tif") as one, tifffile.TiffFile(out) as other:
            before, after = ({t.code: t.value for t in file.pages[0].tags} for file in (one, other))
        assert all(after[code] == before[code] for code, *_ in tags)
        cropped = read_image(tmp_path / "a.tif", crop=3)
        write_image(tmp_path / "c.tif", cropped.values, cropped.format)
        with tifffile.TiffFile(tmp_path / "c.tif") as file:
            assert 33922 not in file.pages[0].tags
            assert 315 in file.pages[0].tags

    def test_pages_of_a_tiff_keep_their_names(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for name in ("red", "infrared"):
                writer.write(ramp(5, 6)[..., 0], metadata=None, contiguous=False, extratags=[(285, 2, 0, name, True)])
        with tifffile.TiffFile(there_and_back(tmp_path / "a.tif")) as file:
            assert [page.tags[285].value for page in file.pages] == ["red", "infrared"]


TURNS = {
    1: "", 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
    7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
"""What Pillow does to an image of each orientation."""
