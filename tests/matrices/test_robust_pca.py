"""The estimator: what it recovers, and that it is one of scikit-learn's."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from dop_lightning import RobustPCA
from dop_lightning.matrices import clipped_codes, robust_pca
from dop_lightning.matrices.row_regression import RowRegression


def low_rank(
    n: int = 80, m: int = 50, rank: int = 2, share: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and the same with gross outliers."""
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, m))
    return clean, clean + (rng.random((n, m)) < share) * rng.normal(0, 10, (n, m))


def error(found: np.ndarray, clean: np.ndarray) -> float:
    return float(np.linalg.norm(found - clean) / np.linalg.norm(clean))


# One check is skipped by scikit-learn: check_array_api_input, unless SCIPY_ARRAY_API is set; arrays of other libraries
# are turned into NumPy's. There are no expected failures.
@parametrize_with_checks([RobustPCA()])
def test_passes_the_estimator_checks_of_scikit_learn(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize("shape", [(120, 80), (80, 120), (100, 100)])
def test_recovers_a_matrix_of_unknown_rank(shape: tuple[int, int]) -> None:
    clean, X = low_rank(*shape)
    pca = RobustPCA(center=False).fit(X)
    assert error(pca.low_rank_, clean) < 0.05
    assert pca.rank_ == 2
    assert error(pca.sparse_, X - clean) < 0.05
    np.testing.assert_allclose(pca.low_rank_ + pca.sparse_, X, atol=0.05)
    assert 0.08 < (pca.sparse_ != 0).mean() < 0.6
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(pca.n_components_), atol=1e-8)
    assert pca.n_iter_ < 500


def test_mean_equals_that_of_the_clean_table() -> None:
    clean, X = low_rank(rank=1, share=0.05)
    offsets = np.linspace(-40, 40, 50)
    pca = RobustPCA(alpha=None).fit(X + offsets)
    np.testing.assert_allclose(pca.mean_, (clean + offsets).mean(axis=0), atol=0.01)
    assert pca.rank_ == 1
    assert error(pca.low_rank_ - offsets, clean) < 0.01
    assert (RobustPCA(center=False, alpha=None).fit(X).mean_ == 0).all()


def test_missing_entries_are_filled() -> None:
    clean, X = low_rank(rank=1, share=0.05)
    rng = np.random.default_rng(1)
    X[rng.random(X.shape) < 0.2] = np.nan
    X[:, 7] = np.nan  # a feature of which nothing is known
    X[5] = np.nan
    pca = RobustPCA(center=False).fit(X)
    known = np.ones(X.shape, dtype=bool)
    known[:, 7] = known[5] = False
    assert np.isfinite(pca.low_rank_).all()
    assert error(pca.low_rank_[known], clean[known]) < 0.02
    assert (pca.sparse_[np.isnan(X)] == 0).all()
    codes = pca.transform(X)
    assert np.isfinite(codes).all()
    assert (codes[5] == 0).all()


def test_new_samples_are_cleaned() -> None:
    clean, X = low_rank(120, 60, share=0.05)
    pca = RobustPCA(center=False).fit(X[:100])
    again = pca.inverse_transform(pca.transform(X[100:]))
    assert error(again, clean[100:]) < 0.1 * error(X[100:], clean[100:])
    own = pca.inverse_transform(pca.transform(X[:100]))
    assert error(own, pca.low_rank_) < 0.05


@pytest.mark.parametrize("unit", [1e-8, 1e6])
def test_units_do_not_matter(unit: float) -> None:
    _, X = low_rank(30, 20, 1)
    pca, other = RobustPCA().fit(X), RobustPCA().fit(X * unit)
    assert other.rank_ == pca.rank_
    assert other.alpha_ == pca.alpha_
    assert error(other.low_rank_ / unit, pca.low_rank_) < 1e-4


@pytest.mark.parametrize("unit", [2.0**-700, 2.0**700])
def test_codes_scale_with_units(unit: float) -> None:
    _, X = low_rank(30, 20, 1)
    pca, other = RobustPCA(alpha=None).fit(X), RobustPCA(alpha=None).fit(X * unit)
    assert error(other.transform(X * unit) / unit, pca.transform(X)) < 1e-6


def test_single_outlier_of_any_size_has_no_effect() -> None:
    clean, X = low_rank(share=0.02)
    X[3, 4] = 1e9
    pca = RobustPCA(center=False).fit(X)
    assert error(pca.low_rank_, clean) < 0.02


