"""Synthetic sparse vectors."""

from typing import Any

import pytest
import torch

from dop_lightning.lightning.data import VectorDataModule
from dop_lightning.model.operators import GaussianMeasurements
from dop_lightning.problems.noise import GrossOutliers
from dop_lightning.problems.problem import Problem


def problems(**options: Any) -> list[Problem]:
    data = VectorDataModule(**options)
    data.setup()
    return data.problems


def test_sparse_vectors() -> None:
    found = problems(n=[20, 30], nonzeros=[1, 4], seeds=2)
    assert [(p.attributes["n"], p.attributes["nonzeros"], p.seed) for p in found] == [
        (n, k, seed) for n in (20, 30) for k in (1, 4) for seed in (0, 1)
    ]
    for problem in found:
        assert problem.truth.shape == (problem.attributes["n"],)
        assert int(problem.truth.count_nonzero()) == problem.attributes["nonzeros"]
        assert torch.equal(problem.observation, problem.truth)
    few, many = found[0].truth, found[2].truth
    assert torch.equal(many[few != 0], few[few != 0])


def test_measurements_are_corrupted_not_the_vector() -> None:
    sensing = GaussianMeasurements(50)
    (problem,) = problems(n=100, nonzeros=3, sensing=sensing, noise=GrossOutliers(0.1), seeds=[4])
    assert problem.name == "n100-k3-gaussian-50-gross-outliers-0.1-seed4"
    assert problem.observation.shape == (50,)
    assert problem.signal_shape == (100,)
    assert int(problem.true_corruption.count_nonzero()) == 5
    torch.testing.assert_close(problem.observation, sensing.measure(problem.truth, 4) + problem.true_corruption)


def test_both_types_have_the_same_numbers() -> None:
    (single,), (double,) = (problems(n=9, nonzeros=3, dtype=dtype) for dtype in ("float32", "float64"))
    assert double.observation.dtype == torch.float64
    assert torch.equal(single.truth.double(), double.truth)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"n": 0}, "n must be a whole number of at least 1, got 0"),
        ({"nonzeros": 0}, "nonzeros must be a whole number of at least 1, got 0"),
        ({"n": 4, "nonzeros": 5}, "nonzeros must be at most 4, the number of entries, got 5"),
        ({"n": []}, "VectorDataModule must have at least one signal to recover, got an empty list"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        problems(**options)
