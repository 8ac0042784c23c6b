"""The engine against literal transcriptions of the paper's equations, and the promises it makes about batches.

Shapes: K problems, n rows, m columns, C H W an image.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.model.corruption import HadamardCorruption, HyperbolicCorruption
from dop_lightning.model.losses import AbsoluteLoss, SquaredLoss
from dop_lightning.model.signals import (
    Coordinates,
    Factor,
    HadamardSignal,
    NetworkSignal,
    Signal,
    SkipUNet,
    SymmetricFactor,
)
from dop_lightning.problems.metrics import relative_error
from dop_lightning.problems.noise import GrossOutliers
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream
from tests.suites.operator import Measurements
from tests.suites.part import BATCHING, assert_same_bits, draw

EXACT = {"rtol": 1e-11, "atol": 1e-11}

# Starts that are not small, so that a few iterations show every term.
LargeSymmetric = partial(SymmetricFactor, rank=3, scale=0.5)
LargeFactor = partial(Factor, rank=3, scale=0.5)
LargeCorruption = partial(HadamardCorruption, scale=0.5, tied=False)
SmallUNet = partial(SkipUNet, width=4, scales=2, input_channels=4, precision="fp32")


def matrices(K: int, *shape: int, masked: bool = False, dtype: torch.dtype = torch.float64) -> ProblemBatch:
    def mask(k: int) -> Tensor | None:
        return draw(k + 60, shape) > -0.5 if masked else None

    return ProblemBatch([Problem(f"{k}", draw(k + 1, shape, dtype), mask=mask(k), seed=k) for k in range(K)])


def images(K: int, *shape: int, masked: bool = False, dtype: torch.dtype = torch.float32) -> ProblemBatch:
    def mask(k: int) -> Tensor | None:
        return draw(k + 60, shape) > -0.5 if masked else None

    return ProblemBatch(
        [
            Problem(f"{k}", torch.rand(shape, dtype=dtype, generator=stream(k, "truth")), mask=mask(k), seed=k)
            for k in range(K)
        ]
    )


def robust_pca(n: int, r: int, p: float, seeds: Sequence[int], dtype: torch.dtype = torch.float32) -> ProblemBatch:
    """The problem of section 4.1."""
    problems = []
    for seed in seeds:
        U = torch.randn(n, r, dtype=dtype, generator=stream(seed, "truth"))
        corrupted = GrossOutliers(p).corrupt(U @ U.T, stream(seed, "corruption"))
        problems.append(
            Problem(f"{seed}", corrupted.observation, U @ U.T, true_corruption=corrupted.corruption, seed=seed)
        )
    return ProblemBatch(problems)


def states(state: BatchState) -> list[dict[str, Tensor]]:
    """All that each problem consists of, flat."""
    flat = []
    for k in range(len(state)):
        saved = state.problem_state(k)
        found = {f"{kind}.{name}": p for kind in ("signal", "corruption") for name, p in saved[kind].items()}
        for number, optimizer in enumerate(saved["optimizers"]):
            for name, of_parameter in optimizer.items():
                found |= {f"{number}.{name}.{key}": torch.as_tensor(v) for key, v in of_parameter.items()}
        flat.append(found)
    return flat


def assert_same_states(one: BatchState, other: BatchState) -> None:
    assert one.iteration == other.iteration
    for mine, theirs in zip(states(one), states(other), strict=True):
        assert_same_bits(mine, theirs)


def assert_close_states(one: dict[str, Tensor], other: dict[str, Tensor], **tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


# ------------------------------------------------------------------------------------------ the equations, literally


def descend(f: Callable[..., Tensor], unknowns: list[Tensor], rates: list[float], steps: int) -> list[Tensor]:
    """Gradient descent by autograd, all unknowns from the same point."""
    for _ in range(steps):
        unknowns = [u.detach().requires_grad_() for u in unknowns]
        gradients = torch.autograd.grad(f(*unknowns), unknowns)
        unknowns = [u.detach() - rate * d for u, rate, d in zip(unknowns, rates, gradients, strict=True)]
    return unknowns


@pytest.mark.parametrize("masked", [False, True])
def test_symmetric_iteration_is_gradient_descent_on_equation_3(masked: bool) -> None:
    problems, tau, alpha = matrices(2, 6, 6, masked=masked), 0.02, 1.7
    state = BatchState(Method(LargeSymmetric, LargeCorruption), problems, tau, alpha)
    starts = states(state)
    assert state.advance(5) == []
    for start, end, problem in zip(starts, states(state), problems, strict=True):
        y = problem.observation
        M = torch.ones_like(y) if problem.mask is None else problem.mask.to(y)

        def f(U: Tensor, g: Tensor, h: Tensor, y: Tensor = y, M: Tensor = M) -> Tensor:
            return (M * (U @ U.T) + g * g - h * h - y).square().sum() / 4

        found = descend(
            f,
            [start["signal.U"], start["corruption.g"], start["corruption.h"]],
            [tau, alpha * tau, alpha * tau],
            steps=5,
        )
        for expected, name in zip(found, ("signal.U", "corruption.g", "corruption.h"), strict=True):
            torch.testing.assert_close(end[name], expected, **EXACT)
            assert not torch.allclose(end[name], start[name], atol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(6, 6), (5, 8), (8, 5)])
def test_rectangular_iteration_is_gradient_descent_at_twice_the_rate(shape: tuple[int, int], masked: bool) -> None:
    problems, tau, alpha = matrices(2, *shape, masked=masked), 0.02, 1.7
    state = BatchState(Method(LargeFactor, LargeCorruption), problems, tau, alpha)
    starts = states(state)
    assert state.advance(5) == []
    for start, end, problem in zip(starts, states(state), problems, strict=True):
        y = problem.observation
        M = torch.ones_like(y) if problem.mask is None else problem.mask.to(y)

        def f(U: Tensor, V: Tensor, g: Tensor, h: Tensor, y: Tensor = y, M: Tensor = M) -> Tensor:
            return (M * (U @ V.T) + g * g - h * h - y).square().sum() / 4

        names = ("signal.U", "signal.V", "corruption.g", "corruption.h")
        found = descend(f, [start[n] for n in names], [2 * tau, 2 * tau, alpha * tau, alpha * tau], steps=5)
        for expected, name in zip(found, names, strict=True):
            torch.testing.assert_close(end[name], expected, **EXACT)


def test_iteration_is_equation_6() -> None:
    """As it is printed, A*(r)U: with r symmetric, which symmetric observations and starts of g and h make it."""
    n, tau, alpha = 6, 0.02, 1.7
    A = draw(1, (n, n))
    problems = ProblemBatch([Problem("a", A + A.T)])
    state = BatchState(Method(LargeSymmetric, LargeCorruption), problems, tau, alpha)
    U, g, h = draw(2, (n, 3)), draw(3, (n, n)), draw(4, (n, n))
    U, g, h = 0.5 * U, 0.3 * (g + g.T), 0.3 * (h + h.T)
    state.load_problem_state(0, {**state.problem_state(0), "signal": {"U": U}, "corruption": {"g": g, "h": h}})
    state.advance(4)
    for _ in range(4):
        r = U @ U.T + g * g - h * h - problems.observation[0]
        U, g, h = U - tau * r @ U, g - alpha * tau * r * g, h + alpha * tau * r * h
    (end,) = states(state)
    assert_close_states(end, {"signal.U": U, "corruption.g": g, "corruption.h": h}, **EXACT)


@pytest.mark.parametrize("by_gradients", [False, True])
@pytest.mark.parametrize("signal", [LargeSymmetric, LargeFactor])
def test_iteration_with_measurements_of_another_shape(signal, by_gradients: bool) -> None:
    """Eq. 3 with a general linear A, m numbers of an n×n matrix; with θ's steps in closed form, or by an optimizer."""
    y = [draw(k + 1, (9,)) for k in range(2)]
    problems = ProblemBatch([Problem(f"{k}", y[k], signal_shape=(4, 4), seed=k) for k in range(2)])
    tau, alpha = 0.002, 3.0
    theta = 2 * tau if signal is LargeFactor else tau
    optimizer = partial(torch.optim.SGD, lr=theta) if by_gradients else None
    method = Method(signal, LargeCorruption, operator=Measurements, theta_optimizer=optimizer)
    state = BatchState(method, problems, tau, alpha)
    A = deepcopy(state.operator)
    starts = states(state)
    state.advance(4)
    for k, (start, end) in enumerate(zip(starts, states(state), strict=True)):

        def f(*unknowns: Tensor, k: int = k) -> Tensor:
            U, V, g, h = unknowns if len(unknowns) == 4 else (unknowns[0], *unknowns)
            return ((A.A[k] @ (U @ V.T).flatten()) + g * g - h * h - y[k]).square().sum() / 4

        rates = [theta if name.startswith("signal") else alpha * tau for name in start]
        found = descend(f, list(start.values()), rates, steps=4)
        assert_close_states(end, dict(zip(start, found, strict=True)), **EXACT)


