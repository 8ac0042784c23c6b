r"""Robust PCA as a scikit-learn estimator: PCA of tables with outliers, and outlier detection.

Shapes: n samples, m features, r components.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch

from dop_lightning.engine.projections import Certificate, ProjectionsMethod, ProjectionsState
from dop_lightning.engine.runners import run_to_end
from dop_lightning.engine.state import Procedure, State
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.devices import check_device
from dop_lightning.matrices.alpha_search import AlphaChoice, choose_alpha
from dop_lightning.matrices.arrays import thin_matrix_note
from dop_lightning.matrices.cell_model import (
    DENSE_COLUMNS,
    CellModel,
    Cells,
    fit_cell_model,
    predict_cells,
    row_distances,
)
from dop_lightning.matrices.column_scale import robust_location, robust_scale
from dop_lightning.matrices.entry_sizes import check_spread
from dop_lightning.matrices.hidden_entries import draw_hidden, negative_error
from dop_lightning.matrices.low_rank_model import (
    LIMIT,
    LowRankModel,
    certified_model,
    fit_low_rank_model,
    without_outliers,
)
from dop_lightning.matrices.principal import principal_components
from dop_lightning.matrices.robust_separation import singular_values
from dop_lightning.matrices.row_regression import RowRegression
from dop_lightning.matrices.separation import BLOCK, MATRIX, separation
from dop_lightning.problems.problem import Problem, scale
from dop_lightning.problems.scoring import RANK_TOLERANCE

try:
    from scipy.sparse import issparse
    from scipy.stats import chi2
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("RobustPCA requires scikit-learn 1.6 or newer: pip install 'dop_lightning[estimator]'") from error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

NEGLIGIBLE = 1e-4
"""Minimum singular value of a component, relative to the largest."""

MIN_OUTLIER = 1e-6
"""Minimum |s| of an outlier, in units of the median absolute value; g and h have grown there."""

MIN_DENSE_NOISE = 1e-2
"""Minimum standard deviation of dense noise, in units of the median absolute entry."""

MIN_PREDICTION_GAIN = 1.0
"""The low-rank model must predict better by this factor, and have fewer components than half of the columns."""

TRIMMED_FRACTION = 0.8
"""Fraction of the errors used to compare models; the largest errors are due to outliers."""

MAX_REPRODUCED_ENTRIES = 2**16
"""Maximum number of entries for which an exact model classifies each cell, so that ``transform`` reproduces the result
to the last digits."""

SMALL = 2**18
"""Minimum number of entries for which the unit of a table is estimated from a sample."""

SAMPLE = 2**15
"""Number of entries in this sample."""

QUANTILE = 0.975
"""Quantile of the distances of clean rows above which ``contamination="auto"`` classifies a row as an outlier."""


class RobustPCA(ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin, BaseEstimator):
    r"""PCA of a table with outlying and missing entries, and a detector of outlying rows and entries.

    ``X = 1·meanᵀ + L + S + E`` with low-rank L, sparse S and dense noise E. Neither the rank nor the fraction of
    outliers needs to be specified.

    1. Columns are centered by the median and divided by a robust scale
       (:func:`~dop_lightning.matrices.column_scale.robust_scale`).
    2. Alternating projections (:class:`~dop_lightning.engine.projections.AlternatingProjections`) separate L and S. If
       held-out entries confirm the result up to white noise, L is the model.
    3. Otherwise, double over-parameterization separates L and S (Eqs. 3 and 6): gradient descent on ``L = UVᵀ`` and
       ``S = g∘g − h∘h`` with learning rates 2τ and α·τ, in semi-implicit steps
       (:class:`~dop_lightning.engine.steps.SemiImplicit`), from a small initialization. The ratio α is the only
       regularization. Each entry is then compared with its prediction from the other entries of its row, and replaced
       by it if it is an outlier. The model is either L with dense noise (:mod:`~dop_lightning.matrices.low_rank_model`)
       or, for at most 256 columns, the full covariance with thresholds for heavy tails
       (:mod:`~dop_lightning.matrices.cell_model`), whichever predicts better.
    4. ``components_`` are the principal components of the clean table, in the units of X. Without outliers, they agree
       with those of :class:`sklearn.decomposition.PCA`.

    Args:
        n_components: number of components r, at least 1 and at most min(n, m). ``None`` keeps all components whose
            singular value exceeds a twentieth of the largest, in scaled columns.
        method: ``auto`` follows the steps above, ``dop`` skips the projections, and ``projections`` keeps their result
            even if it is not confirmed. If ``alpha`` is not ``auto``, ``auto`` means ``dop``.
        alpha: ratio of the learning rates, positive. ``auto`` chooses the ratio that predicts held-out entries best
            (:mod:`dop_lightning.matrices.alpha_search`); ``None`` is √max(n, m), the theoretical value for matrices of
            exactly low rank.
        center: whether to subtract a robust mean from each column.
        scale: whether to detect outliers in units of a robust scale of each column. It does not change the units of
            ``components_``. Disable it if all columns have the same unit, such as pixels.
        contamination: fraction of outlying rows in the training data, above 0 and at most 0.5. It determines
            ``offset_`` as in :class:`sklearn.covariance.EllipticEnvelope`. ``auto`` uses the 0.975 quantile of the
            distances of Gaussian rows, scaled to the median distance, so that the number of outlying rows depends on
            the data.
        tol: the separation stops once the residual is below this fraction of L, positive.
        max_iter: maximum number of iterations, at least 1.
        device: device for the separation, and for the codes of rows in ``transform``: ``cpu``, ``cuda``, …
        random_state: seed of the initialization and of the held-out entries: an integer, a ``RandomState``, or
            ``None``.

    Attributes:
        components_: ``(r, m)``, orthonormal, by decreasing variance.
        explained_variance_: ``(r,)``, variance of the clean table along each component, with n − 1 degrees of freedom;
            infinite or 0 if the dtype of X cannot represent it, as in float32 for entries of 1e30 or 1e-30.
        explained_variance_ratio_: ``(r,)``, the same as fractions of the variance of the clean table.
        singular_values_: ``(r,)``, ``√((n − 1)·explained_variance_)``.
        mean_: ``(m,)``, mean of the clean table; 0 without ``center``.
        scale_: ``(m,)``, scale of each column for the detection of outliers; the same for all columns if projections
            are confirmed in the units of X.
        n_components_: r.
        rank_: r, the rank of ``low_rank_ − mean_``.
        low_rank_: ``(n, m)``, the training data without outliers, projected onto the components, with missing entries
            filled. A DataFrame if X is one. Equal to ``inverse_transform(transform(X))``.
        sparse_: ``(n, m)``, the outliers: ``X − low_rank_`` at outlying entries, 0 elsewhere and at missing entries. A
            DataFrame if X is one.
        offset_: threshold of ``score_samples``: ``decision_function`` is ``score_samples − offset_``.
        method_: ``projections`` or ``dop``, the method that separated L and S.
        certificate_: verdict on the projections
            (:class:`~dop_lightning.engine.projections.Certificate`); ``None`` if they were skipped.
        alpha_: ratio of the learning rates; ``None`` with projections.
        alpha_choice_: the ratios tested by ``auto``, otherwise ``None``.
        n_iter_: number of iterations.
        n_features_in_: m.
        feature_names_in_: names of the features, if X has any.

    Raises:
        ValueError: an argument is out of range; or X has infinite entries, no observed entries, or an entry so large
            that the others are lost to rounding.
        TypeError: X is a sparse matrix.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> clean = np.outer(rng.normal(size=60), rng.normal(size=40))
    >>> outliers = (rng.random((60, 40)) < 0.1) * rng.normal(0, 10, (60, 40))
    >>> pca = RobustPCA(center=False).fit(clean + outliers)
    >>> pca.rank_, bool(np.linalg.norm(pca.low_rank_ - clean) < 1e-2 * np.linalg.norm(clean))
    (1, True)
    """

    certificate_: Certificate | None
    alpha_: float | None
    alpha_choice_: AlphaChoice | None

    def __init__(
        self,
        n_components: int | None = None,
        *,
        method: Literal["auto", "dop", "projections"] = "auto",
        alpha: float | Literal["auto"] | None = "auto",
        center: bool = True,
        scale: bool = True,
        contamination: float | Literal["auto"] = 0.1,
        tol: float = MATRIX.tolerance,
        max_iter: int = MATRIX.iterations,
        device: str = "cpu",
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.alpha = alpha
        self.center = center
        self.scale = scale
        self.contamination = contamination
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit the model to a table.

        Args:
            X: ``(n, m)``, numbers; NaN entries are missing. A DataFrame keeps its labels.
            y: ignored.
        """
        given = X
        X = self._validated(X, reset=True)
        self._check_parameters(X)
        observed = ~np.isnan(X)
        if not observed.any():
            raise ValueError("X must have at least one observed entry, got only NaN")
        if note := thin_matrix_note(X.shape):
            warnings.warn(note, UserWarning, stacklevel=2)
        location = robust_location(X) if self.center else np.zeros(X.shape[1], X.dtype)
        deviations = X - location
        if not observed.all():
            deviations[~observed] = 0
        state, units, unit = self._separate(deviations, observed)
        del deviations
        self._scale = units.astype(np.float64) * unit
        self.scale_ = self._scale.astype(X.dtype)
        self._unit = float(self._scale.max())
        Z = state.problems.observation[0].cpu().numpy()
        if not observed.all():
            Z = np.where(observed, Z, np.nan)
        kept, codes = self._fit_models(Z, state)
        self.mean_ = (location + self._mean * self._scale).astype(X.dtype) if self.center else location
        self._location = location.astype(np.float64)
        self._prior = float(np.clip((np.count_nonzero(observed) - np.count_nonzero(kept)) / observed.sum(), 1e-3, 0.5))
        self._set_offset(Z)
        low_rank = (codes @ (self._components * self._unit)).astype(X.dtype, copy=False)
        low_rank += self.mean_
        self.low_rank_ = _with_labels(low_rank, given)
        sparse = X - low_rank
        np.copyto(sparse, 0, where=kept | ~observed)
        self.sparse_ = _with_labels(sparse, given)
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Return the codes of samples. Outlying and missing entries are replaced by predictions from the others.

        Args:
            X: ``(n, m)``; NaN entries are missing. Samples without observed entries get the codes of the mean, 0.

        Returns:
            ``(n, r)``.
        """
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        _, values = _clean(self._model, self._to_scaled(X), self.device)
        return (self._codes(values) * self._unit).astype(X.dtype)

    def fit_transform(self, X: ArrayLike, y: object = None, **_: object) -> NDArray[Any]:
        """Fit the model, and return the codes of the samples as :meth:`transform` does."""
        return self.fit(X, y).transform(X)

    def inverse_transform(self, X: ArrayLike) -> NDArray[Any]:
        """Return ``mean + codes·components``, ``(n, m)``: clean samples from their codes, ``(n, r)``.

        Raises:
            ValueError: X does not have r columns.
        """
        check_is_fitted(self)
        codes = np.asarray(X, dtype=self.components_.dtype)
        if codes.ndim != 2 or codes.shape[1] != self.n_components_:
            raise ValueError(
                f"X must have {self.n_components_} columns, one per component, got an array of shape {codes.shape}"
            )
        return codes @ self.components_ + self.mean_

    def score(self, X: ArrayLike, y: object = None) -> float:
        r"""Return the negative mean absolute error of hidden entries; higher is better.

        A fifth of the observed entries is hidden by a fixed draw and predicted by the r components from the other
        entries of their rows. Errors are in units of ``scale_``. Unlike a reconstruction error, this error increases
        with surplus components, so :class:`sklearn.model_selection.GridSearchCV` can choose ``n_components``.

        Args:
            X: ``(n, m)``; NaN entries are missing.
            y: ignored.
        """
        check_is_fitted(self)
        Z = self._to_scaled(self._validated(X, reset=False))
        observed = ~np.isnan(Z)
        if not observed.any():
            raise ValueError("X must have at least one observed entry, got only NaN")
        hidden = draw_hidden(observed)
        visible = np.where(hidden, np.nan, Z)
        kept, values = _clean(self._model, visible, self.device)
        loadings, noise = self._component_model()
        predicted = (
            predict_cells(np.where(kept, values - self._mean, 0.0), kept, RowRegression(loadings, noise)).fitted
            + self._mean
        )
        return negative_error(np.nan_to_num(Z, nan=0.0), predicted, hidden, np.ones(Z.shape[1]))

    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """Return the normality of each row, ``(n,)``: the negative Mahalanobis distance, as in EllipticEnvelope.

        This is the squared distance in the model of clean rows, divided by the number of observed entries. It is about
        1 for clean rows with Gaussian noise.

        Args:
            X: ``(n, m)``; NaN entries are missing.
        """
        check_is_fitted(self)
        return self._row_scores(self._to_scaled(self._validated(X, reset=False)))

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Return ``score_samples − offset_``, ``(n,)``, negative for outlying rows.

        Args:
            X: ``(n, m)``; NaN entries are missing.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return −1 for outlying rows and 1 for the others, ``(n,)``.

        Args:
            X: ``(n, m)``; NaN entries are missing.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def predict_entries(self, X: ArrayLike) -> NDArray[Any]:
        """Return −1 for outlying entries and 1 for the others, ``(n, m)``; 1 for missing entries.

        Args:
            X: ``(n, m)``; NaN entries are missing.
        """
        check_is_fitted(self)
        Z = self._to_scaled(self._validated(X, reset=False))
        kept, _ = _clean(self._model, Z, self.device)
        return np.where(kept | np.isnan(Z), 1, -1)

    def predict_entries_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the probability that each entry is an outlier, ``(n, m)``; NaN for missing entries.

        See :meth:`~dop_lightning.matrices.residual_tails.Tails.outlier_probability`. The prior is the fraction of
        outlying entries in the training data.

        Args:
            X: ``(n, m)``; NaN entries are missing.
        """
        check_is_fitted(self)
        Z = self._to_scaled(self._validated(X, reset=False))
        cells = _cells(self._model, Z, self.device)
        probability = self._model.tails.outlier_probability(self._model.residuals(cells), self._prior)
        return np.where(np.isnan(Z), np.nan, probability)

    # --------------------------------------------------------------------------------------------------- model fitting

    def _fit_models(self, Z: NDArray[Any], state: State) -> tuple[NDArray[Any], NDArray[Any]]:
        """Fit the models; return the mask of clean entries, and the codes of the rows."""
        n, m = Z.shape
        left, values, right = (part.cpu().numpy().astype(np.float64) for part in singular_values(state, 0))
        if isinstance(state, ProjectionsState):
            return self._use_low_rank(Z, left * values, right, state.recoveries[0].noise)
        Z = Z.astype(np.float64, copy=False)
        found = int((values > RANK_TOLERANCE * values[0]).sum()) if values[0] > MIN_OUTLIER else 0
        is_table = min(n, m) > 1 and m <= DENSE_COLUMNS
        model: LowRankModel | CellModel
        if is_table and 2 * found >= min(n, m):
            model = fit_cell_model(Z)
        else:
            low_rank = (left[:, :found] * values[:found]) @ right[:found]
            model = fit_low_rank_model(Z, low_rank, found, self.center, RANK_TOLERANCE)
            if is_table and model.noise >= MIN_DENSE_NOISE**2:
                table = fit_cell_model(Z)
                error = _prediction_error(model, Z, self.device)
                if not error < MIN_PREDICTION_GAIN * _prediction_error(table, Z, self.device):
                    model = table
        self._model = model
        self._mean = model.mean if self.center else np.zeros(m)
        kept, values = _clean(model, Z, self.device)
        return kept, self._fit_components(values)

    def _use_low_rank(
        self, Z: NDArray[Any], left: NDArray[Any], right: NDArray[Any], noise: float
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Use a certified L = left·right as the model; return the same as :meth:`_fit_models`."""
        rows = ~np.isnan(Z).all(axis=1)
        model = certified_model(left[rows], right, noise, self.center)
        self._model, self._mean = model, model.mean
        is_exact = self.certificate_ is not None and self.certificate_.kind == "exact"
        Z = Z if model.is_single else Z.astype(np.float64, copy=False)
        if (
            is_exact and not np.isnan(Z).any() and Z.size > MAX_REPRODUCED_ENTRIES
        ):  # equivalent up to rounding, and much faster
            kept, left = without_outliers(Z, left, right, LIMIT * model.noise**0.5)
            return kept, self._fit_factors(left, right)
        kept, values = model.clean(Z, self.device, (left, right))
        return kept, self._fit_components(values)

    def _fit_factors(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        """Set the principal components of left·right; return the codes of its rows."""
        n, rank = len(left), self._model.loadings.shape[1]
        basis, triangle = np.linalg.qr((right * (self._scale / self._unit)).T)
        rows = (left - (left.mean(axis=0) if self.center else 0.0)) @ triangle.T
        rank = rank if self.n_components is None else int(self.n_components)
        components, variances, total = principal_components(rows.T @ rows / n, None, rank)
        kept = variances > NEGLIGIBLE**2 * max(float(variances[:1].sum()), MIN_OUTLIER**2)
        self._set_components(components[kept] @ basis.T, variances[kept] * n, total * n, n)
        return (rows @ basis.T) @ self._components.T

    def _fit_components(self, values: NDArray[Any]) -> NDArray[Any]:
        """Set the principal components of the clean table; return the codes of its rows."""
        n, m = values.shape
        model, weights = self._model, self._scale / self._unit
        covariance = None
        if model.covariance is not None:
            extra = 0.0 if self.center else np.outer(model.mean, model.mean)
            covariance = model.covariance + extra
        values -= self._mean
        if self.n_components is not None:
            rank = int(self.n_components)
        elif covariance is None:
            rank = model.loadings.shape[1]
        else:
            spectrum = np.linalg.eigvalsh(covariance)[::-1]
            rank = max(1, min(int((spectrum > RANK_TOLERANCE**2 * spectrum[0]).sum()), n - self.center))
        if covariance is None and m <= DENSE_COLUMNS:
            covariance = values.T @ values / n
        if covariance is not None:
            covariance = covariance * weights[:, None] * weights
        if (weights != 1).any():
            values *= weights
        loadings = model.loadings * weights[:, None]
        start = loadings[:, :rank] if self.method_ == "projections" and rank <= loadings.shape[1] else None
        components, variances, total = principal_components(covariance, values, rank, start)
        kept = variances > NEGLIGIBLE**2 * max(float(variances[:1].sum()), MIN_OUTLIER**2)
        self._set_components(components[kept], variances[kept] * n, total * n, n)
        return values @ self._components.T

    def _set_components(self, components: NDArray[Any], squares: NDArray[Any], total: float, n: int) -> None:
        """Set components, their squared singular values, and the total of all squares, in units of ``_unit``."""
        dtype = self.scale_.dtype
        self._components = _fix_signs(components)
        self._squares, self._total, self._count = squares, total, n
        self.components_ = self._components.astype(dtype)
        with np.errstate(over="ignore", under="ignore"):
            self.singular_values_ = (np.sqrt(squares) * self._unit).astype(dtype)
            self.explained_variance_ = (squares / max(n - 1, 1) * self._unit * self._unit).astype(dtype)
        self.explained_variance_ratio_ = (squares / total if total > 0 else squares).astype(dtype)
        self.rank_ = self.n_components_ = len(components)

    def _component_model(self) -> tuple[NDArray[Any], float]:
        """Return loadings and noise of the model with r components, in scaled columns."""
        weights = self._unit / self._scale
        loadings = self._components.T * np.sqrt(self._squares / self._count) * weights[:, None]
        full = (self._model.loadings**2).sum() + len(weights) * self._model.noise
        rest = (float(full) - float((loadings**2).sum())) / len(weights)
        return loadings, max(rest, self._model.noise)

    def _to_scaled(self, X: NDArray[Any]) -> NDArray[Any]:
        return (X.astype(np.float64) - self._location) / self._scale

    def _codes(self, values: NDArray[Any]) -> NDArray[Any]:
        return ((values - self._mean) * (self._scale / self._unit)) @ self._components.T

    def _row_scores(self, Z: NDArray[Any]) -> NDArray[Any]:
        return -row_distances(Z, self._model.mean, self._model.loadings, self._model.noise)

    def _set_offset(self, Z: NDArray[Any]) -> None:
        scores = self._row_scores(Z)
        if self.contamination == "auto":
            m = Z.shape[1]
            self.offset_ = float(np.median(scores) * chi2.ppf(QUANTILE, m) / chi2.median(m))
        else:
            self.offset_ = float(np.percentile(scores, 100.0 * self.contamination))

    def _validated(self, X: ArrayLike, reset: bool) -> NDArray[Any]:
        if issparse(X):
            raise TypeError(
                f"X must be dense, got a sparse {type(X).__name__} of shape {np.shape(X)}; RobustPCA treats zeros as "
                "data: pass X.toarray()"
            )
        return validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", ensure_min_samples=1
        )

    def _check_parameters(self, X: NDArray[Any]) -> None:
        if self.n_components is not None and at_least("n_components", self.n_components, 1) > min(X.shape):
            raise ValueError(
                f"n_components must be at most {min(X.shape)}, the smaller side of X, got {self.n_components}"
            )
        one_of("method", self.method, ["auto", "dop", "projections"])
        if self.method == "projections" and self.alpha != "auto":
            raise ValueError(f"alpha must be 'auto' with method='projections', which ignores it, got {self.alpha!r}")
        if isinstance(self.alpha, str):
            if self.alpha != "auto":
                raise ValueError(f"alpha must be a positive number, 'auto' or None, got {self.alpha!r}")
        elif self.alpha is not None:
            positive("alpha", self.alpha)
        if isinstance(self.contamination, str):
            if self.contamination != "auto":
                raise ValueError(f"contamination must be 'auto' or in (0, 0.5], got {self.contamination!r}")
        elif positive("contamination", self.contamination) > 0.5:
            raise ValueError(f"contamination must be 'auto' or in (0, 0.5], got {self.contamination!r}")
        check_device(self.device, "one that PyTorch supports")
        positive("tol", self.tol)
        at_least("max_iter", self.max_iter, 1)

    def _problem(self, centred: NDArray[Any], observed: NDArray[Any]) -> tuple[Problem, float]:
        """Return the problem in units of the median absolute value, so that results do not depend on the units of X."""
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        mask = None if observed.all() else torch.from_numpy(observed)
        y = torch.from_numpy(np.ascontiguousarray(centred))
        unit = _sampled_median(y, mask) or scale(Problem("X", y, mask=mask))
        return Problem("X", y / unit, mask=mask, seed=int(seed)), unit

    def _separate(self, deviations: NDArray[Any], observed: NDArray[Any]) -> tuple[State, NDArray[Any], float]:
        """Separate L and S; return the state, the units of the columns, and the common unit of the problem."""
        self.certificate_ = None
        equal = np.ones(deviations.shape[1], deviations.dtype)
        units = None if self.scale else equal
        if self.method == "projections" or (self.method == "auto" and self.alpha == "auto"):
            self.method_, self.alpha_, self.alpha_choice_ = "projections", None, None
            # First in the units of X, because white noise in these units is not white in scaled columns. Then in scaled
            # columns, where only an exact model is accepted.
            state, unit = self._projected_state(deviations, observed)
            if self.certificate_ is not None and self.certificate_.is_accepted:
                return state, equal, unit
            if self.scale:
                units = robust_scale(_with_missing(deviations, observed))
                state, unit = self._projected_state(deviations / units, observed)
                if self.certificate_ is not None and self.certificate_.kind == "exact":
                    return state, units, unit
            if self.method == "projections":
                reason = "" if self.certificate_ is None else f": {self.certificate_.reason}"
                warnings.warn(
                    f"the result of the projections is not confirmed{reason}", ConvergenceWarning, stacklevel=3
                )
                return state, equal if units is None else units, unit
        if units is None:
            units = robust_scale(_with_missing(deviations, observed))
        problem, unit = self._problem(deviations / units, observed)
        return self._recover(problem), units, unit

    def _projected_state(self, deviations: NDArray[Any], observed: NDArray[Any]) -> tuple[State, float]:
        """Separate by projections and store their certificate; return the state, and the unit of the problem."""
        problem, unit = self._problem(deviations, observed)
        state = self._run(ProjectionsMethod(), problem, None)
        if isinstance(state, ProjectionsState):
            self.certificate_ = state.recoveries[0].progress.certificate
        return state, unit

    def _recover(self, problem: Problem) -> State:
        check_spread(problem)
        self.alpha_choice_ = None
        self.method_ = "dop"
        method = separation(MATRIX.start, float(self.tol))
        if self.alpha == "auto":
            self.alpha_choice_ = choose_alpha(problem, method, max_iterations=int(self.max_iter), device=self.device)
            self.alpha_ = self.alpha_choice_.alpha
        else:
            self.alpha_ = max(problem.signal_shape) ** 0.5 if self.alpha is None else float(self.alpha)
        state = self._run(method, problem, self.alpha_)
        if not state.finished():
            warnings.warn(
                f"not converged to tol={self.tol:g} within max_iter={self.max_iter} iterations",
                ConvergenceWarning,
                stacklevel=3,
            )
        return state

    def _run(self, method: Procedure, problem: Problem, alpha: float | None) -> State:
        ending = run_to_end(method, problem, int(self.max_iter), block=BLOCK, device=self.device, alpha=alpha)
        if ending.ends[0] == "diverged":
            raise ValueError("X overflows during the factorization; rescale it")
        self.n_iter_ = ending.iteration
        return ending.state

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:
        """Return tags that allow NaN for missing entries and preserve 32-bit dtypes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _clean(model: CellModel | LowRankModel, Z: NDArray[Any], device: str) -> tuple[NDArray[Any], NDArray[Any]]:
    return model.clean(Z, device) if isinstance(model, LowRankModel) else model.clean(Z)


def _cells(model: CellModel | LowRankModel, Z: NDArray[Any], device: str) -> Cells:
    return model.cells(Z, device) if isinstance(model, LowRankModel) else model.cells(Z)


def _prediction_error(model: CellModel | LowRankModel, Z: NDArray[Any], device: str) -> float:
    """Return the mean absolute error of entries predicted from their row, without the largest fifth of errors."""
    errors = np.sort(np.abs(_cells(model, Z, device).residual[~np.isnan(Z)]))
    return float(errors[: max(1, int(TRIMMED_FRACTION * len(errors)))].mean())


def _sampled_median(y: torch.Tensor, mask: torch.Tensor | None) -> float:
    """Return the median absolute value of a sample of a large complete table, otherwise 0."""
    if mask is not None or y.numel() <= SMALL:
        return 0.0
    return float(y.view(-1)[:: y.numel() // SAMPLE | 1].abs().median())


def _with_missing(deviations: NDArray[Any], observed: NDArray[Any]) -> NDArray[Any]:
    """Return the deviations with NaN at unobserved entries."""
    return deviations if observed.all() else np.where(observed, deviations, np.nan)


def _fix_signs(components: Any) -> Any:
    """Return components with their largest entry positive, because a decomposition does not determine the sign."""
    if len(components) == 0:
        return components
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return components * signs[:, None]


def _with_labels(array: NDArray[Any], like: Any) -> Any:
    """Return the array with the labels of a DataFrame, if ``like`` is one."""
    if hasattr(like, "iloc") and hasattr(like, "columns"):
        return type(like)(array, index=like.index, columns=like.columns)
    return array
