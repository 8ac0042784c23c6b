"""Sizes of entries that DOP and the convex program cannot separate, and integers that float32 would round."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dop_lightning.engine.runners import run_to_end
from dop_lightning.engine.state import Procedure
from dop_lightning.matrices.arrays import read_matrix
from dop_lightning.matrices.entry_sizes import check_spread
from dop_lightning.matrices.robust_separation import RobustSeparation
from dop_lightning.matrices.separation import separation
from dop_lightning.matrices.storage.numpy_file import map_numpy
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.scoring import Scorer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entry_that_dwarfs_the_others_is_refused(dtype: torch.dtype) -> None:
    y = torch.ones(4, 3, dtype=dtype)
    y[1, 2] = 0.9 / torch.finfo(dtype).eps
    check_spread(Problem("fine", y))
    y[1, 2] *= 2
    with pytest.raises(ValueError, match=r"^table: the largest entry must be at most .* median absolute value, got"):
        check_spread(Problem("table", y))
    with pytest.raises(ValueError, match="the largest entry"):
        run_to_end(RobustSeparation(), Problem("table", y), 50, block=25)


@pytest.mark.parametrize("method", [RobustSeparation(), separation(1e-5, 1e-5)])
def test_a_matrix_of_zeros_has_rank_0(method: Procedure) -> None:
    problem = Problem("zeros", torch.zeros(12, 9))
    seen = run_to_end(method, problem, 100, block=25, alpha=3.0).state.evaluate()
    assert seen.signal.abs().max() < 1e-8
    (scores,) = Scorer(ProblemBatch([problem])).final(seen.signal, seen.corruption, seen.loss)
    assert scores["rank"] == 0


def test_large_integers_are_not_rounded(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.int64).reshape(4, 3)
    np.save(tmp_path / "small.npy", array)
    np.save(tmp_path / "large.npy", array + 2**40)
    assert read_matrix(tmp_path / "small.npy").values.dtype == torch.float32
    assert read_matrix(tmp_path / "large.npy").values.tolist() == (array + 2**40).tolist()
    with pytest.raises(ValueError, match=r"large\.npy: integers must be within ±16777216"):
        map_numpy(tmp_path / "large.npy")[0:2]
