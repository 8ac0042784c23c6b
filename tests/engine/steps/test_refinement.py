"""Refinement: when s is dropped, the weights of the entries, and the result."""

import math
import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.alpha import reveal_time
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import GradientDescent, Refinement, StepRule
from dop_lightning.engine.steps.clean_entries.support import first_support
from dop_lightning.engine.steps.clean_entries.values import FAR_DISTANCE
from dop_lightning.engine.steps.refinement import CALMER, LIVELIER, most_error
from dop_lightning.model.corruption import HadamardCorruption, PixelCorruption
from dop_lightning.model.losses import AbsoluteLoss, SquaredLoss
from dop_lightning.model.operators import BoxBlur
from dop_lightning.model.signals import SkipUNet, SymmetricFactor
from dop_lightning.problems.metrics import psnr
from dop_lightning.problems.noise import MissingEntries, Mixture, SaltAndPepper
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream

NETWORK = partial(SkipUNet, width=6, scales=2, precision="fp32")
ADAM = partial(torch.optim.Adam, lr=0.01)


def photograph(side: int = 24) -> Tensor:
    """Shades and a square, in colour."""
    x = torch.linspace(0.1, 0.9, side)
    image = torch.stack([x[None].expand(side, side), x[:, None].expand(side, side), torch.full((side, side), 0.6)])
    image = image.clone()
    image[:, 6:14, 6:14] = torch.tensor([0.8, 0.3, 0.2])[:, None, None]
    return image


def make_batch(*seeds: int, missing: float = 0.0) -> ProblemBatch:
    """A photograph with 30 % salt and pepper, by each seed."""
    noise: Any = SaltAndPepper(0.3)
    if missing:
        noise = Mixture([noise, MissingEntries(missing)])
    problems = []
    for seed in seeds:
        found = noise.corrupt(photograph(), stream(seed, "corruption"))
        problems.append(
            Problem(
                f"p{seed}",
                found.observation,
                truth=photograph(),
                true_corruption=found.corruption,
                mask=found.mask,
                seed=seed,
                data_range=1.0,
            )
        )
    return ProblemBatch(problems)


PLAIN = Refinement(every=10, patience=None, guide=False, kriging=False, dense="remove")
"""Returns the running average itself."""


def make_state(
    problems: ProblemBatch, rule: StepRule | None = None, corruption: Any = None, **settings: Any
) -> BatchState:
    rule = Refinement(every=10, patience=None, guide=False) if rule is None else rule
    corruption = corruption or partial(HadamardCorruption, scale=1e-5, tied=False)
    parts = {"loss": SquaredLoss("mean"), "theta_optimizer": ADAM, "steps": rule, **settings}
    return BatchState(Method(NETWORK, corruption, **parts), problems, 1.0)


def assert_equal(one: BatchState, two: BatchState, k: int = 0, other: int = 0) -> None:
    mine, theirs = one.problem_state(k), two.problem_state(other)
    for kind in ("signal", "corruption", "memory"):
        for name, value in mine[kind].items():
            assert torch.equal(value, theirs[kind][name]), name


def test_s_is_dropped_when_corruptions_of_the_given_size_are_revealed() -> None:
    """An entry of g under a residual of that size all the time has grown to its square root by then."""
    problems = make_batch(0)
    state = make_state(problems)
    begin = int(state.memory["refined_from"])
    rate, size = state.alpha[0] * state.tau[0], 0.25
    exact = reveal_time(state.loss, rate, size, state.corruption, problems, 0)
    assert begin - 10 < exact <= begin
    start = float(state.corruption.get_parameter("h").detach().square().mean().sqrt())
    growth = 4 * rate * size / problems.observation[0].numel()
    assert (start * math.exp(growth * exact)) ** 2 == pytest.approx(size)


@pytest.mark.parametrize("corruption", [None, PixelCorruption])
def test_gradient_descent_before_the_switch_and_no_s_after(corruption: Any) -> None:
    state = make_state(make_batch(0), PLAIN, corruption=corruption)
    begin = int(state.memory["refined_from"])
    state.advance(begin)
    with torch.no_grad():
        assert float(state.corruption.value().abs().max()) > 0.3
        assert torch.equal(state.evaluate().corruption, state.corruption.value())
        assert torch.equal(state.evaluate().signal, state.signal(state.iteration))
    state.advance(1)
    assert bool((state.corruption.value() == 0).all())
    torch.testing.assert_close(state.evaluate().signal, state.memory["average"], rtol=0, atol=0)
    state.advance(30)
    assert bool((state.corruption.value() == 0).all())


