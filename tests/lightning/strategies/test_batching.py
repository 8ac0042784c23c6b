"""Batches as large as memory allows."""

from functools import partial

import pytest
import torch

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.measure import working_memory
from dop_lightning.engine.method import Method
from dop_lightning.lightning.strategies.batching import automatic_batches
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet, SymmetricFactor
from dop_lightning.problems.problem import Problem, ProblemBatch

NETWORK = Method(partial(SkipUNet, width=8, scales=2, fused=False, precision="fp32"), loss=SquaredLoss("mean"))
MATRIX = Method(SymmetricFactor, HadamardCorruption)


def matrix(k: int, n: int = 10) -> Problem:
    return Problem(f"m{k}", torch.eye(n) + k, seed=k)


def image(k: int, side: int = 32) -> Problem:
    return Problem(f"i{k}", torch.full((1, side, side), 0.5), seed=k, data_range=1.0)


def state(method: Method, *problems: Problem) -> BatchState:
    return BatchState(method, ProblemBatch(problems), 1e-3, 5.0)


def sizes(problems: list[Problem], limit: int, ranks: int = 1) -> list[int]:
    def begin(problem: Problem) -> BatchState:
        return state(MATRIX if problem.observation.dim() == 2 else NETWORK, problem)

    batches = automatic_batches(problems, begin, limit, ranks)
    assert [name for batch in batches for name in batch] == [problem.name for problem in problems]
    return [len(batch) for batch in batches]


def test_memory_of_a_network_grows_with_its_pixels() -> None:
    small, large = (working_memory(state(NETWORK, image(0, side))) for side in (64, 128))
    assert 3.5 < large / small < 4.5
    # careful, but not absurd: more than the activations that must be kept, less than thousands of arrays of the image
    assert 8 * 20 * 128**2 * 4 < large < 1000 * 128**2 * 4 * 3


def test_measuring_does_not_affect_other_states() -> None:
    method, other = NETWORK, state(NETWORK, image(0))
    before = [p.detach().clone() for p in other.signal.parameters()]
    working_memory(state(method, image(0)))
    assert all(torch.equal(a, b) for a, b in zip(before, other.signal.parameters(), strict=True))


def test_matrix_needs_a_few_arrays() -> None:
    array = 100 * 100 * 4
    assert 6 * array < working_memory(state(MATRIX, matrix(0, 100))) < 25 * array


def test_batches_fit_into_memory() -> None:
    one = working_memory(state(MATRIX, matrix(0)))
    problems = [matrix(k) for k in range(10)]
    assert sizes(problems, 1000 * one) == [10]
    assert sizes(problems, 4 * one) == [4, 4, 2]
    assert sizes(problems, 1) == [1] * 10


def test_every_process_has_a_batch() -> None:
    problems = [matrix(k) for k in range(10)]
    assert sizes(problems, 2**40, ranks=2) == [5, 5]
    assert sizes(problems, 2**40, ranks=16) == [1] * 10


def test_shapes_do_not_mix() -> None:
    problems = [matrix(k) for k in range(3)] + [matrix(k, 12) for k in range(3, 5)]
    assert sizes(problems, 2**40) == [3, 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a CPU only")
def test_networks_have_separate_batches_on_a_cpu() -> None:
    assert sizes([image(k) for k in range(3)], 2**40) == [1, 1, 1]
