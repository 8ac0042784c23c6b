"""Unsupported images: one error that names the file and a fix; warnings are errors here."""

import io
import re
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from dop_lightning.images.formats import image_shape, read_image
from dop_lightning.images.formats.kinds import read_raster
from tests.images.formats.builders import GREY, KINDS, PALETTE, RGB, bmp, build, chunk, colours, png, ramp

NAN, INF = float("nan"), float("inf")
SECONDS = 30.0
"""No file of a few hundred bytes may take longer; most take a thousandth of that."""


def refused(path: Path, message: str, by_header: bool = True) -> None:
    for function in (read_image, image_shape) if by_header else (read_image,):
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{message}") as caught:
            function(path)
        # A decoder's error is in the message, not above it.
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        assert "\n" not in str(caught.value)


def tiff(path: Path, array: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, array, **{"photometric": "minisblack", "metadata": None, **options})
    return path


class TestColours:
    def test_for_print(self, tmp_path: Path) -> None:
        Image.new("CMYK", (4, 3)).save(tmp_path / "a.jpg")
        refused(tmp_path / "a.jpg", "CMYK .*convert it to RGB first, with its colour profile: `magick")
        tiff(tmp_path / "a.tif", np.zeros((3, 4, 4), np.uint8), photometric="separated")
        refused(tmp_path / "a.tif", "CMYK .*convert it to RGB first, with its colour profile: `magick")

    @pytest.mark.parametrize(("photometric", "told"), [("cielab", "CIELab"), ("ycbcr", "YCbCr"), ("icclab", "ICCLab")])
    def test_of_other_spaces(self, tmp_path: Path, photometric: str, told: str) -> None:
        tiff(tmp_path / "a.tif", np.zeros((4, 4, 3), np.uint8), photometric=photometric)
        refused(tmp_path / "a.tif", f"{told}.*convert it to RGB first")

    def test_of_raw_sensors_and_unknown_kinds(self, tmp_path: Path) -> None:
        tiff(tmp_path / "a.tif", np.zeros((4, 4), np.uint8), photometric=32803, extratags=[(33421, 3, 2, (2, 2), True)])
        refused(tmp_path / "a.tif", "raw mosaic")
        tiff(tmp_path / "a.tif", np.zeros((4, 4, 3), np.uint8), photometric=34892)
        refused(tmp_path / "a.tif", "got kind LINEAR_RAW")

    def test_conversion_of_bands(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((8, 8, 5)))
        with pytest.raises(ValueError, match=r"a\.npy: channels must be as_is for an image of 5 channels, got 'grey'"):
            read_image(tmp_path / "a.npy", channels="grey")