@pytest.mark.parametrize(("reduction", "weight"), [("quarter", 1 / 4), ("half", 1 / 2), ("sum", 1.0), ("mean", 1 / 36)])
def test_iteration_of_every_reduction(reduction, weight: float) -> None:
    problems, tau, alpha = matrices(1, 6, 6), 0.02, 1.7
    method = Method(LargeSymmetric, LargeCorruption, loss=SquaredLoss(reduction))
    state = BatchState(method, problems, tau, alpha)
    (start,) = states(state)
    state.advance(3)

    def f(U: Tensor, g: Tensor, h: Tensor) -> Tensor:
        return weight * (U @ U.T + g * g - h * h - problems.observation[0]).square().sum()

    found = descend(f, list(start.values()), [tau, alpha * tau, alpha * tau], steps=3)
    assert_close_states(states(state)[0], dict(zip(start, found, strict=True)), **EXACT)


def test_factorisation_descends_along_the_subgradient_of_the_absolute_loss() -> None:
    """MF-ℓ1, Eq. 2: U ← U − τ·(sign(R) + sign(R)ᵀ)U, and no corruption."""
    problems, tau = matrices(2, 6, 6), 0.01
    state = BatchState(Method(LargeSymmetric, corruption=None, loss=AbsoluteLoss()), problems, tau)
    expected = [start["signal.U"] for start in states(state)]
    state.advance(5)
    for k, (U, end) in enumerate(zip(expected, states(state), strict=True)):
        for _ in range(5):
            sign = (U @ U.T - problems.observation[k]).sign()
            U = U - tau * (sign + sign.T) @ U
        assert_close_states(end, {"signal.U": U}, **EXACT)
    assert torch.equal(state.evaluate().corruption, torch.zeros(2, 6, 6, dtype=torch.float64))
    assert not state.has_corruption


