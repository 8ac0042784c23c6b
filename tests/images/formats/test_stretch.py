"""The range of frames that noise limits: wide enough for the noise, and stretched where stars are far brighter."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dop_lightning.images.formats import read_image, write_image
from dop_lightning.images.formats.image_files import load_raster
from dop_lightning.images.formats.raster import Raster
from dop_lightning.images.formats.stretch import Stretch, forward, inverse
from tests.engine.steps.clean_entries.frames import star_field, with_hits

SKY = Stretch(100.0, 60_000.0, centre=200.0, width=272.0)


def test_stretch_is_invertible() -> None:
    values = np.array([-500.0, 100.0, 150.0, 200.0, 250.0, 5000.0, 60_000.0, 1e6])
    shares = forward(values, SKY)
    assert shares[[1, 6]].tolist() == [0, 1]
    assert (np.diff(shares) > 0).all()
    assert inverse(shares, SKY) == pytest.approx(values)
    assert pickle.loads(pickle.dumps(SKY)).width == SKY.width


def test_stretch_makes_photon_noise_uniform() -> None:
    random = np.random.default_rng(0)
    spread = [
        np.std(forward(random.poisson(v, 20_000) + random.normal(0, 4, 20_000), SKY)) for v in (200, 2000, 20_000)
    ]
    assert max(spread) < 1.3 * min(spread)


def test_range_includes_the_noise_of_an_empty_sky() -> None:
    _, y = star_field(stars=0)
    low, high = load_raster(Raster(".npy", y[0, ..., None].numpy())).format.value_range
    assert low < 200 - 3.5 * 17
    assert high > 200 + 3.5 * 17


def test_bright_stars_are_stretched_and_restored_to_the_bit(tmp_path: Path) -> None:
    _, y = star_field(brightest=60_000, width=3.0)
    y, _ = with_hits(y, 0.005, 1000, 30_000)
    np.save(tmp_path / "frame.npy", y[0].numpy())
    image = read_image(tmp_path / "frame.npy")
    assert isinstance(image.format.value_range, Stretch)
    write_image(tmp_path / "back.npy", image.values.clamp(-0.5, 1.5), image.format)
    assert np.array_equal(np.load(tmp_path / "back.npy"), y[0].numpy())
    again = read_image(tmp_path / "frame.npy", value_range=image.format.value_range)  # as of the truth
    assert torch.equal(again.values, image.values)


def test_photographs_are_not_stretched() -> None:
    data = pytest.importorskip("skimage.data")
    for picture in (data.camera()[:200, :200], data.moon()[:200, :200]):
        for scaled in (picture.astype(np.uint16) * 257, picture.astype(np.float32) * 200 + 7):
            found = load_raster(Raster(".npy", scaled[..., None], 8 * scaled.itemsize)).format.value_range
            assert not isinstance(found, Stretch)
            if scaled.dtype == np.uint16:
                assert found == (0, 65535)
