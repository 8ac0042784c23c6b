"""Tests for every signal ``X = φ(θ)``; subclass the suite to test a new signal::

    class TestMySignal(SignalSuite):
        def problem(self, seed, name):
            return Problem(name, draw(seed, (6, 6)), seed=seed)

        def make(self, problems):
            return MySignal(problems)

Shapes: K problems, ``*n`` the shape of a signal.
"""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from dop_lightning.model.signals import Signal
from dop_lightning.problems.problem import ProblemBatch
from tests.suites.part import (
    BATCHING,
    ROUNDING,
    PartSuite,
    assert_gradient,
    awaken,
    draw_batch,
    gradients,
    places,
)


class SignalSuite(PartSuite):
    """Tests of forward values, gradients, and independence of the problems of a batch."""

    forward_depends_on_seed: ClassVar[bool] = False
    """Whether φ depends on more than θ, for example on an input drawn from the seed."""

    def make(self, problems: ProblemBatch) -> Signal:
        raise NotImplementedError

    def awake(self, problems: ProblemBatch) -> Signal:
        signal = self.make(problems)
        awaken(signal, problems)
        return signal

    def weights(self, problems: ProblemBatch) -> Tensor:
        """Return c of the linear functional Σ c·X, ``(K, *n)``; it is not symmetric for square matrices."""
        return draw_batch(problems, problems.signal_shape, salt=1)

    def test_forward_has_the_shape_and_type_of_the_signals(self) -> None:
        problems = self.problems(3)
        X = self.make(problems)(0)
        assert X.shape == (3, *problems.signal_shape)
        assert X.dtype == problems.dtype

    def test_forward_of_one_iteration_gives_the_same_bits_twice(self) -> None:
        problems = self.problems(2)
        signal = self.awake(problems)
        first = signal(7)
        torch.rand(5)  # advance the global generator
        signal(8)
        assert torch.equal(signal(7), first)
        assert torch.equal(signal.evaluate(7), first)
        signal.eval()
        assert torch.equal(signal(7), first)

    def test_evaluate_has_no_graph(self) -> None:
        signal = self.make(self.problems(2))
        with torch.no_grad():  # as in the engine
            assert not signal.evaluate(0).requires_grad

    def test_forward_does_not_use_the_global_generator(self) -> None:
        signal = self.make(self.problems(1))
        before = torch.get_rng_state()
        signal(0)
        signal(1)
        assert torch.equal(torch.get_rng_state(), before)

    def test_gradient_agrees_with_finite_differences(self) -> None:
        problems = self.problems(2)
        signal, c, factor = self.awake(problems), self.weights(problems), -0.7
        with torch.no_grad():
            signal.evaluate(3)
            signal.pull_back(c, factor)
        assert_gradient(signal, lambda: factor * (c * signal(3)).sum())

    def test_gradient_agrees_with_autograd(self) -> None:
        problems = self.problems(2)
        signal, c = self.awake(problems), self.weights(problems)
        parameters = list(signal.parameters())
        expected = torch.autograd.grad((1.3 * c * signal(3)).sum(), parameters)
        for _ in range(2):  # the second gradient must replace the first one
            with torch.no_grad():
                signal.evaluate(3)
                signal.pull_back(c, 1.3)
            for p, gradient in zip(parameters, expected, strict=True):
                torch.testing.assert_close(p.grad, gradient, **ROUNDING)

    def test_gradient_equals_that_of_the_signal_added_to_a_residual(self) -> None:
        problems = self.problems(2)
        signal, c = self.awake(problems), self.weights(problems)
        expected = torch.autograd.grad((c * signal(4)).sum(), list(signal.parameters()))
        with torch.no_grad():
            signal.add_to_(torch.zeros_like(c), 4)
            signal.pull_back(c, 1.0)
        for p, gradient in zip(signal.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, gradient, **ROUNDING)

    @pytest.mark.parametrize("one_a_problem", [False, True])
    def test_step_in_closed_form_is_a_step_along_the_gradient(self, one_a_problem: bool) -> None:
        problems = self.problems(3)
        signal, c = self.awake(problems), self.weights(problems)
        if not signal.closed_form:
            with pytest.raises(NotImplementedError):
                signal.descend_(c, 0.1)
            return
        numbers = [0.03, 0.11, 0.27] if one_a_problem else [0.13] * 3
        rate = torch.tensor(numbers, dtype=c.dtype).view(3, *[1] * (c.dim() - 1)) if one_a_problem else numbers[0]
        expected = []
        for p, gradient in zip(
            signal.parameters(), torch.autograd.grad((c * signal(0)).sum(), list(signal.parameters())), strict=True
        ):
            by_problem = torch.tensor(numbers, dtype=p.dtype).view(3, *[1] * (p.dim() - 1))
            expected.append(p.detach() - by_problem * gradient)
        derivative = c.clone()
        with torch.no_grad():
            signal.descend_(derivative, rate)
        assert torch.equal(derivative, c), "the derivative is still needed by the corruption"
        for p, after in zip(signal.parameters(), expected, strict=True):
            torch.testing.assert_close(p.detach(), after, **ROUNDING)

    def test_add_to_adds_the_signal(self) -> None:
        problems = self.problems(2)
        signal, r = self.awake(problems), self.weights(problems)
        with torch.no_grad():
            expected = r + signal(2)
            signal.add_to_(r, 2)
        torch.testing.assert_close(r, expected, **ROUNDING)

    def test_problems_of_a_batch_do_not_influence_each_other(self) -> None:
        problems = self.problems(3)
        together, c = self.awake(problems), self.weights(problems)
        with torch.no_grad():
            X = together.evaluate(5)
            together.pull_back(c, 0.5)
        for k, problem in enumerate(problems):
            one = ProblemBatch([problem])
            alone = self.awake(one)
            with torch.no_grad():
                torch.testing.assert_close(alone.evaluate(5)[0], X[k], **BATCHING)
                alone.pull_back(self.weights(one), 0.5)
            for name, gradient in gradients(alone, 0).items():
                torch.testing.assert_close(gradient, gradients(together, k)[name], **BATCHING)

    def test_nan_in_one_problem_does_not_affect_the_others(self) -> None:
        problems = self.problems(3)
        signal, c = self.awake(problems), self.weights(problems)
        with torch.no_grad():
            clean = signal.evaluate(0).clone()
            for place in places(signal, 1).values():
                place.fill_(torch.nan)
            X = signal.evaluate(0)
            signal.pull_back(c, 1.0)
        for k in (0, 2):
            assert torch.equal(X[k], clean[k])
            assert all(torch.isfinite(gradient).all() for gradient in gradients(signal, k).values())
        assert X[1].isnan().all()

    def test_state_restores_the_signal(self) -> None:
        problems = self.problems(3)
        signal = self.awake(problems)
        seeds = [30, problems[2].seed] if self.forward_depends_on_seed else [30, 31]
        other = self.make(ProblemBatch([self.problem(seed, f"other-{seed}") for seed in seeds]))
        assert not torch.equal(other(6)[1], signal(6)[2])
        other.load_problem_state(1, signal.problem_state(2))
        alone = self.make(ProblemBatch([self.problem(seeds[1], "alone")]))
        alone.load_problem_state(0, signal.problem_state(2))
        torch.testing.assert_close(other(6)[1], signal(6)[2], **BATCHING)
        torch.testing.assert_close(alone(6)[0], signal(6)[2], **BATCHING)

    def test_state_restores_the_signal_bit_for_bit_in_the_same_batch(self) -> None:
        problems = self.problems(3)
        signal = self.awake(problems)
        other = self.make(problems)
        for k in range(3):
            other.load_problem_state(k, signal.problem_state(k))
        assert torch.equal(other(6), signal(6))
