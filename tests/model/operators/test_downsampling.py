"""Downsampling by every filter, by the suite of all operators and against Pillow and means of blocks."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning.model.operators import Downsampling, Operator, operator_of
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.model.operators.builders import measured
from tests.suites.operator import OperatorSuite
from tests.suites.part import draw


class TestBicubic(OperatorSuite):
    sensing = Downsampling(2)
    shape = (2, 8, 10)

    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        return measured(self.sensing, self.shape, seed, name, dtype)

    def make(self, problems: ProblemBatch) -> Operator:
        return operator_of(problems)

    def test_constants_are_preserved(self) -> None:
        y = self.make(self.problems(1))(torch.full((1, *self.shape), 0.7, dtype=torch.float64))
        torch.testing.assert_close(y, torch.full_like(y, 0.7))

    def test_ramp_is_preserved_inside(self) -> None:
        """Blocks are seen at their centres: nothing is shifted."""
        f, (_, height, width) = self.sensing.factor, self.shape
        ramp = torch.arange(width, dtype=torch.float64).expand(1, 2, height, width).clone()
        y = self.make(self.problems(1))(ramp)[0, 0, 0]
        centres = torch.arange(width // f) * f + (f - 1) / 2
        reach = self.sensing.kernel_taps().shape[0] // 2
        inside = (centres >= reach) & (centres <= width - 1 - reach)
        torch.testing.assert_close(y[inside], centres[inside].double())


class TestBicubicByThree(TestBicubic):
    sensing = Downsampling(3)
    shape = (2, 9, 15)


class TestGaussian(TestBicubic):
    sensing = Downsampling(2, "gaussian")


class TestGaussianByThree(TestBicubic):
    sensing = Downsampling(3, "gaussian")
    shape = (2, 9, 12)


class TestBox(TestBicubic):
    sensing = Downsampling(4, "box")
    shape = (2, 4, 8)

    def test_value(self) -> None:
        problems = self.problems(2)
        X = self.signals(problems)
        torch.testing.assert_close(self.make(problems)(X), torch.nn.functional.avg_pool2d(X, 4))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_equals_pillow_inside(factor: int) -> None:
    side = 12 * factor
    x = draw(1, (1, side, side), torch.float32)
    reduced = np.array(Image.fromarray(x[0].numpy()).resize((12, 12), Image.Resampling.BICUBIC))
    y = Downsampling(factor).measure(x, 0)[0].numpy()
    np.testing.assert_allclose(y[2:-2, 2:-2], reduced[2:-2, 2:-2], atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("filter", ["bicubic", "gaussian", "box"])
def test_filter_has_the_parity_of_the_factor_and_sum_1(factor: int, filter: Any) -> None:
    taps = Downsampling(factor, filter).kernel_taps()
    assert taps.sum().item() == pytest.approx(1)
    assert all(side % 2 == factor % 2 and side >= factor for side in taps.shape)
    torch.testing.assert_close(taps, taps.flip(0, 1))


def test_descriptions() -> None:
    sensing = Downsampling(3, "gaussian")
    assert sensing.slug == "downsampling-3-gaussian"
    assert sensing.attributes == {"sensing": "downsampling", "factor": 3, "filter": "gaussian"}
    assert sensing.signal_shape(sensing.observation_shape((3, 30, 60))) == (3, 30, 60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "factor must be a whole number of at least 2, got 1"),
        ((2.0,), r"factor must be a whole number of at least 2, got 2\.0"),
        ((2, "lanczos"), "filter must be one of bicubic, gaussian, box, got 'lanczos'"),
    ],
)
def test_arguments_are_checked(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Downsampling(*arguments)


def test_sides_are_multiples_of_the_factor() -> None:
    with pytest.raises(ValueError, match=r"multiples of the factor 2, got shape \(3, 11, 10\)"):
        Downsampling(2).observation_shape((3, 11, 10))
    with pytest.raises(ValueError, match=r"requires images, C×H×W, got an observation of shape \(11, 10\)"):
        Downsampling(2).signal_shape((11, 10))
    with pytest.raises(ValueError, match="requires signals of at least 4×4 pixels"):
        Downsampling(2).observation_shape((3, 2, 10))
