"""Whole filters, against slow references where these are short."""

import sys

import numpy as np
import pytest

from dop_lightning.engine.rivals import NAMF, AdaptiveMedian, BM3DAfterFill, DetectAndFill, ExtremeValues, Telea
from dop_lightning.engine.rivals.bm3d_after_fill import noise_of_known
from dop_lightning.engine.rivals.interpolation import NormalisedConvolution
from tests.engine.rivals.builders import FILTERS, holes, salted, smooth


@pytest.mark.parametrize("name", FILTERS)
def test_salt_and_pepper_is_removed(name: str) -> None:
    image = smooth(3)
    damaged = salted(image, 0.3)
    before = damaged.copy()
    restored = FILTERS[name]().restore(damaged, np.zeros_like(image, dtype=bool))
    assert restored.shape == image.shape
    assert np.abs(restored - image).mean() < 0.02 < 0.1 < np.abs(damaged - image).mean()
    np.testing.assert_array_equal(damaged, before)


@pytest.mark.parametrize("name", FILTERS)
def test_missing_entries_are_restored_for_any_value(name: str) -> None:
    image = smooth(1)
    missing = holes(image, 0.2)
    one, other = (FILTERS[name]().restore(np.where(missing, v, image), missing) for v in (0.5, 0.7))
    np.testing.assert_allclose(one, other, atol=1e-5)  # BM3D is not reproducible to the bit
    assert np.abs(one - image)[missing].mean() < 0.03


@pytest.mark.parametrize("name", FILTERS)
def test_clean_constant_image_is_unchanged(name: str) -> None:
    image = np.full((1, 16, 16), 0.4)
    np.testing.assert_allclose(FILTERS[name]().restore(image, np.zeros_like(image, dtype=bool)), image, atol=1e-6)


def slow_adaptive_median(channel: np.ndarray, largest: int) -> np.ndarray:
    """Pixel by pixel."""
    padded = np.pad(channel, largest // 2, mode="symmetric")
    result = channel.copy()
    for i, j in np.ndindex(*channel.shape):
        for size in range(3, largest + 1, 2):
            shift = largest // 2 - size // 2
            window = padded[i + shift : i + shift + size, j + shift : j + shift + size]
            low, middle, high = window.min(), np.median(window), window.max()
            if low < middle < high:
                result[i, j] = channel[i, j] if low < channel[i, j] < high else middle
                break
        else:
            result[i, j] = middle
    return result


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_adaptive_median_equals_a_reference_implementation(share: float) -> None:
    image = salted(smooth(1, 12, 13), share)
    restored = AdaptiveMedian(7).restore(image, np.zeros_like(image, dtype=bool))
    np.testing.assert_array_equal(restored[0], slow_adaptive_median(image[0], 7))


def slow_namf(channel: np.ndarray, search: int, patch: int, uniform: float) -> np.ndarray:
    """Entry by entry, by the paper's equations."""
    height, width = channel.shape
    suspect = (channel <= 0) | (channel >= 1)
    clean, mean = ~suspect, channel.copy()
    for i, j in np.argwhere(suspect):
        for radius in (1, 2, 3):
            window = np.s_[max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
            if clean[window].any():
                mean[i, j] = channel[window][clean[window]].mean()
                break
        else:
            if (channel[window] == channel[i, j]).mean() > uniform:
                suspect[i, j] = False
            else:
                up, left = max(i - 1, 0), max(j - 1, 0)
                mean[i, j] = np.median([mean[up, left], mean[up, j], mean[i, left]])
    p = suspect.mean()
    h = (4.5595 + 6.0314 * p + 2.2186 * p * p) / 255
    result = mean.copy()
    rim = np.pad(mean, search, mode="symmetric")
    differences = {}
    for s in np.ndindex(2 * search + 1, 2 * search + 1):
        shifted = rim[s[0] : s[0] + height, s[1] : s[1] + width]
        differences[s] = shifted, np.pad((shifted - mean) ** 2, patch, mode="symmetric")
    for i, j in np.argwhere(suspect):
        values, weights = [], []
        for s, (shifted, squares) in differences.items():
            if s != (search, search):
                values.append(shifted[i, j])
                weights.append(np.exp(-squares[i : i + 2 * patch + 1, j : j + 2 * patch + 1].mean() / h**2))
        result[i, j] = np.average(values, weights=weights)
    return result


@pytest.mark.parametrize("share", [0.3, 0.97])
def test_namf_equals_a_reference_implementation(share: float) -> None:
    image = salted(smooth(1, 14, 17), share)
    restored = NAMF(search=1, patch=2, uniform=0.6).restore(image, np.zeros_like(image, dtype=bool))
    np.testing.assert_allclose(restored[0], slow_namf(image[0], 1, 2, 0.6), atol=1e-9)


def test_namf_keeps_black_areas() -> None:
    image = np.full((1, 24, 24), 0.5)
    image[0, :, :12] = 0
    restored = NAMF().restore(image, np.zeros_like(image, dtype=bool))
    np.testing.assert_array_equal(restored[0, :, :8], 0)


def test_dense_noise_is_estimated_from_known_entries_and_removed() -> None:
    random = np.random.default_rng(0)
    image = smooth(1, 64, 64)
    noisy = image + 0.05 * random.standard_normal(image.shape)
    damaged = salted(noisy, 0.2)
    assert noise_of_known(damaged, (damaged > 0) & (damaged < 1)) == pytest.approx(0.05, rel=0.1)
    fill = DetectAndFill(ExtremeValues(), NormalisedConvolution())
    missing = np.zeros_like(image, dtype=bool)
    errors = [np.abs(f.restore(damaged, missing) - image).mean() for f in (BM3DAfterFill(fill), fill)]
    assert errors[0] < 0.4 * errors[1]


def test_bm3d_is_skipped_without_dense_noise() -> None:
    image = salted(smooth(1), 0.3)
    missing = np.zeros_like(image, dtype=bool)
    fill = DetectAndFill(ExtremeValues(), NormalisedConvolution())
    np.testing.assert_array_equal(BM3DAfterFill(fill, 0).restore(image, missing), fill.restore(image, missing))
    assert noise_of_known(image, missing) == 0  # nothing is known


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: AdaptiveMedian(1), "largest must be a whole number of at least 3"),
        (lambda: AdaptiveMedian(4), "largest must be odd, got 4"),
        (lambda: NAMF(search=0), "search must be a whole number of at least 1"),
        (lambda: NAMF(uniform=1.0), "uniform must be at least 0 and below 1"),
        (lambda: BM3DAfterFill(ExtremeValues(), 0.1), "fill must be an ImageFilter"),  # type: ignore[arg-type]
        (lambda: BM3DAfterFill(AdaptiveMedian(), -0.1), "sigma must be a finite number of at least 0"),
    ],
)
def test_wrong_arguments_are_refused(make, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (("skimage.restoration", "biharmonic"), ("cv2", "telea"), ("scipy.ndimage", "namf")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=r'^\w+ requires [\w-]+: pip install "dop_lightning\[rivals\]"$'):
                FILTERS[name]()
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ImportError, match=r"^BM3DAfterFill requires bm3d \(non-comm.*\): pip install bm3d$"):
        FILTERS["bm3d"]()
    BM3DAfterFill(AdaptiveMedian(), 0)  # does not need it


def test_an_opencv_without_fsr_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", object())  # type: ignore[arg-type]
    with pytest.raises(ImportError, match=r"requires cv2\.xphoto, which the installed OpenCV lacks"):
        FILTERS["fsr"]()
    assert Telea().radius == 2
