"""Iterations as a graph: which ones are captured and replayed, and that they equal those of an eager run.

The replays of most tests call the function again, on the CPU; only the last tests require a GPU.
"""

import gc
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.engine import graphs
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.graphs import MIN_REPLAYS, WARM_UP, Replay, Work
from dop_lightning.engine.method import Method
from dop_lightning.engine.optim import capturable
from dop_lightning.engine.optim.discrepant_sgd import DiscrepantSGD
from dop_lightning.engine.state import OutOfMemoryError
from dop_lightning.engine.steps import GradientDescent, Refinement, StepRule
from dop_lightning.engine.steps.network_loop import NetworkLoop
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.operators import Identity
from dop_lightning.model.signals import NetworkSignal, SkipUNet
from dop_lightning.problems.noise import SaltAndPepper
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream
from tests.suites.part import assert_same_bits, draw

ADAM = partial(torch.optim.Adam, lr=0.01)
HADAMARD = partial(HadamardCorruption, scale=1e-3, tied=False)
NETWORK = partial(SkipUNet, width=4, scales=2, input_channels=3, precision="fp32")


class Backend:
    """Replays by calling the work that it captured, and notes what it was asked for."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.done: list[str] = []

    def run(self, work: Work) -> None:
        self.done.append("run")
        work()

    def capture(self, work: Work) -> Work:
        self.done.append("capture")
        if self.failure is not None:
            raise self.failure

        state, i = work.args  # type: ignore[attr-defined]

        def replay() -> None:
            """All that Python decides is as it was in the capture: the array of the input is read, not its number."""
            self.done.append("replay")
            signal = state.signal
            before, signal._prepared_for = signal._prepared_for, i
            work()
            signal._prepared_for = before

        return replay

    @property
    def iterations(self) -> list[str]:
        return [how for how in self.done if how != "capture"]


def batch(size: int = 1, side: int = 12) -> ProblemBatch:
    problems = []
    for k in range(size):
        found = SaltAndPepper(0.3).corrupt(draw(k, (3, side, side), torch.float32).sigmoid(), stream(k, "corruption"))
        problems.append(Problem(f"{k}", found.observation, seed=k, data_range=1.0))
    return ProblemBatch(problems)


def make_state(
    problems: ProblemBatch,
    steps: StepRule | None = None,
    corruption: Any = HADAMARD,
    optimizer: Any = ADAM,
    alpha: Any = 20.0,
    signal: Any = NETWORK,
    **more: Any,
) -> BatchState:
    steps = steps or GradientDescent()
    method = Method(signal, corruption, loss=SquaredLoss("mean"), theta_optimizer=optimizer, steps=steps, **more)
    return BatchState(method, problems, 0.5, alpha)


def replayed(state: BatchState, backend: Backend) -> BatchState:
    """The state, its iterations done by a backend."""
    state.loop = NetworkLoop(Replay(backend, divisible=len(state) > 1))
    return state


def note_prepared(state: BatchState, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The iterations that inputs are prepared for."""
    prepared: list[int] = []
    prepare = state.signal.prepare

    def noted(iteration: int) -> None:
        prepared.append(iteration)
        prepare(iteration)

    monkeypatch.setattr(state.signal, "prepare", noted)
    return prepared


def assert_equal(one: BatchState, other: BatchState) -> None:
    for k in range(len(one)):
        mine, theirs = one.problem_state(k), other.problem_state(k)
        assert_same_bits(mine["signal"], theirs["signal"])
        assert_same_bits(mine["corruption"], theirs["corruption"])
        assert_same_bits(mine["memory"], theirs["memory"])
        for of_mine, of_theirs in zip(mine["optimizers"], theirs["optimizers"], strict=True):
            for name in of_mine:
                assert_same_bits(of_mine[name], of_theirs[name])


REFINEMENT = partial(Refinement, revealed=2.0, every=10, patience=None)
METHODS: dict[str, dict[str, Any]] = {
    "descent": {"optimizer": None},
    "average": {"steps": GradientDescent(average=0.9)},
    "no corruption": {"corruption": None},
    "refinement": {"steps": REFINEMENT()},
    "rates": {"alpha": [20.0, 10.0], "optimizer": None},
    "still": {"signal": partial(NETWORK, perturbation=0.0)},
}


