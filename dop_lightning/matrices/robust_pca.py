r"""Robust PCA as an estimator of scikit-learn: a matrix with gross outliers, of unknown rank.

Shapes: n samples, m features, r the components that were found.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
import torch

from dop_lightning.engine.at_once import run_to_end
from dop_lightning.engine.robust_codes import robust_codes
from dop_lightning.engine.state import State
from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.foundation.devices import check_device
from dop_lightning.matrices.alpha_search import AlphaChoice, choose_alpha
from dop_lightning.matrices.separation import BLOCK, MATRIX, separation
from dop_lightning.problems.problem import Problem, scale
from dop_lightning.problems.scoring import RANK_TOLERANCE

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("RobustPCA needs scikit-learn 1.6 or newer: pip install 'dop_lightning[estimator]'") from error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

NEGLIGIBLE = 1e-4
"""Singular values below this part of the largest belong to no component."""

NOTHING = 1e-6
"""What |s| must exceed to be an outlier, in units of the median absolute value: g and h have grown there."""


class RobustPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""PCA of a matrix with gross outliers and missing entries, by double over-parameterization (Eqs. 3 and 6).

    ``X = 1·meanᵀ + L + S`` with L of low rank and S sparse: gradient descent on ``L = UVᵀ`` and ``S = g∘g − h∘h`` at
    the rates 2τ and α·τ, in semi-implicit steps (:class:`~dop_lightning.engine.steps.SemiImplicit`), from a small
    start. Neither the rank nor the share of the outliers need be known; the ratio α does all the regularising, and
    tends to the solution of ``min ‖L‖_* + ‖S‖₁/α``. Columns should have similar units, as for PCA (scikit-learn's
    ``RobustScaler`` before it in a pipeline).

    Args:
        n_components: bound on the rank, at least 1; ``None`` finds it.
        alpha: the ratio of the rates, above 0. ``auto`` chooses it by the prediction of entries that are held out
            (:mod:`dop_lightning.matrices.alpha_search`); ``None`` is √max(n, m), right for matrices that are of low
            rank up to their outliers.
        center: whether the median of each feature is taken away first; it is ``mean_`` then, else that is 0.
        tol: ends where the residual is below this part of L, above 0.
        max_iter: most iterations, at least 1.
        device: where to compute: ``cpu``, ``cuda``, …
        random_state: of the start, and of the entries that are held out: an integer, a ``RandomState``, or ``None``.

    Attributes:
        low_rank_: ``1·meanᵀ + L``, ``(n, m)``, known everywhere; with the labels of X where that is a DataFrame.
        sparse_: S, ``(n, m)``; labelled likewise. Exactly 0 where g and h have not grown, and where X is missing; small
            where it takes up what is neither of low rank nor an outlier. Outliers are what is large.
        components_: ``(r, m)``, orthonormal: the right singular vectors of L, the largest first.
        singular_values_: of L, ``(r,)``.
        mean_: ``(m,)``.
        n_components_: r, the number of components.
        rank_: how many of them have more than a twentieth of the largest singular value, as in the tables of runs: a
            little of what is neither of low rank nor an outlier has components of its own.
        alpha_: the ratio that was used.
        alpha_choice_: what ``auto`` has tried, else ``None``.
        n_iter_: iterations done.
        n_features_in_: m.
        feature_names_in_: the names of the features, where X has some.

    Raises:
        ValueError: an argument is out of range, or X has infinite entries, or no observed ones.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> clean = np.outer(rng.normal(size=60), rng.normal(size=40))
    >>> outliers = (rng.random((60, 40)) < 0.1) * rng.normal(0, 10, (60, 40))
    >>> pca = RobustPCA(center=False).fit(clean + outliers)
    >>> pca.rank_, bool(np.linalg.norm(pca.low_rank_ - clean) < 1e-2 * np.linalg.norm(clean))
    (1, True)
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        alpha: float | Literal["auto"] | None = "auto",
        center: bool = True,
        tol: float = MATRIX.tolerance,
        max_iter: int = MATRIX.iterations,
        device: str = "cpu",
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.center = center
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Take a matrix apart.

        Args:
            X: ``(n, m)``, numbers; NaN are missing. A DataFrame keeps its labels.
            y: not looked at.
        """
        given = X
        X = self._validated(X, reset=True)
        self._check(X)
        observed = ~np.isnan(X)
        if not observed.any():
            raise ValueError("X must have at least one observed entry, got NaN alone")
        self.mean_ = _medians(X) if self.center else np.zeros(X.shape[1], X.dtype)
        centred = np.where(observed, X - self.mean_, 0)
        problem, unit = self._problem(centred, observed)
        state = self._recover(problem)
        left, values, right = _decomposed(state)
        kept = int((values > NEGLIGIBLE * values[0]).sum()) if values[0] > NOTHING else 0
        self.rank_ = int((values[:kept] > RANK_TOLERANCE * values[0]).sum())
        left, values, right = left[:, :kept], values[:kept] * unit, right[:kept]
        self.n_components_ = kept
        self.components_, self.singular_values_ = _signed(right), values
        self.low_rank_ = _labelled((left * values) @ right + self.mean_, given)
        sparse = _modelled(state.corruption).value()[0].detach().cpu().numpy() * X.dtype.type(unit)
        sparse[(np.abs(sparse) <= NOTHING * unit) | ~observed] = 0
        self.sparse_ = _labelled(sparse, given)
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Return the codes of samples, whatever outliers and gaps they have.

        See :func:`~dop_lightning.engine.robust_codes.robust_codes`.

        Args:
            X: ``(n, m)``; NaN are missing. A sample in which nothing was observed has the codes of the mean, 0.

        Returns:
            ``(n, r)``.
        """
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        observed = torch.from_numpy(~np.isnan(X))
        rows = torch.from_numpy(np.nan_to_num(X - self.mean_, nan=0.0))
        values = self.singular_values_
        # by a power of two, which rounds nothing: squares of very large or small numbers are none of their type
        unit = float(np.ldexp(1.0, np.frexp(values[0])[1] - 1)) if len(values) else 1.0
        penalty = torch.from_numpy(self.alpha_ / (values / values.dtype.type(unit)))
        return robust_codes(rows / unit, torch.from_numpy(self.components_), observed, penalty).mul_(unit).numpy()

    def fit_transform(self, X: ArrayLike, y: object = None, **_: object) -> NDArray[Any]:
        """The codes of the samples that it is fitted to, as :meth:`transform` gives them."""
        return self.fit(X, y).transform(X)

    def inverse_transform(self, X: ArrayLike) -> NDArray[Any]:
        """``mean + codes·components``, ``(n, m)``: clean samples from their codes, ``(n, r)``.

        Raises:
            ValueError: there are not r codes a sample.
        """
        check_is_fitted(self)
        codes = np.asarray(X, dtype=self.components_.dtype)
        if codes.ndim != 2 or codes.shape[1] != self.n_components_:
            raise ValueError(
                f"X must hold the {self.n_components_} codes of each sample, got an array of shape {codes.shape}"
            )
        return codes @ self.components_ + self.mean_

    # ----------------------------------------------------------------------------------------------------- its parts

    def _validated(self, X: ArrayLike, reset: bool) -> NDArray[Any]:
        return validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", ensure_min_samples=1
        )

    def _check(self, X: NDArray[Any]) -> None:
        if self.n_components is not None and at_least("n_components", self.n_components, 1) > min(X.shape):
            raise ValueError(
                f"n_components must be at most {min(X.shape)}, the smaller side of X, got {self.n_components}"
            )
        if isinstance(self.alpha, str):
            if self.alpha != "auto":
                raise ValueError(f"alpha must be a number above 0, 'auto' or None, got {self.alpha!r}")
        elif self.alpha is not None:
            positive("alpha", self.alpha)
        check_device(self.device, "one that PyTorch can use")
        positive("tol", self.tol)
        at_least("max_iter", self.max_iter, 1)

    def _problem(self, centred: NDArray[Any], observed: NDArray[Any]) -> tuple[Problem, float]:
        """In a unit, its median absolute value, so that results do not depend on the units of X."""
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        mask = None if observed.all() else torch.from_numpy(observed)
        y = torch.from_numpy(np.ascontiguousarray(centred))
        unit = scale(Problem("X", y, mask=mask))
        return Problem("X", y / unit, mask=mask, seed=int(seed)), unit

    def _recover(self, problem: Problem) -> State:
        method = separation(MATRIX.start, self.tol, self.n_components)
        self.alpha_choice_: AlphaChoice | None = None
        if self.alpha == "auto":
            self.alpha_choice_ = choose_alpha(problem, method, max_iterations=self.max_iter, device=self.device)
            self.alpha_ = self.alpha_choice_.alpha
        else:
            self.alpha_ = max(problem.signal_shape) ** 0.5 if self.alpha is None else float(self.alpha)
        ending = run_to_end(method, problem, self.max_iter, block=BLOCK, device=self.device, alpha=self.alpha_)
        if ending.ends[0] == "diverged":
            raise ValueError("X must have entries whose products do not overflow, got larger ones")
        self.n_iter_ = ending.iteration
        if not ending.state.finished():
            warnings.warn(
                f"not converged to tol={self.tol:g} in max_iter={self.max_iter} iterations",
                ConvergenceWarning,
                stacklevel=3,
            )
        return ending.state

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __sklearn_tags__(self) -> Any:
        """NaN are missing entries, and types of 32 bits are kept."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


