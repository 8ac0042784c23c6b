"""Scientific frames: outliers are detected from the noise, clean values are kept, and filled values are accurate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dop_lightning import recover_image
from dop_lightning.cli.main import main
from dop_lightning.images.formats import read_image
from dop_lightning.images.measured import as_measured
from dop_lightning.problems.problem import Problem
from tests.engine.steps.clean_entries.frames import star_field, with_hits

QUICK: dict[str, Any] = {"preset": "quick", "width": 8, "iterations": 100, "device": "cpu", "progress": False}
"""Enough for a sky, on a processor."""


def frame(**options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A star field with cosmic rays, their mask, and the field without cosmic rays and noise."""
    truth, noisy = star_field(side=80, **options)
    y, hit = with_hits(noisy, 0.005, 1000, 30_000)
    return y[0].numpy(), hit[0].numpy(), truth[0].numpy()


def scores(found: np.ndarray, hit: np.ndarray) -> tuple[float, float]:
    right = (found & hit).sum()
    return right / max(1, found.sum()), right / hit.sum()


@pytest.mark.parametrize("brightest", [2000.0, 50_000.0])
def test_cosmic_rays_are_removed_and_stars_kept(brightest: float) -> None:
    y, hit, truth = frame(brightest=brightest)
    found = recover_image(y, **QUICK)
    assert scores(found.mask, hit) >= (0.99, 0.95)
    assert np.array_equal(found.image[~found.mask], y[~found.mask])
    assert found.corruption[found.mask] == pytest.approx((y - found.image)[found.mask])
    assert not np.any(found.corruption[~found.mask])
    error = np.abs(found.image - truth)[found.mask & (truth < 400)]  # a clean pixel is off by 17
    assert np.median(error) < (17 if brightest < 10_000 else 51)


def test_photons_of_16_bits() -> None:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:80, :80]
    truth = 400 + 300 * np.sin(rows / 15) * np.cos(columns / 12)
    y = random.poisson(truth).astype(np.uint16)
    hit = random.random(y.shape) < 0.01
    y[hit] = random.choice([0, 4095], int(hit.sum()))
    found = recover_image(y, **QUICK)
    assert found.image.dtype == np.uint16
    assert scores(found.mask, hit) >= (0.99, 0.95)
    assert np.array_equal(found.image[~found.mask], y[~found.mask])
    error = np.abs(found.image.astype(float) - truth)[found.mask].mean()
    assert error < np.sqrt(truth).mean()


def test_the_sign_of_the_outliers() -> None:
    y, hit, _ = frame(sky=2000.0, stars=0)
    y[40, 40:42] -= 1500
    assert recover_image(y, outliers="both", **{**QUICK, "iterations": 5}).mask[40, 40]
    for sign, expected in (("positive", hit), ("negative", False)):
        found = recover_image(y, outliers=sign, **{**QUICK, "iterations": 5})
        assert bool(found.mask[40, 40]) is (sign == "negative")
        assert not np.any(found.mask & ~hit) or expected is False
    with pytest.raises(ValueError, match="outliers must be auto with the preset paper"):
        recover_image(y, outliers="positive", preset="paper", iterations=1, progress=False)


def test_many_bands() -> None:
    random = np.random.default_rng(0)
    bands = np.stack([random.normal(100 + 10 * k, 3, (40, 40)) for k in range(24)]).astype(np.float32)
    y = bands.copy()
    y[7, 20, 20] += 500
    y[19, 5, 30] += 500
    found = recover_image(y, **{**QUICK, "iterations": 5})
    assert np.argwhere(found.mask).tolist() == [[7, 20, 20], [19, 5, 30]]
    assert found.image.shape == y.shape


def test_measured_values_keep_their_noise(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for array, measured in (
        (random.normal(20, 3, (40, 40)), True),
        (random.integers(0, 4000, (40, 40)).astype(np.uint16), True),
        (random.random((40, 40)), False),
        (random.integers(0, 255, (40, 40)).astype(np.uint8), False),
    ):
        np.save(tmp_path / "a.npy", array)
        image = read_image(tmp_path / "a.npy")
        assert as_measured(Problem("a", image.values, data_range=1.0), image).measured is measured


def test_dop_recover_of_a_fits_file(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    y, hit, _ = frame()
    fits.PrimaryHDU(y).writeto(tmp_path / "frame.fits")
    options = ["--preset", "quick", "--width", "8", "--iterations", "20", "--device", "cpu", "--outliers", "positive"]
    assert main(["recover", str(tmp_path / "frame.fits"), "--out", str(tmp_path / "out"), *options]) == 0
    folder = next((tmp_path / "out").glob("frame*"))
    recovered = fits.getdata(folder / "recovered.fits")
    assert (folder / "recovered.png").exists()
    assert recovered.dtype == np.dtype(">f4")
    assert scores(recovered != y, hit) >= (0.99, 0.95)
    with fits.open(folder / "recovered.fits") as hdus:
        assert "dop_lightning" in str(hdus[0].header["HISTORY"])
