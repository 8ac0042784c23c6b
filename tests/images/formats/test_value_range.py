from typing import Any

import numpy as np
import pytest
from scipy.ndimage import median_filter

from dop_lightning.images.formats import read_image, write_image
from dop_lightning.images.formats.raster import Palette, Raster
from dop_lightning.images.formats.value_range import checked_range, value_range
from tests.images.formats.builders import colours, ramp


def raster(samples: np.ndarray, bits: int | None = None, **options: Any) -> Raster:
    samples = samples[..., None] if samples.ndim == 2 else samples
    return Raster(".tif", samples, bits or 8 * samples.dtype.itemsize, **options)


def salted(samples: np.ndarray, ratio: float, *values: float) -> np.ndarray:
    generator = np.random.default_rng(0)
    hit = generator.random(samples.shape) < ratio
    samples = samples.copy()
    samples[hit] = generator.choice(values, hit.sum())
    return samples


class TestFormats:
    @pytest.mark.parametrize(
        ("samples", "bits", "expected"),
        [
            (np.full((5, 5), 3, np.uint8), 8, (0, 255)),
            (np.full((5, 5), 3, np.uint8), 4, (0, 15)),
            (np.full((5, 5), True), 1, (0, 1)),
        ],
    )
    def test_range_of_few_bits_is_all_their_values(self, samples: np.ndarray, bits: int, expected: Any) -> None:
        assert value_range(raster(samples, bits)) == expected
        assert value_range(raster(np.zeros((5, 5), np.uint8), 2, palette=Palette(colours(4)))) == (0, 255)

    @pytest.mark.parametrize("k", range(1, 17))
    def test_range_of_16_bits_is_that_of_the_sensor(self, k: int) -> None:
        for top, expected in ((2**k - 1, max(k, 8)), (2 ** (k - 1), max(k, 8))):
            samples = np.zeros((9, 9), np.uint16)
            samples[2:7, 2:7] = top
            assert value_range(raster(samples)) == (0, 2**expected - 1)

    @pytest.mark.parametrize("ratio", [0.0, 0.02, 0.1])
    def test_12_bits_with_salt_of_16(self, ratio: float) -> None:
        assert value_range(raster(salted(ramp(90, 70, 3, np.uint16, 4000), ratio, 0, 65535))) == (0, 4095)

    def test_packed_12_bits_have_no_larger_values(self) -> None:
        assert value_range(raster(np.full((9, 9), 4095, np.uint16), 12)) == (0, 4095)
        assert value_range(raster(np.full((9, 9), 300, np.uint16), 12)) == (0, 511)


class TestFloats:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_in_0_to_1(self, dtype: Any) -> None:
        assert value_range(raster(ramp(20, 20, 3, dtype, 1))) == (0, 1)
        assert value_range(raster(ramp(20, 20, 3, dtype, 0.6))) == (0, 1)

    @pytest.mark.parametrize("top", [0.1, 1.5, 1000.0])
    def test_other_ranges_have_a_margin(self, top: float) -> None:
        samples = salted(ramp(60, 50, 2, np.float64, top) + 3, 0.005, -1e6, 1e6)
        planes = [median_filter(samples[..., k], 5, mode="nearest") for k in range(2)]
        low, high = min(map(np.min, planes)), max(map(np.max, planes))
        margin = 0.1 * (high - low)
        assert value_range(raster(samples)) == pytest.approx((low - margin, high + margin), rel=1e-12)

    def test_range_is_limited_to_observed_values(self) -> None:
        samples = ramp(60, 50, 1, np.float64, 5)
        assert value_range(raster(samples)) == (samples.min(), samples.max())

    def test_signed_and_long_integers_as_well(self) -> None:
        for dtype in (np.int8, np.int16, np.int32, np.int64, np.uint32, np.uint64):
            samples = ramp(60, 50, 1, dtype, 100)
            assert value_range(raster(samples)) == (samples.min(), samples.max())
        assert value_range(raster(np.array([[np.iinfo(np.int64).min, 0]]).repeat(9, 1)))[0] == -(2.0**63)

    @pytest.mark.parametrize("value", [0.0, 0.25, -3.0, 1e30, 1e-30])
    @pytest.mark.parametrize("size", [(1, 1), (9, 7)])
    def test_single_value_is_in_the_middle(self, tmp_path: Any, value: float, size: tuple[int, int]) -> None:
        width = abs(value) or 1
        samples = np.full(size, value)
        assert value_range(raster(samples)) == pytest.approx((value - width / 2, value + width / 2))
        np.save(tmp_path / "a.npy", samples)
        values, _, format = read_image(tmp_path / "a.npy")
        assert (values == 0.5).all()
        write_image(tmp_path / "b.npy", values, format)
        assert np.load(tmp_path / "b.npy") == pytest.approx(samples)
        assert value_range(raster(np.full(size, -7, np.int16))) == (-10.5, -3.5)

    def test_missing_values_do_not_count(self) -> None:
        samples = ramp(30, 40, 2, np.float32, 50) + 10
        expected = value_range(raster(samples))
        holes = samples.copy()
        holes[3:12, 5:20, 0] = np.nan
        assert value_range(raster(holes)) == pytest.approx(expected, rel=0.02)
        sparse = np.where(np.random.default_rng(0).random(samples.shape) < 0.6, np.float32(np.nan), samples)
        sparse[3, 4, 0] = -1000
        assert value_range(raster(sparse))[0] >= 4
        holes[..., 1] = np.nan
        low, high = value_range(raster(holes))
        assert 10 <= low < high <= 60
        filled = np.where(np.isnan(holes), -1e30, holes)
        assert value_range(raster(filled, nodata=-1e30)) == (low, high)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 3), (37, 51), (400, 500)])
