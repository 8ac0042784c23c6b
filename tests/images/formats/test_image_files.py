import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.foundation.thread_count import threads_here
from dop_lightning.images.formats import (
    ImageFormat,
    find_images,
    read_image,
    sample_folder,
    sample_names,
    write_image,
    write_pixels,
)
from dop_lightning.images.formats.image_files import repainted
from dop_lightning.images.formats.kinds import read_raster
from tests.images.formats.builders import KINDS, build
from tests.images.formats.test_kinds import assert_same


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def load(path: Path) -> tuple[np.ndarray, dict[Any, Any]]:
    with Image.open(path) as image:
        return np.array(image), image.info


class TestRoundTrip:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (7, 5), (5, 8, 3), (1, 9, 3), (9, 1)])
    def test_png_round_trip_keeps_pixels(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        array = pixels(*shape)
        tensor, _, format = read_image(save(tmp_path / "a.png", array))
        assert tensor.shape == (1 if len(shape) == 2 else 3, *shape[:2])
        assert tensor.dtype == torch.float32
        channels = 1 if len(shape) == 2 else 3
        mode = "L" if len(shape) == 2 else "RGB"
        assert format == ImageFormat(".png", mode, channels, shape[:2], (0.0, 255.0), format.raster)
        write_image(tmp_path / "b.png", tensor, format)
        with Image.open(tmp_path / "b.png") as image:
            assert image.mode == format.mode
            assert np.array_equal(np.asarray(image), array)

    def test_every_level_is_v_of_255_and_survives_a_round_trip(self, tmp_path: Path) -> None:
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
        assert format.suffix == ".png"
        write_image(tmp_path / "b.png", tensor, format)
        with Image.open(path) as one, Image.open(tmp_path / "b.png") as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))


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

    def test_thin_image_keeps_at_least_one_pixel(self, tmp_path: Path) -> None:
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

    def test_channels_are_converted_if_necessary(self, tmp_path: Path) -> None:
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


class TestWriting:
    @pytest.fixture
    def format(self, tmp_path: Path) -> ImageFormat:
        return read_image(save(tmp_path / "in.png", pixels(2, 2))).format

    def test_values_are_clamped(self, tmp_path: Path) -> None:
        tensor = torch.tensor([[[-1.0, 0.5, 2.0]]], requires_grad=True)
        write_image(tmp_path / "a.png", tensor, read_image(save(tmp_path / "in.png", pixels(1, 3))).format)
        assert load(tmp_path / "a.png")[0].tolist() == [[0, 128, 255]]

    @pytest.mark.parametrize(
        ("tensor", "message"),
        [
            (torch.zeros(3, 2, 2), r"shape \(1, 2, 2\)"),
            (torch.zeros(1, 2, 3), r"got torch.float32 of \(1, 2, 3\)"),
            (torch.zeros(1, 2, 2, dtype=torch.uint8), "floating point"),
            (torch.full((1, 2, 2), float("nan")), "got 4 infinite or NaN entries"),
        ],
    )
    def test_refuses_other_tensors(
        self, tmp_path: Path, format: ImageFormat, tensor: torch.Tensor, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            write_image(tmp_path / "a.png", tensor, format)
        assert [path.name for path in tmp_path.iterdir()] == ["in.png"]

    def test_refuses_other_suffixes(self, tmp_path: Path, format: ImageFormat) -> None:
        with pytest.raises(ValueError, match=r"a\.tif: the image is written as \.png, got suffix '\.tif'"):
            write_image(tmp_path / "a.tif", torch.zeros(1, 2, 2), format)
        with pytest.raises(ValueError, match=r"a\.jpg: .*\.png"):
            write_pixels(tmp_path / "a.jpg", pixels(2, 2))

    @pytest.mark.parametrize("kind", ["png-rgb-8", "bmp-rgb", "tiff-uint8", "npy-uint8", "npz-stored", "webp-lossless"])
    def test_failed_write_keeps_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        values, _, format = read_image(build(tmp_path, kind))
        out = tmp_path / f"out{format.suffix}"
        out.write_text("old")

        def full(descriptor: int) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space left"):
            write_image(out, values, format)
        assert out.read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 2

    def test_format_can_be_pickled(self, tmp_path: Path) -> None:
        for kind in KINDS:
            values, _, format = read_image(build(tmp_path, kind, 9, 12), value_range=(-9, 70000))
            again = pickle.loads(pickle.dumps(format))
            assert again == format
            write_image(tmp_path / f"one{format.suffix}", values, format)
            write_image(tmp_path / f"two{format.suffix}", values, again)
            assert_same(*(read_raster(tmp_path / f"{name}{format.suffix}") for name in ("one", "two")))


def test_tiff_and_codecs_are_imported_on_demand() -> None:
    code = "import sys, dop_lightning.images.formats as f; f.read_image(f.find_images('camera')[0]); "
    code += "print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'PIL'" in out
    assert "tifffile" not in out
    assert "imagecodecs" not in out


IN_FOLDER = ["A.JPG", "b.png", "c.jpeg", "d.TIF", "e.tiff", "f.webp", "g.bmp", "h.npy", "i.npz"]


class TestFindImages:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name in (*IN_FOLDER, "notes.txt", ".hidden.png", "sub/d.png", "table.csv"):
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
            (".", IN_FOLDER),
            ("*", IN_FOLDER),
            ("*.png", ["b.png"]),
            ("**/*.png", ["b.png", "d.png"]),
            (["sub", "b.png", "*"], ["d.png", "b.png", *(name for name in IN_FOLDER if name != "b.png")]),
        ],
    )
    def test_files_folders_and_patterns(self, patterns: Any, names: list[str]) -> None:
        assert [path.name for path in find_images(patterns)] == names

    def test_absolute_patterns_and_the_home_folder(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("USERPROFILE", str(folder))
        assert find_images([f"{folder}/*.png", "~/b.png", "b.png"]) == [folder / "b.png"]

    def test_files_take_precedence_over_samples(self, folder: Path) -> None:
        assert sample_names() == ["astronaut", "camera", "chelsea", "coffee", "rocket"]
        found = find_images(["camera", "chelsea"])
        assert found == [sample_folder() / "camera.png", sample_folder() / "chelsea.png"]
        assert [read_image(path).values.shape for path in found] == [(1, 128, 128), (3, 113, 150)]
        (folder / "camera").touch()
        assert find_images("camera") == [Path("camera")]

    @pytest.mark.parametrize("pattern", ["none.png", "*.gif", "*.txt", "camra", "", " "])
    def test_no_match_reports_the_pattern_and_the_samples(self, pattern: str) -> None:
        with pytest.raises(ValueError, match=rf"{re.escape(pattern)}.*astronaut, camera, chelsea, coffee, rocket"):
            find_images(["b.png", pattern])

    def test_empty_folder_and_empty_list(self, folder: Path) -> None:
        (folder / "empty").mkdir()
        with pytest.raises(ValueError, match=r"empty: the folder contains no file .*\.png.*astronaut"):
            find_images("empty")
        with pytest.raises(ValueError, match="at least one entry"):
            find_images([])


@pytest.mark.parametrize("threads", [1, 3])
def test_strips_do_not_change_the_result(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(pixels(20, 12, 3)).save(tmp_path / "photo.png")
    image = read_image(tmp_path / "photo.png")
    changed = (image.values * 0.5 + 0.1).contiguous()
    whole = repainted(changed, image.format).samples
    monkeypatch.setattr("dop_lightning.images.formats.image_files.PIXELS_AT_ONCE", 30)
    with threads_here(threads):
        assert np.array_equal(repainted(changed, image.format).samples, whole)
