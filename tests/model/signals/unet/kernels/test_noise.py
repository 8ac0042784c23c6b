"""Normal numbers by the compiled kernel."""

import math

import pytest
import torch
from torch import Tensor

from dop_lightning.model.signals.unet.kernels import library
from dop_lightning.model.signals.unet.kernels.noise import add_normal

pytestmark = pytest.mark.skipif(library() is None, reason="needs a C++ compiler")


def drawn(count: int, seed: int = 1, std: float = 1.0) -> Tensor:
    return add_normal(torch.zeros(count), std, seed)


def hashed(x: int) -> int:
    """Return lowbias32 of a number."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def value(i: int, seed: int) -> float:
    """Return value i of a stream, by the formulas of the kernel in double precision."""
    block, within = divmod(i, 32)
    pair = 16 * block + within % 16
    one, other = (hashed((hashed((2 * pair + k) ^ seed % 2**32) + (seed >> 32)) % 2**32) for k in range(2))
    radius = math.sqrt(-2 * math.log((one // 256 + 1) / 2**24))
    angle = math.pi / 2 * ((other >> 30) + (other * 4 % 2**32 // 256) / 2**24 - 0.5)
    return radius * (math.cos(angle) if within < 16 else math.sin(angle))


@pytest.mark.parametrize("seed", [0, 12345678901234567])
def test_values_are_those_of_box_and_muller(seed: int) -> None:
    found = drawn(1003, seed)
    expected = torch.tensor([value(i, seed) for i in range(1003)])
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-6)


def test_moments_and_quantiles_are_normal() -> None:
    count = 1_000_000
    values = drawn(count, seed=5).double()
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((values**power).mean()) - expected) < 4 * math.sqrt(variance / count)
    ordered = values.sort().values
    exact = torch.special.ndtr(ordered)
    steps = torch.arange(1, count + 1, dtype=torch.float64) / count
    assert float((exact - steps).abs().max()) < 1.95 / math.sqrt(count)  # Kolmogorov–Smirnov, p = 0.001


@pytest.mark.parametrize("lag", [1, 2, 15, 16, 17, 32, 1024])
def test_values_are_uncorrelated(lag: int) -> None:
    values = drawn(200_000, seed=7)
    assert abs(float((values[lag:] * values[:-lag]).mean())) < 4 / math.sqrt(200_000)
    squares = values.square() - 1
    assert abs(float((squares[lag:] * squares[:-lag]).mean())) < 8 / math.sqrt(200_000)


@pytest.mark.parametrize("other", [2, 3, 1 << 32, (1 << 62) + 1])
def test_streams_of_similar_seeds_are_uncorrelated(other: int) -> None:
    assert abs(float((drawn(200_000, 1) * drawn(200_000, other)).mean())) < 4 / math.sqrt(200_000)


def test_values_depend_on_neither_threads_nor_length() -> None:
    whole = drawn(100_001)
    for count in (1, 15, 16, 17, 31, 32, 33, 99_999):
        assert torch.equal(drawn(count), whole[:count])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(drawn(100_001), whole)
    finally:
        torch.set_num_threads(before)


def test_they_are_added_in_place_or_to_another_array() -> None:
    x = torch.linspace(0, 1, 100)
    expected = x + 0.25 * drawn(100)
    out = torch.empty(100)
    assert add_normal(x, 0.25, 1, out) is out
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(add_normal(x, 0.25, 1, x), expected)


@pytest.mark.parametrize(
    ("x", "out"),
    [
        (torch.zeros(4, dtype=torch.float64), None),
        (torch.zeros(4, 4).T[:, ::2], None),
        (torch.zeros(4), torch.zeros(5)),
    ],
)
def test_other_arrays_are_refused(x: Tensor, out: Tensor | None) -> None:
    with pytest.raises(ValueError, match="must"):
        add_normal(x, 1.0, 1, out)