@pytest.mark.parametrize("values", ["noise", "ramp", "walk"])
def test_the_filter_is_the_median_of_5_by_5(shape: tuple[int, int], values: str) -> None:
    generator = np.random.default_rng(1)
    walk = generator.standard_normal(shape).cumsum(1)
    samples = {"noise": generator.random(shape), "ramp": ramp(*shape, 1, float, 1)[..., 0], "walk": walk}[values] + 5
    filtered = median_filter(samples, 5, mode="nearest")
    margin = 0.1 * np.ptp(filtered)
    low, high = max(samples.min(), filtered.min() - margin), min(samples.max(), filtered.max() + margin)
    if low < high:
        assert value_range(raster(samples)) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7])
class TestSaltAndPepper:
    """Of the number format's ends, far from the values of the image."""

    def test_of_12_bits_in_16(self, share: float) -> None:
        samples = salted(ramp(300, 200, 3, np.uint16, 4000), share, 0, 65535)
        assert value_range(raster(samples)) == (0, 4095)

    def test_of_floats(self, share: float) -> None:
        clean = ramp(300, 200, 2, np.float32, 50) + 100
        low, high = value_range(raster(salted(clean, share, -1e6, 1e6)))
        assert clean.min() - 6 <= low <= clean.min() + 3
        assert clean.max() - 3 <= high <= clean.max() + 6


@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_white_background_is_not_salt(share: float) -> None:
    samples = ramp(100, 100, 1, np.uint16, 3000)
    samples[: round(100 * share)] = 65535
    assert value_range(raster(samples)) == (0, 65535)


class TestGiven:
    def test_is_in_the_units_of_the_file(self, tmp_path: Any) -> None:
        np.save(tmp_path / "a.npy", np.array([[-10.0, 0.0, 30.0]]))
        values, _, format = read_image(tmp_path / "a.npy", value_range=(-10, 10))
        assert values.tolist() == [[[0, 0.5, 2.0]]]
        assert format.value_range == (-10, 10)

    @pytest.mark.parametrize(
        "value",
        [(1, 0), (1, 1), (0, float("inf")), (float("nan"), 1), (0,), (0, 1, 2), "01", 5, (None, 1), (-1e308, 1e308)],
    )
    def test_wrong_ones_are_named(self, value: Any) -> None:
        with pytest.raises(ValueError, match="value_range must be two finite numbers, the first below the second"):
            checked_range(value)

    def test_wrong_ones_are_named_before_the_file_is_read(self, tmp_path: Any) -> None:
        with pytest.raises(ValueError, match="value_range"):
            read_image(tmp_path / "none.png", value_range=(1, 0))

    def test_values_far_outside_are_finite(self, tmp_path: Any) -> None:
        np.save(tmp_path / "a.npy", np.array([[-1e300, 0.0, 1e300]]))
        assert read_image(tmp_path / "a.npy", value_range=(0, 1)).values.isfinite().all()