@pytest.mark.parametrize("masked", [False, True])
def test_image_iteration_is_gradient_descent_on_the_mean_of_squares(masked: bool) -> None:
    """The authors' code for Eq. 9: a fresh perturbation in each iteration, N counts all entries."""
    problems, tau, alpha = images(2, 3, 10, 7, masked=masked, dtype=torch.float64), 0.1, 30.0
    state = BatchState(Method(SmallUNet, LargeCorruption, loss=SquaredLoss("mean")), problems, tau, alpha)
    net, g, h = deepcopy(state.signal), deepcopy(state.corruption.g), deepcopy(state.corruption.h)
    assert state.advance(3) == []
    M = torch.ones_like(problems.observation) if problems.mask is None else problems.mask
    optimizer = torch.optim.SGD([{"params": net.parameters(), "lr": tau}, {"params": [g, h], "lr": alpha * tau}])
    for iteration in range(3):
        optimizer.zero_grad()
        r = M * net(iteration) + g * g - h * h - problems.observation
        sum(r[k].square().mean() for k in range(2)).backward()  # type: ignore[union-attr]
        optimizer.step()
    torch.testing.assert_close(state.corruption.g, g, **BATCHING)
    torch.testing.assert_close(state.corruption.h, h, **BATCHING)
    for (name, ours), (_, theirs) in zip(state.signal.named_parameters(), net.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=name)


def test_gradient_of_the_image_corruption_is_4_r_g_over_N() -> None:
    problems, tau, alpha = images(1, 3, 8, 8, dtype=torch.float64), 0.1, 30.0
    state = BatchState(Method(SmallUNet, LargeCorruption, loss=SquaredLoss("mean")), problems, tau, alpha)
    g, h = (p.detach().clone() for p in (state.corruption.g, state.corruption.h))
    with torch.no_grad():
        r = state.signal(0) + g * g - h * h - problems.observation
    state.advance(1)
    torch.testing.assert_close(state.corruption.g.detach(), g - alpha * tau * 4 * r * g / (3 * 8 * 8), **EXACT)
    torch.testing.assert_close(state.corruption.h.detach(), h + alpha * tau * 4 * r * h / (3 * 8 * 8), **EXACT)


def test_theta_optimizer_leaves_the_corruption_to_gradient_descent() -> None:
    problems, tau, alpha = matrices(2, 5, 5), 0.02, 1.7
    adam = partial(torch.optim.Adam, lr=0.01)
    state = BatchState(Method(LargeSymmetric, LargeCorruption, theta_optimizer=adam), problems, tau, alpha)
    U, g, h = (deepcopy(p) for p in (state.signal.U, state.corruption.g, state.corruption.h))
    state.advance(6)
    both = adam([U]), torch.optim.SGD([g, h], lr=alpha * tau)
    for _ in range(6):
        for optimizer in both:
            optimizer.zero_grad()
        ((U @ U.mT + g * g - h * h - problems.observation).square().sum() / 4).backward()
        for optimizer in both:
            optimizer.step()
    torch.testing.assert_close(state.signal.U, U, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state.corruption.g, g, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state.corruption.h, h, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------- blocks and evaluations

MATRIX = Method(partial(SymmetricFactor, rank=3, scale=0.1), partial(HadamardCorruption, scale=0.1))
IMAGE = Method(SmallUNet, partial(HadamardCorruption, scale=0.1, tied=False), loss=SquaredLoss("mean"))
ADAM = partial(torch.optim.Adam, lr=0.01)


def make_matrix(K: int = 3, **options) -> BatchState:
    problems = robust_pca(12, 2, 0.1, seeds=range(K))
    return BatchState(Method(MATRIX.signal, MATRIX.corruption, **options), problems, 2e-3)


def make_masked_matrix(K: int = 3) -> BatchState:
    method = Method(partial(Factor, rank=3, scale=0.1), MATRIX.corruption)
    return BatchState(method, matrices(K, 7, 5, masked=True, dtype=torch.float32), 0.02)


def make_image(K: int = 2, **options) -> BatchState:
    method = Method(IMAGE.signal, IMAGE.corruption, loss=IMAGE.loss, **options)
    return BatchState(method, images(K, 3, 9, 12), 0.5, 40.0)


MAKERS: dict[str, Callable[[], BatchState]] = {
    "matrix": make_matrix,
    "masked matrix": make_masked_matrix,
    "matrix by Adam": partial(make_matrix, theta_optimizer=ADAM),
    "matrix by momentum": partial(make_matrix, theta_optimizer=partial(torch.optim.SGD, lr=1e-4, momentum=0.9)),
    "image": make_image,
    "image by Adam": partial(make_image, theta_optimizer=ADAM),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], BatchState]:
    return MAKERS[request.param]


