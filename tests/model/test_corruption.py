"""``s = g∘g − h∘h``, and its absence."""

import pytest
import torch

from dop_lightning.model.corruption import (
    Corruption,
    HadamardCorruption,
    HyperbolicCorruption,
    NoCorruption,
    PixelCorruption,
)
from dop_lightning.model.signals import Factor, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.corruption import CorruptionSuite
from tests.suites.part import ROUNDING, draw


class TestHadamardCorruption(CorruptionSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (5, 4)), seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return HadamardCorruption(problems)


class TestHadamardCorruptionOfImages(CorruptionSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3, 4, 2)), seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return HadamardCorruption(problems, scale=1e-5, tied=False)


class TestHadamardCorruptionOfMeasurements(CorruptionSuite):
    """The corruption has the shape of the observation, not that of the signal; some of it is not observed."""

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (6,)), mask=torch.arange(6) != seed % 6, signal_shape=(3, 3), seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return HadamardCorruption(problems)


class TestHadamardCorruptionFromAConstant(CorruptionSuite):
    test_start_differs_between_seeds = None  # nothing is drawn

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (5, 4)), seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return HadamardCorruption(problems, scale=1e-3, start="constant")


class TestHyperbolicCorruption(CorruptionSuite):
    test_start_differs_between_seeds = None  # nothing is drawn
    test_step_is_a_step_along_the_gradient = None  # a step of mirror descent

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3, 4, 2)), seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return HyperbolicCorruption(problems, scale=1e-5)

    @pytest.mark.parametrize("one_a_problem", [False, True])
    def test_step_is_one_of_mirror_descent(self, one_a_problem: bool) -> None:
        """Along the gradient in arsinh(s/2γ²), the derivative of the hyperbolic entropy of s."""
        problems = self.problems(3)
        corruption, G = self.awake(problems), self.derivative(problems)
        numbers = torch.tensor([0.03, 0.11, 0.27] if one_a_problem else [0.13] * 3, dtype=G.dtype).view(3, 1, 1, 1)
        beta = 2 * corruption.get_parameter("gamma").detach().square()
        expected = (corruption.value().detach() / beta).asinh() - 4 * numbers * G
        with torch.no_grad():
            corruption.descend_(G.clone(), numbers if one_a_problem else 0.13)
        torch.testing.assert_close((corruption.value().detach() / beta).asinh(), expected, rtol=1e-9, atol=1e-9)


class TestHyperbolicCorruptionOfMeasurements(TestHyperbolicCorruption):
    test_step_is_one_of_mirror_descent = None  # of images above

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (6,)), mask=torch.arange(6) != seed % 6, signal_shape=(3, 3), seed=seed)


class TestPixelCorruption(CorruptionSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3, 4, 2)), seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return PixelCorruption(problems)


class TestPixelCorruptionWithMissingEntries(CorruptionSuite):
    def problem(self, seed: int, name: str) -> Problem:
        mask = torch.ones(3, 4, 2, dtype=torch.bool)
        mask[seed % 3, 0] = mask[:, 3, 1] = False
        return Problem(name, draw(seed, (3, 4, 2)), mask=mask, seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return PixelCorruption(problems)


class TestNoCorruption(CorruptionSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (5, 4)), seed=seed)

    def make(self, problems: ProblemBatch) -> Corruption:
        return NoCorruption(problems)

    def test_has_no_parameters_and_value_0(self) -> None:
        corruption = self.make(self.problems(2))
        assert list(corruption.parameters()) == []
        assert torch.equal(corruption.value(), torch.zeros(2, 5, 4))


def batch(*shape: int, K: int = 1) -> ProblemBatch:
    return ProblemBatch([Problem(f"{k}", draw(k, shape), seed=k) for k in range(K)])


def test_value_is_equation_7() -> None:
    corruption = HadamardCorruption(batch(4, 3, K=2), scale=1.0, tied=False)
    g, h = corruption.g.detach(), corruption.h.detach()
    torch.testing.assert_close(corruption.value().detach(), g * g - h * h, **ROUNDING)


def test_gradients_of_the_quarter_squared_loss_follow_equation_6() -> None:
    """With G = r/2: ∇g f = r∘g and ∇h f = −r∘h."""
    corruption, r = HadamardCorruption(batch(4, 3), scale=1.0, tied=False), draw(1, (1, 4, 3))
    corruption.pull_back(r, 0.5)
    torch.testing.assert_close(corruption.g.grad, r * corruption.g.detach(), **ROUNDING)
    torch.testing.assert_close(corruption.h.grad, -r * corruption.h.detach(), **ROUNDING)


def test_step_of_the_quarter_squared_loss_follows_equation_6() -> None:
    corruption, r, rate = HadamardCorruption(batch(4, 3), scale=1.0, tied=False), draw(1, (1, 4, 3)), 0.3
    g, h = corruption.g.detach().clone(), corruption.h.detach().clone()
    with torch.no_grad():
        corruption.descend_(r, 0.5 * rate)
    torch.testing.assert_close(corruption.g.detach(), g - rate * r * g, **ROUNDING)
    torch.testing.assert_close(corruption.h.detach(), h + rate * r * h, **ROUNDING)


