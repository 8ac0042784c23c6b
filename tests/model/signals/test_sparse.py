"""``g∘g − h∘h`` as the signal."""

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import HadamardSignal, Signal
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.operator import Measurements
from tests.suites.part import draw
from tests.suites.signal import SignalSuite


class TestHadamardSignal(SignalSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3,)), signal_shape=(7,), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return HadamardSignal(problems)


class TestHadamardSignalOfImages(SignalSuite):
    test_start_differs_between_seeds = None  # nothing is drawn

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (2, 4, 3)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return HadamardSignal(problems, scale=0.1, start="constant")


def batch(*shape: int, K: int = 1) -> ProblemBatch:
    return ProblemBatch([Problem(f"{k}", draw(k, shape), seed=k) for k in range(K)])


@pytest.mark.parametrize("start", ["gaussian", "constant"])
def test_signal_starts_at_0(start) -> None:
    signal = HadamardSignal(batch(40), start=start)
    assert (signal().abs() < 1e-20).all()
    assert torch.equal(signal.g, signal.h)
    assert 0.7e-4 < float(signal.g.detach().square().mean().sqrt()) < 1.3e-4


def test_signal_descends_like_a_corruption() -> None:
    problems = batch(4, 3, K=2)
    signal, corruption = HadamardSignal(problems, scale=0.3), HadamardCorruption(problems)
    with torch.no_grad():
        corruption.g.copy_(signal.g)
        corruption.h.copy_(signal.h)
        for i in range(5):
            signal.descend_(draw(i, (2, 4, 3)), 0.1)
            corruption.descend_(draw(i, (2, 4, 3)), 0.1)
    assert torch.equal(signal(), corruption.value())


def test_signal_shares_no_numbers_with_the_corruption() -> None:
    problems = batch(5, 5)
    corruption = HadamardCorruption(problems, tied=False)
    for p in (corruption.g, corruption.h):
        assert not torch.isin(HadamardSignal(problems).g, p).any()


def test_sparse_vectors_are_recovered_from_few_measurements() -> None:
    """Eq. 5: 4 of 60 numbers from 30 Gaussian measurements, whatever the signs."""
    n, m, K = 60, 30, 2
    truth = torch.zeros(K, n, dtype=torch.float64)
    truth[0, [3, 17, 30, 44]] = torch.tensor([1.0, -1.5, 2.0, -0.8], dtype=torch.float64)
    truth[1, [0, 21, 22, 59]] = torch.tensor([-1.0, 1.2, 0.7, 1.9], dtype=torch.float64)
    blank = ProblemBatch([Problem(f"{k}", draw(k, (m,)), signal_shape=(n,), seed=k) for k in range(K)])
    y = Measurements(blank)(truth)
    problems = ProblemBatch([Problem(f"{k}", y[k], truth=truth[k], seed=k) for k in range(K)])
    method = Method(HadamardSignal, corruption=None, operator=Measurements, loss=SquaredLoss("sum"))
    state = BatchState(method, problems, tau=1e-3, alpha=1.0)
    assert state.advance(2000) == []
    X = state.evaluate().signal
    assert ((X - truth).norm(dim=1) < 0.01 * truth.norm(dim=1)).all()
    A = Measurements(problems).A
    least = torch.linalg.pinv(A) @ y.unsqueeze(-1)  # what gradient descent on X itself would find
    assert ((least.squeeze(-1) - truth).norm(dim=1) > 0.5 * truth.norm(dim=1)).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_is_checked(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be a finite number above 0"):
        HadamardSignal(batch(3), scale=scale)


def test_start_is_checked() -> None:
    with pytest.raises(ValueError, match="start must be one of gaussian, constant, got 'identity'"):
        HadamardSignal(batch(3), start="identity")  # type: ignore[arg-type]
