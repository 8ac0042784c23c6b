"""What every filler does with missing entries."""

import numpy as np
import pytest

from dop_lightning.engine.rivals import CubicScattered, NormalisedConvolution, Telea
from tests.engine.rivals.builders import FILLERS, holes, smooth


@pytest.mark.parametrize("name", FILLERS)
def test_missing_entries_are_filled_and_the_others_keep_their_values(name: str) -> None:
    image = smooth()
    missing = holes(image, 0.4)
    damaged = np.where(missing, 0.0, image)
    filled = FILLERS[name]().fill(damaged, missing)
    np.testing.assert_array_equal(filled[~missing], image[~missing])
    assert np.abs(filled - image)[missing].mean() < 0.02
    assert filled.min() >= 0
    assert filled.max() <= 1


@pytest.mark.parametrize("name", FILLERS)
def test_values_at_missing_entries_do_not_matter(name: str) -> None:
    image = smooth(1)
    missing = holes(image, 0.3)
    one, other = (FILLERS[name]().fill(np.where(missing, value, image), missing) for value in (0.0, 9.0))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", FILLERS)
def test_constant_image_is_unchanged(name: str) -> None:
    image = np.full((1, 16, 16), 0.6)
    filled = FILLERS[name]().fill(image, holes(image, 0.5))
    np.testing.assert_allclose(filled, image, atol=2 / 255)  # FSR has 8 bits, and extrapolates by waves


@pytest.mark.parametrize("name", FILLERS)
def test_channels_are_filled_separately(name: str) -> None:
    image = smooth(2)
    missing = holes(image, 0.3)
    both = FILLERS[name]().fill(image, missing)
    for c in range(2):
        np.testing.assert_array_equal(both[c], FILLERS[name]().fill(image[[c]], missing[[c]])[0])


@pytest.mark.parametrize("name", FILLERS)
@pytest.mark.parametrize("known", [0, 1, 2, 4])
def test_few_known_entries_are_enough(name: str, known: int) -> None:
    image = np.full((1, 12, 12), 0.25)
    missing = np.ones_like(image, dtype=bool)
    missing[0, 3, [2, 5, 8, 10][:known]] = False  # on one line
    filled = FILLERS[name]().fill(image, missing)
    assert np.isfinite(filled).all()
    if name in ("cubic", "normalised_convolution") or known == 0:
        np.testing.assert_allclose(filled[missing], 0.25 if known else 0.5)


def test_channel_without_known_entries_gets_the_mean_of_the_others() -> None:
    image = np.stack([np.full((8, 8), 0.2), np.full((8, 8), 0.9)])
    missing = np.zeros_like(image, dtype=bool)
    missing[1] = True
    np.testing.assert_allclose(CubicScattered().fill(image, missing)[1], 0.2)


def test_complete_image_is_unchanged() -> None:
    image = smooth()
    np.testing.assert_array_equal(NormalisedConvolution().fill(image, np.zeros_like(image, dtype=bool)), image)


def test_cubic_interpolation_is_exact_on_a_plane() -> None:
    rows, columns = np.mgrid[:10, :12]
    image = (0.2 + 0.03 * rows + 0.02 * columns)[None]
    missing = holes(image, 0.4)
    missing[:, [0, 0, -1, -1], [0, -1, 0, -1]] = False  # corners: the convex hull is the image
    np.testing.assert_allclose(CubicScattered().fill(image, missing), image, atol=1e-6)


def test_normalised_convolution_is_the_weighted_mean_of_known_entries() -> None:
    image = smooth(1, 9, 9)
    missing = np.zeros_like(image, dtype=bool)
    missing[0, 4, 4] = True
    sigma = 0.5
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * sigma**2))
    weights[reach, reach] = 0
    window = image[0, 4 - reach : 5 + reach, 4 - reach : 5 + reach]
    expected = (weights * window).sum() / weights.sum()
    filled = NormalisedConvolution(sigma, confidence=0.01).fill(image, missing)
    assert filled[0, 4, 4] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: NormalisedConvolution(sigma=0.0), "sigma must be a finite number above 0"),
        (lambda: NormalisedConvolution(growth=1.0), r"growth must be above 1, got 1\.0"),
        (lambda: NormalisedConvolution(confidence=1.0), r"confidence must be below 1, got 1\.0"),
        (lambda: Telea(radius=-1.0), "radius must be a finite number above 0"),
        (lambda: Telea().fill(smooth(2), holes(smooth(1), 0.1)), r"missing must have the shape of the image"),
    ],
)
def test_wrong_arguments_are_refused(make, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()