@pytest.mark.parametrize("settings", METHODS.values(), ids=METHODS.keys())
def test_replayed_iterations_equal_eager_ones(settings: dict[str, Any]) -> None:
    """Iterations of the graph use the inputs of their iteration, in one block or in several."""
    problems = batch(2)
    eager, whole, parts = (make_state(problems, **settings) for _ in range(3))
    backend = Backend()
    replayed(whole, Backend())
    replayed(parts, backend)
    for length in (1, 30, 3, 16):
        with torch.no_grad():
            losses = [state.method.steps.descend(state, length) for state in (eager, parts)]
        assert torch.equal(*losses)
        eager.iteration += length
        parts.iteration += length
    whole.advance(50)
    assert_equal(parts, eager)
    assert_equal(whole, eager)
    assert backend.done == ["run"] * WARM_UP + ["capture"] + ["replay"] * (50 - WARM_UP)


@pytest.mark.parametrize("steps", [GradientDescent(average=0.5), Refinement()])
def test_a_state_is_freed_without_the_collector_of_cycles(steps: StepRule) -> None:
    state = replayed(make_state(batch(), steps), Backend())
    state.advance(5)
    known = weakref.ref(state)
    gc.disable()
    try:
        del state
        assert known() is None  # memory of a GPU must not wait
    finally:
        gc.enable()


def test_refinement_is_replayed_across_its_switch() -> None:
    state = replayed(make_state(batch(), REFINEMENT()), Backend())
    state.advance(60)
    assert 0 < int(state.memory["refined_from"]) < 50
    assert bool(state.memory["least_error"].isfinite())


def test_inputs_are_prepared_once_for_each_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    state = replayed(make_state(batch()), Backend())
    prepared = note_prepared(state, monkeypatch)
    state.advance(25)
    state.advance(5)
    assert prepared == list(range(30))


def test_prepared_inputs_do_not_change_bits_or_addresses() -> None:
    signal, other = (NETWORK(batch(2)) for _ in range(2))
    signal.prepare(3)
    places = [z.data_ptr() for z in signal.prepared]
    assert torch.equal(signal(3), other(3))
    assert torch.equal(signal(4), other(4))
    signal.prepare(4)
    assert [z.data_ptr() for z in signal.prepared] == places
    assert torch.equal(signal(4), other(4))
    assert torch.equal(signal(3), other(3))
    signal.release()
    assert signal.prepared == ()
    assert torch.equal(signal(4), other(4))


# ------------------------------------------------------------------------------------------------ what is worth a graph


def test_short_blocks_between_releases_are_not_captured() -> None:
    """As where batches take turns."""
    backend = Backend()
    state = replayed(make_state(batch()), backend)
    for _ in range(4):
        state.advance(MIN_REPLAYS - 1)
        state.release()
    assert set(backend.done) == {"run"}


def test_short_blocks_of_a_single_batch_are_captured_eventually() -> None:
    backend = Backend()
    state = replayed(make_state(batch()), backend)
    for _ in range(MIN_REPLAYS + 3):
        state.advance(1)
    assert backend.done == ["run"] * MIN_REPLAYS + ["capture"] + ["replay"] * 3


def test_release_frees_the_graph_and_gradients() -> None:
    backend = Backend()
    state = replayed(make_state(batch()), backend)
    state.advance(30)
    assert state.loop.holds_graph
    state.release()
    assert not state.loop.holds_graph
    assert all(p.grad is None for p in state.signal.parameters())
    state.advance(30)
    assert backend.done.count("capture") == 2
    eager = make_state(batch())
    eager.advance(60)
    assert_equal(state, eager)


def moved(state: BatchState) -> None:
    for p in state.signal.parameters():
        p.data = p.data.clone()


def memory_replaced(state: BatchState) -> None:
    state.memory["average"] = state.memory["average"].clone()


def optimizer_replaced(state: BatchState) -> None:
    p = next(state.signal.parameters())
    remembered = state.optimizers[0].state[p]
    remembered["exp_avg"] = remembered["exp_avg"].clone()


def rate_changed(state: BatchState) -> None:
    state.optimizers[0].param_groups[0]["lr"] = 0.02


def inputs_let_go(state: BatchState) -> None:
    state.signal.to("cpu")


@pytest.mark.parametrize("change", [moved, memory_replaced, optimizer_replaced, rate_changed, inputs_let_go])
def test_a_graph_of_other_arrays_or_settings_is_not_replayed(change: Callable[[BatchState], None]) -> None:
    backend = Backend()
    state, eager = (make_state(batch(), GradientDescent(average=0.9)) for _ in range(2))
    replayed(state, backend)
    for each in (state, eager):
        each.advance(30)
        kept = each.signal.prepared  # so that new arrays cannot lie where the old ones were
        change(each)
        each.advance(30)
        del kept
    assert backend.done.count("capture") == 2
    assert_equal(state, eager)


