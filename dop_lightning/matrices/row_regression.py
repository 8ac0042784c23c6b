r"""Ridge regression of rows onto the loadings of a model, with different cells for each row.

Shapes: n rows, m columns, q components.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AT_ONCE = 2**17
"""Entries of rows, or of their Gram matrices, that are processed at once, so that they stay in the cache."""


class RowRegression:
    r"""Estimate the codes of rows ``z = Wc + ε`` with ``c ~ N(0, I)`` and ``ε ~ N(0, ψI)`` from the kept cells.

    Let W = VD, with D the norms of its columns, and A = ψD⁻² + Σ_j v_j v_jᵀ over the kept cells. The scaled codes Dc
    are ``A⁻¹ Σ_j v_j z_j``.

    Args:
        loadings: W, ``(m, q)``.
        noise: ψ, above 0.
        dtype: dtype of rows and codes.

    Attributes:
        V: ``(m, q)``, columns of norm 1, or of zeros.
        sizes: diagonal of D, ``(q,)``, with 1 for columns of zeros.
        ridge: diagonal of ψD⁻², ``(q,)``.
        noise: ψ.
        height: number of rows that are processed at once.
    """

    def __init__(self, loadings: NDArray[Any], noise: float, dtype: torch.dtype = torch.float64) -> None:
        m, q = loadings.shape
        norms = np.linalg.norm(loadings, axis=0)
        self.sizes = np.where(norms > 0, norms, 1.0)
        self.V = torch.from_numpy(loadings / self.sizes).to(dtype)
        self.ridge = torch.from_numpy(noise / self.sizes**2).to(dtype)
        self.noise = noise
        self.height = max(1, AT_ONCE // max(q * q, m, 1))
        self._first, self._second = np.triu_indices(q)  # Gram matrices are symmetric
        place = np.zeros((q, q), dtype=np.int64)
        place[self._first, self._second] = place[self._second, self._first] = np.arange(len(self._first))
        self._place = torch.from_numpy(place.ravel())

    @cached_property
    def longest(self) -> float:
        """Largest norm of a row of V."""
        return float(torch.linalg.vector_norm(self.V, dim=1).amax()) if self.V.shape[1] else 0.0

    @cached_property
    def _products(self) -> Tensor:
        """Products of pairs of entries in each row of V, ``(m, q(q + 1)/2)``."""
        return self.V[:, self._first] * self.V[:, self._second]

    def codes(self, rows: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scaled codes Dc of rows, ``(n, q)``, and the Cholesky factors of A, ``(n, q, q)``.

        Args:
            rows: z, ``(n, m)``, finite.
            kept: ``(n, m)``, true for the cells that are used.
        """
        n, q = len(rows), self.V.shape[1]
        if q == 0:
            return rows.new_zeros(n, 0), rows.new_zeros(n, 0, 0)
        weights = kept.to(rows)
        gram = (weights @ self._products)[:, self._place].view(n, q, q)
        diagonal = gram.diagonal(dim1=1, dim2=2)
        least = q * torch.finfo(rows.dtype).eps * diagonal.amax(dim=1, keepdim=True)
        diagonal += self.ridge + least
        factors = torch.linalg.cholesky_ex(gram)[0]
        moments = weights.mul_(rows) @ self.V
        return torch.cholesky_solve(moments[:, :, None], factors)[:, :, 0], factors

    def leverage(self, inverse: NDArray[Any], dtype: type = np.float64) -> NDArray[Any]:
        """Return ``v_jᵀ A⁻¹ v_j``, ``(n, m)``.

        Args:
            inverse: A⁻¹, ``(n, q, q)``.
            dtype: dtype of the computation and the result.
        """
        packed = inverse[:, self._first, self._second] * np.where(self._first == self._second, 1.0, 2.0)
        return packed.astype(dtype, copy=False) @ self._products.numpy().astype(dtype, copy=False).T