def test_length_of_the_blocks_does_not_matter(make: Callable[[], BatchState]) -> None:
    whole, single, uneven = make(), make(), make()
    whole.advance(60)
    for _ in range(60):
        single.advance(1)
    uneven.advance(7)
    uneven.advance(0)
    uneven.advance(53)
    assert whole.iteration == 60
    assert_same_states(whole, single)
    assert_same_states(whole, uneven)


def test_running_twice_gives_the_same_bits(make: Callable[[], BatchState]) -> None:
    one, other = make(), make()
    one.advance(10)
    torch.rand(3)
    other.advance(10)
    assert_same_states(one, other)


def test_global_generator_is_not_used(make: Callable[[], BatchState]) -> None:
    before = torch.get_rng_state()
    state = make()
    state.advance(2)
    state.evaluate()
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_does_not_change_the_state(make: Callable[[], BatchState]) -> None:
    looked, blind = make(), make()
    for _ in range(3):
        looked.advance(5)
        first, second = looked.evaluate(), looked.evaluate()
        assert torch.equal(first.signal, second.signal)
        assert torch.equal(first.loss, second.loss)
    blind.advance(15)
    assert_same_states(looked, blind)


def test_evaluation_equals_the_next_iteration(make: Callable[[], BatchState]) -> None:
    state = make()
    state.advance(5)
    evaluation = state.evaluate()
    assert evaluation.iteration == 5
    assert evaluation.signal.shape == (len(state), *state.problems.signal_shape)
    assert evaluation.corruption.shape == state.problems.observation.shape
    assert evaluation.loss.shape == (len(state),)
    assert not evaluation.signal.requires_grad
    with torch.no_grad():
        assert torch.equal(evaluation.signal, state.signal(5))
        assert torch.equal(evaluation.corruption, state.corruption.value())
        residual = state.residual(torch.empty_like(state.problems.observation), 5)
        torch.testing.assert_close(evaluation.loss, state.loss.value(residual), rtol=1e-5, atol=1e-6)


def test_evaluation_is_not_changed_by_later_iterations(make: Callable[[], BatchState]) -> None:
    state = make()
    evaluation = state.evaluate()
    kept = evaluation.signal.clone(), evaluation.corruption.clone(), evaluation.loss.clone()
    state.advance(3)
    for now, then in zip((evaluation.signal, evaluation.corruption, evaluation.loss), kept, strict=True):
        assert torch.equal(now, then)


def test_loss_falls() -> None:
    state = make_matrix()
    losses = [state.evaluate().loss]
    for _ in range(4):
        state.advance(100)
        losses.append(state.evaluate().loss)
    for before, after in pairwise(losses):
        assert (after < before).all()


def test_residual_is_0_at_unobserved_entries() -> None:
    state = make_masked_matrix()
    state.advance(5)
    with torch.no_grad():
        r = state.residual(torch.empty_like(state.problems.observation), state.iteration)
    assert state.problems.mask is not None
    assert (r[~state.problems.mask] == 0).all()
    assert (r[state.problems.mask] != 0).all()


def test_unobserved_values_do_not_matter() -> None:
    mask = draw(60, (7, 5)) > -0.5
    results = []
    for garbage in (0.0, 1e6, float("nan")):
        y = torch.where(mask, draw(1, (7, 5)), torch.full((7, 5), garbage, dtype=torch.float64))
        state = BatchState(Method(Factor), ProblemBatch([Problem("a", y, mask=mask)]), 0.01)
        state.advance(20)
        results.append(states(state)[0])
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


@pytest.mark.parametrize("iterations", [-1, -5])
def test_iterations_are_checked(iterations: int) -> None:
    with pytest.raises(ValueError, match="iterations must be a whole number of at least 0"):
        make_matrix(1).advance(iterations)