def test_tied_start_has_zero_corruption() -> None:
    corruption = HadamardCorruption(batch(4, 3))
    assert torch.equal(corruption.g, corruption.h)
    assert (corruption.g != 0).all()
    # to rounding: where multiplication and addition are fused, g∘g − h∘h keeps the rounding error of g∘g
    assert (corruption.value().abs() <= 1e-15 * corruption.g.square()).all()


def test_tied_factors_diverge() -> None:
    corruption = HadamardCorruption(batch(4, 3))
    assert corruption.g.data_ptr() != corruption.h.data_ptr()
    with torch.no_grad():
        corruption.descend_(torch.ones(1, 4, 3, dtype=torch.float64), 0.1)
    assert (corruption.g.abs() < corruption.h.abs()).all()  # s must fall where the derivative is positive
    assert (corruption.value() < 0).all()


def test_untied_start_draws_separate_numbers() -> None:
    tied, untied = HadamardCorruption(batch(4, 3)), HadamardCorruption(batch(4, 3), tied=False)
    assert torch.equal(tied.g, untied.g)
    assert not torch.equal(untied.g, untied.h)


@pytest.mark.parametrize("options", [{}, {"scale": 1e-5, "tied": False}, {"scale": 0.5}])
def test_start_is_normal_with_the_given_scale(options: dict) -> None:
    corruption, scale = HadamardCorruption(batch(60, 60), **options), options.get("scale", 1e-4)
    for p in corruption.problem_state(0).values():
        assert abs(float(p.mean())) < 5 * scale / 60
        assert abs(float(p.std()) / scale - 1) < 0.06  # 3600 draws: five standard deviations


def test_start_shares_no_numbers_with_the_signal() -> None:
    """A correlation of U and g would be a hidden rule."""
    problems = batch(5, 5)
    corruption = HadamardCorruption(problems, tied=False)
    factor, symmetric = Factor(problems), SymmetricFactor(problems)
    starts = [corruption.g, corruption.h, factor.U, factor.V, symmetric.U]
    for a in starts[:2]:
        for b in starts[2:]:
            assert not torch.isin(a, b).any()


def test_constant_start_is_equation_11() -> None:
    corruption = HadamardCorruption(batch(4, 3), scale=1e-3, start="constant")
    for p in (corruption.g, corruption.h):
        assert torch.equal(p, torch.full_like(p, 1e-3))
    assert (corruption.value().abs() < 1e-20).all()  # but for the rounding of a square
    with torch.no_grad():
        corruption.descend_(torch.ones_like(corruption.g), 0.1)
    assert not torch.equal(corruption.g, corruption.h), "g and h have separate memory"


def test_constant_start_is_0_at_unobserved_entries() -> None:
    problems = masked()
    assert problems.mask is not None
    corruption = HadamardCorruption(problems, scale=1e-3, start="constant")
    for p in (corruption.g, corruption.h):
        assert torch.equal(p, 1e-3 * problems.mask.to(p))


def test_start_is_checked() -> None:
    with pytest.raises(ValueError, match="start must be one of gaussian, constant, got 'identity'"):
        HadamardCorruption(batch(2, 2), start="identity")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tied must be True if start is 'constant'"):
        HadamardCorruption(batch(2, 2), start="constant", tied=False)


def masked() -> ProblemBatch:
    mask = draw(3, (5, 5)) > 0
    return ProblemBatch([Problem("a", draw(1, (5, 5)), mask=mask), Problem("b", draw(2, (5, 5)), mask=~mask, seed=1)])


@pytest.mark.parametrize("tied", [True, False])
def test_unobserved_entries_start_and_stay_at_0(tied: bool) -> None:
    problems = masked()
    assert problems.mask is not None
    corruption = HadamardCorruption(problems, tied=tied)
    with torch.no_grad():
        for _ in range(3):
            corruption.descend_(draw(4, (2, 5, 5)), 0.2)
    for p in (corruption.g, corruption.h, corruption.value()):
        assert (p[~problems.mask] == 0).all()
        assert (corruption.g[problems.mask] != 0).all()


def test_mask_does_not_change_the_observed_entries() -> None:
    problems = masked()
    whole = ProblemBatch([Problem(p.name, p.observation, seed=p.seed) for p in problems])
    assert problems.mask is not None
    some, all_ = HadamardCorruption(problems), HadamardCorruption(whole)
    assert torch.equal(some.g[problems.mask], all_.g[problems.mask])


