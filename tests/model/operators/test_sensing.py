"""Gaussian and commuting measurements, missing ones among them, and how problems describe them."""

import math
from collections.abc import Sequence

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.model.operators import (
    CommutingMeasurements,
    CommutingSensing,
    GaussianMeasurements,
    GaussianSensing,
    Masked,
    Operator,
    Sensing,
    gaussian_sensing,
    operator_of,
)
from dop_lightning.model.signals import SymmetricFactor
from dop_lightning.problems.metrics import relative_error
from dop_lightning.problems.noise import GrossOutliers, MissingEntries, Mixture, Noise
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.operator import OperatorSuite
from tests.suites.part import draw


def measured(
    sensing: Sensing, shape: Sequence[int], seed: int = 1, name: str = "a", dtype: torch.dtype = torch.float64
) -> Problem:
    observation = draw(seed, sensing.observation_shape(shape), dtype)
    return Problem(name, observation, seed=seed, signal_shape=tuple(shape), sensing=sensing)


class TestGaussian(OperatorSuite):
    sensing: Sensing = GaussianMeasurements(7)
    shape: tuple[int, ...] = (3, 4)

    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        return measured(self.sensing, self.shape, seed, name, dtype)

    def make(self, problems: ProblemBatch) -> Operator:
        return operator_of(problems)


class TestGaussianOfVectors(TestGaussian):
    shape = (11,)


class TestGaussianFromSeeds(TestGaussian):
    sensing = GaussianMeasurements(7, storage="seeds")


class TestSymmetricGaussian(TestGaussian):
    sensing = GaussianMeasurements(9, symmetric=True)
    shape = (4, 4)

    def test_adjoints_are_symmetric_and_symmetric_signals_are_measured_as_before(self) -> None:
        problems = self.problems(2)
        A = self.make(problems)
        Z = A.adjoint(self.residuals(problems))
        torch.testing.assert_close(Z, Z.mT)
        X = self.signals(problems)
        plain = GaussianSensing(problems)
        torch.testing.assert_close(A(X + X.mT), plain(X + X.mT))
        assert not torch.allclose(A(X), plain(X))


class TestCommuting(TestGaussian):
    sensing = CommutingMeasurements(6)
    shape = (5, 5)

    def test_matrices_are_symmetric_and_commute(self) -> None:
        problems = self.problems(2)
        A = CommutingSensing(problems)
        rows = [A.adjoint(torch.eye(6, dtype=torch.float64)[i].expand(2, 6)) for i in range(6)]  # Aᵢ, K n n
        for one in rows:
            torch.testing.assert_close(one, one.mT)
            for other in rows:
                torch.testing.assert_close(one @ other, other @ one)

    def test_basis_and_weights(self) -> None:
        problems = self.problems(2)
        A = CommutingSensing(problems)
        assert (A.basis.shape, A.weights.shape) == ((2, 5, 5), (2, 6, 5))
        torch.testing.assert_close(A.basis.mT @ A.basis, torch.eye(5, dtype=torch.float64).expand(2, 5, 5))
        X = self.signals(problems)
        matrices = torch.einsum("kij,kmj,klj->kmil", A.basis, A.weights, A.basis)
        torch.testing.assert_close(A(X), torch.einsum("kmil,kil->km", matrices, X))

    def test_bases_are_uniform(self) -> None:
        """By the Haar measure entries have mean 0; without the signs Q would lean to one side."""
        bases = CommutingSensing(ProblemBatch([self.problem(s, f"{s}", torch.float64) for s in range(400)])).basis
        assert (bases.mean(dim=0).abs() < 5 * (1 / 5 / 400) ** 0.5).all()


class TestMissingMeasurements(TestGaussian):
    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        whole = super().problem(seed, name, dtype)
        mask = torch.tensor([True, False, True, True, False, True, True])
        return Problem(name, whole.observation, None, None, mask, seed, whole.signal_shape, sensing=self.sensing)

    def test_value(self) -> None:
        problems = self.problems(2)
        A, X = self.make(problems), self.signals(problems)
        assert isinstance(A, Masked)
        torch.testing.assert_close(A(X), problems.mask * GaussianSensing(problems)(X))


# ------------------------------------------------------------------------------------------------ Gaussian measurements


def batch(sensing: Sensing, shape: Sequence[int], *seeds: int, dtype: torch.dtype = torch.float64) -> ProblemBatch:
    return ProblemBatch([measured(sensing, shape, seed, f"{k}", dtype) for k, seed in enumerate(seeds)])