def test_a_state_that_is_loaded_is_replayed_by_the_same_graph() -> None:
    """Everything is put in its place, what optimizers remember included."""
    backend = Backend()
    state, other = replayed(make_state(batch(2), REFINEMENT()), backend), make_state(batch(2), REFINEMENT())
    state.advance(30)
    other.advance(30)
    saved = [other.problem_state(k) for k in range(2)]
    state.advance(30)
    for k in range(2):
        state.load_problem_state(k, saved[k])
    state.iteration = 30
    state.advance(20)
    other.advance(20)
    assert_equal(state, other)
    assert backend.done.count("capture") == 1


def test_diverged_problem_is_restored_in_place() -> None:
    backend = Backend()
    state, other = replayed(make_state(batch(2)), backend), make_state(batch(2))
    for each in (state, other):
        each.advance(30)
        with torch.no_grad():
            each.corruption.get_parameter("g")[0] = 1e20
        assert each.advance(5) == [0]
    assert backend.done.count("capture") == 1
    assert_equal(state, other)


# --------------------------------------------------------------------------------------------------- what goes wrong


def test_failed_capture_is_reported_once_and_loses_no_iteration() -> None:
    backend = Backend(RuntimeError("operation not permitted\nwhen stream is capturing"))
    state, eager = (make_state(batch(2), GradientDescent(average=0.9)) for _ in range(2))
    replayed(state, backend)
    reason = "without a CUDA graph, more slowly: RuntimeError: operation not permitted when stream is capturing$"
    with pytest.warns(RuntimeWarning, match=reason) as told:
        state.advance(30)
    state.advance(30)
    eager.advance(60)
    assert len(told) == 1
    assert backend.done == ["run"] * WARM_UP + ["capture"]
    assert not state.loop.holds_graph
    assert_equal(state, eager)


def test_out_of_memory_in_a_capture_restores_the_batch() -> None:
    state = replayed(make_state(batch(2)), Backend(torch.OutOfMemoryError("CUDA out of memory")))
    before = [state.problem_state(k) for k in range(2)]
    with pytest.raises(OutOfMemoryError, match="out of memory with 2 problems"):
        state.advance(30)
    assert state.iteration == 0
    for k in range(2):
        assert_same_bits(before[k]["signal"], state.problem_state(k)["signal"])
        assert_same_bits(before[k]["corruption"], state.problem_state(k)["corruption"])


def test_single_problem_continues_without_a_too_large_graph() -> None:
    """It has just shown that it needs none, and cannot be divided."""
    state, eager = make_state(batch()), make_state(batch())
    replayed(state, Backend(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.warns(RuntimeWarning, match="OutOfMemoryError: CUDA out of memory"):
        state.advance(30)
    eager.advance(30)
    assert_equal(state, eager)


def test_evaluation_frees_the_graph_if_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    state = replayed(make_state(batch()), Backend())
    state.advance(30)
    expected = state.evaluate().signal
    forward = SkipUNet.forward

    def short_of_memory(self: SkipUNet, iteration: int = 0) -> Tensor:
        if state.loop.holds_graph:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, iteration)

    monkeypatch.setattr(SkipUNet, "forward", short_of_memory)
    assert torch.equal(state.evaluate().signal, expected)
    assert not state.loop.holds_graph
    monkeypatch.setattr(SkipUNet, "forward", lambda self, iteration: _raise(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(torch.OutOfMemoryError):
        state.evaluate()


def _raise(error: Exception) -> Any:
    raise error


# ------------------------------------------------------------------------------------------------ what can be captured


class Clocked(torch.optim.Adagrad):
    """Counts its steps on the host."""


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (ADAM, True),
        (partial(torch.optim.AdamW, lr=0.1), True),
        (partial(torch.optim.RMSprop, lr=0.1), True),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), True),
        (partial(DiscrepantSGD, lr=0.1), True),
        (partial(Clocked, lr=0.1), False),
        (partial(torch.optim.LBFGS, lr=0.1), False),
    ],
)
def test_optimizers_that_count_on_the_host_are_not_captured(make: Any, expected: bool) -> None:
    optimizer = make([nn.Parameter(torch.zeros(2))])
    capturable.make_capturable(optimizer)
    assert capturable.is_capturable_optimizer(optimizer) is expected


class Elsewhere(Identity):
    capturable = False


def test_only_networks_that_prepare_their_noise_are_captured() -> None:
    problems = batch()
    descent = {"optimizer": None}
    assert graphs.is_capturable(make_state(problems, **descent))
    assert not graphs.is_capturable(make_state(problems, operator=Elsewhere, **descent))
    layers = lambda shape: nn.Sequential(nn.Linear(2, 12), nn.Dropout())  # noqa: E731
    foreign = partial(NetworkSignal, network=layers, input=torch.ones(3, 12, 2))
    assert not graphs.is_capturable(make_state(problems, signal=foreign, **descent))


