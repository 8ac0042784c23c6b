import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from dop_lightning.files import (
    ImageFormat,
    find_images,
    output_suffix,
    read_image,
    sample_folder,
    sample_names,
    write_image,
    write_pixels,
)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def load(path: Path) -> tuple[np.ndarray, dict[Any, Any]]:
    with Image.open(path) as image:
        return np.array(image), image.info


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, channels: int = 1) -> bytes:
    """A PNG of zeros, of sizes and depths that Pillow does not write."""
    row = b"\0" + b"\0" * ((width * channels * depth + 7) // 8)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * min(height, 9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


class TestRoundTrip:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (7, 5), (5, 8, 3), (1, 9, 3), (9, 1)])
    def test_png_comes_back_with_equal_pixels(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        array = pixels(*shape)
        tensor, _, format = read_image(save(tmp_path / "a.png", array))
        assert tensor.shape == (1 if len(shape) == 2 else 3, *shape[:2])
        assert tensor.dtype == torch.float32
        assert format == ImageFormat("L" if len(shape) == 2 else "RGB", shape[:2], ".png")
        write_image(tmp_path / "b.png", tensor, format)
        with Image.open(tmp_path / "b.png") as image:
            assert image.mode == format.mode
            assert np.array_equal(np.asarray(image), array)

    def test_every_level_is_v_of_255_and_comes_back(self, tmp_path: Path) -> None:
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        tensor, _, format = read_image(save(tmp_path / "a.png", levels))
        assert torch.equal(tensor.flatten(), torch.arange(256, dtype=torch.float32) / 255)
        for dtype in (torch.float32, torch.float64):
            write_image(tmp_path / "b.png", tensor.to(dtype), format)
            assert np.array_equal(load(tmp_path / "b.png")[0], levels)

    @pytest.mark.parametrize("shape", [(9, 6), (9, 6, 3)])
    def test_jpeg_is_read_as_its_pixels_and_written_as_png(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        path = save(tmp_path / "a.JPG", pixels(*shape))
        tensor, _, format = read_image(path)
        assert format.suffix == ".jpg"
        assert output_suffix(format) == ".png"
        write_image(tmp_path / "b.png", tensor, format)
        with Image.open(path) as one, Image.open(tmp_path / "b.png") as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))

    def test_the_content_decides_not_the_name(self, tmp_path: Path) -> None:
        save(tmp_path / "a.jpg", pixels(3, 3), format="PNG")
        assert read_image(tmp_path / "a.jpg").format.suffix == ".png"

    def test_colour_profile_is_kept_unless_the_channels_are_converted(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", pixels(3, 3, 3), icc_profile=b"profile")
        tensor, _, format = read_image(path)
        write_image(tmp_path / "b.png", tensor, format)
        assert load(tmp_path / "b.png")[1]["icc_profile"] == b"profile"
        assert read_image(path, channels="grey").format.icc_profile is None

    def test_a_portrait_photograph_stands_upright(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise by a quarter
        array = pixels(4, 6)
        tensor, _, format = read_image(save(tmp_path / "a.png", array, exif=exif))
        assert format.size == (6, 4)
        assert np.array_equal(tensor[0].mul(255).round().numpy(), np.rot90(array, -1))


class TestSizeAndChannels:
    @pytest.mark.parametrize(
        ("resize", "size"), [(4, (2, 4)), (16, (8, 16)), (1, (1, 1)), ((3, 5), (3, 5)), ([5, 2], (5, 2))]
    )
    def test_resize_is_pillows_lanczos(self, tmp_path: Path, resize: Any, size: tuple[int, int]) -> None:
        path = save(tmp_path / "a.png", pixels(4, 8, 3))
        tensor, _, format = read_image(path, resize=resize)
        assert format.size == size
        with Image.open(path) as image:
            expected = np.asarray(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))
        assert np.array_equal(tensor.permute(1, 2, 0).mul(255).round().numpy(), expected)

    def test_a_thin_image_keeps_a_pixel(self, tmp_path: Path) -> None:
        assert read_image(save(tmp_path / "a.png", pixels(1, 9)), resize=3).format.size == (1, 3)

    @pytest.mark.parametrize(("crop", "rows", "columns"), [(3, (1, 4), (2, 5)), ((5, 8), (0, 5), (0, 8))])
    def test_crop_is_in_the_centre(
        self, tmp_path: Path, crop: Any, rows: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        array = pixels(5, 8)
        tensor, _, format = read_image(save(tmp_path / "a.png", array), crop=crop)
        expected = array[slice(*rows), slice(*columns)]
        assert format.size == expected.shape
        assert np.array_equal(tensor[0].mul(255).round().numpy(), expected)

    def test_crop_comes_after_resize(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", pixels(4, 8))
        assert read_image(path, resize=16, crop=8).format.size == (8, 8)
        with pytest.raises(ValueError, match=r"crop must be at most the image, 4×8 .*got 8×8"):
            read_image(path, crop=8)

    def test_channels_convert_where_needed(self, tmp_path: Path) -> None:
        grey, colour = save(tmp_path / "g.png", pixels(3, 3)), save(tmp_path / "c.png", pixels(3, 3, 3))
        assert read_image(grey, channels="rgb").values.shape == (3, 3, 3)
        assert read_image(grey, channels="rgb").format.mode == "RGB"
        assert torch.equal(read_image(grey, channels="rgb").values[1:2], read_image(grey).values)
        assert read_image(colour, channels="grey").values.shape == (1, 3, 3)
        assert torch.equal(read_image(colour, channels="rgb").values, read_image(colour).values)

    @pytest.mark.parametrize(
        "arguments",
        [{"resize": 0}, {"resize": (3,)}, {"resize": "3x"}, {"resize": 2.5}, {"crop": (3, 0)}, {"channels": "blue"}],
    )
    def test_wrong_arguments_are_named(self, tmp_path: Path, arguments: dict[str, Any]) -> None:
        path = save(tmp_path / "a.png", pixels(4, 4))
        with pytest.raises(ValueError, match=next(iter(arguments))):
            read_image(path, **arguments)


class TestRefusals:
    """One error that names the file and what is wrong; warnings would be errors here."""

    @pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK", "I;16"])
    def test_other_modes(self, tmp_path: Path, mode: str) -> None:
        path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
        Image.new(mode, (4, 3)).save(path)
        with pytest.raises(ValueError, match=rf"a\.(png|jpg): .*8-bit.*{mode}.*convert it"):
            read_image(path)

    @pytest.mark.parametrize(("depth", "colour", "channels"), [(16, 2, 3), (16, 0, 1), (4, 0, 1), (2, 0, 1)])
    def test_other_depths(self, tmp_path: Path, depth: int, colour: int, channels: int) -> None:
        (tmp_path / "a.png").write_bytes(png(4, 3, depth, colour, channels))
        with pytest.raises(ValueError, match=rf"a\.png: .*got {depth} bits a channel"):
            read_image(tmp_path / "a.png")

    def test_a_transparent_colour_and_an_animation(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", pixels(3, 3, 3), transparency=(0, 0, 0))
        with pytest.raises(ValueError, match=r"a\.png: .*transparent colour"):
            read_image(tmp_path / "a.png")
        frames = [Image.fromarray(pixels(3, 3)), Image.fromarray(255 - pixels(3, 3))]
        frames[0].save(tmp_path / "b.png", save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match=r"b\.png: .*2 frames"):
            read_image(tmp_path / "b.png")

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty.png").touch()
        with pytest.raises(FileNotFoundError, match=r"none\.png: there is no such file"):
            read_image(tmp_path / "none.png")
        with pytest.raises(ValueError, match="must be a file, got a folder"):
            read_image(tmp_path)
        with pytest.raises(ValueError, match=r"empty\.png: the file is empty"):
            read_image(tmp_path / "empty.png")

    @pytest.mark.parametrize("content", [b"not a picture", b"BM" + b"\0" * 60, png(0, 3, 8, 0), png(4, 0, 8, 0)])
    def test_what_is_no_image(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png: must be a PNG or JPEG image") as caught:
            read_image(tmp_path / "a.png")
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize("suffix", [".png", ".jpg"])
    def test_cut_off_anywhere(self, tmp_path: Path, suffix: str) -> None:
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
        path = save(tmp_path / f"a{suffix}", pixels(40, 40, 3))
        whole = path.read_bytes()
        for kept in range(1, len(whole) - 100, 61):
            path.write_bytes(whole[:kept])
            with pytest.raises(ValueError, match=re.escape(str(path))):
                read_image(path)

    def test_noise_in_the_file_gives_an_image_or_one_error(self, tmp_path: Path) -> None:
        buffer, generator, path = io.BytesIO(), np.random.default_rng(0), tmp_path / "a.png"
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels(5, 4, 3)).save(buffer, "PNG", exif=exif)
        for _ in range(200):
            content = bytearray(buffer.getvalue())
            content[generator.integers(len(content))] = generator.integers(256)
            path.write_bytes(content)
            try:
                assert read_image(path).values.numel() > 0
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017

    @pytest.mark.parametrize("side", [10_000, 100_000])
    def test_bombs(self, tmp_path: Path, side: int) -> None:
        (tmp_path / "a.png").write_bytes(png(side, side, 8, 0))
        with pytest.raises(ValueError, match=r"a\.png: an image must have at most \d+ pixels"):
            read_image(tmp_path / "a.png")


class TestWriting:
    def test_values_are_clamped(self, tmp_path: Path) -> None:
        tensor = torch.tensor([[[-1.0, 0.5, 2.0]]], requires_grad=True)
        write_image(tmp_path / "a.png", tensor, ImageFormat("L", (1, 3), ".png"))
        assert load(tmp_path / "a.png")[0].tolist() == [[0, 128, 255]]

    @pytest.mark.parametrize(
        ("tensor", "message"),
        [
            (torch.zeros(3, 2, 2), r"shape \(1, 2, 2\)"),
            (torch.zeros(1, 2, 3), r"got torch.float32 of \(1, 2, 3\)"),
            (torch.zeros(1, 2, 2, dtype=torch.uint8), "floating point"),
            (torch.full((1, 2, 2), float("nan")), "got 4 entries that are not"),
        ],
    )
    def test_refuses_other_tensors(self, tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            write_image(tmp_path / "a.png", tensor, ImageFormat("L", (2, 2), ".png"))
        assert list(tmp_path.iterdir()) == []

    def test_refuses_other_suffixes(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a\.jpg: .*\.png"):
            write_pixels(tmp_path / "a.jpg", pixels(2, 2))


class TestFindImages:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name in ("b.png", "A.JPG", "c.jpeg", "notes.txt", ".hidden.png", "sub/d.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        monkeypatch.chdir(tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        ("patterns", "names"),
        [
            ("b.png", ["b.png"]),
            (Path("b.png"), ["b.png"]),
            ("notes.txt", ["notes.txt"]),
            (".", ["A.JPG", "b.png", "c.jpeg"]),
            ("*", ["A.JPG", "b.png", "c.jpeg"]),
            ("*.png", ["b.png"]),
            ("**/*.png", ["b.png", "d.png"]),
            (["sub", "b.png", "*"], ["d.png", "b.png", "A.JPG", "c.jpeg"]),
        ],
    )
    def test_files_folders_and_patterns(self, patterns: Any, names: list[str]) -> None:
        assert [path.name for path in find_images(patterns)] == names

    def test_absolute_patterns_and_the_home_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("USERPROFILE", str(folder))
        assert find_images([f"{folder}/*.png", "~/b.png", "b.png"]) == [folder / "b.png"]

    def test_samples_are_found_and_files_win(self, folder: Path) -> None:
        assert sample_names() == ["astronaut", "camera", "chelsea", "coffee"]
        found = find_images(["camera", "chelsea"])
        assert found == [sample_folder() / "camera.png", sample_folder() / "chelsea.png"]
        assert [read_image(path).values.shape for path in found] == [(1, 128, 128), (3, 113, 150)]
        (folder / "camera").touch()
        assert find_images("camera") == [Path("camera")]

    @pytest.mark.parametrize("pattern", ["none.png", "*.gif", "*.txt", "camra", "", " "])
    def test_nothing_found_names_the_pattern_and_the_samples(self, pattern: str) -> None:
        with pytest.raises(ValueError, match=rf"{re.escape(pattern)}.*astronaut, camera, chelsea, coffee"):
            find_images(["b.png", pattern])

    def test_empty_folder_and_empty_list(self, folder: Path) -> None:
        (folder / "empty").mkdir()
        with pytest.raises(ValueError, match=r"empty: the folder must hold .*\.png.* got none.*astronaut"):
            find_images("empty")
        with pytest.raises(ValueError, match="at least one entry"):
            find_images([])