Part = TypeVar("Part")


def _modelled(part: Part | None) -> Part:
    """Refuse a state whose unknowns are no modules, which :func:`separation` does not make."""
    if part is None:
        raise TypeError("RobustPCA needs a signal with factors and a corruption")
    return part


@torch.no_grad()
def _decomposed(state: State) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The singular value decomposition of ``UVᵀ``, out of U and V."""
    factors = _modelled(_modelled(state.signal).factors)
    (Q_left, R_left), (Q_right, R_right) = (torch.linalg.qr(factor[0]) for factor in factors.pair)
    left, values, right = torch.linalg.svd(R_left @ R_right.mT)
    return (Q_left @ left).cpu().numpy(), values.cpu().numpy(), (right @ Q_right.mT).cpu().numpy()


def _medians(X: NDArray[Any]) -> NDArray[Any]:
    """The median of what was observed of each feature, 0 where nothing was."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        medians = np.nanmedian(X, axis=0)
    return np.nan_to_num(medians, nan=0.0).astype(X.dtype)


def _signed(components: Any) -> Any:
    """Each with its largest entry positive: a decomposition leaves the sign open."""
    if len(components) == 0:
        return components
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return components * signs[:, None]


def _labelled(array: NDArray[Any], like: Any) -> Any:
    """With the labels of a DataFrame, where it is like one."""
    if hasattr(like, "iloc") and hasattr(like, "columns"):
        return type(like)(array, index=like.index, columns=like.columns)
    return array