@pytest.mark.parametrize("scale", [0.0, -1e-4, float("nan"), float("inf")])
def test_scale_is_checked(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be a finite number above 0"):
        HadamardCorruption(batch(2, 2), scale=scale)


def test_one_channel_by_pixels_descends_as_by_entries() -> None:
    """A rotation of (g, h) by 45° does not change gradient descent."""
    problems = batch(1, 6, 5)
    by_entry, by_pixel = HadamardCorruption(problems, scale=0.3, tied=False), PixelCorruption(problems)
    with torch.no_grad():
        by_pixel.a.copy_((by_entry.g + by_entry.h) / 2**0.5)
        by_pixel.b.copy_((by_entry.g - by_entry.h) / 2**0.5)
        for i in range(20):
            G = by_entry.value() - draw(i, (1, 1, 6, 5))
            by_entry.descend_(G.clone(), 0.01)
            by_pixel.descend_(G.clone(), 0.01)
        torch.testing.assert_close(by_pixel.value(), by_entry.value())


def test_pixels_corrupted_in_all_channels_grow_faster() -> None:
    corruption = PixelCorruption(batch(3, 1, 2), scale=1.0)
    with torch.no_grad():
        corruption.a.fill_(1e-3)
        corruption.b.zero_()
        G = torch.zeros(1, 3, 1, 2, dtype=corruption.a.dtype)
        G[0, :, 0, 0] = G[0, 0, 0, 1] = -1.0
        for _ in range(40):
            corruption.descend_(G.clone(), 0.05)
        whole, single = corruption.value()[0, 0, 0]
    assert whole > 2 * single
    assert torch.equal(corruption.value()[0, 1:, 0, 1], torch.zeros(2, dtype=G.dtype))


def test_pixels_require_an_image() -> None:
    with pytest.raises(
        ValueError, match=r"PixelCorruption requires images, C×H×W, got an observation of shape \(5, 4\)"
    ):
        PixelCorruption(batch(5, 4))


def test_missing_entries_of_pixels_have_no_corruption() -> None:
    mask = torch.ones(3, 4, 2, dtype=torch.bool)
    mask[1, 0], mask[:, 3, 1] = False, False
    corruption = PixelCorruption(ProblemBatch([Problem("a", draw(0, (3, 4, 2)), mask=mask)]), scale=0.5)
    with torch.no_grad():
        for i in range(3):
            assert not corruption.value()[0][~mask].any()
            assert corruption.value()[0][mask].all()
            corruption.descend_(draw(i, (1, 3, 4, 2)) * mask, 0.1)
    assert not corruption.a[0, 0, 3, 1]


CORRUPTIONS = [HadamardCorruption, HyperbolicCorruption, PixelCorruption]


def test_small_steps_of_the_hyperbola_equal_gradient_descent_to_first_order() -> None:
    """s − y is descended from g = h = 1e-3 to a time of the flow; the difference halves with the step."""
    problems = batch(3, 4, 5)
    apart = []
    for steps in (200, 400, 800):
        one = HadamardCorruption(problems, scale=1e-3, start="constant")
        two = HyperbolicCorruption(problems, scale=1e-3)
        for corruption in (one, two):
            with torch.no_grad():
                for _ in range(steps):
                    corruption.descend_(corruption.value() - problems.observation, 4.0 / steps)
        value = two.value().detach()
        apart.append(float((one.value().detach() - value).norm() / value.norm()))
    assert apart[-1] < 0.02
    assert apart[0] / apart[1] == pytest.approx(2, rel=0.1)
    assert apart[1] / apart[2] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("make", CORRUPTIONS)
def test_dropped_problems_stay_dropped_and_others_continue(make: type[Corruption]) -> None:
    problems = batch(3, 4, 5, K=2)
    corruption = make(problems)
    G = draw(1, (2, 3, 4, 5))
    with torch.no_grad():
        corruption.descend_(G.clone(), 0.1)
        corruption.zero_problem_(0)
        before = corruption.value()
        for _ in range(3):
            corruption.descend_(G.clone(), 0.1)
    assert bool((corruption.value()[0] == 0).all())
    assert not torch.equal(corruption.value()[1], before[1])
    fresh = make(problems)
    fresh.load_problem_state(1, corruption.problem_state(0))
    with torch.no_grad():
        fresh.descend_(G.clone(), 0.1)
    assert bool((fresh.value()[1] == 0).all())  # whatever it started at, after a resume as well


@pytest.mark.parametrize("make", CORRUPTIONS)
def test_start_has_the_requested_scale(make: type[Corruption]) -> None:
    mask = torch.ones(3, 32, 32, dtype=torch.bool)
    mask[:, ::2] = False
    problems = ProblemBatch([Problem("half", draw(0, (3, 32, 32)), mask=mask)])
    assert make(problems, scale=1e-3).initial_scale(0, mask) == pytest.approx(1e-3, rel=0.1)  # type: ignore[call-arg]


def test_hyperbola_requires_a_positive_scale() -> None:
    with pytest.raises(ValueError, match="scale must be a finite number above 0, got 0"):
        HyperbolicCorruption(batch(2, 2), scale=0)