def test_best_average_is_returned_if_the_held_out_error_grows() -> None:
    """Per problem: one has improved at the last evaluation, the other had its best value earlier."""
    state = make_state(make_batch(0, 1), PLAIN)
    begin = int(state.memory["refined_from"].max())
    every = state.method.steps.grid
    assert every is not None
    state.advance(begin + 2 * every + 1)
    looked = state.iteration - 1
    assert looked % every == 0
    state.memory["least_at"].copy_(torch.tensor([looked, looked - every]))
    found = state.evaluate()
    assert torch.equal(found.signal[0], state.memory["average"][0])
    assert torch.equal(found.signal[1], state.memory["best"][1])
    assert not torch.equal(state.memory["best"][1], state.memory["average"][1])
    left_over = (state.problems.observation[1] - found.signal[1]) * (1 - state.memory["clean"][1])
    torch.testing.assert_close(found.corruption[1], left_over)


def test_it_recovers_more_than_gradient_descent_and_finds_the_corruption() -> None:
    problems = make_batch(0)
    state = make_state(problems)
    begin = int(state.memory["refined_from"])
    state.advance(begin)
    truth = problems[0].truth
    assert truth is not None
    before = psnr(state.evaluate().signal, truth[None], 1.0)
    state.advance(250)
    after = state.evaluate()
    assert psnr(after.signal, truth[None], 1.0) > before + 3
    true = problems[0].true_corruption
    assert true is not None
    found = after.corruption[0].abs() > 0.1
    large = true.abs() > 0.1
    assert (found == large).float().mean() > 0.97
    assert (after.corruption[0] - true)[found & large].abs().mean() < 0.05


def test_host_decisions_use_cpu_tensors_on_any_default_device() -> None:
    """Lightning makes the device of a run the default one while a module sets itself up."""
    expected = make_state(make_batch(0))
    steps = expected.method.steps
    with torch.device("meta"):
        memory = steps.start(expected)
    for name in ("calm", "refined_from", "least_error", "least_at"):
        assert torch.equal(memory[name], expected.memory[name])
    assert torch.equal(memory["held_out"], expected.memory["held_out"])


def refined(problems: ProblemBatch, dense: Any = "auto", noise: float = 0.0, **settings: Any) -> BatchState:
    """A state with s dropped, that takes a tenth of the entries for corrupted and some noise for dense."""
    state = make_state(problems, Refinement(every=10, patience=None, dense=dense, guide=False), **settings)
    state.advance(10)
    memory = state.memory
    memory["refined_from"].zero_()
    memory["structure"].zero_()
    memory["clean"].fill_(1.0)
    memory["clean"][..., :2] = 0.0
    memory["clean"][..., 2] = 0.4
    memory["dense"].fill_(noise)
    if problems.mask is not None:
        memory["clean"] *= problems.mask
    return state


@pytest.mark.parametrize(("dense", "noise", "kept"), [("auto", 0.02, True), ("keep", 0.2, True)])
def test_clean_entries_are_kept_to_the_bit_and_doubtful_ones_in_part(dense: str, noise: float, kept: bool) -> None:
    state = refined(make_batch(0), dense, noise)
    y, average = state.problems.observation, state.memory["average"]
    found = state.evaluate()
    assert torch.equal(found.signal[..., 3:], y[..., 3:])
    assert bool((found.corruption[..., 3:] == 0).all())
    torch.testing.assert_close(found.signal[..., :2], average[..., :2])
    torch.testing.assert_close(found.signal[..., 2], 0.4 * y[..., 2] + 0.6 * average[..., 2])
    torch.testing.assert_close(found.signal + found.corruption, y)


@pytest.mark.parametrize(("dense", "noise"), [("auto", 0.04), ("remove", 0.0)])
def test_dense_noise_is_removed_from_clean_entries(dense: str, noise: float) -> None:
    state = refined(make_batch(0), dense, noise)
    assert torch.equal(state.evaluate().signal, state.memory["average"])


