"""Moving variances against their definitions, and when they stop."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.stopping import (
    VARIANCES,
    ExponentialVariance,
    LeastVariance,
    MovingVariance,
    WindowedVariance,
)
from tests.suites.part import draw

KINDS = pytest.mark.parametrize("kind", VARIANCES.values(), ids=VARIANCES)


def outputs(count: int, *shape: int) -> list[Tensor]:
    return [draw(t, shape) for t in range(count)]


@pytest.mark.parametrize("window", [2, 3, 7])
def test_windowed_variance_equals_the_paper(window: int) -> None:
    X, variance = outputs(12, 2, 3), WindowedVariance(window)
    for t, output in enumerate(X):
        value = variance.update(output)
        if t + 1 < window:
            assert value is None
            continue
        last = torch.stack(X[t + 1 - window : t + 1])
        expected = ((last - last.mean(dim=0)) ** 2).sum(dim=(1, 2)).mean()
        assert value == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("window", [2, 5])
def test_exponential_variance_is_the_weighted_sum_of_squares(window: int) -> None:
    X, variance, a = outputs(14, 4), ExponentialVariance(window), 2 / (window + 1)
    mean, squares = X[0], []
    values = [variance.update(X[0])]
    for x in X[1:]:
        squares.append(float((x - mean).square().sum()))
        mean = a * x + (1 - a) * mean
        values.append(variance.update(x))
        weights = [a * (1 - a) ** i for i in reversed(range(len(squares)))]  # they add up to what v is divided by
        expected = (1 - a) * sum(w * s for w, s in zip(weights, squares, strict=True)) / sum(weights)
        assert values[-1] is None if len(values) < window else values[-1] == pytest.approx(expected, rel=1e-12)


def test_both_variances_of_noise_agree_on_average() -> None:
    X = outputs(600, 50)
    found = []
    for kind in VARIANCES.values():
        variance = kind(20)
        values = [v for v in map(variance.update, X) if v is not None]
        found.append(sum(values) / len(values))
    assert found == pytest.approx([50 * 19 / 20, 50 * 19 / 20], rel=0.07)  # EMV: 2(1−a)/(2−a) of the variance is 0.95


@KINDS
def test_constant_outputs_have_no_variance(kind: type[MovingVariance]) -> None:
    variance = kind(4)
    assert [variance.update(torch.full((2,), 3.0)) for _ in range(6)] == [None] * 3 + [0.0] * 3


@KINDS
def test_outputs_are_not_changed_nor_kept_by_reference(kind: type[MovingVariance]) -> None:
    one, other = kind(3), kind(3)
    buffer = torch.empty(5, dtype=torch.float64)
    for x in outputs(8, 5):
        buffer.copy_(x)
        assert one.update(buffer) == other.update(x)
        assert torch.equal(buffer, x)


@KINDS
@pytest.mark.parametrize("at", [0, 1, 2, 5, 9])
def test_state_resumes_bit_for_bit(kind: type[MovingVariance], at: int) -> None:
    X = outputs(20, 6)

    def make() -> LeastVariance:
        return LeastVariance(kind(4), patience=30)

    whole, first = make(), make()
    expected = [(whole.update(x, 10 * t), whole.iteration, whole.least) for t, x in enumerate(X)]
    for t, x in enumerate(X[:at]):
        first.update(x, 10 * t)
    saved, second = first.state(), make()
    first.update(X[at], 10 * at)  # what was saved is a copy
    second.load_state(saved)
    assert [(second.update(x, 10 * t), second.iteration, second.least) for t, x in list(enumerate(X))[at:]] == expected[
        at:
    ]


@KINDS
def test_stops_after_the_patience_and_returns_to_the_minimum(kind: type[MovingVariance]) -> None:
    def path(t: int) -> Tensor:  # comes near, slows down until 50, and leaves
        return torch.tensor([1.0 + ((t - 50) / 50) ** 3, 0.0])

    stop = LeastVariance(kind(5), patience=20)
    for t in range(100):
        stop.update(path(t), t)
        if stop.is_due(t):
            break
    assert 50 <= stop.iteration <= 57
    assert t == stop.iteration + 20


def test_nan_is_not_a_minimum() -> None:
    stop = LeastVariance(WindowedVariance(2), patience=3)
    for t, x in enumerate([1.0, torch.nan, 2.0, 2.5, 2.6]):
        stop.update(torch.tensor([x]), t)
    assert stop.iteration == 4
    assert stop.least == pytest.approx(0.0025, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WindowedVariance(1), "window must be a whole number of at least 2, got 1"),
        (lambda: ExponentialVariance(0), "window must be a whole number of at least 2, got 0"),
        (lambda: LeastVariance(WindowedVariance(2), 0), "patience must be a whole number of at least 1, got 0"),
    ],
)
def test_arguments_are_checked(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
