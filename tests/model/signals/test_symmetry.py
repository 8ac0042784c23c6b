"""When a matrix counts as symmetric apart from outliers."""

import pytest
import torch

from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.model.operators import GaussianMeasurements
from dop_lightning.model.signals.symmetry import asymmetry, symmetry_hint
from dop_lightning.problems.noise import GaussianNoise, GrossOutliers, MissingEntries, Mixture, Noise
from dop_lightning.problems.problem import Problem

SPOILT = [
    GrossOutliers(0.1),
    GrossOutliers(0.3),
    GrossOutliers(0.5),
    Mixture([GrossOutliers(0.3), MissingEntries(0.4)]),
    Mixture([GrossOutliers(0.1), GaussianNoise(0.1)]),
]


def problems(noise: Noise, n: int, rank: int, columns: int | None = None) -> list[Problem]:
    data = MatrixDataModule(n=n, rank=rank, columns=columns, noise=noise, seeds=5)
    data.setup()
    return data.problems


@pytest.mark.parametrize("noise", SPOILT, ids=lambda noise: noise.slug)
@pytest.mark.parametrize(("n", "rank"), [(50, 5), (50, 1), (20, 2)])
def test_the_papers_problems_are_symmetric(noise: Noise, n: int, rank: int) -> None:
    assert all(symmetry_hint(problem) is None for problem in problems(noise, n, rank))


@pytest.mark.parametrize("noise", SPOILT, ids=lambda noise: noise.slug)
@pytest.mark.parametrize("rank", [1, 5])
def test_products_of_two_factors_are_not(noise: Noise, rank: int) -> None:
    for problem in problems(noise, 50, rank, columns=50):
        hint = symmetry_hint(problem)
        assert hint is not None
        assert hint.startswith(f"{problem.name}: the observation is far from symmetric")
        assert "Factor" in hint
        assert "\n" not in hint


def test_values() -> None:
    X = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    assert asymmetry(X + X.T) == 0
    assert asymmetry(X) == pytest.approx(1, abs=0.3)
    assert asymmetry(X - X.T) > 1
    assert asymmetry(7 * X) == pytest.approx(asymmetry(X))
    assert asymmetry(torch.zeros(40, 40)) is None
    assert asymmetry(X[:9, :9]) is None
    assert asymmetry(X, torch.ones(40, 40, dtype=torch.bool).triu()) is None


def test_unobserved_entries_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    X, garbage = torch.randn(2, 60, 60, generator=generator)
    mask = torch.rand(60, 60, generator=generator) > 0.75
    Y = torch.where(mask, X + X.T, garbage)
    assert asymmetry(Y, mask) == 0
    assert asymmetry(Y) > 0


@pytest.mark.parametrize("shape", [(3, 4), (9,), (2, 3, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="observation must be a square matrix, got shape"):
        asymmetry(torch.zeros(shape))


def test_other_problems_give_no_hint() -> None:
    assert symmetry_hint(Problem("a", torch.rand(3, 20, 20))) is None
    assert symmetry_hint(Problem("a", torch.rand(20, 30))) is None
    sensing = GaussianMeasurements(9)
    assert symmetry_hint(Problem("a", torch.rand(9), signal_shape=(3, 3), sensing=sensing)) is None
