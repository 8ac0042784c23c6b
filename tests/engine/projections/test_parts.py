"""The pieces that alternating projections are made of."""

import pytest
import torch

from dop_lightning.engine.projections import certify
from dop_lightning.engine.projections.low_rank import LowRank, leading, orthonormal, stepped
from dop_lightning.engine.projections.rank import MIN_STEPS, RankRule, edge
from dop_lightning.engine.projections.refit import lost_rows, refitted
from dop_lightning.engine.projections.structure import next_components, prediction
from dop_lightning.engine.projections.sweep import CPU_STRIP_ENTRIES, Observation, sweep
from tests.engine.projections.builders import corrupted, low_rank


def decomposed(M: torch.Tensor, width: int, rank: int) -> LowRank:
    U, s, Vh = torch.linalg.svd(M, full_matrices=False)
    return LowRank(U[:, :width], s[:width].double(), Vh[:width].mT, rank)


def test_a_step_projects_onto_the_tangent_space() -> None:
    L, E = low_rank(30, 20, 3, dtype=torch.float64), low_rank(30, 20, 20, 1, torch.float64)
    start = decomposed(L, 5, 3)
    U, V = start.left, start.right
    Z = L + E
    expected = Z @ V @ V.mT + U @ U.mT @ Z - U @ U.mT @ Z @ V @ V.mT
    found = stepped(start, E @ V, E.mT @ U)
    torch.testing.assert_close(found.truncate(10, 10).dense(), expected)
    eye = torch.eye(10, dtype=torch.float64)
    torch.testing.assert_close(found.left.mT @ found.left, eye)
    torch.testing.assert_close(found.right.mT @ found.right, eye)


def test_vectors_stay_orthonormal_without_a_residual() -> None:
    start = decomposed(low_rank(300, 200, 3), 8, 3)
    for _ in range(20):
        start = stepped(start, torch.zeros(300, 8), torch.zeros(200, 8)).truncate(3, 8)
    torch.testing.assert_close(start.left.mT @ start.left, torch.eye(8), atol=1e-5, rtol=0)


def test_leading_triplets_equal_the_decomposition() -> None:
    M = low_rank(60, 40, 4, dtype=torch.float64)
    start = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = leading(lambda V: M @ V, lambda U: M.mT @ U, start)
    torch.testing.assert_close(found.values[:4], torch.linalg.svdvals(M)[:4])
    torch.testing.assert_close(found.truncate(4, 6).dense(), M)
    again = orthonormal(found.left * found.values, torch.ones(6, dtype=torch.float64), found.right, 4)
    torch.testing.assert_close(again.dense(), M)


