"""Synthetic robust PCA as in section 4.1, and matrices of files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.model.operators import CommutingMeasurements, GaussianMeasurements
from dop_lightning.problems.metrics import numerical_rank
from dop_lightning.problems.noise import GrossOutliers, MissingEntries, Mixture
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.randomness import stream


def problems(**options: Any) -> list[Problem]:
    data = MatrixDataModule(**options)
    data.setup()
    return data.problems


def save(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


# ----------------------------------------------------------------------------------------------------------- synthetic


@pytest.mark.parametrize(("n", "r", "p"), [(50, 5, 0.3), (13, 2, 0.1), (7, 1, 0.29)])
def test_robust_pca_problems_follow_the_paper(n: int, r: int, p: float) -> None:
    (problem,) = problems(n=n, rank=r, noise=GrossOutliers(p), seeds=[3])
    X, s, y = problem.truth, problem.true_corruption, problem.observation
    assert torch.equal(X, X.T)
    assert torch.linalg.eigvalsh(X.double()).min() > -1e-4
    assert int(numerical_rank(X[None], 1e-4)) == r
    torch.testing.assert_close(y, X + s)
    assert s.count_nonzero() == int(round(n * n * p, 6))  # ⌊n²p⌋, of the number that was written
    assert not torch.equal(s != 0, s.T != 0)
    assert problem.data_range is None
    assert problem.attributes == {"n": n, "true_rank": r, "noise": "gross_outliers", "ratio": p, "std": 10.0}


def test_factors_are_standard_gaussian_and_outliers_have_their_deviation() -> None:
    (problem,) = problems(n=200, rank=100, noise=GrossOutliers(0.5, std=10.0))
    # E X_ij² = r off the diagonal, E X_ii = r
    off = problem.truth[~torch.eye(200, dtype=torch.bool)]
    assert off.square().mean() == pytest.approx(100, rel=0.1)
    assert problem.truth.diagonal().mean() == pytest.approx(100, rel=0.1)
    hit = problem.true_corruption[problem.true_corruption != 0]
    assert hit.std() == pytest.approx(10, rel=0.05)
    assert hit.mean() == pytest.approx(0, abs=0.3)


def test_truth_comes_from_a_separate_stream() -> None:
    (problem,) = problems(n=6, rank=2, seeds=[9])
    U = torch.randn(6, 2, generator=stream(9, "truth"))
    assert torch.equal(problem.truth, U @ U.T)


def test_rectangular_matrices_are_products_of_two_factors() -> None:
    (problem,) = problems(n=8, rank=2, columns=5, noise=GrossOutliers(0.1))
    assert problem.observation.shape == problem.truth.shape == (8, 5)
    assert int(numerical_rank(problem.truth[None], 1e-4)) == 2
    assert problem.name == "8x5-r2-gross-outliers-0.1-seed0"


def test_every_size_and_rank() -> None:
    found = problems(n=[6, 8], rank=[1, 2], seeds=2)
    assert [(p.attributes["n"], p.attributes["true_rank"], p.seed) for p in found] == [
        (n, r, seed) for n in (6, 8) for r in (1, 2) for seed in (0, 1)
    ]
    assert len({p.name for p in found}) == 8


def test_studies_are_paired() -> None:
    """The same seed is the same truth, and the outliers of a small ratio are among those of a larger one."""
    few, many, missing = problems(
        n=12, rank=2, noise=[GrossOutliers(0.1), GrossOutliers(0.4), MissingEntries(0.2)], seeds=[4]
    )
    assert torch.equal(few.truth, many.truth)
    assert torch.equal(few.truth, missing.truth)
    hit = few.true_corruption != 0
    torch.testing.assert_close(many.true_corruption[hit], few.true_corruption[hit], rtol=1e-4, atol=1e-5)
    (alone,) = problems(n=12, rank=2, noise=GrossOutliers(0.1), seeds=[4])
    assert torch.equal(alone.observation, few.observation)
    (other,) = problems(n=12, rank=2, noise=GrossOutliers(0.1), seeds=[5])
    assert not torch.equal(other.truth, few.truth)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"n": 0}, "n must be a whole number of at least 1, got 0"),
        ({"rank": 0}, "rank must be a whole number of at least 1, got 0"),
        ({"n": 4, "rank": 5}, "rank must be at most 4, the smaller side, got 5"),
        ({"n": 9, "columns": 3, "rank": 4}, "rank must be at most 3, the smaller side, got 4"),
        ({"n": []}, "n must be at least one number, got an empty list"),
        ({"rank": []}, "rank must be at least one number, got an empty list"),
        ({"columns": 0}, "columns must be a whole number of at least 1, got 0"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
        ({"alphas": 0.0}, "alphas must be a finite number above 0, got 0.0"),
        ({"alphas": [1.0, -1.0]}, "alphas must be a finite number above 0, got -1.0"),
        ({"alphas": []}, r"alphas must be different numbers, at least one, got \[\]"),
        ({"alphas": [1.0, 1.0]}, r"alphas must be different numbers, at least one, got \[1.0, 1.0\]"),
        ({"sensing": []}, "sensing must be at least one sensing, or null, got an empty list"),
        ({"files": "a.npy", "sensing": GaussianMeasurements(3)}, "sensing cannot be combined with files, which"),
        (
            {"n": 4, "columns": 3, "rank": 1, "sensing": CommutingMeasurements(3)},
            "commuting measurements require square",
        ),
        ({"truth": "a.npy"}, "truth requires files and no noise, got 'a.npy'"),
        (
            {"truth": "a.npy", "files": "b.npy", "noise": GrossOutliers(0.1)},
            "truth requires files and no noise, got 'a.npy'",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        problems(**options)


def test_both_types_have_the_same_numbers() -> None:
    for columns in (None, 7):
        (single,), (double,) = (problems(n=9, rank=2, columns=columns, dtype=dtype) for dtype in ("float32", "float64"))
        assert single.observation.dtype == torch.float32
        assert double.observation.dtype == double.truth.dtype == torch.float64
        torch.testing.assert_close(single.truth.double(), double.truth, rtol=1e-5, atol=1e-5)


def test_a_grid_is_one_batch() -> None:
    data = MatrixDataModule(n=8, rank=[1, 2, 3], noise=[GrossOutliers(0.1), GrossOutliers(0.2)], seeds=2, alphas=[1, 2])
    data.setup()
    assert [len(batch) for batch in data.batches] == [24]


# ------------------------------------------------------------------------------------------------ measurements, ratios


def test_measurements_are_corrupted_not_the_matrix() -> None:
    sensing = GaussianMeasurements(20)
    (problem,) = problems(n=6, rank=2, sensing=sensing, noise=GrossOutliers(0.1), seeds=[4])
    assert problem.name == "n6-r2-gaussian-20-gross-outliers-0.1-seed4"
    assert problem.attributes == {
        "n": 6, "true_rank": 2, "sensing": "gaussian", "measurements": 20, "noise": "gross_outliers", "ratio": 0.1,
        "std": 10.0,
    }  # fmt: skip
    assert problem.sensing is sensing
    assert (problem.observation.shape, problem.signal_shape) == ((20,), (6, 6))
    assert int(problem.true_corruption.count_nonzero()) == 2
    torch.testing.assert_close(problem.observation, sensing.measure(problem.truth, 4) + problem.true_corruption)


def test_noiseless_measurements_are_named_by_sensing() -> None:
    (problem,) = problems(n=6, rank=2, sensing=CommutingMeasurements(5))
    assert problem.name == "n6-r2-commuting-5-seed0"
    assert not problem.true_corruption.any()


def test_measurements_may_be_missing() -> None:
    noise = Mixture([GrossOutliers(0.1), MissingEntries(0.5)])
    (problem,) = problems(n=6, rank=2, sensing=GaussianMeasurements(20), noise=noise)
    assert problem.mask.shape == (20,)
    assert 0 < int(problem.mask.sum()) < 20


def test_several_kinds_of_sensing() -> None:
    found = problems(n=6, rank=1, sensing=[GaussianMeasurements(m) for m in (5, 9)], seeds=2)
    assert [(p.attributes["measurements"], p.seed) for p in found] == [(5, 0), (5, 1), (9, 0), (9, 1)]
    assert torch.equal(found[0].truth, found[2].truth)


def test_each_problem_once_for_each_ratio() -> None:
    found = problems(n=9, columns=4, rank=2, noise=GrossOutliers(0.1), seeds=2, alphas=[0.5, 2.0])
    assert [p.name for p in found[:2]] == [f"9x4-r2-gross-outliers-0.1-seed0-alpha{scale}" for scale in ("0.5", "2")]
    assert [(p.seed, p.attributes["alpha_scale"], p.alpha) for p in found] == [
        (0, 0.5, 1.5), (0, 2.0, 6.0), (1, 0.5, 1.5), (1, 2.0, 6.0),
    ]  # fmt: skip
    assert torch.equal(found[0].observation, found[1].observation)
    assert torch.equal(found[0].truth, found[1].truth)
    (single,) = problems(n=4, rank=1, alphas=0.25)
    assert (single.name, single.folder, single.alpha) == ("n4-r1-alpha0.25", "n4-r1-alpha0.25", 0.5)
    assert problems(n=4, rank=1)[0].alpha is None


# --------------------------------------------------------------------------------------------------------------- files


def test_nan_in_a_file_is_a_missing_entry(tmp_path: Path) -> None:
    matrix = np.arange(1.0, 13.0).reshape(3, 4)
    matrix[0, 1] = matrix[2, 3] = np.nan
    (problem,) = problems(files=save(tmp_path / "m.npy", matrix))
    assert problem.name == "m"
    assert problem.attributes == {"matrix": "m"}
    assert problem.mask.tolist() == (~np.isnan(matrix)).tolist()
    assert problem.observation[0, 1] == problem.observation[2, 3] == 0
    assert problem.observation.dtype == torch.float64
    assert problem.truth is problem.true_corruption is None


def test_truth_is_unknown_for_noise_on_a_file_with_gaps(tmp_path: Path) -> None:
    matrix = np.ones((6, 6), dtype=np.float32)
    matrix[0] = np.nan
    (problem,) = problems(files=save(tmp_path / "m.npy", matrix), noise=GrossOutliers(0.5))
    assert problem.truth is None
    assert problem.true_corruption.count_nonzero() > 0
    assert not problem.true_corruption[0].any()


def test_complete_file_with_noise_is_the_truth(tmp_path: Path) -> None:
    (problem,) = problems(files=save(tmp_path / "m.npy", np.ones((6, 6), np.float32)), noise=GrossOutliers(0.5))
    assert torch.equal(problem.truth, torch.ones(6, 6))


def test_one_truth_for_all_files_or_one_each(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{k}.npy", np.full((2, 3), float(k), np.float32)) for k in range(3)]
    truths = [save(tmp_path / f"t{k}.npy", np.full((2, 3), 10.0 + k)) for k in range(3)]
    each = problems(files=files, truth=truths)
    assert [float(p.truth[0, 0]) for p in each] == [10.0, 11.0, 12.0]
    assert {p.truth.dtype for p in each} == {torch.float32}
    assert [float(p.true_corruption[0, 0]) for p in each] == [-10.0] * 3
    for_all = problems(files=files, truth=truths[1])
    assert [float(p.truth[0, 0]) for p in for_all] == [11.0] * 3
    with pytest.raises(ValueError, match=r"truth must be one file for all, or one per file \(3\), got 2"):
        problems(files=files, truth=truths[:2])


def test_corruption_of_a_file_with_gaps_is_known_at_observed_entries(tmp_path: Path) -> None:
    matrix = np.full((2, 3), 4.0, np.float32)
    matrix[0, 1] = np.nan
    truth = save(tmp_path / "t.npy", np.ones((2, 3)))
    (problem,) = problems(files=save(tmp_path / "m.npy", matrix), truth=truth)
    assert problem.true_corruption.tolist() == [[3, 0, 3], [3, 3, 3]]


@pytest.mark.parametrize(
    ("truth", "told"), [(np.ones((3, 2)), r"\(2, 3\), got \(3, 2\)"), (np.array([[1, np.nan, 1]] * 2), "with NaN")]
)
def test_a_truth_that_does_not_fit_is_refused(truth: np.ndarray, told: str, tmp_path: Path) -> None:
    files = save(tmp_path / "m.npy", np.ones((2, 3)))
    with pytest.raises(ValueError, match=f"t.npy: the truth must be complete and have the shape of .*m.npy, .*{told}"):
        problems(files=files, truth=save(tmp_path / "t.npy", truth))


def test_a_key_chooses_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=np.ones((2, 2)), b=np.full((2, 2), 5.0))
    (problem,) = problems(files=str(tmp_path / "m.npz"), key="b")
    assert problem.observation[0, 0] == 5
    with pytest.raises(ValueError, match="key is required to choose one of the arrays a, b"):
        problems(files=str(tmp_path / "m.npz"))


def test_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        save(tmp_path / f"{name}.npy", np.ones((2, 2)))
    assert [p.name for p in problems(files=str(tmp_path))] == ["a", "b", "c"]
    assert [p.name for p in problems(files=[str(tmp_path / "c.npy"), str(tmp_path / "[ab].npy")])] == ["c", "a", "b"]


def test_files_with_equal_names_are_distinguished(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "m.npy", np.ones((2, 2)))
    assert [p.name for p in problems(files=str(tmp_path / "*" / "m.npy"))] == ["m", "m-2"]


@pytest.mark.parametrize("missing", ["nowhere.npy", "*.csv"])
def test_missing_files_are_reported(missing: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=missing.replace("*", r"\*")):
        problems(files=str(tmp_path / missing))


def test_non_matrix_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "m.npy").write_text("hello")
    with pytest.raises(ValueError, match=r"m\.npy"):
        problems(files=str(tmp_path / "m.npy"))