def test_dense_noise_alone_is_kept() -> None:
    state = refined(make_batch(0), "auto", 0.2)
    state.memory["clean"].fill_(1.0)
    assert torch.equal(state.evaluate().signal, state.problems.observation)


def test_unobserved_entries_are_filled_and_the_rest_kept() -> None:
    state = refined(make_batch(0, missing=0.3))
    mask = state.problems.mask
    assert mask is not None
    found, clean = state.evaluate().signal, state.memory["clean"] == 1
    assert torch.equal(found[~mask], state.memory["average"][~mask])
    assert torch.equal(found[clean], state.problems.observation[clean])


def test_dead_lines_have_probability_1(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_INFORMATIVE_ERROR": 0.0, "SMALL": 0.0}.items():  # no output is good enough
        monkeypatch.setattr(f"dop_lightning.engine.steps.refinement.{name}", value)
    given = make_batch(0)[0]
    y = given.observation
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[:, 20:, :] = False
    monkeypatch.setattr(Refinement, "reveal", lambda rule, state, k: rule.every)
    state = make_state(ProblemBatch([replace(given, mask=mask)]))
    state.advance(1)
    damaged = state.memory["damaged"][0]
    damaged[:, :, 17] = True
    state.advance(44)
    assert bool(state.memory["hopeless"][0])
    p = state.corruption_probability(0, state.iteration)
    assert p is not None
    assert torch.equal(p, (damaged & mask).float())
    assert torch.equal(state.evaluate().signal[0][mask & ~damaged], y[mask & ~damaged])


def test_blurred_observations_do_not_replace_the_signal() -> None:
    blurred = replace(make_batch(0)[0], sensing=BoxBlur(3))
    state = refined(ProblemBatch([blurred]), "keep")
    assert torch.equal(state.evaluate().signal, state.memory["average"])


def test_line_art_is_detected_before_the_first_iteration() -> None:
    """What stands out of it are its lines: they count from the start, and dead pixels between them do not.

    The dead pixels of the damaged drawing also differ from the interpolation, so they are not structure.
    """
    y = torch.full((1, 48, 48), 0.9)
    y[0, 4::8] = 0.1
    drawing, damaged = y.clone(), y.clone()
    damaged[0, 8::8, 4::8] = 0.0
    problems = ProblemBatch(
        [Problem(name, image, seed=0, data_range=1.0) for name, image in (("drawing", drawing), ("damaged", damaged))]
    )
    state = make_state(problems)
    state.advance(1)
    assert state.memory["structure"].tolist() == [True, False]
    assert bool((state.memory["clean"][0] == 1).all())
    assert state.memory["look"][1, 0, 8::8, 4::8].max() < 0.5 < state.memory["look"][1, 0, 4].min()
    assert torch.equal(state.evaluate().signal[0], drawing)
    state.advance(int(state.memory["refined_from"].max()) + 11)
    assert torch.equal(state.evaluate().signal[0], drawing)
    assert bool((state.evaluate().corruption[0] == 0).all())
    assert (state.evaluate().signal[1] - drawing).abs().max() < 0.1


def test_a_regression_of_the_clean_entries_guides_the_network() -> None:
    """The guide uses neither held-out entries nor the damage, and is part of the input of the network."""
    problems = make_batch(0)
    state = make_state(problems, Refinement(every=10))
    assert bool((state.memory["guide"] == 0).all())
    state.advance(1)
    truth = photograph()[None]
    guide, damaged = state.memory["guide"][0], problems.observation[0] != truth[0]
    assert float(psnr(guide[None], truth, 1.0)) > float(psnr(problems.observation, truth, 1.0)) + 8
    assert (guide - truth[0])[damaged].abs().median() < 0.05
    given = state.signal._perturbed(0, 1)
    plain = make_state(problems, Refinement(every=10, guide=False))
    assert "guide" not in plain.memory
    other = plain.signal._perturbed(0, 1)
    assert torch.equal(given[..., 3:], other[..., 3:])
    assert not torch.equal(given[..., :3], other[..., :3])


def test_uninformative_output_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all entries would be outliers, weights stay as they are, and s with them, until a later look."""
    state = make_state(make_batch(0))
    begin = int(state.memory["refined_from"])
    module = "dop_lightning.engine.steps.refinement.clean_probability"
    with monkeypatch.context() as patched:
        patched.setattr(module, lambda y, *_, **__: torch.full_like(y, 0.01))
        state.advance(begin + 1)
    assert bool((state.memory["clean"] == 1).all())
    assert bool(state.memory["least_error"].isinf().all())
    assert bool((state.corruption.value() != 0).any())
    assert bool((state.evaluate().corruption != 0).any())
    state.advance(20)
    assert state.memory["clean"].min() < 0.5
    assert bool(state.memory["least_error"].isfinite().all())


def test_network_without_spare_channels_has_no_guide() -> None:
    rule = Refinement(every=10)
    loss = SquaredLoss("mean")
    method = Method(partial(NETWORK, input_channels=5), HadamardCorruption, loss=loss, theta_optimizer=ADAM, steps=rule)
    assert "guide" not in BatchState(method, make_batch(0), 1.0).memory


def test_image_of_noise_is_unchanged() -> None:
    noise = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    state = make_state(ProblemBatch([Problem("noise", noise, seed=0, data_range=1.0)]))
    state.advance(int(state.memory["refined_from"]) + 11)
    assert torch.equal(state.evaluate().signal[0], noise)


def test_error_of_few_held_out_values_is_uncertain() -> None:
    y = torch.randn(1, 20, 20, generator=torch.Generator().manual_seed(0))
    clean = (torch.arange(400).view(1, 20, 20) < 100).float()  # few, and the others have arbitrary values
    bounds = [most_error(y, clean, 0.3, 1.0, number) for number in (4.0, 25.0, 1e12)]
    assert bounds == pytest.approx([0.1, 0.125, 0.15])
    impulses = torch.where(clean > 0, y, 1.0)
    assert most_error(impulses, clean, 0.3, 1.0, 4.0) == pytest.approx(0.27)


def test_probability_is_available_once_s_is_dropped() -> None:
    problems = make_batch(0, 1, missing=0.3)
    state = make_state(problems)
    state.advance(int(state.memory["refined_from"].max()))
    assert state.corruption_probability(0, state.iteration) is None
    state.advance(60)
    mask = problems.mask
    assert mask is not None
    for k, problem in enumerate(problems):
        probability = state.corruption_probability(k, state.iteration)
        assert probability is not None
        assert (probability.shape, probability.dtype) == (problem.observation.shape, torch.float32)
        assert bool(((probability >= 0) & (probability <= 1)).all())
        assert bool((probability[~mask[k]] == 0).all())
        corrupted = (problem.observation != problem.truth)[mask[k]]
        assert float(probability[mask[k]][corrupted].mean()) > 0.9
        assert float(probability[mask[k]][~corrupted].mean()) < 0.1
    assert make_state(make_batch(0), GradientDescent()).corruption_probability(0, 50) is None


def test_probability_has_no_side_effects_and_depends_on_its_problem_only() -> None:
    together = make_state(make_batch(0, 1))
    together.advance(int(together.memory["refined_from"].max()) + 25)
    before = together.evaluate()
    probability = together.corruption_probability(1, together.iteration)
    assert probability is not None
    assert torch.equal(together.evaluate().signal, before.signal)
    alone = together.select([1])
    again = alone.corruption_probability(0, alone.iteration)
    assert again is not None
    assert torch.equal(again, probability)
    other = make_state(make_batch(1))
    other.load_problem_state(0, together.problem_state(1))
    again = other.corruption_probability(0, together.iteration)
    assert again is not None
    assert torch.equal(again, probability)


def test_probability_of_a_decisive_first_look() -> None:
    state = make_state(make_batch(0))
    state.memory["structure"][0] = True
    assert state.corruption_probability(0, 0) is None
    found = state.corruption_probability(0, 1)
    assert found is not None
    assert torch.equal(found, 1 - state.memory["clean"][0])


def test_whole_pixels_have_one_probability() -> None:
    problems = make_batch(0)
    state = make_state(problems, corruption=PixelCorruption)
    state.advance(int(state.memory["refined_from"]) + 30)
    found = state.corruption_probability(0, state.iteration)
    assert found is not None
    assert torch.equal(found, found[:1].expand_as(found))


def test_held_out_entries_do_not_affect_the_fit() -> None:
    problems = make_batch(0)
    state = make_state(problems)
    held_out = state.memory["held_out"]
    assert 0.01 < held_out.float().mean() < 0.1
    other = Problem("p0", torch.where(held_out[0], 0.5, problems.observation[0]), seed=0, data_range=1.0)
    changed = make_state(ProblemBatch([other]))
    state.advance(40)
    changed.advance(40)
    for p, q in zip(state.signal.parameters(), changed.signal.parameters(), strict=True):
        assert torch.equal(p, q)


def test_whole_pixels_are_held_out_jointly() -> None:
    held_out = make_state(make_batch(0), corruption=PixelCorruption).memory["held_out"]
    assert torch.equal(held_out, held_out[:, :1].expand(held_out.shape))
    single = make_state(make_batch(0)).memory["held_out"]
    assert not torch.equal(single[:, 0], single[:, 1])


def test_block_length_does_not_change_results() -> None:
    whole, parts = make_state(make_batch(0, 1)), make_state(make_batch(0, 1))
    begin = int(whole.memory["refined_from"][0])
    whole.advance(begin + 37)
    for length in (begin - 3, 2, 11, 1, 26):
        parts.advance(length)
    assert_equal(whole, parts)
    assert_equal(whole, parts, 1, 1)


def test_state_resumes_bit_for_bit() -> None:
    whole, other = make_state(make_batch(0)), make_state(make_batch(0))
    whole.advance(int(whole.memory["refined_from"]) + 17)
    other.load_problem_state(0, whole.problem_state(0))
    other.iteration = whole.iteration
    whole.advance(25)
    other.advance(25)
    assert_equal(whole, other)


def test_problems_do_not_influence_each_other() -> None:
    """In double precision and for few iterations: networks are chaotic."""
    rule = Refinement(revealed=2.0, every=10, patience=None)
    together, alone = (make_state(_in_double(make_batch(*seeds)), rule) for seeds in ((0, 1), (1,)))
    begin = int(alone.memory["refined_from"])
    assert begin < 60
    for state in (together, alone):
        state.advance(begin + 5)
    assert torch.equal(together.memory["held_out"][1], alone.memory["held_out"][0])
    for name in ("clean", "average"):
        torch.testing.assert_close(together.memory[name][1], alone.memory[name][0], rtol=1e-6, atol=1e-8)


def _in_double(problems: ProblemBatch) -> ProblemBatch:
    return ProblemBatch(
        [
            Problem(p.name, p.observation.double(), truth=photograph().double(), seed=p.seed, data_range=1.0)
            for p in problems
        ]
    )


def test_snapshot_restores_everything() -> None:
    state, untouched = make_state(make_batch(0)), make_state(make_batch(0))
    snapshot = state.snapshot()
    with torch.no_grad():
        state.method.steps.descend(state, int(state.memory["refined_from"]) + 11)
    state.restore(snapshot, [0])
    assert_equal(state, untouched)


def test_missing_entries_are_not_corruption() -> None:
    problems = make_batch(0, missing=0.3)
    state = make_state(problems)
    state.advance(int(state.memory["refined_from"]) + 60)
    mask = problems.mask
    assert mask is not None
    assert bool((state.evaluate().corruption[~mask] == 0).all())
    assert torch.isfinite(state.evaluate().signal).all()


def test_a_problem_is_stable_when_the_held_out_error_has_not_fallen_for_the_patience() -> None:
    state = make_state(make_batch(0, 1), Refinement(every=10, patience=30))
    state.advance(int(state.memory["refined_from"].max()) + 11)
    assert state.finished() == {}
    state.memory["best"][1] = state.problems.observation[1]  # no other predicts the held-out entries as well
    state.advance(38)
    assert state.finished() == {}  # blocks may end anywhere: problems end on the grid
    state.advance(11)
    assert 1 in state.finished()
    assert state.finished()[1] == "stable"
    assert make_state(make_batch(0)).finished() == {}  # not before it began


def test_problem_diverging_within_a_block_is_restored() -> None:
    """Its weights would be due before the end of the block, when it is found out."""
    state = make_state(make_batch(0, 1), Refinement(revealed=2.0, every=10, patience=None))
    state.advance(int(state.memory["refined_from"].max()) + 5)
    with torch.no_grad():
        for _, parameter, _ in state.signal.problem_parameters(0):
            parameter.fill_(math.nan)
    assert state.advance(10) == [0]
    assert bool(state.evaluate().signal[1].isfinite().all())


def test_run_without_clean_held_out_entries_continues_to_the_end() -> None:
    state = make_state(make_batch(0), Refinement(revealed=2.0, every=10, patience=10))
    state.memory["held_out"].zero_()
    state.advance(int(state.memory["refined_from"].max()) + 45)
    assert state.finished() == {}


def test_rate_that_reveals_nothing_is_accepted() -> None:
    problems = make_batch(0)
    parts = {"loss": SquaredLoss("mean"), "theta_optimizer": ADAM, "steps": Refinement()}
    state = BatchState(Method(NETWORK, HadamardCorruption, **parts), problems, 1.0, 1e-300)  # type: ignore[arg-type]
    state.advance(2)
    assert state.finished() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"revealed": 0.0}, "revealed must be a finite number above 0, got 0.0"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"held_out": 0.0}, "held_out must be a finite number above 0, got 0.0"),
        ({"held_out": 1.0}, "held_out must be at least 0 and below 1, got 1.0"),
        ({"average": 1.0}, "average must be at least 0 and below 1, got 1.0"),
        ({"patience": 20}, "patience must be a whole number of at least 25, got 20"),
    ],
)
def test_arguments_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Refinement(**settings)


def test_unsupported_methods_are_refused() -> None:
    matrices = ProblemBatch([Problem("m", torch.eye(4))])
    with pytest.raises(ValueError, match="Refinement requires a network and a numeric tau, got SymmetricFactor"):
        BatchState(Method(SymmetricFactor, steps=Refinement()), matrices, 0.1)
    with pytest.raises(ValueError, match="Refinement requires a network and a numeric tau, got SymmetricFactor"):
        BatchState(Method(SymmetricFactor, theta_optimizer=ADAM, steps=Refinement()), matrices, 0.1)
    for settings in ({"loss": AbsoluteLoss("mean")}, {"corruption": None}):
        parts = {"corruption": HadamardCorruption, "loss": SquaredLoss("mean"), "steps": Refinement(), **settings}
        with pytest.raises(ValueError, match="Refinement requires a corruption and a SquaredLoss"):
            BatchState(Method(NETWORK, **parts), make_batch(0), 1.0, 1.0)


def test_perturbation_decreases_while_held_out_errors_fall() -> None:
    """Factors between two estimates of w; a problem that is resumed elsewhere keeps its factor."""
    state = make_state(make_batch(0, 1))
    begin = int(state.memory["refined_from"].max())
    state.advance(begin)
    assert bool((state.memory["calm"] == 1).any())
    before = state.memory["calm"].clone()
    state.advance(1)
    assert bool((state.memory["calm"] <= before).all())
    for _ in range(8):
        before, best = state.memory["calm"].clone(), state.memory["least_at"].clone()
        state.advance(10)
        for k in range(2):
            share = 1 - float(state.memory["clean"][k].mean())
            better = int(state.memory["least_at"][k]) > int(best[k])
            old = float(before[k])
            expected = max(CALMER * old, share**2) if better else min(1.0, max(LIVELIER * old, share**2))
            assert float(state.memory["calm"][k]) == pytest.approx(expected)
    other = make_state(make_batch(0, 1))
    other.load_problem_state(0, state.problem_state(0))
    other.iteration = state.iteration
    with torch.no_grad():
        one, two = state.signal(state.iteration), other.signal(state.iteration)
    assert torch.equal(one[0], two[0])  # perturbed as much


def test_kriging_recovers_more() -> None:
    """Of a photograph with grain, which its channels share."""
    grain = 0.08 * torch.randn(1, 24, 24, generator=torch.Generator().manual_seed(0))
    truth = (photograph() + grain).clamp(0, 1)
    observation = SaltAndPepper(0.3).corrupt(truth, stream(0, "corruption")).observation
    problems = ProblemBatch([Problem("grain", observation, truth=truth, seed=0, data_range=1.0)])
    scores = []
    for kriging in (False, True):
        state = make_state(problems, Refinement(every=10, patience=None, kriging=kriging, dense="keep"))
        state.advance(int(state.memory["refined_from"]) + 61)
        scores.append(float(psnr(state.evaluate().signal, truth[None], 1.0)))
    assert scores[1] > scores[0] + 0.5


def test_regression_and_network_are_compared_at_each_check() -> None:
    """On the entries that both call clean: a first look that is wrong must not decide by its own error."""
    state = make_state(make_batch(0), Refinement(every=10, patience=None))
    state.advance(1)
    state.memory["regression"].zero_()
    state.memory["regression_error"].zero_()  # as that look has it
    state.advance(int(state.memory["refined_from"]) + 60)
    both = state.memory["look"] * state.memory["held_out"]
    mean = float((both * state.problems.observation).sum() / both.sum())
    assert float(state.memory["regression_error"]) == pytest.approx(mean, rel=0.2)
    assert float(state.memory["network_error"]) < 0.5 * mean


@pytest.mark.parametrize("better", [True, False])
def test_the_first_support_replaces_a_w_that_rejects_it_if_it_predicts_better(
    better: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = SaltAndPepper(0.3)
    found = noise.corrupt(photograph(), torch.Generator().manual_seed(0))
    problems = ProblemBatch([Problem("texture", found.observation, seed=0, data_range=1.0)])
    state = make_state(problems, Refinement(every=10, patience=None))
    state.advance(1)
    assert bool(state.memory["few_values"])
    if not better:
        state.memory["regression"].zero_()
        state.memory["regression_error"].fill_(torch.inf)
    module = "dop_lightning.engine.steps.refinement.clean_probability"
    rejecting = torch.rand(found.observation.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    monkeypatch.setattr(module, lambda *_, **__: rejecting.float())
    state.advance(int(state.memory["refined_from"]))
    expected = state.memory["look"][0] if better else rejecting.float()
    assert torch.equal(state.memory["clean"][0], expected)


def test_few_outliers_of_a_smooth_picture_need_no_network() -> None:
    x = torch.linspace(0, 3, 96)
    grain = torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(1))
    truth = (0.5 + 0.3 * torch.sin(x[None] + x[:, None]) + 0.01 * grain).clamp(0.05, 0.95)
    found = SaltAndPepper(0.01).corrupt(truth, torch.Generator().manual_seed(0))
    noisy = SaltAndPepper(0.1).corrupt(truth, torch.Generator().manual_seed(0))
    for observation, expected in ((found.observation, True), (noisy.observation, False)):
        state = make_state(
            ProblemBatch([Problem("few", observation, truth=truth, seed=0, data_range=1.0)]),
            Refinement(every=10, patience=None),
        )
        state.advance(1)
        assert bool(state.memory["easy"]) is expected
        assert bool(state.method.steps.finished(state)) is expected
        if expected:
            evaluated = state.evaluate()
            clean = observation == truth
            assert torch.equal(evaluated.signal[0][clean], truth[clean])
            assert float(psnr(evaluated.signal, truth[None], 1.0)) > 50
            probability = state.method.steps.corruption_probability(state, 0, 1)
            assert probability is not None
            assert bool((probability[~clean] > 0.9).all())


@pytest.mark.parametrize("when", [0, 2, 4])
def test_first_look_at_a_tile_can_be_interrupted(when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    observation = SaltAndPepper(0.3).corrupt(photograph(), torch.Generator().manual_seed(0)).observation
    problems = ProblemBatch([Problem("tile", observation, seed=0, data_range=1.0, folder="whole/tile")])
    undisturbed, state = (make_state(problems, Refinement(every=10, patience=None)) for _ in range(2))
    start, poll, polls = state.problem_state(0), BatchState.poll, []

    def polled(state: BatchState) -> None:
        if len(polls) == when:  # by the signal handler, while another thread processes the tile
            handler = threading.Thread(target=state.interrupt)
            handler.start()
            handler.join()
        polls.append(state)
        poll(state)

    monkeypatch.setattr(BatchState, "poll", polled)
    assert state.advance(1) == []
    assert (state.iteration, len(polls)) == (0, when + 1)
    for name, remembered in state.problem_state(0)["memory"].items():
        assert torch.equal(remembered, start["memory"][name]), name
    monkeypatch.undo()
    state.resume()
    state.advance(1)
    undisturbed.advance(1)
    assert torch.equal(state.evaluate().signal, undisturbed.evaluate().signal)


def test_few_outliers_of_random_values_need_no_network() -> None:
    x = torch.linspace(0, 3, 96)
    generator = torch.Generator().manual_seed(1)
    truth = 0.4 + 0.2 * torch.sin(x[None] + x[:, None]) + 0.003 * torch.randn(3, 96, 96, generator=generator)
    hot = torch.rand(truth.shape, generator=generator) < 0.01
    observation = torch.where(hot, 0.8 + 0.2 * torch.rand(truth.shape, generator=generator), truth)
    support = first_support(observation)
    assert support.is_random
    assert not support.is_uncertain
    state = make_state(
        ProblemBatch([Problem("few", observation, seed=0, data_range=1.0)]), Refinement(every=10, patience=None)
    )
    state.advance(1)
    assert state.method.steps.finished(state) == [0]
    assert float(psnr(state.evaluate().signal, truth[None], 1.0)) > 50


def test_hot_pixels_of_a_flat_image_need_no_network() -> None:
    """Its mean predicts it as well as anything else."""
    grain = torch.randn(1, 48, 48, generator=torch.Generator().manual_seed(0))
    truth = 0.5 + 0.003 * grain
    hot = torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < 0.01
    observation = torch.where(hot, 1.0, truth)
    state = make_state(
        ProblemBatch([Problem("flat", observation, seed=0, data_range=1.0)]), Refinement(every=10, patience=None)
    )
    state.advance(1)
    assert state.method.steps.finished(state) == [0]
    assert float((state.evaluate().signal[0] - truth)[hot].abs().max()) < 0.02


def test_outliers_near_their_surroundings_stay_outliers_with_a_network() -> None:
    x = torch.linspace(0, 3, 96)
    generator = torch.Generator().manual_seed(1)
    truth = 0.4 + 0.1 * torch.sin(x[None] + x[:, None]) + 0.005 * torch.randn(3, 96, 96, generator=generator)
    warm = torch.rand(truth.shape, generator=generator) < 0.015
    observation = torch.where(warm, truth + 0.15, truth)
    problems = ProblemBatch([Problem("warm", observation, seed=0, data_range=1.0)])
    state = make_state(problems, Refinement(every=10, patience=None, revealed=1.0, dense="keep"))
    state.memory["easy"] = torch.zeros_like(state.memory["easy"])
    state.advance(1)
    assert 0.08 <= float(state.memory["distance"]) < 0.15
    found = state.method.steps._estimate_clean(state, 0, truth)
    assert found is not None
    assert float((found[warm] < 0.5).float().mean()) > 0.99
    other = make_state(problems, Refinement(every=10, patience=None))
    other.load_problem_state(0, state.problem_state(0))
    assert torch.equal(other.memory["distance"], state.memory["distance"])
    older = state.problem_state(0)
    del older["memory"]["distance"]
    fresh = make_state(problems, Refinement(every=10, patience=None))
    fresh.load_problem_state(0, older)  # saved by an earlier version
    assert float(fresh.memory["distance"]) == FAR_DISTANCE


def test_network_of_a_settled_problem_is_not_changed() -> None:
    shades = torch.linspace(0.2, 0.8, 64).expand(3, 64, 64).contiguous()
    undamaged = Problem("undamaged", shades, seed=0, data_range=1.0)
    damaged = Problem("damaged", SaltAndPepper(0.3).corrupt(photograph(64), stream(0, "corruption")).observation)
    for problem, changes in ((undamaged, False), (damaged, True)):
        state = make_state(ProblemBatch([problem]), Refinement())
        before = [parameter.clone() for parameter in state.signal.parameters()]
        state.advance(1)
        assert (state.method.steps.finished(state) == [0]) is not changes
        after = list(state.signal.parameters())
        assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True)) is changes
