"""Custom networks: properties of all signals, the source of random numbers, and errors."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.method import Method
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import NetworkSignal, Signal, SkipUNet, UniformInput
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.suites.part import assert_same_bits, draw
from tests.suites.signal import SignalSuite

Shape = tuple[int, ...]
SHARED = nn.Linear(5, 4)


def perceptron(shape: Shape, inputs: int = 5) -> nn.Module:
    """Rows of a matrix, or the columns of an image, from as many inputs."""
    return nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, shape[-1]))


class Restless(nn.Module):
    """Draws a buffer when it is made and noise when it runs, and has another mode for evaluation."""

    offset: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.register_buffer("offset", torch.randn(shape))
        self.layers = nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.Dropout(0.4), nn.Conv1d(4, shape[0], 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)[0] + self.offset + torch.randn(3, 4).to(z)


class ParametersAlone(nn.Module):
    """Called without anything; an output with a leading 1."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(1, *shape))

    def forward(self) -> Tensor:
        return self.theta.square()


class TestPerceptronOfATensor(SignalSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3, 4)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return NetworkSignal(problems, perceptron, draw(0, (3, 5), torch.float32))


class TestPerceptronOfAnInputOfEachProblem(SignalSuite):
    forward_depends_on_seed = True

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (2, 3, 4)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return NetworkSignal(problems, perceptron, UniformInput([2, 3, 5]))


class TestRestless(SignalSuite):
    forward_depends_on_seed = True

    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (3, 4)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return NetworkSignal(problems, Restless, UniformInput([1, 2, 4], scale=1.0))


class TestParametersAlone(SignalSuite):
    def problem(self, seed: int, name: str) -> Problem:
        return Problem(name, draw(seed, (7,)), seed=seed)

    def make(self, problems: ProblemBatch) -> Signal:
        return NetworkSignal(problems, ParametersAlone)


def batch(*shape: int, K: int = 2, dtype: torch.dtype = torch.float32) -> ProblemBatch:
    return ProblemBatch([Problem(f"{k}", draw(k, shape, dtype), seed=k) for k in range(K)])


# -------------------------------------------------------------------------------------------------------------- values


def test_output_equals_the_module_output() -> None:
    z = draw(0, (3, 5))
    signal = NetworkSignal(batch(3, 4, dtype=torch.float64), perceptron, z)
    for k in range(2):
        assert torch.equal(signal()[k], signal.networks[k](z))


def test_factory_receives_the_signal_shape() -> None:
    given: list[Shape] = []

    def network(shape: Shape) -> nn.Module:
        given.append(shape)
        return perceptron(shape)

    NetworkSignal(batch(3, 4), network, torch.ones(3, 5))
    assert given == [(3, 4), (3, 4)]


def test_layers_start_as_in_pytorch_from_the_stream_of_the_problem() -> None:
    signal = NetworkSignal(batch(3, 4), Restless, UniformInput([1, 2, 4]))
    again = NetworkSignal(batch(3, 4), Restless, UniformInput([1, 2, 4]))
    assert_same_bits(dict(signal.networks.named_buffers()), dict(again.networks.named_buffers()))
    assert not torch.equal(signal.networks[0].offset, signal.networks[1].offset)


def test_network_noise_depends_on_the_iteration() -> None:
    signal = NetworkSignal(batch(3, 4), Restless, UniformInput([1, 2, 4]))
    first, second = signal(1), signal(2)
    assert not torch.equal(first, second)
    assert torch.equal(signal(1), first)
    torch.rand(3)
    assert torch.equal(NetworkSignal(batch(3, 4), Restless, UniformInput([1, 2, 4]))(1), first)


def test_evaluation_mode_has_no_effect() -> None:
    signal = NetworkSignal(batch(3, 4), Restless, UniformInput([1, 2, 4]))
    outer = nn.ModuleList([signal]).eval()
    assert not outer.training
    assert all(module.training for module in signal.modules())


def test_uniform_input_equals_that_of_the_skip_network() -> None:
    problems = batch(3, 8, 8)
    z = UniformInput([64, 64, 2])(problems[1])
    assert torch.equal(z, SkipUNet(problems, width=1, input_channels=2).input_of(1)[0])
    assert 0 <= float(z.min()) < float(z.max()) <= 0.1


