"""Arrays as large as the matrix that a separation makes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dop_lightning.engine.projections import ProjectionsMethod
from dop_lightning.engine.projections import state as projections_state
from dop_lightning.foundation import order_statistics
from dop_lightning.matrices.arrays import read_matrix
from dop_lightning.problems.metrics import corruption_density, functional, numerical_rank
from dop_lightning.problems.problem import Problem, ProblemBatch, scale
from tests.engine.projections.builders import problem


class Large(TorchDispatchMode):
    """Counts operations whose result is new and has at least so many bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.seen = size, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage.nbytes() >= self.size and storage.data_ptr() not in known:
                self.seen.add(storage.data_ptr())
        return result


def test_an_evaluation_makes_two_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projections_state, "AT_ONCE", 4000)
    given = problem(3000, 200)
    state = ProjectionsMethod().begin(ProblemBatch([given]))
    state.advance(30)
    with Large(given.observation.untyped_storage().nbytes()) as large:
        seen = state.evaluate()
    assert len(large.seen) == 2
    rest = seen.signal + seen.corruption - given.observation
    torch.testing.assert_close(seen.loss, rest.square().sum(dim=(1, 2)) / 4)


def test_a_density_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    s = torch.randn(2, 50, 40, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(s.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    whole = corruption_density(s, 0.5, mask)
    monkeypatch.setattr(functional, "AT_ONCE", 300)
    with Large(s.untyped_storage().nbytes()) as large:
        assert torch.equal(corruption_density(s, 0.5, mask), whole)
    assert not large.seen
    s[1, 49, 39], mask[1, 49, 39] = torch.nan, True
    assert corruption_density(s, 0.5, mask).isnan().tolist() == [False, True]


def test_scores_make_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "AT_ONCE", 4000)
    monkeypatch.setattr(order_statistics, "AT_ONCE", 4000)
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(600, 3, generator=draw) @ torch.randn(3, 520, generator=draw)
    observation = X + torch.randn(X.shape, generator=draw)
    size = X.untyped_storage().nbytes()
    with Large(size) as large:
        assert numerical_rank(X[None]).item() == 3
        found = scale(Problem("X", observation))
    assert not large.seen
    assert found == float(observation.abs().median())


def test_a_problem_is_checked_without_a_copy() -> None:
    y = torch.zeros(400, 300)
    with Large(y.untyped_storage().nbytes()) as large:
        Problem("X", y)
    assert not large.seen
    for wrong in (torch.nan, torch.inf, -torch.inf):
        y[3, 4] = wrong
        with pytest.raises(ValueError, match="got 1 non-finite entries"):
            Problem("X", y)


def test_a_complete_matrix_is_read_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    loaded: list[np.ndarray] = []
    plain = np.load

    def load(*arguments: Any, **settings: Any) -> Any:
        loaded.append(plain(*arguments, **settings))
        return loaded[-1]

    monkeypatch.setattr(np, "load", load)
    values = read_matrix(tmp_path / "X.npy").values
    assert np.shares_memory(values.numpy(), loaded[-1])
