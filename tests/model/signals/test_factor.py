"""``UUᵀ`` and ``UVᵀ``."""

from functools import partial

import pytest
import torch

from dop_lightning.model.signals import Factor, Signal, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.part import ROUNDING, draw
from tests.suites.signal import SignalSuite


class TestSymmetricFactor(SignalSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (6, 6)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return SymmetricFactor(problems, rank=2)


class TestSymmetricFactorOfUnknownRank(TestSymmetricFactor):
    def make(self, problems: ProblemBatch) -> Signal:
        return SymmetricFactor(problems)


class TestSymmetricFactorFromTheIdentity(TestSymmetricFactor):
    test_start_differs_between_seeds = None  # nothing is drawn

    def make(self, problems: ProblemBatch) -> Signal:
        return SymmetricFactor(problems, rank=4, scale=0.1, start="identity")


class TestWideFactor(SignalSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (4, 7)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return Factor(problems, rank=3)


class TestTallFactorOfUnknownRank(SignalSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (7, 4)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return Factor(problems)


def batch(*shape: int, K: int = 1, dtype: torch.dtype = torch.float64) -> ProblemBatch:
    return ProblemBatch([Problem(f"{k}", draw(k, shape, dtype), seed=k) for k in range(K)])


def test_symmetric_factor_is_positive_semidefinite_of_bounded_rank() -> None:
    signal = SymmetricFactor(batch(8, 8), rank=3, scale=1.0)
    (X,) = signal()
    assert torch.equal(X, X.mT)
    eigenvalues = torch.linalg.eigvalsh(X)
    assert (eigenvalues[:5].abs() < 1e-12).all()
    assert (eigenvalues[5:] > 1e-3).all()


def test_symmetric_factor_is_equation_3() -> None:
    signal = SymmetricFactor(batch(5, 5, K=2), rank=2, scale=1.0)
    for k in range(2):
        U = signal.U[k]
        torch.testing.assert_close(signal()[k], U @ U.T, **ROUNDING)


def test_symmetric_gradient_of_an_asymmetric_derivative() -> None:
    """½(R + Rᵀ)U for the quarter squared loss, whose derivative is G = R/2."""
    signal, R = SymmetricFactor(batch(5, 5), rank=2, scale=1.0), draw(1, (1, 5, 5))
    U = signal.U.detach()[0]
    signal.pull_back(R, 0.5)
    assert signal.U.grad is not None
    torch.testing.assert_close(signal.U.grad[0], 0.5 * (R[0] + R[0].T) @ U, **ROUNDING)


def test_factor_has_bounded_rank() -> None:
    (X,) = Factor(batch(9, 6), rank=2, scale=1.0)()
    values = torch.linalg.svdvals(X)
    assert (values[:2] > 1e-3).all()
    assert (values[2:] < 1e-12).all()


def test_factor_is_the_product_of_both() -> None:
    signal = Factor(batch(5, 3, K=2), rank=2, scale=1.0)
    for k in range(2):
        torch.testing.assert_close(signal()[k], signal.U[k] @ signal.V[k].T, **ROUNDING)


def test_gradients_of_both_factors() -> None:
    signal, G = Factor(batch(5, 3), rank=2, scale=1.0), draw(1, (1, 5, 3))
    signal.pull_back(G, 3.0)
    assert signal.U.grad is not None
    assert signal.V.grad is not None
    torch.testing.assert_close(signal.U.grad[0], 3.0 * G[0] @ signal.V.detach()[0], **ROUNDING)
    torch.testing.assert_close(signal.V.grad[0], 3.0 * G[0].T @ signal.U.detach()[0], **ROUNDING)


def test_balanced_factor_moves_as_fast_as_the_symmetric_one() -> None:
    """The reason of ``rate_scale``: with V = U and a symmetric G both signals make the same step in X."""
    problems, G = batch(5, 5), draw(1, (1, 5, 5))
    G = G + G.mT
    one, two = SymmetricFactor(problems, rank=2, scale=1.0), Factor(problems, rank=2, scale=1.0)
    with torch.no_grad():
        two.U.copy_(one.U)
        two.V.copy_(one.U)
        one.descend_(G, 0.01 * one.rate_scale)
        two.descend_(G, 0.01 * two.rate_scale)
    torch.testing.assert_close(two(), one(), **ROUNDING)
    assert one.rate_scale == 1.0


@pytest.mark.parametrize(("shape", "rank"), [((4, 7), 4), ((7, 4), 4), ((5, 5), 5)])
def test_unknown_rank_defaults_to_the_maximum(shape: tuple[int, int], rank: int) -> None:
    signal = Factor(batch(*shape))
    assert signal.U.shape == (1, shape[0], rank)
    assert signal.V.shape == (1, shape[1], rank)


def test_unknown_symmetric_rank_defaults_to_the_maximum() -> None:
    assert SymmetricFactor(batch(6, 6)).U.shape == (1, 6, 6)


@pytest.mark.parametrize("make", [SymmetricFactor, Factor])
def test_start_is_normal_with_the_given_scale(make) -> None:
    for options, scale in (({}, 1e-4), ({"scale": 0.02}, 0.02)):
        signal = make(batch(60, 60), **options)
        for p in signal.problem_state(0).values():
            assert abs(float(p.mean())) < 5 * scale / 60
            assert abs(float(p.std()) / scale - 1) < 0.06  # 3600 draws: five standard deviations


def test_factors_start_at_separate_numbers() -> None:
    signal = Factor(batch(5, 5), scale=1.0)
    assert not torch.equal(signal.U, signal.V)


def test_both_signals_of_a_seed_start_at_the_same_U() -> None:
    """A comparison of the two is paired."""
    problems = batch(5, 5)
    assert torch.equal(SymmetricFactor(problems).U, Factor(problems).U)


def test_symmetric_start_at_the_identity_is_equation_11() -> None:
    whole = SymmetricFactor(batch(5, 5, K=2), scale=1e-3, start="identity")
    assert torch.equal(whole.U, 1e-3 * torch.eye(5, dtype=torch.float64).expand(2, 5, 5))
    assert torch.equal(whole()[0], whole.U[0] @ whole.U[0])
    thin = SymmetricFactor(batch(5, 5), rank=2, scale=1e-3, start="identity")
    assert torch.equal(thin.U, whole.U[:1, :, :2])
    with torch.no_grad():
        whole.descend_(draw(3, (2, 5, 5)), 0.1)
    assert not torch.equal(whole.U[0], whole.U[1]), "each problem has separate memory"


def test_symmetric_start_is_checked() -> None:
    with pytest.raises(ValueError, match="start must be one of gaussian, identity, got 'constant'"):
        SymmetricFactor(batch(4, 4), start="constant")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [SymmetricFactor, Factor])
def test_single_precision(make) -> None:
    signal = make(batch(4, 4, dtype=torch.float32), rank=1)
    assert signal().dtype == torch.float32


@pytest.mark.parametrize("make", [SymmetricFactor, Factor])
@pytest.mark.parametrize("rank", [0, -1, 1.5, True])
def test_rank_is_checked(make, rank) -> None:
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1"):
        make(batch(4, 4), rank=rank)


@pytest.mark.parametrize("make", [SymmetricFactor, partial(Factor, rank=2)])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_is_checked(make, scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be a finite number above 0"):
        make(batch(4, 4), scale=scale)


def test_matrices_must_be_square_to_be_symmetric() -> None:
    with pytest.raises(ValueError, match=r"square matrices, got 4×5; use Factor"):
        SymmetricFactor(batch(4, 5))


@pytest.mark.parametrize("make", [SymmetricFactor, Factor])
def test_images_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r"requires a matrix, n×m, got a signal of shape \(3, 4, 4\)"):
        make(batch(3, 4, 4))


@pytest.mark.parametrize("make", [SymmetricFactor, Factor])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_growing_factor_start_does_not_depend_on_units(make, size: float) -> None:
    """Squares of such numbers are none of their type."""
    y = draw(1, (12, 12), torch.float32)
    factors = []
    for unit in (1.0, size):
        signal = make(ProblemBatch([Problem("a", y, seed=1)]), rank=2, growing=True)
        signal.begin_((unit * y)[None])
        factors.append(signal().detach())
    assert torch.allclose(factors[0], factors[1], rtol=1e-3, atol=1e-3 * float(factors[0].abs().max()))


@pytest.mark.parametrize("make", [SymmetricFactor, Factor])
def test_diverging_growing_factor_does_not_stop_the_others(make) -> None:
    problems = ProblemBatch([Problem(name, draw(k, (12, 12)), seed=k) for k, name in enumerate("ab")])
    signal = make(problems, rank=6, growing=True)
    signal.begin_(problems.observation)
    with torch.no_grad():
        for p in signal.parameters():
            p.mul_(100.0)  # all columns are in use
            p[0, 0, 0] = torch.nan
    assert signal.grow_(lambda: torch.full_like(problems.observation, torch.nan))
    assert signal.columns()[1] == 12
    assert signal()[1].isfinite().all()