class TestNumbers:
    @pytest.mark.parametrize("suffix", [".npy", ".tif"])
    def test_complex_ones(self, tmp_path: Path, suffix: str) -> None:
        path, array = tmp_path / f"a{suffix}", np.zeros((4, 4), np.complex64)
        tiff(path, array) if suffix == ".tif" else np.save(path, array)
        refused(path, "real numbers, got complex.*save its absolute value")

    @pytest.mark.parametrize("value", [INF, -INF])
    @pytest.mark.parametrize("suffix", [".npy", ".tif"])
    def test_infinite_ones(self, tmp_path: Path, suffix: str, value: float) -> None:
        path, array = tmp_path / f"a{suffix}", np.zeros((4, 5, 3), np.float32)
        array[1, 2, 0] = value
        tiff(path, array, photometric="rgb") if suffix == ".tif" else np.save(path, array)
        refused(path, f"finite, or NaN if missing, got {value} in row 2, column 3; replace it", by_header=False)

    @pytest.mark.parametrize("suffix", [".npy", ".tif"])
    def test_only_missing_values(self, tmp_path: Path, suffix: str) -> None:
        path, array = tmp_path / f"a{suffix}", np.full((4, 5), NAN, np.float32)
        tiff(path, array) if suffix == ".tif" else np.save(path, array)
        refused(path, "at least one observed value", by_header=False)

    def test_only_invisible_pixels(self, tmp_path: Path) -> None:
        Image.new("RGBA", (4, 3)).save(tmp_path / "a.png")
        refused(tmp_path / "a.png", "at least one observed value", by_header=False)
        pixels = np.full((6, 6, 4), 255, np.uint8)
        pixels[1:5, 1:5, 3] = 0
        Image.fromarray(pixels).save(tmp_path / "b.png")
        assert read_image(tmp_path / "b.png").mask is not None
        with pytest.raises(ValueError, match="at least one observed value"):
            read_image(tmp_path / "b.png", crop=3)

    def test_invalid_spread(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([[-1e308, 1e308]] * 5).repeat(9, axis=1))
        refused(tmp_path / "a.npy", "must be finite, got -1e.308 … 1e.308; rescale", by_header=False)

    @pytest.mark.parametrize(
        ("array", "told"),
        [
            (np.array([[1, None]], dtype=object), "Python objects .a pickle., which are never loaded"),
            (np.array([["a", "b"]]), "numbers of at most 64 bits, got <U1"),
            (np.zeros((2, 2), dtype=[("x", "f8")]), "numbers of at most 64 bits"),
            (np.zeros(5), r"shape \(H, W\), \(H, W, C\) or \(C, H, W\), got \(5,\)"),
            (np.zeros((2, 2, 2, 2)), r"got \(2, 2, 2, 2\)"),
            (np.float64(1), r"got \(\)"),
            (np.zeros((0, 3)), "at least one pixel, got 0×3"),
            (np.zeros((3, 0)), "at least one pixel, got 3×0"),
            (np.zeros((3, 4, 0)), "at least one pixel, got 3×4 .* of 0 channels"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_arrays_other_than_images(self, tmp_path: Path, array: Any, told: str, suffix: str) -> None:
        (np.save if suffix == ".npy" else np.savez)(tmp_path / f"a{suffix}", array)
        refused(tmp_path / f"a{suffix}", told)

    def test_several_arrays(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.zeros((2, 2)), y=np.zeros((2, 2)))
        refused(tmp_path / "a.npz", "must contain exactly one array, got 2: x, y; save the image with numpy.save")
        np.savez(tmp_path / "b.npz")
        refused(tmp_path / "b.npz", "got 0: none")
        with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
            archive.writestr("notes.txt", "x")
        refused(tmp_path / "c.npz", "got 0: none")


class TestFrames:
    @pytest.mark.parametrize("suffix", [".png", ".webp"])
    def test_animations(self, tmp_path: Path, suffix: str) -> None:
        frames = [Image.fromarray(ramp(8, 8, 3)), Image.fromarray(255 - ramp(8, 8, 3))]
        frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
        refused(tmp_path / f"a{suffix}", "must not be an animation, got 2 frames; save one of them")

    def test_pages_of_other_sizes_depths_and_colours(self, tmp_path: Path) -> None:
        path, grey = tmp_path / "a.tif", np.zeros((4, 5), np.uint8)
        for other in (np.zeros((5, 4), np.uint8), np.zeros((4, 5), np.uint16), np.zeros((4, 5, 3), np.uint8)):
            with tifffile.TiffWriter(path) as writer:
                writer.write(grey, metadata=None, photometric="minisblack")
                writer.write(other, metadata=None, photometric="rgb" if other.ndim == 3 else "minisblack")
            refused(path, "pages must be grey channels of one size and depth, .*on page 2; save one page")
        with tifffile.TiffWriter(path) as writer:
            for _ in range(2):
                writer.write(np.zeros((4, 5, 3), np.uint8), metadata=None, photometric="rgb", contiguous=False)
        refused(path, "pages must be grey channels")

    def test_layers(self, tmp_path: Path) -> None:
        tiff(tmp_path / "a.tif", np.zeros((3, 16, 16), np.uint8), volumetric=True, tile=(16, 16, 16))
        refused(tmp_path / "a.tif", "must have one layer, got 3")


class TestNoImages:
    def test_missing_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty.png").touch()
        for function in (read_image, image_shape):
            with pytest.raises(FileNotFoundError, match=r"none\.png: no such file"):
                function(tmp_path / "none.png")
        refused(tmp_path, "must be a file, got a folder")
        refused(tmp_path / "empty.png", "the file is empty")

    @pytest.mark.parametrize(
        "content", [b"not a picture", b"GIF89a" + b"\0" * 60, b"RIFF\0\0\0\0WAVE", b"\x89PN", b"\0"]
    )
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
    def test_other_files(self, tmp_path: Path, content: bytes, suffix: str) -> None:
        (tmp_path / f"a{suffix}").write_bytes(content)
        refused(
            tmp_path / f"a{suffix}",
            "must be a PNG, JPEG, TIFF, WebP, BMP or FITS image or a NumPy array, .* PNG or TIFF first",
        )

    @pytest.mark.parametrize(
        "content",
        [
            b"BM" + b"\0" * 60,
            png(np.zeros((0, 3, 1)), 8, GREY),
            png(np.zeros((4, 0, 1)), 8, GREY),
            png(np.zeros((4, 4, 1)), 3, GREY),
            png(np.zeros((4, 4, 1)), 8, PALETTE),
            b"\x89PNG\r\n\x1a\n",
            b"PK\3\4" + b"\0" * 50,
            b"II*\0\xff\xff\xff\xff",
            b"\x93NUMPY\1\0\0\0",
        ],
    )
    def test_truncated_after_the_signature(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.png").write_bytes(content)
        refused(tmp_path / "a.png", "(damaged or truncated|at least one pixel)", by_header=False)

    def test_palette_index_out_of_range(self, tmp_path: Path) -> None:
        content = png(np.full((4, 4, 1), 7), 4, PALETTE, chunk(b"PLTE", colours(5).tobytes()))
        (tmp_path / "a.png").write_bytes(content)
        refused(tmp_path / "a.png", "damaged.*pixel index 7 exceeds the palette of 5", by_header=False)


class TestBombs:
    """Too many pixels are seen in the header, before there is room made for them."""

    @pytest.fixture(params=["png", "png-16", "jpg", "webp", "bmp", "tif", "tif-tile", "tif-jpeg", "npy", "npz"])
    def bomb(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        """A small file that says that it has 12000 × 13000 pixels."""
        kind = request.param
        path = tmp_path / f"a.{kind.split('-')[0]}"
        small = build(tmp_path, {"jpg": "jpeg-rgb", "webp": "webp-lossless"}.get(kind, "tiff-jpeg")).read_bytes()
        if kind in ("png", "png-16"):
            head = struct.pack(">IIBBBBB", 13000, 12000, 16 if kind == "png-16" else 8, RGB, 0, 0, 0)
            whole = png(np.zeros((2, 2, 3)), 8, RGB)
            path.write_bytes(whole[:8] + chunk(b"IHDR", head) + whole[33:])
        elif kind == "jpg":
            start = small.index(b"\xff\xc0") + 5
            path.write_bytes(small[:start] + struct.pack(">HH", 12000, 13000) + small[start + 4 :])
        elif kind == "webp":
            sides = small[20:21] + (12999 | 11999 << 14).to_bytes(4, "little")
            path.write_bytes(small[:20] + sides + small[25:])
        elif kind == "bmp":
            path.write_bytes(bmp(np.zeros((12000, 1), np.uint8), 13000, 8, b"\0" * 1024))
        elif kind in ("tif", "tif-tile"):
            array = np.zeros((16, 16), np.uint8)
            tiff(path, array, compression="adobe_deflate", **({"tile": (16, 16)} if kind == "tif-tile" else {}))
            names = {"tif": ("ImageLength", "ImageWidth"), "tif-tile": ("TileLength", "TileWidth")}[kind]
            with tifffile.TiffFile(path, mode="r+b") as file:
                for name, side in zip(names, (12000, 13008), strict=True):
                    file.pages[0].tags[name].overwrite(side)
        elif kind == "tif-jpeg":
            start = small.index(b"\xff\xc0") + 5
            path.write_bytes(small[:start] + struct.pack(">HH", 12000, 13000) + small[start + 4 :])
        else:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"shape": (12000, 13000), "fortran_order": False, "descr": "|u1"}
            )
            path.write_bytes(header.getvalue())
            if kind == "npz":
                path.unlink()
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("x.npy", header.getvalue())
        return path

    def test_are_refused(self, bomb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if bomb.suffix == ".webp":  # for which Pillow makes room as it opens the file
            monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("opened"))
        # The strips of a TIFF are no part of its header.
        refused(bomb, r"at most \d+ pixels, got .*make it smaller first", by_header=bomb.read_bytes().find(b"JFIF") < 0)

    @pytest.mark.parametrize("kind", ["png-grey-8", "jpeg-grey", "webp-lossy", "bmp-1", "tiff-bool", "npy-uint8"])
    def test_the_limit_is_pillows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        path = build(tmp_path, kind, 8, 11)
        for limit in (88, None):
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            assert read_image(path).format.size == (8, 11)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 87)
        refused(path, "at most 87 pixels, got 8×11 .height × width.; make it smaller first")

    def test_channels_count_too(self, tmp_path: Path) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"shape": (9000, 9000, 8), "fortran_order": False, "descr": "|u1"})
        (tmp_path / "a.npy").write_bytes(header.getvalue())
        refused(tmp_path / "a.npy", "samples, got 8 channels of 9000×9000 .*fewer channels")