# ------------------------------------------------------------------------------------- problems do not know each other


def alone(state: BatchState, k: int, method: Method) -> BatchState:
    return BatchState(method, state.problems.select([k]), state.tau[k], state.alpha[k])


@pytest.mark.parametrize(
    ("method", "problems", "alpha"),
    [
        (Method(LargeSymmetric, LargeCorruption), matrices(3, 6, 6), 2.0),
        (Method(LargeFactor, LargeCorruption), matrices(3, 6, 4, masked=True), 2.0),
        (Method(LargeSymmetric, None, loss=AbsoluteLoss("mean")), matrices(3, 6, 6), 2.0),
        (
            Method(SmallUNet, LargeCorruption, loss=SquaredLoss("mean")),
            images(3, 3, 9, 12, dtype=torch.float64),
            30.0,
        ),
    ],
    ids=["symmetric", "masked factor", "absolute", "image"],
)
def test_one_gradient_of_a_batch_agrees_with_those_of_its_problems(
    method: Method, problems: ProblemBatch, alpha: float
) -> None:
    together = BatchState(method, problems, 0.01, alpha)
    together.advance(1)
    for k in range(3):
        state = alone(together, k, method)
        state.advance(1)
        assert_close_states(states(together)[k], states(state)[0], **BATCHING)


def test_results_of_matrices_do_not_depend_on_batching() -> None:
    method, problems = Method(SymmetricFactor), robust_pca(20, 2, 0.1, seeds=range(3))
    together = BatchState(method, problems, 2e-3)
    together.advance(800)
    X = together.evaluate().signal
    for k in range(3):
        state = alone(together, k, method)
        state.advance(800)
        assert float(relative_error(state.evaluate().signal, X[k : k + 1])) < 1e-4


@pytest.mark.parametrize("kind", ["symmetric", "factor", "image", "no corruption"])
def test_separate_rates_equal_separate_runs(kind: str) -> None:
    method, problems = {
        "symmetric": (Method(LargeSymmetric, LargeCorruption), matrices(3, 6, 6)),
        "factor": (Method(LargeFactor, LargeCorruption), matrices(3, 6, 4)),
        "no corruption": (Method(LargeSymmetric, None), matrices(3, 6, 6)),
        "image": (
            Method(SmallUNet, LargeCorruption, loss=SquaredLoss("mean")),
            images(3, 1, 8, 8, dtype=torch.float64),
        ),
    }[kind]
    taus, alphas = [0.01, 0.003, 0.02], [1.0, 3.0, 0.5]
    together = BatchState(method, problems, taus, alphas)
    assert (together.tau, together.alpha) == (taus, alphas)
    steps = 4 if kind == "image" else 20
    assert together.advance(steps) == []
    for k in range(3):
        state = BatchState(method, problems.select([k]), taus[k], alphas[k])
        state.advance(steps)
        assert_close_states(states(together)[k], states(state)[0], rtol=1e-9, atol=1e-9)


def test_rates_change_the_result() -> None:
    """The lists do reach the problems: the same seed with the same observation, three pairs of rates."""
    y = draw(1, (6, 6))
    problems = ProblemBatch([Problem(f"{k}", y) for k in range(3)])
    state = BatchState(Method(LargeSymmetric, LargeCorruption), problems, [0.01, 0.02, 0.01], [1.0, 1.0, 2.0])
    state.advance(3)
    one, tau, alpha = states(state)
    assert not torch.allclose(one["signal.U"], tau["signal.U"], rtol=1e-3)
    assert not torch.allclose(one["corruption.g"], tau["corruption.g"], rtol=1e-3)
    assert not torch.allclose(one["corruption.g"], alpha["corruption.g"], rtol=1e-3)


# ---------------------------------------------------------------------------------------------------------- divergence

DIVERGING: dict[str, Callable[[float], BatchState]] = {
    "symmetric": lambda tau: BatchState(
        Method(LargeSymmetric, LargeCorruption), matrices(3, 6, 6), [0.01, tau, 0.01], 2.0
    ),
    "factor": lambda tau: BatchState(
        Method(LargeFactor, LargeCorruption), matrices(3, 6, 4, masked=True), [0.01, tau, 0.01], 2.0
    ),
    "no corruption": lambda tau: BatchState(Method(LargeSymmetric, None), matrices(3, 6, 6), [0.01, tau, 0.01], 2.0),
    "image": lambda tau: BatchState(IMAGE, images(3, 1, 8, 8), [0.5, tau, 0.5], 10.0),
}


