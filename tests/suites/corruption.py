"""Tests for every model of the corruption s; subclass the suite to test a new one, as for ``SignalSuite``.

Shapes: K problems, ``*m`` the shape of an observation.
"""

import pytest
import torch
from torch import Tensor

from dop_lightning.model.corruption import Corruption
from dop_lightning.problems.problem import ProblemBatch
from tests.suites.part import BATCHING, ROUNDING, PartSuite, assert_gradient, awaken, draw_batch, gradients


class CorruptionSuite(PartSuite):
    """Tests of values, gradients and steps of s."""

    def make(self, problems: ProblemBatch) -> Corruption:
        raise NotImplementedError

    def awake(self, problems: ProblemBatch) -> Corruption:
        corruption = self.make(problems)
        awaken(corruption, problems)
        return corruption

    def derivative(self, problems: ProblemBatch) -> Tensor:
        """Return ∂f/∂s, ``(K, *m)``."""
        return draw_batch(problems, problems.observation.shape[1:], salt=2)

    def test_value_has_the_shape_of_the_observations(self) -> None:
        problems = self.problems(3)
        assert self.make(problems).value().shape == problems.observation.shape

    def test_add_to_adds_the_value(self) -> None:
        problems = self.problems(2)
        corruption, r = self.awake(problems), self.derivative(problems)
        with torch.no_grad():
            expected = r + corruption.value()
            corruption.add_to_(r)
        torch.testing.assert_close(r, expected, **ROUNDING)

    def test_gradient_agrees_with_finite_differences(self) -> None:
        problems = self.problems(2)
        corruption, G = self.awake(problems), self.derivative(problems)
        corruption.pull_back(G, -0.7)
        assert_gradient(corruption, lambda: -0.7 * (G * corruption.value()).sum())

    @pytest.mark.parametrize("one_a_problem", [False, True])
    def test_step_is_a_step_along_the_gradient(self, one_a_problem: bool) -> None:
        problems = self.problems(3)
        corruption, G = self.awake(problems), self.derivative(problems)
        numbers = [0.03, 0.11, 0.27] if one_a_problem else [0.13] * 3
        broadcast = torch.tensor(numbers, dtype=G.dtype).view(3, *[1] * (G.dim() - 1))
        corruption.pull_back(G, 1.0)
        expected = [p.detach() - broadcast * p.grad for p in corruption.parameters() if p.grad is not None]
        with torch.no_grad():
            corruption.descend_(G.clone(), broadcast if one_a_problem else numbers[0])
        for p, after in zip(corruption.parameters(), expected, strict=True):
            torch.testing.assert_close(p.detach(), after, **ROUNDING)

    def test_step_does_not_change_the_rate(self) -> None:
        problems = self.problems(3)
        G = self.derivative(problems)
        rate = torch.full((3, *[1] * (G.dim() - 1)), 0.1, dtype=G.dtype)
        with torch.no_grad():
            self.make(problems).descend_(G, rate)
        assert torch.equal(rate, torch.full_like(rate, 0.1))

    def test_problems_of_a_batch_do_not_influence_each_other(self) -> None:
        problems = self.problems(3)
        together, G = self.awake(problems), self.derivative(problems)
        together.pull_back(G, 0.5)
        for k, problem in enumerate(problems):
            one = ProblemBatch([problem])
            alone = self.awake(one)
            alone.pull_back(self.derivative(one), 0.5)
            torch.testing.assert_close(alone.value()[0], together.value()[k], **BATCHING)
            for name, gradient in gradients(alone, 0).items():
                torch.testing.assert_close(gradient, gradients(together, k)[name], **BATCHING)