def test_labels_of_a_table_are_kept() -> None:
    _, X = low_rank(30, 12, 1)
    table = pd.DataFrame(X, index=[f"day {i}" for i in range(30)], columns=[f"sensor {j}" for j in range(12)])
    pca = RobustPCA().set_output(transform="pandas")
    codes = pca.fit_transform(table)
    for part in (pca.low_rank_, pca.sparse_):
        assert part.index.equals(table.index)
        assert part.columns.equals(table.columns)
    assert list(pca.feature_names_in_) == list(table.columns)
    assert codes.index.equals(table.index)
    assert list(codes.columns) == [f"robustpca{i}" for i in range(pca.n_components_)]
    with pytest.raises(ValueError, match="feature names"):
        pca.transform(table.rename(columns={"sensor 0": "other"}))


def test_a_table_of_integers_with_gaps() -> None:
    """What pandas reads from a spreadsheet: nullable integers, read-only views."""
    table = pd.DataFrame({"a": [1, 2, None, 4, 5, 6], "b": [2, 4, 6, 8, None, 12], "c": [3, 6, 9, 12, 15, 99]})
    pca = RobustPCA(center=False).fit(table.astype("Int64"))
    assert np.isfinite(pca.low_rank_.to_numpy()).all()


def test_types_are_kept() -> None:
    _, X = low_rank(30, 20, 1)
    pca = RobustPCA().fit(X.astype(np.float32))
    for array in (pca.low_rank_, pca.sparse_, pca.components_, pca.mean_, pca.transform(X.astype(np.float32))):
        assert array.dtype == np.float32
    assert RobustPCA().fit(np.round(X * 10).astype(int)).low_rank_.dtype == np.float64


def test_rank_bound_is_respected() -> None:
    _, X = low_rank(rank=4)
    pca = RobustPCA(2, alpha=None, center=False).fit(X)
    assert pca.n_components_ <= 2
    assert np.linalg.matrix_rank(pca.low_rank_) <= 2


def test_alpha_is_the_documented_one() -> None:
    _, X = low_rank(30, 20, 1)
    assert RobustPCA(alpha=None).fit(X).alpha_ == pytest.approx(30**0.5)
    assert RobustPCA(alpha=3.0).fit(X).alpha_ == 3.0
    pca = RobustPCA().fit(X)
    assert pca.alpha_ in [pytest.approx(scale * 30**0.5) for scale in pca.alpha_choice_.scales]


@pytest.mark.parametrize("X", [np.zeros((12, 9)), np.full((12, 9), 3.0), np.eye(12)[:, :9] * 7.0])
def test_matrices_without_a_signal(X: np.ndarray) -> None:
    pca = RobustPCA().fit(X)
    np.testing.assert_allclose(pca.low_rank_ + pca.sparse_, X, atol=1e-3)
    assert pca.transform(X).shape == (12, pca.n_components_)
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(X)), pca.low_rank_, atol=0.2)


def test_works_in_pipelines_and_is_picklable_and_reproducible() -> None:
    _, X = low_rank(30, 20, 1)
    pipeline = make_pipeline(RobustScaler(), RobustPCA(alpha=None))
    codes = pipeline.fit_transform(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipeline)).transform(X), codes)
    np.testing.assert_array_equal(clone(pipeline).fit_transform(X), codes)
    other = RobustPCA(alpha=None, random_state=np.random.RandomState(3)).fit(X)
    assert error(other.low_rank_, RobustPCA(alpha=None).fit(X).low_rank_) < 0.05