@pytest.mark.parametrize("kind", DIVERGING)
def test_diverging_problem_is_restored_and_others_continue(kind: str) -> None:
    calm, wild = DIVERGING[kind](0.02), DIVERGING[kind](1e20)
    before = states(wild)
    assert calm.advance(30) == []
    assert wild.advance(30) == [1]
    assert wild.iteration == 30
    assert_same_bits(states(wild)[1], before[1])
    for k in (0, 2):
        assert_same_bits(states(wild)[k], states(calm)[k])
        assert all(torch.isfinite(tensor).all() for tensor in states(wild)[k].values())


def test_diverged_problem_returns_to_the_start_of_its_block() -> None:
    """After blocks in which all went well."""
    state = DIVERGING["symmetric"](0.02)
    state.advance(10)
    before = states(state)
    with torch.no_grad():
        state.corruption.g[2, 0, 0] = 1e200
    poisoned = states(state)[2]
    assert state.advance(5) == [2]
    assert_same_bits(states(state)[2], poisoned)
    assert not torch.equal(states(state)[0]["signal.U"], before[0]["signal.U"])


def test_all_may_diverge() -> None:
    problems = matrices(2, 6, 6)
    state = BatchState(Method(LargeSymmetric, LargeCorruption), problems, 1e9)
    before = states(state)
    assert state.advance(50) == [0, 1]
    for k in range(2):
        assert_same_bits(states(state)[k], before[k])


def test_last_step_is_checked_too() -> None:
    """A loss that was still finite does not save parameters that no longer are."""
    method, problems = Method(LargeSymmetric, LargeCorruption), matrices(2, 6, 6)
    state = BatchState(method, problems, [1.0, 1e306], 1e-300)
    assert state.advance(1) == [1]
    state = BatchState(method, problems, 1.0, [1.0, 1e306])
    assert state.advance(1) == [1]


@pytest.mark.parametrize(
    ("method", "tau"),
    [
        (Method(LargeFactor, None), 2.0),
        (Method(LargeSymmetric, None), 2.0),
        (Method(HadamardSignal, None), 1.0),
        (Method(Coordinates, HadamardCorruption), 0.6),
        (Method(Coordinates, HyperbolicCorruption), 0.3),
        (Method(partial(NetworkSignal, network=lambda _: Deep(), input=torch.ones(6, 4)), None), 0.6),
    ],
)
def test_results_are_finite_at_any_stop(method: Method, tau: float) -> None:
    """Products of parameters overflow before the parameters do, and the loss before the last step is too early."""
    for iterations in range(1, 20):
        state = BatchState(method, matrices(1, 6, 6, dtype=torch.float32), tau, 30.0)
        state.advance(iterations)
        evaluation = state.evaluate()
        assert evaluation.signal.isfinite().all()
        assert evaluation.corruption.isfinite().all()


