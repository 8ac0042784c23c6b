"""Tests for every part of a batch (signal or corruption): seeded initialization, states per problem, failures."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dop_lightning.model.part import Part
from dop_lightning.problems.problem import Problem, ProblemBatch

# Tolerance of one evaluation and one gradient in float64, if only the batching differs.
BATCHING = {"rtol": 1e-10, "atol": 1e-10}
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def draw(seed: int, shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw normal numbers that depend only on ``seed``."""
    return torch.randn(tuple(shape), dtype=dtype, generator=torch.Generator().manual_seed(seed))


def draw_batch(problems: ProblemBatch, shape: Sequence[int], salt: int = 0) -> Tensor:
    """Draw numbers ``(K, *shape)`` from the seeds of the problems, so that they do not depend on the batch."""
    return torch.stack([draw(1000 * p.seed + salt, shape, problems.dtype) for p in problems])


def places(part: Part, k: int) -> dict[str, Tensor]:
    """Return views of the parameters of problem k by name; writing to a view changes the part."""
    return {name: p.detach() if i is None else p.detach()[i] for name, p, i in part.problem_parameters(k)}


def awaken(part: Part, problems: ProblemBatch) -> None:
    """Move every parameter away from its small initial value, with numbers from the seed of each problem."""
    for k, problem in enumerate(problems):
        for number, place in enumerate(places(part, k).values()):
            place.add_(draw(1000 * problem.seed + 500 + number, place.shape, place.dtype), alpha=0.3)


def gradients(part: Part, k: int) -> dict[str, Tensor]:
    """Return the gradients of problem k by name."""
    found = {}
    for name, p, i in part.problem_parameters(k):
        assert p.grad is not None, f"{name} has no gradient"
        found[name] = p.grad if i is None else p.grad[i]
    return found


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def assert_gradient(part: Part, objective, tolerance: float = 1e-6, step: float = 1e-6) -> None:
    """Compare the gradients of the parameters with central differences of ``objective()``, in float64.

    Each parameter is moved along a random unit vector.
    """
    with torch.no_grad():
        size = max(1.0, abs(float(objective())))
        for number, (name, p) in enumerate(part.named_parameters()):
            direction = draw(number, p.shape, p.dtype)
            direction /= direction.norm()
            start = p.detach().clone()
            p.copy_(start + step * direction)
            above = float(objective())
            p.copy_(start - step * direction)
            below = float(objective())
            p.copy_(start)
            assert p.grad is not None, f"{name} has no gradient"
            expected, given = (above - below) / (2 * step), float((p.grad * direction).sum())
            assert abs(given - expected) <= tolerance * max(size, float(p.grad.norm())), (
                f"{name}: the derivative is {expected}, but the gradient gives {given}"
            )


class PartSuite:
    """Subclass it (via ``SignalSuite`` or ``CorruptionSuite``) and define :meth:`problem` and :meth:`make`."""

    def problem(self, seed: int, name: str) -> Problem:
        """Return a small problem in float64 with this seed and name."""
        raise NotImplementedError

    def make(self, problems: ProblemBatch) -> Part:
        """Return the part under test."""
        raise NotImplementedError

    def problems(self, K: int, first_seed: int = 1) -> ProblemBatch:
        """Return K problems with the seeds ``first_seed``, ``first_seed + 1``, …"""
        return ProblemBatch([self.problem(first_seed + k, f"problem-{k}") for k in range(K)])

    def awake(self, problems: ProblemBatch) -> Part:
        """Return a part whose parameters differ from their initial values."""
        part = self.make(problems)
        awaken(part, problems)
        return part

    def test_start_depends_on_the_seed_only(self) -> None:
        alone = self.make(ProblemBatch([self.problem(5, "alone")]))
        crowd = self.make(ProblemBatch([self.problem(8, "first"), self.problem(5, "renamed"), self.problem(9, "last")]))
        assert_same_bits(alone.problem_state(0), crowd.problem_state(1))

    def test_start_differs_between_seeds(self) -> None:
        part = self.make(self.problems(2))
        one, other = part.problem_state(0), part.problem_state(1)
        if not one:
            pytest.skip("has no parameters")
        assert any(not torch.equal(one[name], other[name]) for name in one)

    def test_building_does_not_use_the_global_generator(self) -> None:
        before = torch.get_rng_state()
        first = self.make(self.problems(1))
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(3)
        assert_same_bits(first.problem_state(0), self.make(self.problems(1)).problem_state(0))
        torch.set_rng_state(before)

    def test_parameters_have_the_type_of_the_problems(self) -> None:
        assert all(p.dtype == torch.float64 for p in self.make(self.problems(1)).parameters())

    def test_every_parameter_belongs_to_a_problem(self) -> None:
        part = self.make(self.problems(2))
        owned = {p for k in range(2) for _, p, _ in part.problem_parameters(k)}
        assert owned == set(part.parameters())
        assert sum(place.numel() for k in range(2) for place in places(part, k).values()) == sum(
            p.numel() for p in part.parameters()
        )

    def test_state_is_a_copy(self) -> None:
        problems = self.problems(2)
        part = self.make(problems)
        state = part.problem_state(1)
        kept = {name: tensor.clone() for name, tensor in state.items()}
        awaken(part, problems)
        assert_same_bits(state, kept)
        assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in state.values())

    def test_state_loads_at_another_position_of_another_part(self) -> None:
        states = [self.awake(self.problems(3)).problem_state(k) for k in range(3)]
        other = self.make(self.problems(2, first_seed=20))
        untouched = other.problem_state(1)
        other.load_problem_state(0, states[2])
        assert_same_bits(other.problem_state(0), states[2])
        assert_same_bits(other.problem_state(1), untouched)

    def test_state_of_another_shape_is_refused(self) -> None:
        part = self.make(self.problems(2))
        good = part.problem_state(0)
        if not good:
            pytest.skip("has no parameters")
        for name, tensor in good.items():
            bad = {**good, name: torch.zeros(*tensor.shape, 2, dtype=tensor.dtype)}
            with pytest.raises(ValueError, match="must have shape"):
                part.load_problem_state(0, bad)

    def test_incomplete_state_is_refused(self) -> None:
        part = self.make(self.problems(1))
        good = part.problem_state(0)
        if not good:
            pytest.skip("has no parameters")
        for name in good:
            with pytest.raises(ValueError, match="got nothing"):
                part.load_problem_state(0, {key: value for key, value in good.items() if key != name})

    def test_finite_identifies_the_nonfinite_problem(self) -> None:
        part = self.make(self.problems(3))
        assert part.finite(3).tolist() == [True, True, True]
        for place in places(part, 1).values():
            for poison in (torch.nan, torch.inf, -torch.inf):
                kept = place.clone()
                place[(-1,) * place.dim()] = poison
                assert part.finite(3).tolist() == [True, False, True]
                place.copy_(kept)
        assert part.finite(3).tolist() == [True, True, True]
