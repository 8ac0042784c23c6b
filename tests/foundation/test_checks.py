"""Every check returns what is allowed and names what is not."""

import math

import numpy as np
import pytest

from dop_lightning.foundation.checks import at_least, not_negative, one_of, positive, share

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("value", [1e-300, 0.5, 3])
def test_positive(value: float) -> None:
    assert positive("tau", value) == value


@pytest.mark.parametrize("value", [0, 0.0, -1, NAN, INF, -INF, "1", None, [1.0]])
def test_not_positive(value) -> None:
    with pytest.raises(ValueError, match="tau must be a finite number above 0, got ") as error:
        positive("tau", value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [0, 0.0, 2.5])
def test_not_negative(value: float) -> None:
    assert not_negative("std", value) == value


@pytest.mark.parametrize("value", [-1e-9, NAN, INF, "0", None])
def test_negative(value) -> None:
    with pytest.raises(ValueError, match="std must be a finite number of at least 0, got "):
        not_negative("std", value)


@pytest.mark.parametrize("value", [0, 0.3, 1, 1.0])
def test_valid_fraction(value: float) -> None:
    assert share("ratio", value) == value


@pytest.mark.parametrize("value", [-0.1, 1.0001, NAN, INF, "0.5", None])
def test_invalid_fraction(value) -> None:
    with pytest.raises(ValueError, match="ratio must lie between 0 and 1, got "):
        share("ratio", value)


@pytest.mark.parametrize(("value", "minimum"), [(1, 1), (7, 1), (0, 0), (-2, -2)])
def test_at_least(value: int, minimum: int) -> None:
    assert at_least("rank", value, minimum) == value


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None])
def test_not_at_least(value) -> None:
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1, got "):
        at_least("rank", value, 1)


def test_one_of() -> None:
    assert one_of("kind", "b", ["a", "b"]) == "b"
    assert one_of("kind", "b", iter(["a", "b"])) == "b"


@pytest.mark.parametrize("value", ["c", "A", "", None])
def test_not_one_of(value) -> None:
    with pytest.raises(ValueError, match="kind must be one of a, b, got "):
        one_of("kind", value, iter(["a", "b"]))


def test_numpy_scalars_are_numbers() -> None:
    assert at_least("rank", np.int64(3), 1) == 3
    assert positive("tau", np.float32(0.5)) == 0.5
    assert share("ratio", np.float64(1)) == 1
    for wrong in (np.float64(2), np.bool_(True), np.int64(0)):
        with pytest.raises(ValueError, match="rank must be"):
            at_least("rank", wrong, 1)