class Deep(nn.Sequential):
    """Two layers, whose weights are multiplied."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 6), nn.Linear(6, 6))


def test_nonfinite_loss_is_divergence() -> None:
    """Even if all parameters are finite: g∘g overflows."""
    state = BatchState(Method(LargeSymmetric, LargeCorruption), matrices(2, 6, 6), 1e-200, 1.0)
    with torch.no_grad():
        state.corruption.g[1, 0, 0] = 1e100
    assert state.corruption.finite(2).all()
    assert state.advance(1) == [1]


MOMENTUM = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)


def poison_second(optimizer: Callable) -> tuple[BatchState, BatchState]:
    """A batch after five iterations, and the same whose second problem is about to diverge."""
    method = Method(LargeSymmetric, LargeCorruption, theta_optimizer=optimizer)
    calm, wild = (BatchState(method, matrices(3, 6, 6), [0.01, 0.02, 0.01], 2.0) for _ in range(2))
    calm.advance(5)
    wild.advance(5)
    with torch.no_grad():
        wild.corruption.h[1, 0, 0] = 1e200
    return calm, wild


@pytest.mark.parametrize("optimizer", [ADAM, MOMENTUM], ids=["Adam", "momentum"])
def test_divergence_with_another_optimizer_does_not_affect_others(optimizer: Callable) -> None:
    calm, wild = poison_second(optimizer)
    before = wild.signal.problem_state(1)
    assert calm.advance(5) == []
    assert wild.advance(5) == [1]
    assert_same_bits(wild.signal.problem_state(1), before)
    for k in (0, 2):
        assert_same_bits(states(wild)[k], states(calm)[k])


@pytest.mark.parametrize("optimizer", [ADAM, MOMENTUM], ids=["Adam", "momentum"])
def test_optimizer_state_of_a_diverged_problem_is_restored(optimizer: Callable) -> None:
    _, state = poison_second(optimizer)
    before = states(state)[1]
    assert state.advance(5) == [1]
    after = states(state)[1]
    # Adam's count of steps is one for the whole stack: it is that of the problems that continued
    assert_same_bits(*({k: v for k, v in of.items() if not k.endswith(".step")} for of in (after, before)))


# ------------------------------------------------------------------------------------------------------ states, select


def test_state_resumes_elsewhere_bit_for_bit(make: Callable[[], BatchState]) -> None:
    whole, first, second = make(), make(), make()
    whole.advance(25)
    first.advance(10)
    for k in range(len(first)):
        second.load_problem_state(k, first.problem_state(k))
    second.iteration = first.problem_state(0)["iteration"]
    second.advance(15)
    assert_same_states(second, whole)


def test_state_survives_a_file(make: Callable[[], BatchState], tmp_path) -> None:
    whole, first, second = make(), make(), make()
    whole.advance(12)
    first.advance(5)
    for k in range(len(first)):
        torch.save(first.problem_state(k), tmp_path / f"{k}.pt")
        second.load_problem_state(k, torch.load(tmp_path / f"{k}.pt", weights_only=True))
    second.iteration = 5
    second.advance(7)
    assert_same_states(second, whole)


def test_state_is_a_copy(make: Callable[[], BatchState]) -> None:
    state = make()
    state.advance(3)
    before = states(state)
    kept = [{name: tensor.clone() for name, tensor in of.items()} for of in before]
    state.advance(3)
    for then, now in zip(kept, before, strict=True):
        assert_same_bits(then, now)


def test_selecting_all_continues_bit_for_bit(make: Callable[[], BatchState]) -> None:
    whole, part = make(), make()
    whole.advance(25)
    part.advance(10)
    part = part.select(range(len(part)))
    assert part.iteration == 10
    part.advance(15)
    assert_same_states(part, whole)


@pytest.mark.parametrize(
    "make",
    [make_image, partial(make_image, theta_optimizer=ADAM)],
    ids=["image", "image by Adam"],
)
def test_selected_images_continue_bit_for_bit(make: Callable[..., BatchState]) -> None:
    """Each network is its own, so that not even the rounding depends on the batch."""
    whole = make(3)
    whole.advance(10)
    part = whole.select([2, 0])
    assert part.problems.names == ["2", "0"]
    part.advance(5)
    whole.advance(5)
    assert_same_bits(states(part)[0], states(whole)[2])
    assert_same_bits(states(part)[1], states(whole)[0])


@pytest.mark.parametrize(
    "make",
    [make_matrix, make_masked_matrix, partial(make_matrix, theta_optimizer=ADAM)],
    ids=["plain", "masked", "Adam"],
)
def test_selected_matrices_continue(make: Callable[..., BatchState]) -> None:
    whole = make(4)
    whole.advance(100)
    part = whole.select([3, 1])
    assert_same_bits(states(part)[0], states(whole)[3])
    assert_same_bits(states(part)[1], states(whole)[1])
    part.advance(20)
    whole.advance(20)
    assert_close_states(states(part)[0], states(whole)[3], rtol=1e-4, atol=1e-5)
    assert_close_states(states(part)[1], states(whole)[1], rtol=1e-4, atol=1e-5)


def test_selection_keeps_the_rates() -> None:
    method, problems = Method(LargeSymmetric, LargeCorruption), matrices(3, 6, 6)
    whole = BatchState(method, problems, [0.01, 0.003, 0.02], [1.0, 3.0, 0.5])
    whole.advance(5)
    part = whole.select([2, 1])
    assert (part.tau, part.alpha) == ([0.02, 0.003], [0.5, 3.0])
    part.advance(5)
    whole.advance(5)
    assert_close_states(states(part)[0], states(whole)[2], **BATCHING)
    assert_close_states(states(part)[1], states(whole)[1], **BATCHING)


def test_selection_does_not_change_its_source() -> None:
    whole, untouched = make_matrix(), make_matrix()
    whole.advance(10)
    untouched.advance(10)
    whole.select([1]).advance(10)
    assert_same_states(whole, untouched)


def other_methods(kind: str) -> tuple[BatchState, BatchState]:
    """A state, and one of another method that it must not take."""
    problems = make_matrix().problems
    full, bare = make_matrix(), BatchState(Method(MATRIX.signal, None), problems, 1e-3)
    both_factors = BatchState(Method(partial(Factor, rank=3)), problems, 1e-3)
    return {
        "rank": (full, BatchState(Method(partial(SymmetricFactor, rank=2)), problems, 1e-3)),
        "optimizers": (full, make_matrix(theta_optimizer=ADAM)),
        "corruption is missing": (full, bare),
        "corruption is too much": (bare, full),
        "factor is missing": (both_factors, full),
        "factor is too much": (full, both_factors),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "rank",
        "optimizers",
        "corruption is missing",
        "factor is missing",
        "corruption is too much",
        "factor is too much",
    ],
)
def test_state_of_another_method_is_refused(kind: str) -> None:
    state, other = other_methods(kind)
    with pytest.raises(ValueError, match="state"):
        state.load_problem_state(0, other.problem_state(0))


# --------------------------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize("name", ["tau", "alpha"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), [1.0, 0.0]])
def test_rates_are_checked(name: str, value) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number above 0"):
        BatchState(MATRIX, matrices(2, 4, 4), **{"tau": 1.0, "alpha": 1.0, name: value})


@pytest.mark.parametrize("name", ["tau", "alpha"])
@pytest.mark.parametrize("value", [[], [1.0], [1.0, 1.0, 1.0]])
def test_number_of_rates_is_checked(name: str, value: list[float]) -> None:
    with pytest.raises(
        ValueError, match=rf"{name} must be one number, or one per problem \(2\), got {len(value)} numbers"
    ):
        BatchState(MATRIX, matrices(2, 4, 4), **{"tau": 1.0, "alpha": 1.0, name: value})


@pytest.mark.parametrize(("tau", "alpha"), [(1e38, 1.0), (1e20, 1e20), ([1.0, 1e20], 1e20)])
def test_rates_outside_the_dtype_are_refused(tau, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"[01]: tau and alpha·tau must be at most 2.13e\+37"):
        BatchState(MATRIX, matrices(2, 4, 4, dtype=torch.float32), tau, alpha)


def test_optimizer_that_needs_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="theta_optimizer must not require a closure, got LBFGS"):
        BatchState(Method(LargeFactor, theta_optimizer=torch.optim.LBFGS), matrices(1, 4, 4), 1.0, 1.0)


def test_groups_of_the_optimizer() -> None:
    state = BatchState(Method(Factor), matrices(2, 4, 9), [0.1, 0.2])
    (optimizer,) = state.optimizers
    theta, corruption = optimizer.param_groups
    assert [theta["name"], corruption["name"]] == ["theta", "corruption"]
    assert [p is q for p, q in zip(theta["params"], state.signal.parameters(), strict=True)] == [True, True]
    assert theta["lr"] == 0.1
    assert corruption["lr"] == pytest.approx(0.3)
    state = BatchState(Method(Factor, theta_optimizer=ADAM), matrices(2, 4, 9), 0.1)
    first, second = state.optimizers
    assert isinstance(first, torch.optim.Adam)
    assert [group["name"] for group in second.param_groups] == ["corruption"]
    assert len(BatchState(Method(Factor, None, theta_optimizer=ADAM), matrices(2, 4, 9), 0.1).optimizers) == 1


# ------------------------------------------------------------------------------------------------------------ recovery


@pytest.mark.parametrize(("signal", "p"), [(SymmetricFactor, 0.1), (Factor, 0.05)])
def test_robust_pca_is_solved(signal: type[Signal], p: float) -> None:
    """Section 4.1 at a small size, with 20 times the paper's step and a twentieth of its iterations."""
    problems = robust_pca(30, 2, p, seeds=range(4))
    state = BatchState(Method(signal), problems, tau=2e-3)
    assert state.alpha == [30**0.5] * 4
    assert state.advance(1000) == []
    evaluation = state.evaluate()
    truth = torch.stack([p.truth for p in problems if p.truth is not None])
    corruption = torch.stack([p.true_corruption for p in problems if p.true_corruption is not None])
    assert (relative_error(evaluation.signal, truth) < 0.1).all()
    assert (relative_error(evaluation.corruption, corruption) < 0.1).all()


