"""Gaussian measurements: ``yᵢ = ⟨Aᵢ, X⟩``, where Aᵢ has independent normal entries.

Shapes: K problems, m measurements, X ``(K, *n)`` with N entries each, A ``(K, m, N)``; a chunk is c rows of one A.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import one_of
from dop_lightning.model.operators.base import Operator
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.randomness import stream

Storage = Literal["auto", "dense", "seeds"]

CHUNK = 2**20
"""Maximum number of entries of A per stream (at least one row). A depends on this number: never change it."""

DENSE_LIMIT = 2**30
"""Maximum size in bytes of A at which the storage ``auto`` keeps it in memory instead of redrawing it at every use."""


class GaussianSensing(Operator):
    """``A(X)ᵢ = ⟨Aᵢ, X⟩`` with entries of Aᵢ from N(0, 1/m), so that ``E A*A`` is the identity; X may have any shape.

    Each problem has its own A, drawn from the stream (seed, sensing) on the CPU in float32, so that it does not depend
    on the device or the dtype.

    Args:
        problems: the batch, of observations ``(m,)``.
        symmetric: whether to replace Aᵢ by ``½(Aᵢ + Aᵢᵀ)``. This does not change the measurements of symmetric X, and
            ``E A*A`` is then the projection onto symmetric matrices.
        storage: ``dense`` keeps A in memory, K·m·N numbers; ``seeds`` redraws it in chunks at every use, which is slow
            but needs no memory; ``auto`` keeps it in memory up to 1 GiB. A is identical bit for bit in all cases.

    Raises:
        ValueError: an observation is not a vector, a signal is not a square matrix although ``symmetric`` is set, or
            ``storage`` is unknown.
    """

    A: Tensor | None

    def __init__(self, problems: ProblemBatch, symmetric: bool = False, storage: Storage = "auto") -> None:
        super().__init__(problems)
        one_of("storage", storage, ("auto", "dense", "seeds"))
        self.measurements = count_measurements(problems, "GaussianSensing")
        self.signal_shape = problems.signal_shape
        if symmetric:
            square_side(self.signal_shape, "symmetric measurements")
        self.symmetric = symmetric
        self._seeds = [problem.seed for problem in problems]
        self._dtype = problems.dtype
        self._entries = int(torch.Size(self.signal_shape).numel())
        rows = max(1, CHUNK // self._entries)
        self._spans = [(i, min(i + rows, self.measurements)) for i in range(0, self.measurements, rows)]
        size = len(problems) * self.measurements * self._entries * problems.observation.element_size()
        dense = storage == "dense" or (storage == "auto" and size <= DENSE_LIMIT)
        self.register_buffer("A", self.matrix() if dense else None, persistent=False)

    def matrix(self) -> Tensor:
        """Return A, ``(K, m, N)``, on the CPU."""
        A = torch.empty(len(self._seeds), self.measurements, self._entries, dtype=self._dtype, device="cpu")
        for k in range(len(A)):
            for number, (start, end) in enumerate(self._spans):
                A[k, start:end] = self._draw(k, number)
        return A

    def _draw(self, k: int, number: int) -> Tensor:
        """Draw chunk ``number`` of A of problem k, ``(c, N)``."""
        start, end = self._spans[number]
        generator = stream(self._seeds[k], "sensing", number)
        rows = torch.randn(end - start, self._entries, generator=generator, dtype=torch.float32, device="cpu")
        rows = rows.to(self._dtype).mul_(self.measurements**-0.5)
        if self.symmetric:
            square = rows.unflatten(1, self.signal_shape)
            rows = (square + square.mT).mul_(0.5).flatten(1)
        return rows

    def _chunks(self, like: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield problems, rows, and the chunk of A, ``(K, c, N)`` or ``(1, c, N)``, on the device of ``like``."""
        for number, (start, end) in enumerate(self._spans):
            if self.A is not None:
                yield slice(None), slice(start, end), self.A[:, start:end]
                continue
            for k in range(len(self._seeds)):
                yield slice(k, k + 1), slice(start, end), self._draw(k, number)[None].to(like.device)

    def _add(self, r: Tensor, signal: Tensor) -> Tensor:
        """Add in place, ``r += A(X)``."""
        x = signal.flatten(1)  # K N
        for problems, rows, A in self._chunks(r):
            if r.device.type == "cpu":  # batched products with a column are ten times slower there
                for row, matrix, vector in zip(r[problems, rows], A, x[problems], strict=True):
                    row.addmv_(matrix, vector)
            else:
                r[problems, rows, None].baddbmm_(A, x[problems, :, None])
        return r

    def forward(self, signal: Tensor) -> Tensor:
        """Return ``⟨Aᵢ, X⟩``, ``(K, m)``."""
        return self._add(signal.new_zeros(len(signal), self.measurements), signal)

    def adjoint(self, residual: Tensor) -> Tensor:
        """Return ``Σᵢ rᵢAᵢ``, ``(K, *n)``."""
        X = residual.new_zeros(len(residual), 1, self._entries)
        for problems, rows, A in self._chunks(residual):
            X[problems].baddbmm_(residual[problems, None, rows], A)
        return X.view(len(residual), *self.signal_shape)

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """Add in place, ``r += A(φ(θ))``."""
        self._add(r, signal.evaluate(iteration))


def count_measurements(problems: ProblemBatch, operator: str) -> int:
    """Return the length m of the observations.

    Raises:
        ValueError: the observations are not vectors.
    """
    shape = tuple(problems.observation.shape[1:])
    if len(shape) != 1:
        raise ValueError(f"{operator} requires observations of shape (m,), got {shape}")
    return shape[0]


def square_side(shape: tuple[int, ...], what: str) -> int:
    """Return the side n of an n×n signal.

    Raises:
        ValueError: the signal is not a square matrix.
    """
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{what} require square matrices, got a signal of shape {shape}")
    return shape[0]