@pytest.mark.parametrize("chunk", [2**20, 60, 1])
@pytest.mark.parametrize("symmetric", [False, True])
def test_storage_does_not_change_results(chunk: int, symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_sensing, "CHUNK", chunk)
    problems = batch(GaussianMeasurements(13), (4, 4), 3, 8)
    dense, seeds = (GaussianSensing(problems, symmetric, storage) for storage in ("dense", "seeds"))
    X, r = draw(1, (2, 4, 4)), draw(2, (2, 13))
    assert dense.A is not None
    assert seeds.A is None
    assert torch.equal(seeds.matrix(), dense.A)
    torch.testing.assert_close(seeds(X), dense(X), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(seeds.adjoint(r), dense.adjoint(r), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(dense(X), torch.einsum("kmn,kn->km", dense.A, X.flatten(1)))


def test_auto_stores_small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = batch(GaussianMeasurements(5), (3, 2), 1, 2)
    monkeypatch.setattr(gaussian_sensing, "DENSE_LIMIT", 2 * 5 * 6 * 8)
    assert GaussianSensing(problems).A is not None
    monkeypatch.setattr(gaussian_sensing, "DENSE_LIMIT", 2 * 5 * 6 * 8 - 1)
    assert GaussianSensing(problems).A is None


def test_entries_have_variance_1_over_m() -> None:
    A = GaussianSensing(batch(GaussianMeasurements(200), (30, 30), 1)).matrix()
    assert A.std().item() == pytest.approx(200**-0.5, rel=0.01)
    assert abs(A.mean().item()) < 3e-4
    X = draw(1, (1, 30, 30))
    y = GaussianSensing(batch(GaussianMeasurements(4000), (30, 30), 1))(X)
    assert (y.norm() / X.norm()).item() == pytest.approx(1, abs=0.04)  # E A*A = I


def test_matrices_depend_on_the_seed_only() -> None:
    A = GaussianSensing(batch(GaussianMeasurements(3), (2, 2), 4, 9, 4)).matrix()
    assert torch.equal(A[0], A[2])
    assert not torch.equal(A[0], A[1])
    single = GaussianSensing(batch(GaussianMeasurements(3), (2, 2), 9, dtype=torch.float32)).matrix()
    torch.testing.assert_close(single[0].double(), A[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("storage", ["dense", "seeds"])
def test_operator_moves_to_other_devices_and_types(storage: str) -> None:
    A = GaussianSensing(batch(GaussianMeasurements(3), (2, 2), 4, 5), storage=storage).to("meta")  # type: ignore[arg-type]
    y = A(torch.zeros(2, 2, 2, dtype=torch.float64, device="meta"))
    assert (y.shape, y.device.type) == ((2, 3), "meta")
    assert A.adjoint(y).shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("m", "noise"), [(110, GrossOutliers(0.1)), (140, Mixture([GrossOutliers(0.1), MissingEntries(0.2)]))]
)
def test_a_low_rank_matrix_is_recovered(m: int, noise: Noise) -> None:
    """With α = √n, as of the entries themselves, since E A*A = I."""
    data = MatrixDataModule(n=12, rank=1, sensing=GaussianMeasurements(m), noise=noise, seeds=3)
    data.setup()
    state = BatchState(Method(SymmetricFactor), data.batches[0], tau=5e-3)
    state.advance(1000)
    smaller = state.select([2, 0])  # A goes with its problem
    smaller.advance(1500)
    truth = torch.stack([data.problems[k].truth for k in (2, 0)])  # type: ignore[misc]
    assert (relative_error(smaller.evaluate().signal, truth) < 0.05).all()


# ------------------------------------------------------------------------------------------------------- descriptions


@pytest.mark.parametrize(
    ("sensing", "shape", "m", "slug", "name"),
    [
        (GaussianMeasurements(300), (30, 30), 300, "gaussian-300", "gaussian"),
        (GaussianMeasurements(4, symmetric=True), (3, 3), 4, "symmetric-gaussian-4", "symmetric_gaussian"),
        (CommutingMeasurements(4), (3, 3), 4, "commuting-4", "commuting"),
        (GaussianMeasurements(4, storage="seeds"), (3, 3), 4, "gaussian-4", "gaussian"),
    ],
)
def test_descriptions(sensing: Sensing, shape: tuple[int, ...], m: int, slug: str, name: str) -> None:
    assert sensing.observation_shape(shape) == (m,)
    assert sensing.slug == slug
    assert sensing.attributes == {"sensing": name, "measurements": m}
    x = draw(3, shape)
    y = sensing.measure(x, 5)
    (problem,) = problems = batch(sensing, shape, 5)
    assert torch.equal(y, operator_of(problems)(x[None])[0])
    assert y.shape == problem.observation.shape
    assert sensing.measure(x.float(), 5).dtype == torch.float32


@pytest.mark.parametrize("m", [0, -3, 2.5, True, math.nan, "4"])
def test_numbers_of_measurements_are_checked(m: object) -> None:
    for kind in (GaussianMeasurements, CommutingMeasurements):
        with pytest.raises(ValueError, match="measurements must be a whole number of at least 1, got"):
            kind(m)  # type: ignore[arg-type]


def test_storage_is_checked() -> None:
    with pytest.raises(ValueError, match="storage must be one of auto, dense, seeds, got 'disk'"):
        GaussianMeasurements(3, storage="disk")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="storage must be one of auto, dense, seeds, got 'disk'"):
        GaussianSensing(batch(GaussianMeasurements(3), (2, 2), 1), storage="disk")  # type: ignore[arg-type]


@pytest.mark.parametrize("sensing", [GaussianMeasurements(4, symmetric=True), CommutingMeasurements(4)])
@pytest.mark.parametrize("shape", [(4, 3), (4,), (2, 2, 2)])
def test_square_matrices_are_required(sensing: Sensing, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="require square matrices, got a signal of shape"):
        sensing.measure(draw(1, shape), 0)
    with pytest.raises(ValueError, match=r"a: .* require square matrices, got a signal of shape"):
        Problem("a", torch.zeros(4), signal_shape=shape, sensing=sensing)


@pytest.mark.parametrize("operator", [GaussianSensing, CommutingSensing])
def test_vectors_of_measurements_are_required(operator: type[Operator]) -> None:
    with pytest.raises(ValueError, match=r"requires observations of shape \(m,\), got \(2, 2\)"):
        operator(ProblemBatch([Problem("a", torch.zeros(2, 2))]))


def test_masked_requires_a_mask() -> None:
    problems = batch(GaussianMeasurements(3), (2, 2), 1)
    with pytest.raises(ValueError, match="Masked requires problems with a mask, '0' has none"):
        Masked(problems, GaussianSensing(problems))