def test_no_graphs_on_a_cpu() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = make_state(batch())
        state.advance(30)
    assert state.loop.replay is None
    assert state.signal.prepared == ()
    assert state.optimizers[0].param_groups[0]["capturable"] is False


@pytest.mark.parametrize("wanted", [True, False])
def test_graphs_are_an_option_of_the_module(wanted: bool) -> None:
    assert DoubleOverparameterization(graphs=wanted).method.graphs is wanted


# --------------------------------------------------------------------------------------------------------------- GPU


def on_gpu(size: int = 1, **settings: Any) -> BatchState:
    network = partial(SkipUNet, width=8, scales=2, precision="fp32")
    return make_state(batch(size, side=24).to("cuda"), signal=network, **settings)


STILL = partial(torch.optim.Adam, lr=1e-12)
"""θ is constant up to rounding, as required for a comparison: from atomic sums in the backward pass of the
upsampling, which come in any order, two runs of a network diverge within a few iterations."""


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", ["average", "no corruption", "refinement"])
def test_gpu_replay_equals_eager(name: str, size: int) -> None:
    settings = {**METHODS[name], "optimizer": STILL}
    graph, eager = on_gpu(size, **settings), on_gpu(size, graphs=False, **settings)
    for state in (graph, eager):
        state.advance(5)
        state.advance(35)
        state.advance(10)
    assert graph.loop.holds_graph
    assert eager.loop.replay is None
    for key, value in graph.memory.items():
        torch.testing.assert_close(value, eager.memory[key], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(graph.corruption.value(), eager.corruption.value(), rtol=1e-3, atol=1e-6)
    remembered, expected = (list(state.optimizers[0].state.values()) for state in (graph, eager))
    # biases before a norm have no gradient but rounding
    size_of_gradients = max(float(of["exp_avg"].abs().max()) for of in expected)
    for one, two in zip(remembered, expected, strict=True):
        assert float(one["step"]) == float(two["step"]) == 50
        torch.testing.assert_close(one["exp_avg"], two["exp_avg"], rtol=0.05, atol=1e-3 * size_of_gradients)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", ["descent", "average", "refinement"])
def test_gpu_graph_descends_as_far_as_eager(name: str, size: int) -> None:
    graph, eager = on_gpu(size, **METHODS[name]), on_gpu(size, graphs=False, **METHODS[name])
    start = eager.evaluate().loss
    for state in (graph, eager):
        state.advance(60)
    assert graph.loop.holds_graph
    assert bool((eager.evaluate().loss < start).all())
    torch.testing.assert_close(graph.evaluate().loss, eager.evaluate().loss, rtol=0.05, atol=1e-4)


@pytest.mark.gpu
def test_a_gpu_replays_every_iteration_with_its_own_input() -> None:
    """With a constant network, the losses are those of the inputs."""
    settings = {"optimizer": STILL, "corruption": None}
    graph, eager = on_gpu(**settings), on_gpu(graphs=False, **settings)
    losses: list[list[float]] = []
    for state in (graph, eager):
        state.advance(30)
        losses.append([])
        for _ in range(8):
            with torch.no_grad():
                losses[-1].append(float(state.method.steps.descend(state, 1)))
            state.iteration += 1
    assert graph.loop.holds_graph
    assert len(set(losses[1])) == 8
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.gpu
def test_gpu_frees_the_memory_of_a_graph() -> None:
    state = on_gpu()
    state.advance(2)
    state.release()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    state.advance(40)
    assert state.loop.holds_graph
    state.release()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + 2**21


@pytest.mark.gpu
def test_gpu_continues_after_a_failed_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    state = on_gpu()
    derivative = SquaredLoss.derivative_

    def looks(self: Any, residual: Tensor) -> float:
        if bool(torch.cuda.is_current_stream_capturing()):
            residual.sum().item()
        return derivative(self, residual)

    monkeypatch.setattr(SquaredLoss, "derivative_", looks)
    here = torch.cuda.current_stream()
    with pytest.warns(RuntimeWarning, match="without a CUDA graph"):
        assert state.advance(30) == []
    assert torch.cuda.current_stream() == here
    assert bool(torch.isfinite(state.evaluate().loss).all())
    state.advance(5)


@pytest.mark.gpu
def test_a_state_of_a_gpu_is_loaded_on_a_cpu_and_back() -> None:
    state = on_gpu()
    state.advance(30)
    saved = state.problem_state(0)
    there = make_state(batch(1, side=24), signal=partial(SkipUNet, width=8, scales=2, precision="fp32"))
    there.load_problem_state(0, saved)
    there.iteration = 30
    there.advance(1)
    state.load_problem_state(0, there.problem_state(0))
    state.iteration = 31
    state.advance(30)
    assert state.loop.holds_graph
