"""Robust PCA of one matrix by alternating projections."""

import pytest
import torch

from dop_lightning.engine.projections import AlternatingProjections, Recovery
from dop_lightning.problems.problem import Problem
from tests.engine.projections.builders import corrupted, low_rank, problem, relative_error


def ended(given: Problem, most: int = 200, **settings: float) -> Recovery:
    recovery = AlternatingProjections(**settings).begin(given)  # type: ignore[arg-type]
    for _ in range(most):
        recovery.step()
    assert recovery.progress.phase == "ended"
    return recovery


def verdict(recovery: Recovery) -> str:
    assert recovery.progress.certificate is not None
    return recovery.progress.certificate.kind


@pytest.mark.parametrize(("rank", "share"), [(3, 0.1), (3, 0.3), (2, 0.5), (10, 0.1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_and_matrix_are_recovered(rank: int, share: float, dtype: torch.dtype) -> None:
    given = problem(250, 200, rank, share, dtype=dtype)
    found = ended(given)
    L, S = found.parts()
    assert (verdict(found), found.estimate.rank) == ("exact", rank)
    assert relative_error(L, given.truth) < 2e-6
    assert L.dtype == S.dtype == dtype
    assert relative_error(L + S, given.observation) < 2e-5
    assert float((S != 0).double().mean()) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("shape", [(2000, 40), (40, 2000)])
def test_tall_and_wide_matrices_keep_all_rows(shape: tuple[int, int]) -> None:
    given = problem(*shape, rank=3, share=0.1)
    found = ended(given)
    assert found.progress.fits > 0
    assert relative_error(found.parts()[0], given.truth) < 2e-6


def test_a_matrix_and_its_transpose_have_the_same_result() -> None:
    given = problem(160, 90)
    flipped = Problem(given.name, given.observation.mT.contiguous(), seed=given.seed)
    for part, other in zip(ended(given).parts(), ended(flipped).parts(), strict=True):
        assert torch.equal(part, other.mT)


def test_spectrum_needs_no_gap() -> None:
    U, V = (torch.linalg.qr(low_rank(300, 300, 300, seed))[0][:, :8] for seed in (1, 2))
    L = U @ torch.diag(300 * 0.6 ** torch.arange(8.0)) @ V.mT
    found = ended(Problem("decaying", corrupted(L, 0.1)))
    assert found.estimate.rank == 8
    assert relative_error(found.parts()[0], L) < 1e-5


@pytest.mark.parametrize("noise", [1e-3, 1e-2, 0.1])
def test_dense_noise_keeps_the_rank(noise: float) -> None:
    given = problem(250, 200, 3, 0.2, noise)
    found = ended(given)
    assert (verdict(found), found.estimate.rank) == ("noisy", 3)
    assert relative_error(found.parts()[0], given.truth) < 0.4 * noise


@pytest.mark.parametrize("missing", [0.3, 0.7])
def test_missing_entries_are_filled(missing: float) -> None:
    mask = torch.rand(250, 200, generator=torch.Generator().manual_seed(5)) > missing
    given = problem(250, 200, mask=mask)
    found = ended(given)
    L, S = found.parts()
    assert relative_error(L, given.truth) < 1e-5
    assert not S[~mask].any()


def test_one_huge_outlier_has_no_effect() -> None:
    given = problem()
    D = given.observation.clone()
    D[3, 4] = 1e9
    assert relative_error(ended(Problem("huge", D)).parts()[0], given.truth) < 2e-6


@pytest.mark.parametrize("unit", [2.0**-40, 2.0**40])
def test_units_have_no_influence(unit: float) -> None:
    given = problem()
    L, S = ended(given).parts()
    scaled = ended(Problem(given.name, given.observation * unit, seed=given.seed)).parts()
    torch.testing.assert_close(scaled[0], L * unit, rtol=1e-4, atol=1e-5 * unit)
    assert torch.equal(scaled[1] != 0, S != 0)


@pytest.mark.parametrize("name", ["power", "noise", "zero", "small", "row"])
def test_matrix_of_full_rank_is_rejected(name: str) -> None:
    U, V = (torch.linalg.qr(low_rank(200, 200, 200, seed))[0] for seed in (1, 2))
    matrices = {
        "power": corrupted(U @ torch.diag(200 / torch.arange(1.0, 201.0)) @ V.mT, 0.1),
        "noise": torch.randn(200, 200, generator=torch.Generator().manual_seed(0)),
        "zero": torch.zeros(200, 200),
        "small": low_rank(20, 10, 1),
        "row": low_rank(1, 500, 1),
    }
    found = ended(Problem(name, matrices[name]))
    assert verdict(found) == "rejected"
    assert found.progress.certificate is not None
    assert found.progress.certificate.reason
    assert torch.isfinite(found.parts()[0]).all()


def test_rank_bound_is_respected() -> None:
    found = ended(problem(rank=5), rank=2)
    assert found.estimate.rank == 2
    assert verdict(found) == "rejected"


@pytest.mark.parametrize("setting", [{"tolerance": 0.0}, {"rank": 0}, {"decay": 1.0}, {"decay": 0.0}, {"floor": -1.0}])
def test_settings_out_of_range_are_named(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        AlternatingProjections(**setting)  # type: ignore[arg-type]
