from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.images.formats import LoadedImage, read_image, read_mask
from tests.images.formats.builders import PALETTE, chunk, png, ramp

HOLE = np.zeros((16, 24), dtype=bool)
HOLE[3:9, 5:17] = True
GREY = np.where(HOLE, 0, 255).astype(np.uint8)


@pytest.fixture(params=[1, 3, 4])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedImage:
    np.save(tmp_path / "image.npy", ramp(16, 24, request.param))
    return read_image(tmp_path / "image.npy")


def expected(image: LoadedImage) -> torch.Tensor:
    return torch.from_numpy(~HOLE).expand_as(image.values)


class TestForms:
    @pytest.mark.parametrize("name", ["grey.png", "rgb.png", "grey.jpg", "rgb.jpg", "one.bmp", "alpha.webp", "a.tif"])
    def test_pictures(self, tmp_path: Path, image: LoadedImage, name: str) -> None:
        picture = Image.fromarray(GREY)
        if "rgb" in name:
            picture = picture.convert("RGB")
        elif name == "one.bmp":
            picture = picture.convert("1")
        elif name == "alpha.webp":  # which does not count
            picture = Image.merge("RGBA", [picture] * 3 + [Image.new("L", picture.size)])
        picture.save(tmp_path / name, **({"lossless": True, "exact": True} if "webp" in name else {}))
        assert torch.equal(read_mask(tmp_path / name, image), expected(image))

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
    def test_arrays(self, tmp_path: Path, image: LoadedImage, dtype: type) -> None:
        np.save(tmp_path / "mask.npy", (~HOLE).astype(dtype))
        mask = read_mask(tmp_path / "mask.npy", image)
        assert mask.dtype == torch.bool
        assert torch.equal(mask, expected(image))

    def test_nan_and_negative_values_are_unobserved(self, tmp_path: Path, image: LoadedImage) -> None:
        for value in (np.nan, -5):
            np.save(tmp_path / "mask.npy", np.where(HOLE, value, 0.01))
            assert torch.equal(read_mask(tmp_path / "mask.npy", image), expected(image))

    def test_a_palette_counts_by_its_colours(self, tmp_path: Path, image: LoadedImage) -> None:
        table = chunk(b"PLTE", bytes([255, 255, 255, 0, 0, 0]))
        (tmp_path / "mask.png").write_bytes(png(HOLE[..., None], 1, PALETTE, table))
        assert torch.equal(read_mask(tmp_path / "mask.png", image), expected(image))

    def test_one_for_each_channel(self, tmp_path: Path, image: LoadedImage) -> None:
        channels = len(image.values)
        given = np.random.default_rng(0).random((channels, 16, 24)) < 0.5
        np.save(tmp_path / "mask.npy", given)
        assert np.array_equal(read_mask(tmp_path / "mask.npy", image).numpy(), given)

    def test_mask_is_upright(self, tmp_path: Path, image: LoadedImage) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.rot90(GREY)).save(tmp_path / "mask.png", exif=exif)
        assert torch.equal(read_mask(tmp_path / "mask.png", image), expected(image))

    def test_all_may_be_observed(self, tmp_path: Path, image: LoadedImage) -> None:
        np.save(tmp_path / "mask.npy", np.ones((16, 24)))
        assert read_mask(tmp_path / "mask.npy", image).all()


class TestMistakes:
    def test_other_sizes(self, tmp_path: Path, image: LoadedImage) -> None:
        np.save(tmp_path / "mask.npy", np.ones((24, 16)))
        with pytest.raises(ValueError, match=r"mask\.npy: the mask must have the size of the image, 16×24, got 24×16"):
            read_mask(tmp_path / "mask.npy", image)

    def test_other_numbers_of_channels(self, tmp_path: Path, image: LoadedImage) -> None:
        given = np.ones((16, 24, 5))
        np.save(tmp_path / "mask.npy", given)
        assert read_mask(tmp_path / "mask.npy", image).all()
        given[0, 0, 0] = 0
        np.save(tmp_path / "mask.npy", given)
        with pytest.raises(
            ValueError, match=rf"1 channel, or {len(image.values)} like the image, got 5 different ones"
        ):
            read_mask(tmp_path / "mask.npy", image)

    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
    def test_no_observed_entries(self, tmp_path: Path, image: LoadedImage, value: float) -> None:
        np.save(tmp_path / "mask.npy", np.full((16, 24), value))
        with pytest.raises(ValueError, match=r"mask\.npy: the mask must be above 0 where the image is observed"):
            read_mask(tmp_path / "mask.npy", image)

    def test_no_image(self, tmp_path: Path, image: LoadedImage) -> None:
        (tmp_path / "mask.png").write_text("x")
        with pytest.raises(ValueError, match=r"mask\.png: must be a PNG"):
            read_mask(tmp_path / "mask.png", image)
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_mask(tmp_path / "none.png", image)
