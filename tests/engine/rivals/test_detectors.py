"""Detectors of corrupted entries."""

import numpy as np
import pytest

from dop_lightning.engine.rivals import DetectAndFill, ExtremeValues, NormalisedConvolution, RobustThreshold
from dop_lightning.engine.rivals.windows import masked_median
from tests.engine.rivals.builders import holes, salted, smooth

NOTHING = np.zeros((1, 5, 5), dtype=bool)


def test_extremes_are_the_limits_of_the_range() -> None:
    image = np.array([[[-0.1, 0.0, 0.001, 0.5, 0.999, 1.0, 1.2]]])
    missing = np.zeros_like(image, dtype=bool)
    assert ExtremeValues().corrupted(image, missing)[0, 0].tolist() == [True, True, False, False, False, True, True]
    assert ExtremeValues(0.01).corrupted(image, missing).sum() == 6


@pytest.mark.parametrize("value", [0.0, 0.1, 0.95])
def test_a_robust_threshold_finds_outliers_of_any_value(value: float) -> None:
    image = smooth()
    hit = holes(image, 0.1)
    found = RobustThreshold().corrupted(np.where(hit, value, image), np.zeros_like(hit))
    far = hit & (np.abs(image - value) > 0.15)
    assert found[far].mean() > 0.95
    assert found[~hit].mean() < 0.05


def test_a_flat_image_has_no_outliers_but_those_above_the_floor() -> None:
    image = np.full((1, 9, 9), 0.5)
    image[0, 4, 4], image[0, 2, 2] = 0.55, 0.9
    found = RobustThreshold(threshold=2, floor=0.05).corrupted(image, np.zeros_like(image, dtype=bool))
    assert np.argwhere(found).tolist() == [[0, 2, 2]]


def test_missing_entries_are_ignored() -> None:
    image = smooth(1)
    missing = holes(image, 0.3)
    one, other = (RobustThreshold().corrupted(np.where(missing, v, image), missing) for v in (0.0, 1.0))
    np.testing.assert_array_equal(one | missing, other | missing)


@pytest.mark.parametrize("size", [3, 5])
def test_masked_median_uses_known_entries_of_the_window(size: int) -> None:
    image = np.random.default_rng(1).random((2, 7, 6))
    known = holes(image, 0.4, 2)
    padded = np.pad(np.where(known, image, np.nan), [(0, 0), *[(size // 2, size // 2)] * 2], mode="symmetric")
    median = masked_median(image, known, size)
    for c, i, j in np.ndindex(*image.shape):
        window = padded[c, i : i + size, j : j + size]
        expected = np.median(image[c][known[c]]) if np.isnan(window).all() else np.nanmedian(window)
        assert median[c, i, j] == pytest.approx(expected)


def test_undetected_entries_keep_their_value() -> None:
    image = salted(smooth(), 0.5)
    restored = DetectAndFill(ExtremeValues(), NormalisedConvolution()).restore(image, np.zeros_like(image, dtype=bool))
    kept = (image > 0) & (image < 1)
    np.testing.assert_array_equal(restored[kept], image[kept])
    assert np.abs(restored - smooth()).mean() < 0.02


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ExtremeValues(1.0), r"tolerance must be at least 0 and below 1, got 1\.0"),
        (lambda: RobustThreshold(threshold=0.0), "threshold must be a finite number above 0"),
        (lambda: RobustThreshold(size=4), "size must be odd, got 4"),
        (lambda: RobustThreshold(passes=0), "passes must be a whole number of at least 1"),
        (lambda: DetectAndFill(NormalisedConvolution(), NormalisedConvolution()), "detector must be a Detector"),
        (lambda: DetectAndFill(ExtremeValues(), ExtremeValues()), "filler must be a Filler"),
    ],
)
def test_wrong_arguments_are_refused(make, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()