def test_inputs_are_released_and_recreated() -> None:
    signal = NetworkSignal(batch(2, 3, 4), perceptron, UniformInput([2, 3, 5]))
    X = signal()
    signal.release()
    assert torch.equal(signal(), X)


def test_integer_input_stays_integer() -> None:
    signal = NetworkSignal(batch(3, 4, dtype=torch.float64), lambda s: nn.Embedding(9, s[1]), torch.tensor([1, 8, 1]))
    X = signal()
    assert torch.equal(X[:, 0], X[:, 2])


# ------------------------------------------------------------------------------------------------------ in the engine


def state(problems: ProblemBatch, adam: bool) -> BatchState:
    method = Method(
        partial(NetworkSignal, network=Restless, input=UniformInput([1, 2, 4])),
        partial(HadamardCorruption, scale=1e-2, tied=False),
        loss=SquaredLoss("mean"),
        theta_optimizer=partial(torch.optim.Adam, lr=0.01) if adam else None,
    )
    return BatchState(method, problems, tau=0.05, alpha=3.0)


@pytest.mark.parametrize("adam", [False, True])
def test_resuming_in_another_batch_gives_the_same_bits(adam: bool) -> None:
    whole = state(batch(3, 4, K=3), adam)
    whole.advance(30)
    first = state(batch(3, 4, K=3), adam)
    first.advance(11)
    saved = [first.problem_state(k) for k in range(3)]
    torch.rand(7)
    rest = state(batch(3, 4, K=3).select([2, 0]), adam)
    rest.iteration = 11
    for place, k in enumerate((2, 0)):
        rest.load_problem_state(place, saved[k])
    rest.advance(8)
    rest.advance(11)
    X = whole.evaluate().signal
    for place, k in enumerate((2, 0)):
        assert_same_bits(rest.problem_state(place)["signal"], whole.problem_state(k)["signal"])
        assert_same_bits(rest.problem_state(place)["corruption"], whole.problem_state(k)["corruption"])
        assert torch.equal(rest.evaluate().signal[place], X[k])


def test_only_the_diverging_problem_is_restored() -> None:
    problems, alone = state(batch(3, 4), adam=True), state(batch(3, 4, K=1), adam=True)
    with torch.no_grad():
        problems.corruption.get_parameter("g")[1].fill_(torch.inf)
    assert problems.advance(5) == [1]
    alone.advance(5)
    assert torch.equal(problems.evaluate().signal[0], alone.evaluate().signal[0])
    assert problems.signal.finite(2).all()


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (
            lambda: nn.Linear(5, 4),
            r"network must be a function of \(shape\) that returns a torch.nn.Module, got <lambda>",
        ),
        (lambda shape: nn.Bilinear(5, 5, 4), r"Bilinear.forward must be a function of \((input)?\) that returns a Te"),
        (nn.Linear(5, 4), "network must create a module, such as its class, got a Linear object"),
        (lambda shape: torch.zeros(shape), r"network must create a torch.nn.Module, got Tensor"),
        (lambda shape: nn.Tanh(), "network must create modules with parameters, got Tanh with no parameters"),
        (lambda shape: nn.LazyLinear(4), "got LazyLinear with lazy parameters"),
        (lambda shape: SHARED, "new module for each problem, got modules with shared parameters"),
    ],
)
def test_factories_of_other_objects_are_refused(network: Callable[[Shape], nn.Module], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NetworkSignal(batch(3, 4), network, torch.ones(3, 5))


def test_an_output_of_another_shape_is_refused() -> None:
    signal = NetworkSignal(batch(3, 4), lambda shape: nn.Linear(5, 12), torch.ones(1, 5))
    with pytest.raises(
        ValueError, match=r"network must return signals of shape \(3, 4\), got an output of shape \(1, 12"
    ):
        signal()


@pytest.mark.parametrize(("shape", "scale"), [([0], 1.0), ([2, -1], 1.0), ([2], 0.0), ([2], float("inf"))])
def test_arguments_of_the_input_are_checked(shape: list[int], scale: float) -> None:
    with pytest.raises(ValueError, match=r"shape must be a whole number|scale must be a finite number above 0"):
        UniformInput(shape, scale)
