"""Semi-implicit steps whose length grows."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.steps import GradientDescent, SemiImplicit, semi_implicit
from dop_lightning.foundation.native.compiled import library
from dop_lightning.model.corruption import HadamardCorruption, PixelCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.operators import GaussianMeasurements
from dop_lightning.model.signals import Factor, HadamardSignal, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch, rename
from tests.engine.projections.builders import corrupted, low_rank, problem
from tests.suites.steps import StepRuleSuite, error_of, make_batch, make_problem, make_state


class TestSemiImplicit(StepRuleSuite):
    enough = 300
    close = 1e-2

    def rule(self) -> SemiImplicit:
        return SemiImplicit()


def test_it_is_much_faster_than_gradient_descent() -> None:
    problems = make_batch(0, 2, n=60, rank=2, ratio=0.1)
    plain, fast = make_state(problems, GradientDescent()), make_state(problems, SemiImplicit())
    plain.advance(2000)
    fast.advance(200)
    assert bool((error_of(fast) < 0.5 * error_of(plain)).all())
    assert bool((error_of(fast) < 3e-3).all())


def test_short_steps_are_gradient_descent() -> None:
    problems = make_batch(0, 1)
    plain = make_state(problems, GradientDescent(), tau=1e-6)
    short = make_state(problems, SemiImplicit(growth=1.0 + 1e-9), tau=1e-6)
    plain.advance(50)
    short.advance(50)
    torch.testing.assert_close(short.signal(0), plain.signal(0), rtol=1e-6, atol=0)
    start = make_state(problems, GradientDescent(), tau=1e-6)
    moved = [state.corruption.get_parameter("g") - start.corruption.get_parameter("g") for state in (plain, short)]
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-4, atol=1e-15)


def test_outliers_may_be_huge() -> None:
    """Gradient descent needs τ below 1/(α·max|s|); these steps do not."""
    problem = make_problem(0)
    gross = (problem.observation - problem.truth) * 1e5
    far = Problem("far", problem.truth + gross, truth=problem.truth)
    state = make_state(ProblemBatch([far]), SemiImplicit())
    state.advance(600)
    assert float(error_of(state)) < 5e-3


@pytest.mark.parametrize(
    ("exponent", "dtype"),
    [(40, torch.float32), (-40, torch.float32), (400, torch.float64), (-400, torch.float64)],
)
def test_units_have_no_influence(exponent: int, dtype: torch.dtype) -> None:
    problem = make_problem(0)
    ends = []
    for unit in (1.0, 2.0**exponent):
        y = problem.observation.to(dtype) * unit
        start = 1e-5 * unit**0.5  # of the same bits in both
        method = Method(
            partial(Factor, growing=True, scale=start), partial(HadamardCorruption, scale=start), steps=SemiImplicit()
        )
        state = BatchState(method, ProblemBatch([Problem("a", y, seed=0)]), "auto", 5.0)
        state.advance(60)
        ends.append(state.signal(0) / unit)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [40, 64, 129, 300])
def test_strips_of_rows_do_not_change_results(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = make_batch(0, n=rows)
    whole, strips = make_state(problems, SemiImplicit(), rank=4), make_state(problems, SemiImplicit(), rank=4)
    whole.advance(10)
    monkeypatch.setattr("dop_lightning.engine.steps.semi_implicit.STRIP_ENTRIES", 1)
    strips.advance(10)
    torch.testing.assert_close(strips.signal(0), whole.signal(0), rtol=1e-9, atol=1e-20)


def test_without_a_corruption_it_factorises() -> None:
    problem = make_problem(0, rank=2, ratio=0.0)
    state = BatchState(Method(SymmetricFactor, None, steps=SemiImplicit()), ProblemBatch([problem]), "auto", 1.0)
    state.advance(200)
    assert float(error_of(state)) < 1e-6


@pytest.mark.parametrize("settings", [{"growth": 1.0}, {"trust": 0.0}, {"longest": 2.5}, {"longest": -1.0}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SemiImplicit(**settings)


def test_unsupported_methods_are_refused() -> None:
    batch = make_batch(0)
    rule = SemiImplicit()
    with pytest.raises(ValueError, match="requires Factor or SymmetricFactor as signal, got HadamardSignal"):
        BatchState(Method(HadamardSignal, steps=rule), batch, 1e-3)
    with pytest.raises(ValueError, match="SquaredLoss with reduction quarter"):
        BatchState(Method(SymmetricFactor, loss=SquaredLoss("half"), steps=rule), batch, 1e-3)
    adam = partial(torch.optim.Adam, lr=0.1)
    with pytest.raises(ValueError, match="theta_optimizer"):
        BatchState(Method(SymmetricFactor, theta_optimizer=adam, steps=rule), batch, 1e-3)
    sensing = GaussianMeasurements(30)
    X = make_problem(0, n=6).truth
    measured = ProblemBatch([Problem("m", sensing.measure(X, 0), truth=X, sensing=sensing)])
    with pytest.raises(
        ValueError, match="requires Identity or EntryMask as operator, got GaussianSensing; use Nesterov"
    ):
        BatchState(Method(SymmetricFactor, steps=rule), measured, 1e-3)
    with pytest.raises(ValueError, match="PixelCorruption"):
        BatchState(Method(SymmetricFactor, PixelCorruption, steps=rule), batch, 1e-3)


def test_tolerance_ends_problems_independently() -> None:
    easy, hard = make_problem(0, n=40, rank=1, ratio=0.02), make_problem(1, n=40, rank=4, ratio=0.25)
    problems = ProblemBatch([rename(easy, "easy"), rename(hard, "hard")])
    state = make_state(problems, SemiImplicit(tolerance=1e-3))
    ended: dict[int, int] = {}
    assert state.finished() == {}
    while len(ended) < 2 and state.iteration < 500:
        state.advance(10)
        for k in state.finished():
            ended.setdefault(k, state.iteration)
    assert 0 < ended[0] < ended[1] < 500
    residual = state.residual(torch.empty_like(problems.observation), 0)
    norms = torch.linalg.vector_norm(residual, dim=(1, 2)) / torch.linalg.vector_norm(state.signal(0), dim=(1, 2))
    assert bool((norms < 2e-3).all())


def test_tolerance_is_relative_to_the_signal_not_the_outliers() -> None:
    """One entry that is larger by 1e9 must not end a problem before it is solved."""
    problem = make_problem(0, n=40, rank=1, ratio=0.02)
    y = problem.observation.clone()
    y[3, 4] = 1e9
    state = make_state(ProblemBatch([replace(problem, observation=y)]), SemiImplicit(tolerance=1e-3))
    while not state.finished() and state.iteration < 1000:
        state.advance(10)
    assert state.iteration < 1000
    assert float(error_of(state)) < 5e-3


def test_without_signal_the_run_ends_at_rounding() -> None:
    y = torch.zeros(30, 30, dtype=torch.float64)
    y[2, 3] = 5.0
    for observation in (y, torch.zeros_like(y)):
        state = make_state(ProblemBatch([Problem("p", observation)]), SemiImplicit(tolerance=1e-3))
        while not state.finished() and state.iteration < 500:
            state.advance(25)
        assert state.iteration < 500
        torch.testing.assert_close(state.corruption.value()[0], observation, atol=1e-6, rtol=0)


def test_a_tolerance_must_be_positive() -> None:
    with pytest.raises(ValueError, match="tolerance must be"):
        SemiImplicit(tolerance=0.0)


def growing_state(*problems: Problem, prune: bool = True, symmetric: bool = False) -> BatchState:
    unit = float(problems[0].observation.abs().median()) ** 0.5
    signal = partial(SymmetricFactor if symmetric else Factor, growing=True, scale=1e-5 * unit)
    rule = SemiImplicit(tolerance=1e-5, prune=prune)
    return BatchState(
        Method(signal, partial(HadamardCorruption, scale=1e-5 * unit), steps=rule), ProblemBatch(problems), "auto"
    )


def test_surplus_components_are_dropped_at_a_gap_and_the_error_falls() -> None:
    given = problem(400, 350, 4, 0.3)
    pruned, whole = growing_state(given), growing_state(given, prune=False)
    for state in (pruned, whole):
        while not state.finished():
            state.advance(25)
    assert pruned.signal.columns() == [4]  # type: ignore[operator]
    assert whole.signal.columns()[0] > 4  # type: ignore[operator]
    assert float(error_of(pruned)) < 1e-3 < 0.3 * float(error_of(whole))


def test_positive_matrix_stays_positive_when_components_are_dropped() -> None:
    U = 12 * torch.linalg.qr(low_rank(150, 150, 150))[0][:, :3]
    L = U @ U.mT
    state = growing_state(Problem("positive", corrupted(L, 0.2), truth=L), symmetric=True)
    while not state.finished():
        state.advance(25)
    assert state.signal.columns() == [3]  # type: ignore[operator]
    assert float(error_of(state)) < 1e-3


@pytest.mark.parametrize("size", [0.1, 0.03, 0.01])
def test_a_weak_component_is_not_dropped(size: float) -> None:
    U, V = (torch.linalg.qr(low_rank(200, 200, 200, seed))[0][:, :4] for seed in (1, 2))
    L = U @ torch.diag(200 * torch.tensor([1.0, 1.0, 1.0, size])) @ V.mT
    given = Problem("weak", corrupted(L, 0.1), truth=L)
    pruned, whole = growing_state(given), growing_state(given, prune=False)
    for state in (pruned, whole):
        while not state.finished():
            state.advance(25)
    assert float(error_of(pruned)) < 1.1 * float(error_of(whole))


def test_nothing_is_dropped_without_a_gap() -> None:
    U, V = (torch.linalg.qr(low_rank(120, 120, 120, seed))[0] for seed in (1, 2))
    L = U @ torch.diag(120 / torch.arange(1.0, 121.0)) @ V.mT
    given = Problem("decaying", corrupted(L, 0.1), truth=L)
    pruned, whole = growing_state(given), growing_state(given, prune=False)
    for state in (pruned, whole):
        state.advance(150)
    assert not pruned.memory["settled"].any()
    assert torch.equal(pruned.signal(0), whole.signal(0))


@pytest.mark.parametrize("done", [50, 90, 130])
def test_run_resumes_bit_for_bit_across_the_drop(done: int) -> None:
    problems = problem(300, 250, 3, 0.2), problem(300, 250, 3, 0.1, seed=1)
    whole, first, second = (growing_state(*problems) for _ in range(3))
    whole.advance(160)
    first.advance(done)
    for k in range(2):
        second.load_problem_state(k, first.problem_state(k))
    second.iteration = done
    second.advance(160 - done)
    assert whole.memory["settled"].any()
    assert torch.equal(second.signal(0), whole.signal(0))


def test_states_of_earlier_versions_load() -> None:
    state = growing_state(problem(60, 50, 2))
    state.advance(10)
    saved = state.problem_state(0)
    saved["memory"] = {name: saved["memory"][name] for name in ("tau", "last_loss", "left", "right")}
    other = growing_state(problem(60, 50, 2))
    other.load_problem_state(0, saved)
    assert not other.memory["settled"].any()
    del saved["memory"]["tau"]
    with pytest.raises(ValueError, match="the state was saved with another optimizer or step rule"):
        other.load_problem_state(0, saved)


@pytest.mark.skipif(library() is None, reason="there is no compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "has_gaps"), [((90, 70), False), ((301, 37), False), ((90, 70), True)])
def test_compiled_step_equals_plain_torch(
    dtype: torch.dtype, shape: tuple[int, int], has_gaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = low_rank(*shape, 3)
    y = corrupted(truth, 0.1).to(dtype)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.9 if has_gaps else None
    ends = []
    for least in (0, 10**9):
        monkeypatch.setattr(semi_implicit, "COMPILED", least)
        monkeypatch.setattr(semi_implicit, "STRIP_ENTRIES", 64 * shape[1])
        method = Method(
            partial(Factor, growing=True, scale=1e-5), partial(HadamardCorruption, scale=1e-5), steps=SemiImplicit()
        )
        state = BatchState(method, ProblemBatch([Problem("a", y, mask=mask)]), "auto")
        state.advance(40)
        ends.append((state.signal(0), state.corruption.value(), state.memory["tau"], state.memory["last_loss"]))
    for compiled, plain in zip(*ends, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3 if dtype == torch.float32 else 1e-9, atol=1e-4)
