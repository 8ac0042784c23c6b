"""A batch of matrices under alternating projections."""

from typing import Any

import pytest
import torch

from dop_lightning.engine.projections import AlternatingProjections, ProjectionsMethod, ProjectionsState
from dop_lightning.engine.runners import run_to_end
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.engine.projections.builders import problem, relative_error


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def test_a_problem_ends_with_its_scores_and_its_report() -> None:
    outcome = next(run_to_end(ProjectionsMethod(), problem(), 200, block=10).outcomes())
    assert (outcome.status, outcome.alpha, outcome.tau) == ("stable", None, 0.0)
    assert outcome.scores["relative_error"] < 2e-6
    assert outcome.scores["rank"] == 3
    assert outcome.report == {"method": "projections", "rank": 3, "certificate": "exact"}


def test_problems_do_not_depend_on_their_batch() -> None:
    problems = [problem(seed=seed, share=0.1 + 0.1 * seed) for seed in range(3)]
    together = ProjectionsMethod().begin(ProblemBatch(problems))
    together.advance(60)
    assert sorted(together.finished()) == [0, 1, 2]
    for k, one in enumerate(problems):
        alone = ProjectionsMethod().begin(ProblemBatch([one]))
        alone.advance(60)
        assert torch.equal(alone.evaluate().signal[0], together.evaluate().signal[k])
    picked = together.select([2, 0])
    assert torch.equal(picked.evaluate().signal[0], together.evaluate().signal[2])


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("done", [0, 3, 12, 30])
def test_recovery_resumes_bit_for_bit(done: int, noise: float) -> None:
    batch = ProblemBatch([problem(noise=noise, seed=4)])
    whole = ProjectionsMethod().begin(batch)
    whole.advance(60)
    first, second = ProjectionsMethod().begin(batch), ProjectionsMethod().begin(batch)
    first.advance(done)
    second.load_problem_state(0, first.problem_state(0))
    second.advance(60 - done)
    assert equal(second.problem_state(0), whole.problem_state(0))
    assert torch.equal(second.evaluate().signal, whole.evaluate().signal)


def test_states_of_others_are_refused() -> None:
    state = ProjectionsMethod().begin(ProblemBatch([problem()]))
    with pytest.raises(ValueError, match="m0: state must be of AlternatingProjections, got a state of 'InexactALM'"):
        state.load_problem_state(0, {"solver": "InexactALM"})
    other = ProjectionsMethod().begin(ProblemBatch([problem(100, 90)]))
    with pytest.raises(ValueError, match="must have 150 rows and 120 columns, got 100 and 90"):
        state.load_problem_state(0, other.problem_state(0))


def test_non_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"AlternatingProjections requires matrices, got signals of shape \(1, 8, 8\)"):
        ProjectionsState(AlternatingProjections(), ProblemBatch([Problem("image", torch.zeros(1, 8, 8))]))


def test_truth_is_not_used() -> None:
    given = problem()
    blind = Problem(given.name, given.observation, seed=given.seed)
    one, other = (ProjectionsMethod().begin(ProblemBatch([p])) for p in (given, blind))
    for state in (one, other):
        state.advance(40)
    assert relative_error(one.evaluate().signal[0], other.evaluate().signal[0]) == 0
