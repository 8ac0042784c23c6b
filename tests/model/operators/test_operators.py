"""Identity and entry mask, and an operator of a user's own by the same suite."""

import pytest
import torch

from dop_lightning.model.operators import EntryMask, Identity, Operator, operator_of
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.operator import Entries, Measurements, OperatorSuite
from tests.suites.part import draw


class TestIdentity(OperatorSuite):
    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        return Problem(name, draw(seed, (3, 4, 5), dtype), seed=seed)

    def make(self, problems: ProblemBatch) -> Operator:
        return Identity(problems)

    def test_value(self) -> None:
        problems = self.problems(2)
        X = self.signals(problems)
        assert torch.equal(self.make(problems)(X), X)
        assert torch.equal(self.make(problems).adjoint(X), X)

    def test_different_shapes_are_refused(self) -> None:
        problems = ProblemBatch([Problem("a", torch.zeros(4), signal_shape=(2, 2))])
        with pytest.raises(ValueError, match=r"Identity requires observations with the shape of the signal, \(2, 2\)"):
            Identity(problems)


class TestEntryMask(OperatorSuite):
    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        mask = draw(seed + 77, (6, 4)) > -0.3
        return Problem(name, draw(seed, (6, 4), dtype), mask=mask, seed=seed)

    def make(self, problems: ProblemBatch) -> Operator:
        return EntryMask(problems)

    def test_value(self) -> None:
        problems = self.problems(2)
        X = self.signals(problems)
        assert problems.mask is not None
        assert 0 < int(problems.mask.sum()) < X.numel()
        assert torch.equal(self.make(problems)(X), X * problems.mask)
        assert torch.equal(self.make(problems).adjoint(X), X * problems.mask)

    def test_add_forward_is_0_at_unobserved_entries(self) -> None:
        problems = self.problems(2)
        assert problems.mask is not None
        r = -problems.observation
        with torch.no_grad():
            self.make(problems).add_forward_(r, Entries(problems), 0)
        assert (r[~problems.mask] == 0).all()
        assert (r[problems.mask] != 0).all()

    def test_problems_without_a_mask_are_refused(self) -> None:
        with pytest.raises(ValueError, match="'bare' has none"):
            EntryMask(ProblemBatch([Problem("bare", torch.zeros(2, 2))]))


class TestMeasurements(OperatorSuite):
    """Observations of another shape than the signal, and the base class's own ``add_forward_``."""

    def problem(self, seed: int, name: str, dtype: torch.dtype) -> Problem:
        return Problem(name, draw(seed, (7,), dtype), signal_shape=(3, 4), seed=seed)

    def make(self, problems: ProblemBatch) -> Operator:
        return Measurements(problems)


def test_operator_of_chooses_by_the_mask() -> None:
    whole = Problem("a", torch.zeros(2, 2))
    part = Problem("b", torch.zeros(2, 2), mask=torch.eye(2, dtype=torch.bool))
    assert type(operator_of(ProblemBatch([whole]))) is Identity
    assert type(operator_of(ProblemBatch([part]))) is EntryMask