def test_too_few_iterations_warn() -> None:
    _, X = low_rank(30, 20, 1)
    with pytest.warns(ConvergenceWarning, match="max_iter=30"):
        pca = RobustPCA(alpha=None, max_iter=30).fit(X)
    assert pca.n_iter_ == 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha must be"),
        ({"alpha": "best"}, "alpha must be a positive number, 'auto' or None, got 'best'"),
        ({"n_components": 0}, "n_components must be a whole number of at least 1, got 0"),
        ({"n_components": 21}, "n_components must be at most 20"),
        ({"tol": -1.0}, "tol must be"),
        ({"max_iter": 0}, "max_iter must be"),
        ({"device": "abacus"}, "device must be one that PyTorch supports, got 'abacus'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RobustPCA(**settings).fit(low_rank(30, 20, 1)[1])


def test_wrong_data_is_named() -> None:
    with pytest.raises(ValueError, match="got only NaN"):
        RobustPCA().fit(np.full((5, 4), np.nan))
    with pytest.raises(ValueError, match="infinity"):
        RobustPCA().fit(np.array([[1.0, np.inf], [0.0, 1.0]]))
    with pytest.raises(NotFittedError):
        RobustPCA().transform(np.ones((5, 4)))
    pca = RobustPCA().fit(low_rank(30, 20, 1)[1])
    with pytest.raises(ValueError, match="one per component"):
        pca.inverse_transform(np.ones((5, pca.n_components_ + 1)))


# -------------------------------------------------------------------------------------------------------------- as PCA


def table_of(n: int = 150, seed: int = 0, bad: float = 0.03) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated columns in different units, the same with bad cells, and where these are."""
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(n, 3)) @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(n, 8))
    clean = clean * 10.0 ** np.arange(-3, 5) + 5
    where = rng.random(clean.shape) < bad
    signs = rng.choice([-1, 1], clean.shape)
    return clean, clean + where * signs * rng.uniform(8, 20, clean.shape) * clean.std(axis=0), where


def test_equals_pca_without_outliers() -> None:
    clean, X, _ = table_of()
    plain = PCA(2).fit(clean)
    pca = RobustPCA(2).fit(X)
    assert np.abs(pca.components_ @ plain.components_.T).diagonal().min() > 0.9999
    np.testing.assert_allclose(pca.explained_variance_, plain.explained_variance_, rtol=0.1)
    np.testing.assert_allclose(pca.explained_variance_ratio_, plain.explained_variance_ratio_, rtol=0.1)
    np.testing.assert_allclose(pca.singular_values_, np.sqrt(149 * pca.explained_variance_))
    assert pca.explained_variance_ratio_.sum() <= 1


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_rank_is_consistent(share: float) -> None:
    _, X = low_rank(share=share)
    for data in (X, table_of()[1]):
        pca = RobustPCA().fit(data)
        assert (
            pca.rank_ == pca.n_components_ == len(pca.components_) == np.linalg.matrix_rank(pca.low_rank_ - pca.mean_)
        )
        own = pca.inverse_transform(pca.transform(data))
        np.testing.assert_allclose(own, pca.low_rank_, rtol=1e-6, atol=1e-8 * np.abs(data).max())


def test_units_of_columns_do_not_matter() -> None:
    _, X, _ = table_of()
    units = np.array([1e-4, 1, 8, 3.7, 100, 1e5, 2, 0.3])
    first, second = RobustPCA().fit(X), RobustPCA().fit(X * units)
    assert ((first.sparse_ != 0) == (second.sparse_ != 0)).mean() > 0.99
    np.testing.assert_allclose(second.scale_ / units, first.scale_, rtol=1e-9)
    assert np.ptp(RobustPCA(scale=False).fit(X).scale_) == 0


@pytest.mark.parametrize("ranks", [(2, 5), pytest.param((1, 8), marks=pytest.mark.slow)])
def test_grid_search_finds_the_rank(ranks: tuple[int, int]) -> None:
    _, X = low_rank(90, 30, rank=3, share=0.03)
    X = X + 0.05 * np.random.default_rng(1).normal(size=X.shape)
    search = GridSearchCV(RobustPCA(alpha=None), {"n_components": np.arange(*ranks)}, cv=3).fit(X)
    assert search.best_params_["n_components"] == 3
    scores = cross_val_score(make_pipeline(RobustScaler(), RobustPCA(3, alpha=None)), X, cv=3)
    assert (scores < 0).all()
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    "settings",
    [{"n_components": np.int64(2)}, {"alpha": np.float32(6)}, {"tol": np.float64(1e-4)}, {"max_iter": np.int32(300)}],
)
def test_numpy_scalars_are_numbers(settings: dict[str, object]) -> None:
    RobustPCA(**{"alpha": None, **settings}).fit(low_rank(30, 20, 1)[1])


# ---------------------------------------------------------------------------------------------------- outlier detection


def test_outlying_rows_and_entries_are_found() -> None:
    clean, X, where = table_of()
    pca = RobustPCA(contamination="auto").fit(X)
    found = pca.predict_entries(X) == -1
    assert found[where].mean() > 0.95
    assert found[~where].mean() < 0.02
    np.testing.assert_array_equal(found, np.asarray(pca.sparse_) != 0)
    rows = where.any(axis=1)
    assert (pca.predict(X)[rows] == -1).mean() > 0.9
    assert (pca.predict(X)[~rows] == 1).mean() > 0.9
    assert (pca.predict(clean) == 1).mean() > 0.9
    probability = pca.predict_entries_proba(X)
    assert probability[where].mean() > 0.9
    assert probability[~where].mean() < 0.05
    assert ((probability >= 0) & (probability <= 1)).all()


def test_contamination_sets_the_offset() -> None:
    _, X, _ = table_of()
    pca = RobustPCA(contamination=0.2).fit(X)
    assert (pca.predict(X) == -1).sum() == 30
    np.testing.assert_allclose(pca.decision_function(X), pca.score_samples(X) - pca.offset_)
    for wrong in (0.0, 0.6, "none"):
        with pytest.raises(ValueError, match="contamination must be"):
            RobustPCA(contamination=wrong).fit(X)


def test_missing_cells_are_not_outliers() -> None:
    _, X, _ = table_of()
    X[3] = np.nan
    X[4, 2] = np.nan
    pca = RobustPCA().fit(X)
    assert (pca.predict_entries(X)[3] == 1).all()
    assert np.isnan(pca.predict_entries_proba(X)[4, 2])
    assert pca.score_samples(X)[3] == 0
    assert np.isfinite(pca.score(X))


def test_sparse_matrices_are_refused() -> None:
    with pytest.raises(TypeError, match=r"X must be dense, got a sparse csr_matrix of shape \(4, 4\).*toarray"):
        RobustPCA().fit(sparse.csr_matrix(np.eye(4)))


@pytest.mark.parametrize(("shape", "kind"), [((1, 6), "row"), ((6, 1), "column")])
def test_single_row_or_column_warns(shape: tuple[int, int], kind: str) -> None:
    with pytest.warns(UserWarning, match=f"shape {shape[0]} × {shape[1]} always has rank 1.* more than one {kind}"):
        RobustPCA(alpha=None).fit(np.arange(6.0).reshape(shape))


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_white_noise_has_few_outliers_and_typical_rows(spread: float) -> None:
    rng = np.random.default_rng(2)
    L = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 120))
    X = L + spread * rng.normal(size=L.shape)
    pca = RobustPCA(contamination="auto").fit(X)
    assert (pca.method_, pca.rank_) == ("projections", 3)
    assert np.mean(pca.predict_entries(X) == -1) < 2e-3
    assert np.mean(pca.predict(X) == -1) < 0.06
    assert -np.mean(pca.score_samples(X)) == pytest.approx(1, abs=0.2)
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(X)), pca.low_rank_, atol=1e-9)


def test_rows_without_entries_add_no_component() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 80)) + 5
    X[::10] = np.nan
    pca = RobustPCA().fit(X)
    assert pca.rank_ == 2
    np.testing.assert_allclose(pca.low_rank_[0], pca.mean_, atol=1e-6)


def test_narrow_tables_are_not_certified() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 20)) + 9 * (rng.random((400, 20)) < 0.1) * rng.normal(
        size=(400, 20)
    )
    pca = RobustPCA().fit(X)
    assert pca.method_ == "dop"
    assert pca.certificate_ is not None
    assert pca.certificate_.kind == "rejected"


def test_projections_that_are_not_confirmed_warn() -> None:
    X = np.random.default_rng(0).normal(size=(100, 80))
    with pytest.warns(ConvergenceWarning, match="the result of the projections is not confirmed: "):
        RobustPCA(method="projections").fit(X)
    with pytest.raises(ValueError, match="alpha must be 'auto' with method='projections'"):
        RobustPCA(method="projections", alpha=3.0).fit(X)


# ------------------------------------------------------------------------------------------------------------ its cost


def noisy(n: int = 600, spread: float = 0.01) -> np.ndarray:
    rng = np.random.default_rng(3)
    L = rng.normal(size=(n, 4)) @ rng.normal(size=(4, n))
    return L + (rng.random(L.shape) < 0.1) * rng.normal(0, 20, L.shape) + spread * rng.normal(size=L.shape)


def count_rows(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    """The number of rows in each call of a function, whose first argument after ``self`` has them."""
    counts: list[int] = []
    plain = getattr(owner, name)

    def counted(*arguments, **settings):
        rows = arguments[1] if isinstance(arguments[0], RowRegression) else arguments[0]
        counts.append(len(rows))
        return plain(*arguments, **settings)

    monkeypatch.setattr(owner, name, counted)
    return counts


def test_each_row_is_solved_once_in_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = count_rows(monkeypatch, RowRegression, "codes")
    refitted = count_rows(monkeypatch, clipped_codes, "robust_codes")
    scaled = count_rows(monkeypatch, robust_pca, "robust_scale")
    pca = RobustPCA().fit(noisy())
    assert pca.certificate_ is not None
    assert pca.certificate_.kind == "noisy"
    assert 600 <= sum(solved) <= 1.2 * 600
    assert refitted == []
    assert scaled == []


def test_exact_result_of_a_large_table_is_not_reclassified(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = count_rows(monkeypatch, RowRegression, "codes")
    X = noisy(spread=0.0)
    pca = RobustPCA().fit(X)
    assert pca.certificate_ is not None
    assert pca.certificate_.kind == "exact"
    assert solved == []
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(X)), pca.low_rank_, atol=1e-5)
