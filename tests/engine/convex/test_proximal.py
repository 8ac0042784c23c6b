"""Proximal operators against their definition, and partial decompositions against full ones."""

from collections.abc import Callable

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from dop_lightning.engine.convex import eigenvalue_threshold, singular_value_threshold, soft_threshold
from dop_lightning.engine.convex.partial import partial_eigenvalue_threshold, partial_singular_value_threshold
from tests.suites.part import draw

NEAR = {"rtol": 1e-9, "atol": 1e-9}
Threshold = Callable[[Tensor, Tensor], Tensor]


def of_rank(n: int, m: int, rank: int, noise: float, seed: int = 0) -> Tensor:
    """Singular values of about √(nm), and noise of norm ``noise·(√n + √m)``."""
    return draw(seed, (n, rank)) @ draw(seed + 1, (rank, m)) + noise * draw(seed + 2, (n, m))


def absolute(X: Tensor) -> Tensor:
    return X.abs().sum(dim=(1, 2))


def nuclear(X: Tensor) -> Tensor:
    return torch.linalg.svdvals(X).sum(dim=1)


@pytest.mark.parametrize(("prox", "value"), [(soft_threshold, absolute), (singular_value_threshold, nuclear)])
def test_the_gradient_at_the_minimum_is_a_subgradient(prox: Threshold, value: Callable[[Tensor], Tensor]) -> None:
    """``t·f(Z) ≥ t·f(X) + ⟨M − X, Z − X⟩`` for all Z is what a minimum of ``t·f(X) + ½‖X − M‖²`` is."""
    M, t = draw(1, (3, 6, 4)), torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    X = prox(M, t)
    for seed in range(20):
        Z = X + draw(seed, M.shape) * (0.1 if seed % 2 else 3.0)
        assert (t * value(Z) >= t * value(X) + ((M - X) * (Z - X)).sum(dim=(1, 2)) - 1e-10).all()


def test_eigenvalues_satisfy_the_variational_inequality_of_the_cone() -> None:
    M, t = draw(1, (3, 5, 5)), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    X = eigenvalue_threshold(M, t)
    assert torch.equal(X, X.mT) or torch.allclose(X, X.mT)
    assert (torch.linalg.eigvalsh(X) > -1e-12).all()
    gradient = t[:, None, None] * torch.eye(5, dtype=torch.float64) + X - M
    for seed in range(20):
        B = draw(seed, M.shape)
        assert ((gradient * (B @ B.mT - X)).sum(dim=(1, 2)) > -1e-10).all()


@pytest.mark.parametrize("positive", [False, True])
def test_thresholds_against_a_solver(positive: bool) -> None:
    M = draw(3, (4, 4))
    X = cp.Variable((4, 4), PSD=True) if positive else cp.Variable((4, 4))
    cp.Problem(cp.Minimize(0.7 * cp.normNuc(X) + 0.5 * cp.sum_squares(X - M.numpy()))).solve(solver=cp.CLARABEL)
    prox = eigenvalue_threshold if positive else singular_value_threshold
    found = prox(M[None], torch.tensor([0.7], dtype=torch.float64))[0]
    torch.testing.assert_close(found, torch.as_tensor(X.value), rtol=1e-4, atol=1e-4)


def test_threshold_zero_has_no_effect() -> None:
    M, zero = draw(1, (2, 5, 3)), torch.zeros(2, dtype=torch.float64)
    assert torch.equal(soft_threshold(M, zero), M)
    torch.testing.assert_close(singular_value_threshold(M, zero), M)


@pytest.mark.parametrize("shape", [(80, 80), (60, 90), (90, 60)])
@pytest.mark.parametrize("expected", [0, 2, 4, 7])
def test_leading_singular_values_are_enough(shape: tuple[int, int], expected: int) -> None:
    """Whatever rank is expected, and however far the previous solution is."""
    M, t = of_rank(*shape, rank=4, noise=0.1), torch.tensor(20.0, dtype=torch.float64)
    last = of_rank(*shape, rank=expected, noise=0.0, seed=1) if expected else torch.zeros(shape, dtype=torch.float64)
    X, rank = partial_singular_value_threshold(M, t, last, expected, error=1e-12)
    torch.testing.assert_close(X, singular_value_threshold(M[None], t[None])[0], **NEAR)
    assert rank == int((torch.linalg.svdvals(M) > t).sum()) == 4


@pytest.mark.parametrize("expected", [0, 2, 4, 7])
def test_leading_eigenvalues_are_enough(expected: int) -> None:
    """Of either sign: those below the threshold leave nothing behind."""
    U, N = draw(1, (90, 4)), of_rank(90, 90, 2, 0.1, seed=5)
    M, t = U @ U.T - N @ N.T / 90, torch.tensor(20.0, dtype=torch.float64)
    V = draw(2, (90, expected))
    X, rank = partial_eigenvalue_threshold(M, t, V @ V.T, expected, error=1e-12)
    torch.testing.assert_close(X, eigenvalue_threshold(M[None], t[None])[0], **NEAR)
    assert rank == 4


@pytest.mark.parametrize("t", [0.0, 1.0, 5.0, 12.0, 17.0, 40.0])
@pytest.mark.parametrize("partial", [partial_singular_value_threshold, partial_eigenvalue_threshold])
def test_a_flat_spectrum_falls_back_to_the_full_decomposition(partial: Callable[..., tuple[Tensor, int]], t: float):
    """Many values above the threshold, next to it, or none."""
    M, threshold = draw(1, (80, 80)), torch.tensor(t, dtype=torch.float64)
    full = singular_value_threshold if partial is partial_singular_value_threshold else eigenvalue_threshold
    X, rank = partial(M, threshold, torch.zeros_like(M), 0, error=1e-12)
    torch.testing.assert_close(X, full(M[None], threshold[None])[0], **NEAR)
    assert rank == int((torch.linalg.svdvals(X) > 1e-9).sum())


def test_a_block_that_is_full_is_enlarged() -> None:
    M, t = of_rank(200, 200, rank=30, noise=0.01), torch.tensor(20.0, dtype=torch.float64)
    X, rank = partial_singular_value_threshold(M, t, torch.zeros_like(M), 0, error=1e-12)
    torch.testing.assert_close(X, singular_value_threshold(M[None], t[None])[0], **NEAR)
    assert rank == 30