def test_factorisation_without_corruption_fails() -> None:
    problems = robust_pca(30, 2, 0.1, seeds=[0])
    state = BatchState(Method(SymmetricFactor, None), problems, tau=2e-3)
    state.advance(1000)
    assert problems[0].truth is not None
    assert float(relative_error(state.evaluate().signal, problems[0].truth[None])) > 0.5


# -------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_restores_the_batch(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    state = BatchState(IMAGE, images(2, 3, 9, 12), 0.5, 20.0)
    state.advance(3)
    before = [state.problem_state(k) for k in range(2)]
    forward = SkipUNet.forward

    def fails(self: SkipUNet, iteration: int = 0) -> Tensor:
        if iteration == 5:
            raise error
        return forward(self, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(SkipUNet, "forward", fails)
        with pytest.raises(OutOfMemoryError, match=r"out of memory with 2 problems of shape \(3, 9, 12\)"):
            state.advance(4)
    assert state.iteration == 3
    for k in range(2):
        assert_same_bits(before[k]["signal"], state.problem_state(k)["signal"])
        assert_same_bits(before[k]["corruption"], state.problem_state(k)["corruption"])
    assert state.advance(4) == []


def test_other_errors_are_not_mistaken_for_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: SkipUNet, iteration: int = 0) -> Tensor:
        raise RuntimeError("shapes do not match")

    state = BatchState(IMAGE, images(1, 3, 9, 12), 0.5, 20.0)
    monkeypatch.setattr(SkipUNet, "forward", fails)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        state.advance(1)
