"""An image as a function of coordinates: the features against their formula, and a photograph that is recovered."""

import math
from functools import partial

import pytest
import torch

from dop_lightning.model.signals import FourierMLP, NetworkSignal, Signal
from dop_lightning.model.signals.fourier_mlp import fourier_features, pixel_coordinates
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream
from tests.suites.part import draw
from tests.suites.signal import SignalSuite


class TestFourierMLP(SignalSuite):
    forward_depends_on_seed = True

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (2, 4, 3)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return NetworkSignal(problems, partial(FourierMLP, width=5, depth=2, frequencies=3, sigma=1.5))


def test_coordinates_are_the_centres_of_the_pixels() -> None:
    v = pixel_coordinates(3, 5).view(3, 5, 2)
    for i in range(3):
        for j in range(5):
            torch.testing.assert_close(v[i, j], torch.tensor([(i + 0.5) / 3, (j + 0.5) / 5]))


def test_features_equal_the_paper() -> None:
    v, B = draw(0, (4, 2)), draw(1, (3, 2))
    features = fourier_features(v, B)
    for n in range(4):
        for f in range(3):
            angle = 2 * math.pi * sum(float(B[f, d]) * float(v[n, d]) for d in range(2))
            assert math.isclose(float(features[n, f]), math.cos(angle), abs_tol=1e-12)
            assert math.isclose(float(features[n, 3 + f]), math.sin(angle), abs_tol=1e-12)


def test_output_is_the_network_at_each_pixel() -> None:
    network = FourierMLP((2, 4, 3), width=6, depth=2, frequencies=5)
    X = network()
    assert X.shape == (2, 4, 3)
    assert ((X > 0) & (X < 1)).all()
    pixel = network.layers(network.features[2 * 3 + 1])
    torch.testing.assert_close(X[:, 2, 1], pixel.sigmoid())


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 4), (5, 2, 9)])
@pytest.mark.parametrize(("width", "depth"), [(1, 1), (8, 4)])
def test_any_size_and_depth(shape: tuple[int, int, int], width: int, depth: int) -> None:
    network = FourierMLP(shape, width=width, depth=depth, frequencies=2)
    assert network().shape == shape
    assert sum(isinstance(m, torch.nn.ReLU) for m in network.modules()) == depth


def test_frequencies_come_from_the_stream_with_the_given_deviation() -> None:
    problems = ProblemBatch([Problem("a", torch.zeros(1, 6, 6), seed=4)])
    signal = NetworkSignal(problems, partial(FourierMLP, frequencies=500, sigma=3.0))
    B = 3.0 * torch.randn(500, 2, generator=stream(4, "init"))
    assert abs(float(B.std()) - 3.0) < 0.2
    torch.testing.assert_close(signal.networks[0].features, fourier_features(pixel_coordinates(6, 6), B))


@pytest.mark.parametrize("name", ["width", "depth", "frequencies"])
def test_numbers_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
        FourierMLP((1, 4, 4), **{name: 0})  # type: ignore[arg-type]


def test_sigma_is_checked() -> None:
    with pytest.raises(ValueError, match="sigma must be a finite number above 0, got 0"):
        FourierMLP((1, 4, 4), sigma=0)


def test_non_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"FourierMLP requires images, C×H×W, got a signal of shape \(4, 4\)"):
        FourierMLP((4, 4))
