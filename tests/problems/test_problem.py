"""Problems, batches of them, and how a list of problems falls into batches."""

import pytest
import torch
from torch import Tensor

from dop_lightning.model.operators import GaussianMeasurements
from dop_lightning.problems.problem import Problem, ProblemBatch, form_batches, rename
from tests.suites.part import draw


def problem(name: str = "a", *shape: int, **options) -> Problem:
    return Problem(name, torch.zeros(shape or (2, 3)), **options)


def poisoned(*shape: int) -> Tensor:
    tensor = torch.zeros(shape)
    tensor.view(-1)[0] = torch.nan
    return tensor


# ------------------------------------------------------------------------------------------------------- one problem


def test_signal_shape_defaults_to_that_of_the_observation() -> None:
    assert problem("a", 3, 4, 5).signal_shape == (3, 4, 5)


def test_signal_shape_defaults_to_that_of_the_truth() -> None:
    assert problem("a", 7, truth=torch.zeros(3, 4)).signal_shape == (3, 4)


def test_shape_of_the_signal_may_be_given() -> None:
    given = problem("a", 7, signal_shape=[3, 4])
    assert given.signal_shape == (3, 4)
    assert isinstance(given.signal_shape, tuple)


def test_entries_outside_the_mask_become_0() -> None:
    mask = torch.tensor([[False, True, True], [True, True, True]])
    observed = Problem("a", poisoned(2, 3) + 5, mask=mask)
    assert observed.observation.tolist() == [[0.0, 5.0, 5.0], [5.0, 5.0, 5.0]]


def test_the_callers_tensor_is_not_changed() -> None:
    y = torch.ones(2, 2)
    Problem("a", y, mask=torch.eye(2, dtype=torch.bool))
    assert torch.equal(y, torch.ones(2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8, torch.int64, torch.complex64, torch.bool])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="a: observation must be float32 or float64, got torch"):
        Problem("a", torch.zeros(2, 2, dtype=dtype))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": torch.ones(3, 2, dtype=torch.bool)}, r"mask must have the shape of the observation, \(2, 3\), got"),
        ({"true_corruption": torch.ones(6)}, r"true_corruption must have the shape of the observation, \(2, 3\), got"),
        ({"mask": torch.ones(2, 3)}, "mask must be boolean, got torch.float32"),
        ({"mask": torch.zeros(2, 3, dtype=torch.bool)}, "mask must have at least one observed entry, got none"),
        ({"truth": torch.ones(3, 2), "signal_shape": (2, 3)}, r"truth must have the shape of the signal, \(2, 3\)"),
        ({"truth": poisoned(2, 3)}, "truth must be finite"),
    ],
)
def test_mismatched_shapes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"a: {message}"):
        problem("a", **options)


def test_empty_observations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a: observation must have at least one entry, got shape \(0, 3\)"):
        problem("a", 0, 3)


def test_nonfinite_observations_are_refused() -> None:
    with pytest.raises(ValueError, match="a: observation must be finite where observed, got 1 non-finite entries"):
        Problem("a", poisoned(2, 3))
    with pytest.raises(ValueError, match="a: observation must be finite where observed, got 6 non-finite entries"):
        Problem("a", torch.full((2, 3), torch.inf), mask=torch.ones(2, 3, dtype=torch.bool))


MEASURED = GaussianMeasurements(5)


def test_shape_of_a_measured_signal_is_given_or_that_of_the_truth() -> None:
    assert problem("a", 5, sensing=MEASURED, signal_shape=[3, 2]).signal_shape == (3, 2)
    assert problem("a", 5, sensing=MEASURED, truth=torch.zeros(3, 2)).signal_shape == (3, 2)
    with pytest.raises(ValueError, match="a: signal_shape is required if sensing is given without truth"):
        problem("a", 5, sensing=MEASURED)
    with pytest.raises(ValueError, match=r"observation must have the shape \(5,\), for Gauss.*\(3, 2\), got \(6,\)"):
        problem("a", 6, sensing=MEASURED, signal_shape=(3, 2))
    with pytest.raises(ValueError, match=r"a: mask must have the shape of the observation, \(5,\), got \(3, 2\)"):
        problem("a", 5, sensing=MEASURED, signal_shape=(3, 2), mask=torch.ones(3, 2, dtype=torch.bool))


@pytest.mark.parametrize("alpha", [0.0, -1.0, torch.nan, torch.inf, True])
def test_alpha_is_checked(alpha: float) -> None:
    assert problem(alpha=2.5).alpha == 2.5
    with pytest.raises(ValueError, match="a: alpha must be a finite number above 0, got"):
        problem(alpha=alpha)


def test_renamed_problem_keeps_the_rest() -> None:
    mask = torch.eye(2, dtype=torch.bool)
    before = Problem("a", torch.ones(2, 2), mask=mask, seed=4, data_range=1.0, attributes={"rank": 2})
    after = rename(before, "b")
    assert (after.name, after.seed, after.data_range, after.attributes) == ("b", 4, 1.0, {"rank": 2})
    assert torch.equal(after.observation, before.observation)
    assert after.mask is mask
    assert before.name == "a"


def test_problems_can_be_compared_and_looked_up() -> None:
    one, same = problem(), problem()
    assert one == one
    assert one != same
    assert len({one, same}) == 2
    assert same not in ProblemBatch([one])


# ----------------------------------------------------------------------------------------------------------- batches