class TestDamage:
    @pytest.mark.parametrize("kind", [k for k in KINDS if k[:4] not in ("webp", "bmp-")])
    def test_truncated_anywhere(self, tmp_path: Path, kind: str) -> None:
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
        path = build(tmp_path, kind, 20, 21)
        whole = path.read_bytes()
        # An archive and a PNG need their last bytes, the others the last of their pixels.
        for kept in np.linspace(1, len(whole) - 30, 9).astype(int):
            path.write_bytes(whole[:kept])
            refused(path, "", by_header=False)

    def test_noise_gives_an_image_or_one_error(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        generator, read = np.random.default_rng(0), 0
        for kind in KINDS:
            path = build(tmp_path, kind, 9, 13)
            whole = path.read_bytes()
            for k in range(4):
                path.write_bytes(damaged(whole, k, generator))
                for function in (read_image, image_shape):
                    start = time.perf_counter()
                    try:
                        function(path)
                        read += 1
                    except ValueError as error:
                        assert str(error).startswith(f"{path}: ")  # noqa: PT017
                        assert "\n" not in str(error)  # noqa: PT017
                    assert time.perf_counter() - start < SECONDS, kind
        assert 100 < read < 6 * len(KINDS)
        assert capfd.readouterr() == ("", "")
        assert caplog.records == []  # which would be on standard error without pytest

    def test_odd_tags_give_no_warning(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        path = build(tmp_path, "tiff-uint8")
        content = bytearray(path.read_bytes())
        content[content.index(struct.pack("<HH", 296, 3)) + 2] = 99  # there is no such type
        path.write_bytes(content)
        assert read_raster(path).metadata["resolution"] is not None
        assert capfd.readouterr() == ("", "")
        assert caplog.records == []

    def test_a_wrong_checksum_of_16_bits(self, tmp_path: Path) -> None:
        path = build(tmp_path, "png-rgb-16")
        content = bytearray(path.read_bytes())
        content[-13] ^= 1  # the last byte before IEND
        path.write_bytes(content)
        refused(path, "damaged or truncated .*checksum", by_header=False)


def damaged(whole: bytes, how: int, generator: np.random.Generator) -> bytes:
    content = bytearray(whole)
    if how == 0:  # bits
        for _ in range(generator.integers(1, 4)):
            content[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
    elif how == 1:  # what is cut off
        return whole[: generator.integers(1, len(whole))]
    elif how == 2:  # a number in the header
        start = generator.integers(min(len(content), 400))
        content[start : start + 4] = generator.bytes(4)
    else:
        content[generator.integers(len(content))] = int(generator.choice([0, 127, 128, 255]))
    return bytes(content)


def test_rgb_of_one_sample_is_damaged(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8), metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[data.index(struct.pack("<HHI", 262, 3, 1)) + 8] = 2  # the photometric tag
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.tif: .*damaged.*0 of 1 samples are extra, but 3 must be colours"):
        read_image(tmp_path / "a.tif")