@pytest.mark.parametrize("height", [7, 40])
def test_a_sweep_in_strips_is_the_residual_without_outliers(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dop_lightning.engine.projections.sweep.CPU_STRIP_ENTRIES", height * 30)
    monkeypatch.setattr("dop_lightning.engine.projections.sweep.MIN_HEIGHT", 1)
    assert CPU_STRIP_ENTRIES > 40 * 30
    L = low_rank(40, 30, 2, dtype=torch.float64)
    D = corrupted(L, 0.2)
    mask = torch.rand(40, 30, generator=torch.Generator().manual_seed(2)) > 0.2
    hidden = torch.tensor([0, 31, 299, 600, 1199])
    estimate = decomposed(L + 0.01 * low_rank(40, 30, 5, 3, torch.float64), 4, 2)
    R = torch.where(mask, D - estimate.dense(), 0)
    R.view(-1)[hidden] = 0
    E = torch.where(R.abs() > 0.5, 0, R)
    found = sweep(Observation(D, mask, hidden), estimate, 0.5, counts=True)
    torch.testing.assert_close(found.forward, E @ estimate.right)
    torch.testing.assert_close(found.backward, E.mT @ estimate.left)
    assert found.energy == pytest.approx(float(E.square().sum()))
    assert found.of_rows is not None
    assert found.of_columns is not None
    assert torch.equal(found.of_rows, (R.abs() > 0.5).sum(dim=1))
    assert torch.equal(found.of_columns, (R.abs() > 0.5).sum(dim=0))


def test_noise_gives_no_component_but_a_steady_value_does() -> None:
    noise = torch.linalg.svdvals(torch.randn(400, 300, generator=torch.Generator().manual_seed(0))).double()
    limit = edge(1.0, 400, 300)
    assert float(noise[0]) == pytest.approx(limit, rel=0.03)
    rule = RankRule(noise)
    assert [rule.rank(noise, 1, limit / 3, 0.0) for _ in range(1)] == [1]
    values = torch.tensor([1000.0, 60.0, 10.0], dtype=torch.float64)
    rule = RankRule(values)
    assert [rule.rank(values, 1, 30.0, 1.0) for _ in range(MIN_STEPS)] == [1] * (MIN_STEPS - 1) + [2]
    rule = RankRule(values)
    falling = [torch.tensor([1000.0, 60.0 * 0.6**k, 1.0], dtype=torch.float64) for k in range(1, 6)]
    assert [rule.rank(v, 1, float(v[1]) / 2, 0.0) for v in falling] == [1] * 5, "what falls with the threshold"
    assert RankRule(values).rank(torch.tensor([1000.0, 5.0], dtype=torch.float64), 2, 30.0, 1.0) == 1


def test_rows_with_too_many_outliers_are_refitted() -> None:
    counts = torch.tensor([10] * 50 + [90])
    assert lost_rows(counts, torch.full((51,), 100)).tolist() == [50]
    V = torch.linalg.qr(low_rank(100, 3, 3))[0]
    codes = torch.tensor([[1.0, 2.0, 3.0], [3.0, -1.0, 2.0]])
    rows = codes @ V.mT
    rows[:, ::5] += 4
    found = refitted(rows, None, torch.zeros(2, 3), V)
    torch.testing.assert_close(found, codes, atol=1e-4, rtol=0)
    assert torch.equal(refitted(rows, None, codes, V), codes), "what fits is kept"


def residuals(size: float, share: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = size * torch.randn(4000, generator=generator)
    return torch.where(torch.rand(4000, generator=generator) < share, 3.0, noise.abs())


@pytest.mark.parametrize(
    ("hidden", "freedom", "structure", "kind"),
    [
        ((1e-7, 0.1), 0.1, 1.0, "exact"),
        ((0.01, 0.1), 0.1, 1.0, "rejected"),
        ((0.1, 0.1), 0.1, 1.0, "noisy"),
        ((0.1, 0.1), 0.3, 1.0, "rejected"),
        ((0.1, 0.1), 0.1, 9.0, "rejected"),
        ((0.1, 0.3), 0.1, 1.0, "rejected"),
        ((0.2, 0.1), 0.1, 1.0, "rejected"),
        ((0.1, 0.7), 0.1, 1.0, "rejected"),
    ],
)
def test_the_certificate_compares_hidden_entries_with_others(
    hidden: tuple[float, float], freedom: float, structure: float, kind: str
) -> None:
    shown = residuals(1e-7 if hidden[0] < 0.1 else 0.1, 0.7 if hidden[1] == 0.7 else 0.1, 1)
    found = certify(residuals(*hidden, 2), shown, torch.ones(4000), 1.0, 1e-6, freedom, lambda: structure)
    assert found.kind == kind
    assert bool(found.reason) == (kind == "rejected")


@pytest.mark.parametrize("more", [0, 2])
def test_missing_components_predict_hidden_entries(more: int) -> None:
    generator = torch.Generator().manual_seed(0)
    D = 3 * low_rank(120, 100, 2) + low_rank(120, 100, more, 7) + 0.5 * torch.randn(120, 100, generator=generator)
    hidden = torch.randperm(D.numel(), generator=generator)[:600].sort().values
    rows, columns = hidden // 100, hidden % 100
    estimate = decomposed(3 * low_rank(120, 100, 2), 6, 2)
    wide = next_components(Observation(D, None, hidden), estimate, 10.0, 1 / 0.95, generator)
    assert wide.rank == estimate.rank
    t = prediction(wide, rows, columns, (D - estimate.dense()).view(-1)[hidden], 10.0)
    assert (t > 8) if more else (abs(t) < 4)