def masked(name: str, seed: int = 0) -> Problem:
    return Problem(name, draw(seed, (2, 3)), mask=draw(seed + 50, (2, 3)) > -1, seed=seed)


def test_batch_stacks() -> None:
    problems = [masked("a", 1), masked("b", 2)]
    batch = ProblemBatch(problems)
    assert batch.observation.shape == (2, 2, 3)
    assert batch.mask is not None
    for k, one in enumerate(problems):
        assert batch[k] is one
        assert one.mask is not None
        assert torch.equal(batch.observation[k], one.observation)
        assert torch.equal(batch.mask[k], one.mask)
    assert batch.names == ["a", "b"]
    assert list(batch) == problems
    assert len(batch) == 2
    assert batch.signal_shape == (2, 3)
    assert batch.dtype == torch.float64
    assert batch.device == torch.device("cpu")
    assert ProblemBatch([problem()]).mask is None


def test_problems_with_equal_sensing_are_stacked() -> None:
    def measured(name: str, m: int, **options) -> Problem:
        return problem(name, 5, signal_shape=(3, 2), sensing=GaussianMeasurements(m, **options), seed=ord(name))

    batch = ProblemBatch([measured("a", 5), measured("b", 5), problem("c", 5, signal_shape=(3, 2), sensing=MEASURED)])
    assert batch.sensing == MEASURED
    with pytest.raises(ValueError, match="problems of a batch must have the same shape and dtype"):
        ProblemBatch([measured("a", 5), measured("b", 5, storage="seeds")])
    assert ProblemBatch([problem()]).sensing is None


def test_problems_of_a_batch_may_differ_in_alpha() -> None:
    batch = ProblemBatch([problem("a", alpha=1.0), problem("b", alpha=2.0), problem("c")])
    assert [p.alpha for p in batch] == [1, 2, None]


def test_batch_selects() -> None:
    batch = ProblemBatch([masked(name, seed) for seed, name in enumerate("abcd")])
    some = batch.select([3, 1])
    assert some.names == ["d", "b"]
    assert torch.equal(some.observation, batch.observation[[3, 1]])
    assert some.mask is not None
    assert batch.mask is not None
    assert torch.equal(some.mask, batch.mask[[3, 1]])


def test_batch_moves() -> None:
    moved = ProblemBatch([masked("a")]).to("meta")
    assert moved.observation.device.type == "meta"
    assert moved.mask is not None
    assert moved.mask.device.type == "meta"
    assert moved.names == ["a"]


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="problems must have at least one entry, got none"):
        ProblemBatch([])


def test_equal_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unique names, got 'a' more than once"):
        ProblemBatch([problem("a"), problem("b"), problem("a")])


@pytest.mark.parametrize(
    "odd",
    [
        problem("odd", 3, 2),
        Problem("odd", torch.zeros(2, 3, dtype=torch.float64)),
        problem("odd", mask=torch.ones(2, 3, dtype=torch.bool)),
        problem("odd", signal_shape=(6,)),
        problem("odd", 6, signal_shape=(2, 3), sensing=GaussianMeasurements(6)),
    ],
)
def test_different_problems_are_refused(odd: Problem) -> None:
    with pytest.raises(ValueError, match=r"problems of a batch must have the same shape and dtype, got .* for 'odd'"):
        ProblemBatch([problem("a"), odd])


# ------------------------------------------------------------------------------------------------------ random draws


def seeded(*seeds: int) -> ProblemBatch:
    return ProblemBatch([Problem(f"{k}-{seed}", torch.zeros(2, 2), seed=seed) for k, seed in enumerate(seeds)])


def test_draws_depend_on_seed_and_purpose_only() -> None:
    together = seeded(4, 9, 4).normal((5, 3), 1.0, "init", 1)
    assert torch.equal(together[1], seeded(9).normal((5, 3), 1.0, "init", 1)[0])
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    for purpose, counters in (("truth", (1,)), ("init", ()), ("init", (2,))):
        assert not torch.equal(together, seeded(4, 9, 4).normal((5, 3), 1.0, purpose, *counters))


def test_draws_have_the_given_deviation() -> None:
    draws = seeded(0).normal((100, 100), 0.02, "init")
    assert abs(float(draws.std()) / 0.02 - 1) < 0.04
    assert abs(float(draws.mean())) < 0.001
    assert draws.dtype == torch.float32


# --------------------------------------------------------------------------------------------------- forming batches


def mixed() -> list[Problem]:
    return [problem(f"{k}", *((2, 3) if k % 3 else (4, 4))) for k in range(8)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, [["0", "3", "6"], ["1", "2", "4", "5", "7"]]),
        (2, [["0", "3"], ["6"], ["1", "2"], ["4", "5"], ["7"]]),
        (100, [["0", "3", "6"], ["1", "2", "4", "5", "7"]]),
        (1, [["0"], ["3"], ["6"], ["1"], ["2"], ["4"], ["5"], ["7"]]),
    ],
)
def test_batches_keep_the_order(size: int | None, expected: list[list[str]]) -> None:
    assert [batch.names for batch in form_batches(mixed(), size)] == expected


def test_no_problems_give_no_batches() -> None:
    assert form_batches([], 4) == []


@pytest.mark.parametrize("size", [0, -1])
def test_size_of_a_batch_is_checked(size: int) -> None:
    with pytest.raises(ValueError, match="batch_size must be"):
        form_batches(mixed(), size)
